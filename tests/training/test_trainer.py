# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from safetensors.torch import load_file

import zoomdiff_diffusers
from zoomdiff_diffusers import Hierarchy, ZoomDiffPipeline
from zoomdiff_diffusers.data.datasets import load_areas, stack_windows
from zoomdiff_diffusers.data.simulated_city import SimulatedCity
from zoomdiff_diffusers.training.arguments import parse_arguments
from zoomdiff_diffusers.training.loss import DRDMLoss, seeded_generator
from zoomdiff_diffusers.training.trainer import Trainer
from zoomdiff_diffusers.training.validation import VALIDATION_STREAM, sample_levels, score_levels


ROOT = Path(__file__).parents[2]
TINY = ["--config", str(ROOT / "configs" / "tiny.yaml")]
SITES = [
    {"name": "bs", "zones": "site", "spatial_factor": 1, "temporal_factor": 24},
    {"name": "grid", "spatial_factor": 1, "temporal_factor": 1},
]
SHANDONG = ROOT.parent / "shared" / "data" / "uomo_sd" / "tiles.npz"


def trainer(*words):
    return Trainer(parse_arguments([*TINY, *map(str, words)]))


def launch(*words, processes=1):
    """Runs train.py as a user does: alone, or as several gloo processes on the CPU."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision", "no"]
        start += ["--dynamo_backend", "no", "--num_processes", str(processes), "--main_process_port", "0"]
    source = str(Path(zoomdiff_diffusers.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*start, str(ROOT / "train.py"), *TINY, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def tensors(folder):
    files = sorted(Path(folder).rglob("*.safetensors"))
    assert files
    return {f"{file.relative_to(folder)}:{key}": value for file in files for key, value in load_file(file).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of the tiny configuration."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    summary = trainer("--output_dir", folder, "--checkpoints_total_limit", 3, "--validation_steps", 3).train()
    return folder, summary


def test_a_run_leaves_a_pipeline_logs_checkpoints_and_a_summary(finished):
    folder, summary = finished
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    assert json.loads((folder / "training_summary.json").read_text()) == json.loads(json.dumps(summary))
    assert summary["steps"] == 6 and [entry["step"] for entry in summary["losses"]] == [2, 3, 4, 6]
    assert [entry["step"] for entry in summary["validations"]] == [3, 6]
    scores = summary["validations"][-1]["scores"]
    assert list(scores) == ["bs", "cell", "grid_100m", "grid_50m"]
    assert all(np.isfinite(list(level.values())).all() for level in scores.values())
    assert [entry["step"] for entry in lines(folder)] == [0, 2, 3, 3, 4, 6, 6]
    assert lines(folder)[0]["regression"] == summary["regression"]["loss"] > 0
    assert (folder / "validation-6.png").stat().st_size > 10_000
    averaged = load_file(folder / "checkpoint-6" / "ema.safetensors")
    saved = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    last = load_file(folder / "checkpoint-6" / "unet.safetensors")
    assert all(torch.equal(value, averaged[name]) for name, value in saved.items())
    assert any(not torch.equal(value, last[name]) for name, value in saved.items())
    leftovers = [
        path for path in folder.rglob("*") if "partial" in path.name or path.suffix in (".bin", ".pt", ".pkl")
    ]
    assert leftovers == []


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(finished, tmp_path):
    whole, _ = finished
    resumed = tmp_path / "resumed"
    shutil.copytree(whole / "checkpoint-3", resumed / "checkpoint-3")
    shutil.copy(whole / "log.jsonl", resumed)  # as left by a run that was killed after step 6, writing a line
    with (resumed / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "seco')
    (resumed / ".checkpoint-6.partial").mkdir()
    options = ["--output_dir", resumed, "--checkpoints_total_limit", 3, "--validation_steps", 3]
    trainer(*options, "--resume_from_checkpoint", "latest").train()
    expected, found = tensors(whole / "checkpoint-6"), tensors(resumed / "checkpoint-6")
    assert expected.keys() == found.keys()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert all(torch.equal(value, tensors(resumed / "unet")[name]) for name, value in tensors(whole / "unet").items())
    without_time = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in lines(run)] for run in (whole, resumed)
    ]
    assert without_time[0] == without_time[1]
    with pytest.raises(ValueError, match="training.seed: 0 -> 1"):
        trainer(*options, "--resume_from_checkpoint", "latest", "--seed", 1)
    with pytest.raises(ValueError, match="resume_from_checkpoint latest"):
        trainer("--output_dir", whole)


def test_a_folder_keeps_its_run_and_all_other_files(finished, tmp_path):
    whole, _ = finished
    folder = tmp_path / "run"
    short = ["--output_dir", folder, "--max_train_steps", 1, "--validation_areas", 0]
    trainer(*short).train()  # a pipeline, but no checkpoint
    (folder / "notes.txt").write_text("mine")
    shutil.copytree(whole / "checkpoint-6", folder / "checkpoint-9")
    before = tensors(folder)
    for earlier in ("checkpoint-9", None):
        with pytest.raises(ValueError, match="holds an earlier run"):
            trainer(*short)
        with pytest.raises(ValueError, match="holds an earlier run"):
            trainer("--output_dir", folder, "--resume_from_checkpoint", whole / "checkpoint-3")
        assert all(torch.equal(value, tensors(folder)[name]) for name, value in before.items())
        if earlier is not None:
            shutil.rmtree(folder / earlier)
            before = tensors(folder)
    with pytest.raises(ValueError, match="is `pretrained_pipeline` too"):
        trainer(*short, "--overwrite_output_dir", "true", "--pretrained_pipeline", folder, "--unet", "{}")
    shutil.copytree(whole / "checkpoint-6", folder / "checkpoint-9")
    (folder / "validation-9.png").touch()
    trainer(*short, "--overwrite_output_dir", "true", "--regression_steps", 0).train()
    kept = {path.name for path in folder.iterdir()}
    assert {"notes.txt", "model_index.json", "unet", "log.jsonl"} <= kept
    assert not kept & {"checkpoint-9", "validation-9.png", "regressor"}


def test_two_processes_equal_one_and_accumulation_changes_nothing(finished, tmp_path):
    whole, _ = finished
    result = launch("--output_dir", tmp_path / "two", "--validation_areas", 0, processes=2)
    assert result.returncode == 0, result.stderr
    trainer("--output_dir", tmp_path / "parts", "--gradient_accumulation_steps", 2, "--validation_areas", 0).train()
    for run in ("two", "parts"):
        for component in ("unet", "regressor"):
            expected, found = (tensors(folder / component) for folder in (whole, tmp_path / run))
            assert max((value - found[name]).abs().max().item() for name, value in expected.items()) < 1e-5
        losses = [line["loss"] for line in lines(tmp_path / run) if "loss" in line]
        assert losses == pytest.approx([line["loss"] for line in lines(whole) if "loss" in line], rel=1e-5)


def test_train_save_load_generate_refine(tmp_path):
    folder = tmp_path / "run"
    words = ["--mixed_precision", "bf16", "--tensorboard", "true", "--max_train_steps", "2", "--crop_hours", "168"]
    result = launch("--output_dir", folder, *words)
    assert result.returncode == 0, result.stderr
    assert list(folder.rglob("events.out.tfevents*"))
    pipe = ZoomDiffPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    context = SimulatedCity(16, 8, seed=5).context
    generator = torch.Generator().manual_seed(0)
    levels = pipe(context, num_samples_per_context=2, num_inference_steps=4, generator=generator).levels
    assert levels["grid_50m"].shape[-3:] == (168, 16, 8) and (levels["grid_50m"] >= 0).all()
    refined = pipe.refine(levels["bs"], "bs", context, num_inference_steps=3, generator=generator).levels
    sums = [level.astype(np.float64).mean((-3, -2, -1)) for level in refined.values()]
    assert all(np.allclose(total, sums[0], rtol=1e-5) for total in sums)
    further = trainer("--output_dir", tmp_path / "further", "--unet", "{}", "--pretrained_pipeline", folder)
    assert further._statistics()["data_std"] == pipe.scheduler.config.data_std
    started = further.unet.state_dict()
    assert all(torch.equal(value, started[name]) for name, value in pipe.unet.state_dict().items())
    with pytest.raises(ValueError, match="come from it"):
        trainer("--output_dir", tmp_path / "further", "--pretrained_pipeline", folder)
    again = launch("--output_dir", folder, "--learning_rat", "3")
    assert (
        again.returncode != 0 and "Did you mean `learning_rate`?" in again.stderr and "Traceback" not in again.stderr
    )


def test_validation_samples_what_the_pipeline_samples_and_scores_the_measured_part(tmp_path):
    run = trainer("--output_dir", tmp_path, "--crop_hours", "168")
    for parameter in run.unet.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    windows = stack_windows(run.held_out[index] for index in range(2))
    levels = sample_levels(run.loss, windows, num_samples=3, num_inference_steps=4, seed=9)
    area = load_areas(run.arguments.data, [], "validation")[0]
    contexts = [
        {name: values[..., :8, column : column + 8] for name, values in area.context.items()} for column in (0, 8)
    ]
    generators = [seeded_generator(9, VALIDATION_STREAM, index) for index in range(6)]
    pipe = run.pipeline()
    pipe.set_progress_bar_config(disable=True)
    output = pipe(contexts, num_samples_per_context=3, num_inference_steps=4, generator=generators, output_type="pt")
    for ours, theirs in zip(levels, output.levels.values()):
        theirs = torch.as_tensor(theirs).reshape(2, 3, *ours.shape[2:]).transpose(0, 1)
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    mask = torch.rand(2, 168, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    masked = {**windows, "mask": mask, "traffic": torch.where(mask[:, None], windows["traffic"], 0.0)}
    scores = score_levels(levels, masked, run.loss)
    error = (levels[-1].double().mean(0) - windows["traffic"]).abs()[mask[:, None]].mean().item()
    assert scores["grid_50m"]["mae_of_mean"] == pytest.approx(error, rel=1e-5)


def test_a_time_budget_ends_the_run_and_training_learns(tmp_path):
    run = trainer("--output_dir", tmp_path / "budget", "--max_train_seconds", "0.001", "--validation_areas", "0")
    assert run.train()["steps"] == 1
    words = ["--max_train_steps", 60, "--validation_areas", 0, "--learning_rate", 0.003, "--checkpointing_steps", 100]
    losses = [entry["loss"] for entry in trainer("--output_dir", tmp_path / "long", *words).train()["losses"]]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])
    assert list((tmp_path / "long").glob("checkpoint-*")) == []


def test_the_regressor_is_trained_first_and_explains_the_traffic(finished, tmp_path):
    words = ["--validation_areas", 0, "--max_train_steps", 1, "--output_dir"]
    long = trainer(*words, tmp_path / "long", "--regression_steps", 150).train()
    assert long["regression"]["loss"] < 0.6 * finished[1]["regression"]["loss"]
    assert max(long["statistics"]["data_std"]) < max(finished[1]["statistics"]["data_std"])
    none = trainer(*words, tmp_path / "none", "--regression_steps", 0)
    none.train()
    pipe = ZoomDiffPipeline.from_pretrained(tmp_path / "none")
    assert pipe.regressor is None and not pipe.scheduler.config.coarsest_prior
    alone = trainer(*words, tmp_path / "alone", "--denoiser_context", "false")
    alone.train()
    pipe = ZoomDiffPipeline.from_pretrained(tmp_path / "alone")
    assert pipe.unet.config.context_layers == [] and pipe.regressor.config.context_layers
    with pytest.raises(ValueError, match="`regression_steps` must be positive"):
        trainer(*words, tmp_path / "bad", "--denoiser_context", "false", "--regression_steps", 0)
    with pytest.raises(ValueError, match="set `regression_steps` to 0"):
        trainer(*words, tmp_path / "bad", "--adding", "continuous")


def test_stations_and_traffic_without_context_train_and_generate(tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "stations.npz", traffic=random.gamma(2.0, size=(6, 48)), height=random.random(6))
    np.savez(tmp_path / "grid.npz", traffic=random.gamma(2.0, size=(96, 4, 6)))
    times = [{"name": f"{hours}h", "spatial_factor": 1, "temporal_factor": hours} for hours in (24, 4, 1)]
    areas = [{"name": "bs", "spatial_factor": 2, "temporal_factor": 24}, times[1], times[2]]
    cases = {
        "stations": (
            times,
            (1, 1),
            [{"name": "height", "kind": "continuous", "channels": ["m"]}],
            {"height": [[0.5]]},
        ),
        "grid": (areas, (2, 2), [], xarray.Dataset(coords={"y": range(4), "x": range(6)})),
    }
    for name, (levels, (height, width), layers, context) in cases.items():
        words = ["--dataset", tmp_path / f"{name}.npz", "--levels", json.dumps(levels), "--layers", json.dumps(layers)]
        words += ["--crop_height", height, "--crop_width", width, "--stage_items", 4, 4, 4]
        words += ["--output_dir", tmp_path / name, "--validation_inference_steps", 3]
        assert trainer(*words).train()["steps"] == 6
        pipe = ZoomDiffPipeline.from_pretrained(tmp_path / name)
        pipe.set_progress_bar_config(disable=True)
        levels = pipe(context, num_hours=48, num_inference_steps=3, generator=torch.Generator().manual_seed(0)).levels
        size = {"stations": (1, 1), "grid": (4, 6)}[name]
        assert levels["1h"].shape[-3:] == (48, *size) and np.isfinite(levels["1h"]).all()
        coarse = levels[next(iter(levels))].astype(np.float64)
        assert np.allclose(levels["1h"].astype(np.float64).mean((-3, -2, -1)), coarse.mean((-3, -2, -1)), rtol=1e-5)


@pytest.mark.parametrize("time_step, week_in_tokens", [(0.5, 28), (3.0, 7)])
def test_networks_know_how_long_a_time_step_is(time_step, week_in_tokens, tmp_path):
    day = round(24 / time_step)
    np.savez(tmp_path / "grid.npz", traffic=np.random.default_rng(0).gamma(2.0, size=(2 * day, 4, 4)))
    levels = [{"name": "day", "spatial_factor": 2, "temporal_factor": day}]
    levels += [{"name": "step", "spatial_factor": 1, "temporal_factor": 1}]
    words = [
        "--dataset",
        tmp_path / "grid.npz",
        "--layers",
        "[]",
        "--levels",
        json.dumps(levels),
        "--time_step",
        time_step,
    ]
    words += ["--crop_hours", 2 * day, "--crop_height", 4, "--crop_width", 4, "--stage_items", 4]
    trainer(*words, "--output_dir", tmp_path / "run", "--validation_areas", 0, "--max_train_steps", 1).train()
    pipe = ZoomDiffPipeline.from_pretrained(tmp_path / "run")
    assert pipe.unet.config.time_step == pipe.regressor.config.time_step == time_step
    assert pipe.regressor.config.token_length * time_step * week_in_tokens == 168
    with pytest.raises(ValueError, match="`unet` and `hierarchy` do not belong together"):
        ZoomDiffPipeline(**pipe.components | {"hierarchy": Hierarchy(pipe.hierarchy.levels)})


def test_a_run_without_regressor_is_resumed_with_the_scales_that_it_was_begun_with(tmp_path):
    words = ["--output_dir", tmp_path, "--regression_steps", 0, "--validation_areas", 0]
    trainer(*words, "--max_train_steps", 3).train()
    path = tmp_path / "checkpoint-3" / "state.json"
    state = json.loads(path.read_text())
    measured = state["statistics"]["data_std"]
    state["statistics"]["data_std"] = [float(np.nextafter(std, 2 * std)) for std in measured]  # of another device
    path.write_text(json.dumps(state))
    resumed = trainer(*words, "--resume_from_checkpoint", "latest")
    assert list(resumed.loss.scheduler.data_std) == state["statistics"]["data_std"] != measured
    assert resumed.train()["statistics"]["data_std"] == state["statistics"]["data_std"]


def test_scales_are_measured_on_no_more_windows_at_once_than_a_step_has(tmp_path, monkeypatch):
    encoded, sizes = DRDMLoss._encoded, []

    def watched(self, batch, *arguments):
        sizes.append(len(batch["traffic"]))
        return encoded(self, batch, *arguments)

    monkeypatch.setattr(DRDMLoss, "_encoded", watched)
    words = ["--regression_steps", 0, "--validation_areas", 0, "--batch_size", 100, "--stage_items", 4]
    run = trainer("--output_dir", tmp_path, *words)
    assert sizes == [100, 100, 56]
    whole = run.loss.measure_data_std([stack_windows(run.windows.draw(number) for number in range(256))])
    assert run.loss.scheduler.data_std == pytest.approx(whole, rel=1e-6)


def test_the_precision_is_that_of_accelerate_unless_it_is_given(tmp_path, monkeypatch):
    words = ["--output_dir", tmp_path / "run", "--validation_areas", 0]
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # as `accelerate launch` sets it
    result = launch(*words, "--max_train_steps", 3)
    assert result.returncode == 0, result.stderr
    summary = json.loads((tmp_path / "run" / "training_summary.json").read_text())
    assert summary["config"]["training"]["mixed_precision"] == "bf16"
    result = launch(*words, "--resume_from_checkpoint", "latest", "--mixed_precision", "no")
    assert "training.mixed_precision: 'bf16' -> 'no'" in result.stderr and "Traceback" not in result.stderr
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    result = launch("--output_dir", tmp_path / "none", "--validation_areas", 0)
    assert "`mixed_precision` must be one of ('no', 'bf16'), but Accelerate is configured for 'fp16'" in result.stderr
    assert result.returncode != 0 and "Traceback" not in result.stderr and not (tmp_path / "none").exists()
    result = launch(*words, "--resume_from_checkpoint", "latest", "--mixed_precision", "bf16")
    assert result.returncode == 0, result.stderr


def test_a_run_is_not_resumed_with_another_context(tmp_path):
    random = np.random.default_rng(0)
    data = {"traffic": random.gamma(2.0, size=(96, 8, 8)), "height": random.random((8, 8))}
    np.savez(tmp_path / "grid.npz", **data)
    layers = [{"name": "height", "kind": "continuous", "channels": ["m"]}]
    words = ["--dataset", tmp_path / "grid.npz", "--layers", json.dumps(layers), "--output_dir", tmp_path / "run"]
    words += ["--validation_areas", 0, "--checkpointing_steps", 1, "--max_train_steps"]
    trainer(*words, 1).train()
    resume = ["--resume_from_checkpoint", "latest"]
    assert trainer(*words, 2, *resume).step == 1
    np.savez(tmp_path / "grid.npz", **{**data, "height": random.random((8, 8))})
    with pytest.raises(ValueError, match=r"made from other data .* statistics \['context'\]"):
        trainer(*words, 2, *resume)
    np.savez(tmp_path / "grid.npz", **data)
    path = tmp_path / "run" / "checkpoint-1" / "state.json"
    state = json.loads(path.read_text())
    del state["statistics"]["context"]
    path.write_text(json.dumps(state))
    with pytest.raises(ValueError, match=r"or does not tell: its statistics \['context'\]"):
        trainer(*words, 2, *resume)


def test_what_comes_from_a_pretrained_pipeline_is_not_given_again(finished, tmp_path):
    start = ["--pretrained_pipeline", finished[0], "--unet", "{}", "--output_dir", tmp_path / "further"]
    for option, value in (("denoiser_context", "false"), ("traffic_unit", "GB"), ("traffic_offset", 0.5)):
        with pytest.raises(ValueError, match=f"`{option}` comes from .* leave it out"):
            trainer(*start, f"--{option}", value)
    assert trainer(*start, "--traffic_unit", "MB").step == 0  # the same


def test_the_largest_deviation_comes_from_a_pretrained_pipeline(tmp_path):
    words = ["--validation_areas", 0, "--max_train_steps", 1, "--output_dir"]
    trainer(*words, tmp_path / "run", "--largest_deviation", 4).train()
    start = [*words, tmp_path / "further", "--pretrained_pipeline", tmp_path / "run", "--unet", "{}"]
    with pytest.raises(ValueError, match="`largest_deviation` comes from .* leave it out"):
        trainer(*start, "--largest_deviation", 5)
    for same in ([], ["--largest_deviation", 4]):
        assert trainer(*start, *same).context_processor.config.largest_deviation == 4


def test_a_pretrained_pipeline_needs_its_number_of_channels(tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "grid.npz", **{name: random.gamma(2.0, size=(48, 8, 8)) for name in ("traffic", "users")})
    words = ["--dataset", tmp_path / "grid.npz", "--layers", "[]", "--validation_areas", 0, "--max_train_steps", 1]
    trainer(*words, "--output_dir", tmp_path / "one").train()
    further = ["--output_dir", tmp_path / "two", "--pretrained_pipeline", tmp_path / "one", "--unet", "{}"]
    with pytest.raises(ValueError, match=r"has the traffic channels \['traffic'\], but the data 2"):
        trainer(*words, *further, "--traffic_variables", "traffic", "users")


def test_mistakes_are_refused_before_training(tmp_path):
    for words, message in (
        (["--batch_size", 5, "--gradient_accumulation_steps", 2], "`batch_size` must be a multiple"),
        (["--crop_hours", 50], "`time` must be a multiple of 24"),
        (
            ["--dataset", tmp_path / "none.npz", "--layers", '[{"name": "a", "kind": "count", "channels": ["b"]}]'],
            "no file",
        ),
        (["--dataset", tmp_path / "none.npz"], "`layers` must declare"),
        (["--layers", "[]", "--smooth_layers", 2], "the simulated city has its own layers"),
        (["--train_region", '{"rows": [0, 8]}'], "`train_region` and `validation_region` are for files"),
        (["--validation_region", '{"rows": [8, 16]}'], "`train_region` and `validation_region` are for files"),
        (["--resume_from_checkpoint", "latest"], "holds no complete checkpoint"),
        (["--stage_items", 4, 4], "`stage_items`"),
        (["--levels", '[{"name": "a", "spatial_factor": 1, "temporal_factor": 2}]'], "last level .* has \\(1, 2\\)"),
        (["--validation_inference_steps", 3], "`num_inference_steps` must give at least one call"),
        (["--levels", json.dumps(SITES), "--stage_items", 4, "--solver", "ddpm"], "must not have the solver 'ddpm'"),
        (
            ["--levels", json.dumps(SITES), "--stage_items", 4, "--intensity", "continuous"],
            "settings that levels with zones need",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            trainer("--output_dir", tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not SHANDONG.exists(), reason=f"needs the measured Shandong tiles at {SHANDONG}")
def test_two_channels_with_missing_hours(tmp_path):
    words = ["--config", ROOT / "configs" / "shandong.yaml", "--dataset", SHANDONG, "--output_dir", tmp_path / "sd"]
    words += ["--unet", '{"block_channels": [8, 8], "layers_per_block": [1, 1], "embedding_dim": 16}']
    words += ["--max_train_steps", 2, "--batch_size", 4, "--validation_samples", 2, "--validation_inference_steps", 4]
    words += ["--mixed_precision", "no"]  # Accelerate keeps one precision per process
    summary = Trainer(parse_arguments([str(word) for word in words])).train()
    assert list(summary["validations"][-1]["scores"])[:2] == ["area/traffic", "area/users"]
    pipe = ZoomDiffPipeline.from_pretrained(tmp_path / "sd")
    assert pipe.hierarchy.names == ["area", "cell", "grid_2h", "grid_1h"]
    assert pipe.traffic_processor.channels == ["traffic", "users"]
    context = {"poi": np.load(SHANDONG)["poi"][30]}
    finest = pipe(context, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).levels["grid_1h"]
    assert finest.shape[-4:] == (2, 168, 4, 4) and np.isfinite(finest).all()
