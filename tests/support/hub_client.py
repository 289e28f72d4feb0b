# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
What users of the Hub do, as `python hub_client.py <function> <folder>`: a process of its own, since the client reads
the address of the Hub when it is imported. Results go to `<folder>/<function>.json` and `.npz`.
"""

import importlib
import json
import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np


ROOT = Path(__file__).parents[2]
SUMMARY = {
    "steps": 6,
    "seconds": 90.0,
    "seed": 7,
    "validations": [{"step": 6, "scores": {"grid_50m": dict.fromkeys(
        ("crps", "mae_of_mean", "mae_of_sample", "rmse_of_mean", "spread_skill"), 1234.5678
    )}}],
    "config": {
        "data": {"dataset": "/home/planner/lyon.npz", "train_region": {"rows": [0, 8]}, "validation_region": None,
                 "crop_hours": 48, "crop_height": 8, "crop_width": 8},
        "training": {"output_dir": "/home/planner/runs/lyon", "regression_steps": 20, "batch_size": 4,
                     "learning_rate": 0.001, "validation_areas": 3, "validation_samples": 2},
        "hub": {"model_license": "cc-by-4.0", "data_license": None, "data_description": None},
        "model": {"pretrained_pipeline": None},
    },
}  # fmt: skip
TWO_RUNS = {"runs": [{**SUMMARY, "seed": 6}, SUMMARY]}
DESCRIPTION = "Traffic of operator X in Lyon, March 2026 | counted in cells"


def generate(pipe, context=None):
    from support.tiny import random_context, seeded

    pipe.set_progress_bar_config(disable=True)
    return pipe(context or random_context(), generator=seeded(), num_inference_steps=8).levels


def with_package(folder: Path) -> dict:
    """Push, load in every way, push again, and fail in every way."""
    from diffusers import AutoModel, DiffusionPipeline
    from support.tiny import random_context, tiny_pipeline, zoned_pipeline

    from zoomdiff_diffusers import ContextProcessor, DRDMScheduler, Hierarchy, ZoomDiffPipeline, ZoomDiffUNet

    tiny_pipeline(regression=True).save_pretrained(folder / "local")
    (folder / "local" / "training_summary.json").write_text(json.dumps(TWO_RUNS))
    pipe = ZoomDiffPipeline.from_pretrained(folder / "local")
    commit = pipe.push_to_hub(
        "org/lyon", private=True, data_description=DESCRIPTION, context=random_context(), remote_code=True
    )
    np.savez(folder / "pushed.npz", **generate(pipe))
    results = {"commit": commit.oid}

    loaded = DiffusionPipeline.from_pretrained("org/lyon", cache_dir=folder / "cache")
    results["classes"] = [type(loaded).__name__, type(ZoomDiffPipeline.from_pretrained("org/lyon")).__name__]
    np.savez(folder / "loaded.npz", **generate(loaded))
    loaded.push_to_hub("again")  # a name alone: one of the user's own
    ZoomDiffPipeline.from_pretrained("org/lyon").save_pretrained(folder / "saved")
    results["components"] = [
        type(component.from_pretrained("org/lyon", subfolder=name)).__name__
        for name, component in {
            "unet": ZoomDiffUNet,
            "scheduler": DRDMScheduler,
            "hierarchy": Hierarchy,
            "context_processor": ContextProcessor,
        }.items()
    ]
    results["components"].append(type(AutoModel.from_pretrained("org/lyon", subfolder="unet")).__name__)

    context = dict(np.load(folder / "context_with_zones.npz"))
    zoned = zoned_pipeline()
    zoned.push_to_hub("org/sites", context=context, remote_code=True)
    np.savez(folder / "zoned.npz", **generate(zoned, context))
    np.savez(folder / "zoned_loaded.npz", **generate(DiffusionPipeline.from_pretrained("org/sites"), context))

    for made, variant in ((pipe, None), (pipe, "half"), (tiny_pipeline(regression=True, gain=0.5), None)):
        made.push_to_hub("org/variants", variant=variant, context=random_context())

    other = tiny_pipeline(gain=0.5)
    other.push_to_hub("org/lyon")
    for revision in ("main", commit.oid):
        unet = ZoomDiffPipeline.from_pretrained("org/lyon", revision=revision).unet
        results[f"first weight, {revision}"] = float(next(unet.parameters()).flatten()[0])
    results["first weights"] = [float(next(made.unet.parameters()).flatten()[0]) for made in (other, pipe)]

    for pipeline_class in (DiffusionPipeline, ZoomDiffPipeline):
        try:
            pipeline_class.from_pretrained("org/lyon", revision="remote-code")
        except ValueError as error:
            results[f"{pipeline_class.__name__} without trust"] = str(error)
    results["code that ran"] = [name for name in sys.modules if name.startswith("diffusers_modules.")]

    for repo_id in ("others/lyon", "org/broken", "org/careless"):
        try:
            pipe.push_to_hub(repo_id, context=random_context())
        except OSError as error:
            results[repo_id] = f"{type(error).__name__}: {error}"
    try:
        pipe.push_to_hub("org/untouched", context=random_context(), data_description="see hf_" + 20 * "a")
    except ValueError as error:
        results["a token in the card"] = str(error)
    results["commands"] = commands(folder)
    results["snippets"] = run_the_snippets({"org/lyon": commit.oid, "org/city": "main", "org/sites": "main"})
    results["training"] = train_with_a_wrong_token(folder)
    return results


def run_the_snippets(revisions: dict) -> dict:
    """Run the Python code of cards as it stands in them."""
    from huggingface_hub import hf_hub_download

    shapes = {}
    for repo_id, revision in revisions.items():
        card = Path(hf_hub_download(repo_id, "README.md", revision=revision)).read_text()
        for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)):
            scope = {}
            exec(snippet, scope)
            shapes[f"{repo_id} {number}"] = list(scope["out"].levels.values())[-1].shape
    return shapes


def train_with_a_wrong_token(folder: Path) -> str:
    """What train.py says when the Hub does not know the token that would push the result."""
    token, os.environ["HF_TOKEN"] = os.environ["HF_TOKEN"], "hf_" + "Wrong" * 5
    sys.argv = ["train.py", "--config", str(ROOT / "configs/tiny.yaml"), "--output_dir", str(folder / "not started")]
    sys.argv += ["--push_to_hub", "true"]
    try:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as error:
        return str(error)
    finally:
        os.environ["HF_TOKEN"] = token


def train_as_the_card_says(folder: Path) -> list:
    """Arguments of a short training with the configuration that stands in the card of a data set."""
    from huggingface_hub import hf_hub_download

    card = Path(hf_hub_download("org/traffic", "README.md", repo_type="dataset")).read_text()
    (folder / "traffic.yaml").write_text(re.search(r"```yaml\n(.*?)```", card, flags=re.DOTALL)[1])
    short = ["--max_train_steps", 1, "--regression_steps", 1, "--validation_areas", 0, "--batch_size", 2]
    small = ["--unet", '{"block_channels": [8, 8]}', "--tensorboard", "false"]
    return ["--config", folder / "traffic.yaml", "--output_dir", folder / "from the hub", *short, *small]


def commands(folder: Path) -> dict:
    """`zoomdiff push` for a model and for a data set, and what is read back."""
    import datasets
    from support.tiny import HEIGHT, HOURS, LAYERS, WIDTH, random_context, random_traffic
    from typer.testing import CliRunner

    from zoomdiff_diffusers import bundled_model
    from zoomdiff_diffusers.commands import app

    def zoomdiff(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        return {"code": done.exit_code, "stdout": done.stdout, "stderr": done.stderr}

    rows, traffic = [], random_traffic()
    for index in range(2):
        valid = np.ones((HOURS, HEIGHT, WIDTH), bool)
        valid[:6] = index == 0
        context = {name: values.tolist() for name, values in random_context(index).items()}
        rows.append({"traffic": traffic[index, 0].tolist(), "valid": valid.tolist(), "start_hour": 24, **context})
    (folder / "data").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(folder / "data" / "train.parquet")
    (folder / "data" / "notes.txt").write_text("not for others")
    config = {
        "data": {"dataset": "data", "layers": LAYERS, "traffic_unit": "MB", "crop_hours": HOURS},
        "hierarchy": {"cell_size": 100.0},
    }
    (folder / "data.yaml").write_text(json.dumps(config))
    options = ["--config", folder / "data.yaml", "--license", "cc-by-4.0", "--data", DESCRIPTION]
    model_options = ["--license", "apache-2.0", "--pull-request", "--json"]
    (folder / "incomplete").mkdir()
    (folder / "incomplete" / "model_index.json").write_text(
        json.dumps({"unet": ["zoomdiff_diffusers", "ZoomDiffUNet"]})
    )
    results = {
        "dataset": zoomdiff("push", folder / "data", "org/traffic", *options),
        "model": zoomdiff("push", bundled_model("simulated-city"), "org/city"),
        "pull request": zoomdiff("push", bundled_model("simulated-city"), "org/city", *model_options),
        "forbidden": zoomdiff("push", folder / "data", "others/traffic"),
        "failing": zoomdiff("push", folder / "data", "org/careless"),
        "incomplete": zoomdiff("push", folder / "incomplete", "org/incomplete"),
    }
    results["training"] = zoomdiff("train", *train_as_the_card_says(folder))
    table = datasets.load_dataset("org/traffic", split="train", cache_dir=str(folder / "datasets"))
    np.savez(folder / "traffic.npz", pushed=traffic[:2, 0], loaded=np.array(table["traffic"]))
    return results


def without_package(folder: Path) -> dict:
    """Load the branch `remote-code` where this package cannot be imported."""

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "zoomdiff_diffusers":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Block())
    try:
        importlib.import_module("zoomdiff_diffusers")
        raise AssertionError("the package is not blocked")
    except ModuleNotFoundError:
        pass
    import torch
    from diffusers import DiffusionPipeline

    for repo_id, given, made in (
        ("org/sites", "context_with_zones.npz", "zoned_without_package.npz"),
        ("org/lyon", "context.npz", "without_package.npz"),
    ):
        pipe = DiffusionPipeline.from_pretrained(repo_id, revision="remote-code", trust_remote_code=True)
        pipe.set_progress_bar_config(disable=True)
        context, generator = dict(np.load(folder / given)), torch.Generator().manual_seed(0)
        np.savez(folder / made, **pipe(context, generator=generator, num_inference_steps=8).levels)
    results = {"modules": sorted({type(component).__module__ for component in [pipe, *pipe.components.values()]})}
    for name, call in {
        "save": lambda: pipe.save_pretrained(folder / "no"),
        "push": lambda: pipe.push_to_hub("a"),
    }.items():
        try:
            call()
        except NotImplementedError as error:
            results[name] = str(error)
    return results


def read_only(folder: Path) -> dict:
    """Load from a Hub that takes no uploads."""
    from diffusers import DiffusionPipeline

    from zoomdiff_diffusers import ZoomDiffPipeline, ZoomDiffUNet

    pipes = [kind.from_pretrained("org/lyon", revision="main") for kind in (DiffusionPipeline, ZoomDiffPipeline)]
    np.savez(folder / "read_only.npz", **generate(pipes[0]))
    return {
        "classes": [type(pipe).__name__ for pipe in pipes],
        "component": type(ZoomDiffUNet.from_pretrained("org/lyon", subfolder="unet")).__name__,
        "summary": pipes[1].training_summary,
    }


if __name__ == "__main__":
    function, target = sys.argv[1], Path(sys.argv[2])
    answer = globals()[function](target)
    (target / f"{function}.json").write_text(json.dumps(answer))
