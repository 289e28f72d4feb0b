# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Loading and saving with Diffusers, and what happens to checkpoints when things go wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contracts.pipeline import FEW, assert_same_levels
from diffusers import AutoModel, DiffusionPipeline
from support.tiny import random_context, seeded, tiny_pipeline

import zoomdiff_diffusers
from zoomdiff_diffusers import (
    ContextProcessor,
    DRDMScheduler,
    Hierarchy,
    TrafficProcessor,
    ZoomDiffPipeline,
    ZoomDiffRegressor,
    ZoomDiffUNet,
    bundled_model,
)
from zoomdiff_diffusers.configuration import write_atomically


COMPONENTS = {
    "unet": ZoomDiffUNet,
    "scheduler": DRDMScheduler,
    "hierarchy": Hierarchy,
    "traffic_processor": TrafficProcessor,
    "context_processor": ContextProcessor,
    "regressor": ZoomDiffRegressor,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "city"
    tiny_pipeline(regression=True).save_pretrained(folder)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_index_names_the_package_and_nothing_else_is_written(checkpoint):
    index = json.loads((checkpoint / "model_index.json").read_text())
    assert {name: index[name] for name in COMPONENTS} == {
        name: ["zoomdiff_diffusers", component.__name__] for name, component in COMPONENTS.items()
    }
    assert index["_class_name"] == "ZoomDiffPipeline"
    assert sorted(contents(checkpoint)) == [
        "context_processor/context_processor_config.json",
        "hierarchy/hierarchy_config.json",
        "model_index.json",
        "regressor/config.json",
        "regressor/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "traffic_processor/traffic_processor_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert [path.name for path in checkpoint.parent.iterdir()] == ["city"]


@pytest.mark.parametrize("pipeline_class", [ZoomDiffPipeline, DiffusionPipeline])
def test_both_pipeline_classes_load_a_checkpoint(checkpoint, pipeline_class):
    pipe = pipeline_class.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe) is ZoomDiffPipeline
    assert {name: type(component) for name, component in pipe.components.items()} == COMPONENTS
    original = tiny_pipeline(regression=True)
    assert pipe.hierarchy.levels == original.hierarchy.levels
    assert pipe.context_processor.config.statistics == original.context_processor.config.statistics
    levels = pipe(random_context(), generator=seeded(), **FEW).levels
    assert_same_levels(levels, original(random_context(), generator=seeded(), **FEW).levels, rtol=1e-5, atol=1e-5)


def test_a_checkpoint_without_a_regressor_loads(checkpoint, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index.pop("regressor") == [None, None]
    for written in (True, False):  # checkpoints of before there was such a component do not name it
        if not written:
            (tmp_path / "model_index.json").write_text(json.dumps(index))
        assert ZoomDiffPipeline.from_pretrained(tmp_path).regressor is None


def test_single_components_load_from_their_folders(checkpoint):
    for name, component in COMPONENTS.items():
        assert type(component.from_pretrained(checkpoint, subfolder=name)) is component
    assert type(AutoModel.from_pretrained(str(checkpoint), subfolder="unet")) is ZoomDiffUNet


def test_components_can_be_replaced_while_loading(checkpoint):
    scheduler = DRDMScheduler(solver="ddim", coarsest_prior=True)
    hierarchy = Hierarchy(cell_size=100.0)
    pipe = ZoomDiffPipeline.from_pretrained(checkpoint, scheduler=scheduler, hierarchy=hierarchy)
    assert pipe.scheduler is scheduler and pipe.hierarchy is hierarchy
    with pytest.raises(ValueError, match="another schema"):
        ZoomDiffPipeline.from_pretrained(checkpoint, traffic_processor=TrafficProcessor(["a", "b"]))


def test_type_of_the_weights_can_be_chosen_while_loading(checkpoint):
    pipe = ZoomDiffPipeline.from_pretrained(checkpoint, dtype=torch.bfloat16)
    assert pipe.unet.dtype == torch.bfloat16


def test_a_new_process_needs_the_import_only_and_stays_light(checkpoint):
    code = (
        "import sys, zoomdiff_diffusers\n"
        "heavy = [name for name in ('gradio', 'matplotlib', 'datasets') if name in sys.modules]\n"
        "from diffusers import DiffusionPipeline\n"
        f"pipe = DiffusionPipeline.from_pretrained({str(checkpoint)!r})\n"
        "print(type(pipe).__name__, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == "ZoomDiffPipeline []", done.stderr


def environment():
    source = str(Path(zoomdiff_diffusers.__file__).parents[1])
    tests = str(Path(__file__).parent)
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, tests]), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def test_public_names_exist():
    assert all(hasattr(zoomdiff_diffusers, name) for name in zoomdiff_diffusers.__all__)


def test_unknown_bundled_model_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"one of the bundled models \[.*\], but is 'atlantis'"):
        bundled_model("atlantis")


# ------------------------------------------------------------------------------------------------------------ failures


def test_checkpoint_survives_a_full_disk(checkpoint, tmp_path):
    folder = tmp_path / "city"
    tiny_pipeline().save_pretrained(folder)
    before = contents(folder)
    other = tiny_pipeline(gain=0.5)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))  # writing beyond fails as it does on a full disk
    try:
        with pytest.raises(Exception, match="File too large"):
            other.save_pretrained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert contents(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["city"]


def test_checkpoint_survives_a_killed_process(tmp_path):
    code = (
        "import sys\n"
        "from support.tiny import tiny_pipeline\n"
        "pipe = tiny_pipeline()\n"
        "while True:\n"
        "    pipe.save_pretrained(sys.argv[1])\n"
        "    print('saved', flush=True)\n"
    )
    folder = tmp_path / "city"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        for _ in range(20):
            assert process.stdout.readline() == "saved\n"
        process.send_signal(signal.SIGKILL)  # in the middle of a later save
        process.wait()
    assert type(ZoomDiffPipeline.from_pretrained(folder)) is ZoomDiffPipeline


def test_saving_again_replaces_the_checkpoint_and_keeps_other_files(tmp_path):
    folder = tmp_path / "city"
    tiny_pipeline().save_pretrained(folder)
    (folder / "README.md").write_text("mine")
    other = tiny_pipeline(gain=0.5)
    other.save_pretrained(folder)
    loaded = ZoomDiffPipeline.from_pretrained(folder)
    for name, values in other.unet.state_dict().items():
        assert torch.equal(loaded.unet.state_dict()[name], values)
    assert (folder / "README.md").read_text() == "mine"


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_no_weights_of_an_earlier_save_are_loaded_or_left(tmp_path, variant):
    folder, other = tmp_path / "city", "fp32" if variant else "fp16"
    tiny_pipeline(regression=True).save_pretrained(folder, max_shard_size="10KB", variant=other)
    (folder / "unet" / "notes.json").write_text("mine")
    kept = contents(folder).keys()
    for gain, size in ((0.2, "10KB"), (0.3, "10GB"), (0.4, "20KB"), (0.5, "5KB")):
        pipe, alone = tiny_pipeline(gain=gain, regression=True), tmp_path / size
        for target in (folder, alone):
            pipe.save_pretrained(target, variant=variant, max_shard_size=size)
        loaded = ZoomDiffPipeline.from_pretrained(folder, variant=variant)
        for name, values in pipe.unet.state_dict().items():
            assert torch.equal(loaded.unet.state_dict()[name], values)
        assert contents(folder).keys() == kept | contents(alone).keys()


def test_broken_files_are_named(tmp_path):
    folder = tmp_path / "city"
    tiny_pipeline().save_pretrained(folder)
    for name in ("unet/diffusion_pytorch_model.safetensors", "hierarchy/hierarchy_config.json", "model_index.json"):
        path = folder / name
        complete = path.read_bytes()
        path.write_bytes(complete[: len(complete) // 2])
        with pytest.raises(OSError, match=name):
            ZoomDiffPipeline.from_pretrained(folder)
        path.write_bytes(complete)
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(OSError, match="unet"):
        ZoomDiffPipeline.from_pretrained(folder)


def test_pickled_weights_are_neither_written_nor_read(checkpoint, tmp_path):
    pipe = tiny_pipeline()
    with pytest.raises(ValueError, match="safetensors only"):
        pipe.save_pretrained(tmp_path / "city", safe_serialization=False)
    pipe.save_pretrained(tmp_path / "city")
    weights = tmp_path / "city/unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(OSError, match="safetensors"):
        ZoomDiffPipeline.from_pretrained(tmp_path / "city")


def test_write_atomically_replaces_whole_files(tmp_path):
    path = tmp_path / "config.json"
    write_atomically(path, "first")
    write_atomically(path, "second")
    assert path.read_text() == "second" and [item.name for item in tmp_path.iterdir()] == ["config.json"]
    with pytest.raises(TypeError):
        write_atomically(path, None)
    assert path.read_text() == "second" and [item.name for item in tmp_path.iterdir()] == ["config.json"]
