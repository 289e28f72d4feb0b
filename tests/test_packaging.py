# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the project installs, and that it works with only what it asks for."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import zoomdiff_diffusers


ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {normalised(requirement.name): requirement for requirement in requirements}


def needed(requirements):
    """Names of all installed distributions that the requirements need, without extras."""
    names, waiting = set(), [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        name = normalised(requirement.name)
        if name in names or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        waiting += [Requirement(line) for line in importlib.metadata.requires(name) or []]
    return names


def test_versions_agree():
    assert zoomdiff_diffusers.__version__ == PROJECT["version"]


def test_constraints_pin_exactly_one_version_that_every_requirement_accepts():
    pinned = pins()
    versions = {}
    for name, requirement in pinned.items():
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
        versions[name] = specifier.version
    extras = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(versions[normalised(requirement.name)]), line


def test_constraints_pin_all_that_the_core_needs_and_no_gpu_libraries():
    core = needed(PROJECT["dependencies"])
    missing = core - set(pins())
    assert {name for name in missing if not name.startswith(("nvidia-", "cuda-", "triton"))} == set()
    assert not any(name.startswith(("nvidia", "cuda", "triton")) for name in pins())


def test_the_core_asks_for_nothing_that_only_training_or_figures_need():
    core = needed(PROJECT["dependencies"])
    assert not core & {"accelerate", "datasets", "transformers", "matplotlib", "netcdf4", "tensorboard", "pytest"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it, out of a copy of everything that is not ignored."""
    source, target = tmp_path_factory.mktemp("source") / "copy", tmp_path_factory.mktemp("dist")
    ignored = ("*.egg-info", "__pycache__", ".*", "build", "dist", "outputs", "runs", "*.log", "*.part")
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*ignored))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


def package_files():
    """Every file of the package, as its path in the wheel."""
    folder = ROOT / "src" / "zoomdiff_diffusers"
    files = {path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    return {path.relative_to(ROOT / "src").as_posix() for path in files}


def test_the_wheel_holds_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()
    files = {name for name in names if ".dist-info/" not in name}
    assert files == package_files()
    weights = {name for name in files if "/bundled/simulated-city/" in name}
    city = {name for name in files if "/bundled/helsinki/" in name}
    assert any(name.endswith("simulated-city/model_index.json") for name in weights)
    assert {Path(name).name for name in city} == {"README.md", "boundary.geojson", "context.nc"}
    kinds = {Path(name).suffix for name in files - weights - city}
    assert kinds <= {".py", ".md", ".jinja", ".html"}
    assert {Path(name).suffix for name in weights} == {".json", ".safetensors", ".md"}
    metadata = {name.partition(".dist-info/")[2] for name in names if ".dist-info/" in name}
    assert {"METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"} <= metadata


def test_the_wheel_stays_small(built):
    assert built[0].stat().st_size < 6 * 2**20  # the bundled weights may have 4 MiB


def test_the_sdist_holds_what_the_wheel_is_built_from_and_nothing_else(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    package = {name for name in names if name.startswith("src/zoomdiff_diffusers/")}
    assert package == {f"src/{name}" for name in package_files()}
    others = {name for name in names - package if ".egg-info/" not in name}
    documents = {"LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "CITATION.cff"}
    assert others == documents | {"MANIFEST.in", "PKG-INFO", "pyproject.toml", "setup.cfg", "setup.py"}


GENERATE = """
import json
import sys

import torch
import zoomdiff_diffusers.evaluation
from zoomdiff_diffusers import ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.demo_city import load_demo_context

pipe = ZoomDiffPipeline.from_pretrained(bundled_model("simulated-city"))
context = load_demo_context()
levels = pipe(context, num_hours=24, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).levels
assert levels["grid_50m"].shape == (1, 1, 24, 32, 16)
assert levels["grid_50m"].min() >= 0
print(json.dumps({"levels": list(levels), "file": zoomdiff_diffusers.__file__, "modules": sorted(sys.modules)}))
"""


def test_the_wheel_installs_and_generates_with_only_its_requirements(built, tmp_path):
    """In an environment that has nothing else; pip finds the requirements there and needs no network."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True)
    (packages,) = (tmp_path / "lib").glob("python*/site-packages")
    for name in needed(PROJECT["dependencies"]):
        for file in importlib.metadata.files(name):
            first = file.parts[0]
            source = Path(importlib.metadata.distribution(name).locate_file(first))
            if first != ".." and source.exists() and not (packages / first).exists():
                (packages / first).symlink_to(source)
    python = tmp_path / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
    done = subprocess.run([*install, str(built[0])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    options = {"capture_output": True, "text": True, "check": False, "env": environment, "cwd": tmp_path}
    done = subprocess.run([python, "-I", "-c", GENERATE], **options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["levels"] == ["bs", "cell", "grid_100m", "grid_50m"]
    assert Path(found["file"]).is_relative_to(packages)
    modules = {name.partition(".")[0] for name in found["modules"]}
    assert not {"matplotlib", "netCDF4", "transformers", "accelerate", "datasets", "sklearn", "gradio"} & modules
    help_text = subprocess.run([tmp_path / "bin" / "zoomdiff", "--help"], **options)
    assert help_text.returncode == 0 and "generate" in help_text.stdout, help_text.stderr


def test_the_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_the_citation_names_the_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"] and citation["license"] == PROJECT["license"]
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Qi", "Chai", "Liu", "Yue", "Pan", "Wang", "Li"]
    assert paper["title"].startswith("Denoising Refinement Diffusion Models")


def test_the_changelog_has_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(PROJECT['version'])}\] - (unreleased|\d{{4}}-\d\d-\d\d)$", text, re.MULTILINE)


def test_make_explains_itself():
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT)], capture_output=True, text=True, check=True
    )
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"demo", "test", "docs"} <= set(targets)
    assert all(re.search(rf"^  make {target}\s+\w", done.stdout, flags=re.MULTILINE) for target in targets)


def test_no_source_file_can_load_a_pickle():
    forbidden = re.compile(r"torch\.(load|save)\(|allow_pickle=True|^\s*(import|from) pickle", re.MULTILINE)
    for folder in ("src", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not forbidden.search(path.read_text(encoding="utf-8")), path
