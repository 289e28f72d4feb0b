# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The files by which a checkpoint loads without the package."""

import ast
import importlib
import json
import sys

import pytest
from diffusers import DiffusionPipeline
from support.tiny import tiny_pipeline

import zoomdiff_diffusers
from zoomdiff_diffusers.hub.remote_code import single_file, write_remote_code


CLASSES = [
    "ContextProcessor",
    "DRDMScheduler",
    "Hierarchy",
    "TrafficProcessor",
    "ZoomDiffPipeline",
    "ZoomDiffRegressor",
    "ZoomDiffUNet",
]


def definitions(tree):
    named = (node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    return {node.name: ast.dump(node) for node in named}


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_defines_its_class_word_for_word_and_imports_nothing_of_the_package(name):
    public = getattr(zoomdiff_diffusers, name)
    tree = ast.parse(single_file(public))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports for alias in node.names} | {
        getattr(node, "module", "") for node in imports
    }
    assert not any(str(module).split(".")[0] == "zoomdiff_diffusers" for module in names)
    assert not any(getattr(node, "level", 0) for node in imports)
    found = definitions(tree)
    assert name in found
    originals = {}
    for module in [module for module in sys.modules if module.startswith("zoomdiff_diffusers.")]:
        source = importlib.import_module(module).__loader__.get_source(module)
        for known, dump in definitions(ast.parse(source)).items():
            originals.setdefault(known, []).append(dump)
    changed = [known for known, dump in found.items() if dump not in originals[known]]
    assert changed == (["ZoomDiffPipeline"] if name == "ZoomDiffPipeline" else [])


def test_a_file_is_the_same_however_often_it_is_made():
    files = [single_file(zoomdiff_diffusers.ZoomDiffUNet) for _ in range(2)]
    assert files[0] == files[1] and "class SpaceTimeBlock(" in files[0] and "class Hierarchy" not in files[0]


@pytest.fixture
def main_of(tmp_path, monkeypatch):
    """Makes a package of the given modules and imports its module `main`."""

    def make(**modules):
        package = tmp_path / tmp_path.name
        package.mkdir()
        for name, source in {"__init__": "", **modules}.items():
            (package / f"{name}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))
        return importlib.import_module(f"{package.name}.main")

    return make


@pytest.mark.parametrize(
    "modules, message",
    [
        (
            {
                "main": "from .other import used\n\ndef size(): return 1\n\nclass Public:\n    x = size() + used()\n",
                "other": "def size(): return 2\n\ndef used(): return size()\n",
            },
            "'size' has two meanings",
        ),
        (
            {
                "main": "def late():\n    from .other import size\n    return size\n\nclass Public:\n    x = late\n",
                "other": "size = 3\n",
            },
            "'late' imports from the package while it runs",
        ),
    ],
)
def test_what_cannot_be_one_file_is_refused(main_of, modules, message):
    main = main_of(**modules)
    with pytest.raises(ValueError, match=message):
        single_file(main.Public)


def test_needed_definitions_come_first_with_their_comments(main_of):
    main = main_of(
        main="import os\n\nfrom .other import Base\n\n# why\nLIMIT = 4\n\nclass Public(Base):\n    x = LIMIT\n",
        other="import json\nimport sys\n\nUNUSED = sys\n\nclass Base:\n    text = json.dumps(2)\n",
    )
    text = single_file(main.Public)
    assert "# why\nLIMIT = 4" in text and "import json\n" in text
    assert "sys" not in text and "import os" not in text
    scope = {}
    exec(text, scope)
    assert scope["Public"].x == 4 and scope["Public"].text == "2"


def test_the_index_names_files_that_exist_and_a_folder_loads_only_on_request(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    write_remote_code(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline_zoomdiff", "ZoomDiffPipeline"] and index["regressor"] == [None, None]
    assert (tmp_path / "pipeline_zoomdiff.py").is_file()
    components = {name: entry for name, entry in index.items() if not name.startswith("_") and entry[0] is not None}
    assert len(components) == 5
    for name, (module, class_name) in components.items():
        assert f"class {class_name}(" in (tmp_path / name / f"{module}.py").read_text()
    before = set(sys.modules)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(tmp_path)
    assert not any(name.startswith("diffusers_modules") for name in set(sys.modules) - before)
