# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the project installs, and that it works with only what it asks for."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
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


def test_generates_with_only_the_core_requirements_installed(tmp_path):
    for name in needed(PROJECT["dependencies"]):
        for file in importlib.metadata.files(name):
            first = file.parts[0]
            source = Path(importlib.metadata.distribution(name).locate_file(first))
            if first != ".." and source.exists() and not (tmp_path / first).exists():
                (tmp_path / first).symlink_to(source)
    code = (
        "import sys\n"
        f"sys.path[:0] = {[str(tmp_path), str(ROOT / 'src'), str(ROOT / 'tests')]!r}\n"
        "import zoomdiff_diffusers.evaluation, zoomdiff_diffusers.data.simulated_city\n"
        "from support.tiny import random_context, seeded, tiny_pipeline\n"
        "levels = tiny_pipeline()(random_context(), num_inference_steps=4, generator=seeded()).levels\n"
        "assert levels['grid_50m'].min() >= 0\n"
        "print(*levels)\n"
        "assert not {'matplotlib', 'transformers', 'accelerate'} & set(sys.modules)\n"
    )
    # -I and -S: neither the environment nor site-packages, only the folders named above.
    command = [sys.executable, "-I", "-S", "-c", code]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["bs", "cell", "grid_100m", "grid_50m"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(target), str(source)], check=True)
    (path,) = target.iterdir()
    return path


def test_the_wheel_holds_every_module_and_bundled_file_and_nothing_else(wheel):
    package = ROOT / "src" / "zoomdiff_diffusers"
    modules = set(package.rglob("*.py"))
    bundled = {path for path in (package / "bundled").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(ROOT / "src").as_posix() for path in modules | bundled}
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {Path(name).name for name in archive.namelist() if ".dist-info/" in name}
    assert files == expected
    assert {"LICENSE", "METADATA"} <= metadata


def test_the_wheel_stays_small(wheel):
    assert wheel.stat().st_size < 6 * 2**20  # the bundled weights may have 4 MiB


def test_the_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert PROJECT["license"] == "Apache-2.0"


def test_make_explains_itself():
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT)], capture_output=True, text=True, check=True
    )
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    assert all(re.search(rf"^  make {target}\s+\w", done.stdout, flags=re.MULTILINE) for target in targets)


def test_no_source_file_can_load_a_pickle():
    forbidden = re.compile(r"torch\.(load|save)\(|allow_pickle=True|^\s*(import|from) pickle", re.MULTILINE)
    for folder in ("src", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not forbidden.search(path.read_text(encoding="utf-8")), path
