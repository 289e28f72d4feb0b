# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
import xarray
from support.tiny import context_with_zones, random_context, tiny_pipeline, zoned_pipeline
from support.traffic_files import finest_traffic, pyramid, write_files, write_mask, write_traffic
from typer.testing import CliRunner

from zoomdiff_diffusers import ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.commands import app
from zoomdiff_diffusers.data.simulated_city import simulate_context
from zoomdiff_diffusers.data.stores import write_netcdf


PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def zoomdiff(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


def files(folder):
    return ["--generated", folder / "out.nc", "--truth", folder / "truth.nc"]


def test_the_entry_point_is_the_command():
    module, attribute = PROJECT["scripts"]["zoomdiff"].split(":")
    assert getattr(import_module(module), attribute) is app


def test_help_has_an_example_and_no_arguments_show_help():
    done = zoomdiff("evaluate", "--help")
    assert done.exit_code == 0
    assert "zoomdiff evaluate --generated out.nc --truth truth.nc" in done.output
    assert all(option in done.output for option in ("--mask", "--context", "--output", "--json"))
    assert "evaluate" in zoomdiff().output


def test_evaluate_prints_a_summary_and_writes_the_report(folder, tmp_path):
    words = ["--context", folder / "context.nc", "--output", tmp_path / "out"]
    done = zoomdiff("evaluate", *files(folder), *words)
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("CRPS "))
    scores = content["channels"]["traffic"]["levels"]
    assert [float(word) for word in line.split()[-4:]] == [pytest.approx(s["crps"], abs=6e-4) for s in scores.values()]
    assert set(content["channels"]["traffic"]["decomposition"]) == {"housing", "office park"}
    assert str(tmp_path / "out" / "report.html") in done.stdout and (tmp_path / "out" / "report.html").stat().st_size


def test_json_goes_to_standard_output_and_a_mask_is_heeded(tmp_path):
    write_files(tmp_path, truth_levels=["cell"])
    write_mask(tmp_path / "mask.nc", np.arange(18) >= 6)
    words = ["--mask", tmp_path / "mask.nc", "--output", tmp_path, "--json"]
    done = zoomdiff("evaluate", *files(tmp_path), *words)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    counts = [level["count"] for level in content["channels"]["traffic"]["levels"].values()]
    assert counts == [2 * 6, 12 * 24]
    assert "66.7 % of the hours and places" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_file_that_does_not_exist_is_a_wrong_argument(folder, tmp_path):
    done = zoomdiff(
        "evaluate", "--generated", tmp_path / "no.nc", "--truth", folder / "truth.nc", "--output", tmp_path
    )
    assert done.exit_code == 2 and "does not exist" in done.output and "Traceback" not in done.output


def test_files_that_do_not_fit_are_named_without_a_traceback(folder, tmp_path):
    write_traffic(tmp_path / "later.nc", pyramid(finest_traffic(1)), start="2026-03-05T00:00")
    words = ["--truth", tmp_path / "later.nc", "--output", tmp_path / "out"]
    done = zoomdiff("evaluate", "--generated", folder / "out.nc", *words)
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("zoomdiff: error: The start of") and "later.nc" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named_with_what_installs_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    done = zoomdiff("evaluate", *files(folder), "--output", tmp_path)
    assert (
        done.exit_code == 1 and "jinja2 is not installed. pip install 'zoomdiff_diffusers[evaluation]'" in done.stderr
    )


# ------------------------------------------------------------------------------------------- generate, refine and info


@pytest.fixture(scope="module")
def context_file(tmp_path_factory):
    """A simulated context of 16 x 24 cells with projected coordinates."""
    path = tmp_path_factory.mktemp("context") / "context.nc"
    layers = simulate_context(height=16, width=24, seed=3)
    dataset = xarray.Dataset(
        {
            name: ((*{2: (), 3: (f"{name}_channel",)}[values.ndim], "y", "x"), values)
            for name, values in layers.items()
            if name != "population_over_time"
        },
        coords={"y": 5_600_000.0 + 50 * np.arange(16), "x": 360_000.0 + 50 * np.arange(24)},
    )
    dataset.to_netcdf(path, engine="netcdf4")
    return path


@pytest.fixture(scope="module")
def generated(context_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("generated") / "traffic.nc"
    words = ["--context", context_file, "--output", path, "--hours", 48, "--samples", 2, "--steps", 8]
    return path, zoomdiff("generate", *words, "--start", "2026-03-07", "--json")


def read(path):
    with xarray.open_datatree(path, engine="netcdf4") as tree:
        return tree.load()


def test_generate_writes_what_the_pipeline_returns(context_file, generated):
    path, done = generated
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    pipe = ZoomDiffPipeline.from_pretrained(bundled_model("simulated-city"))
    pipe.set_progress_bar_config(disable=True)
    with xarray.open_dataset(context_file, engine="netcdf4") as context:
        options = {"num_hours": 48, "num_samples_per_context": 2, "num_inference_steps": 8, "start": "2026-03-07"}
        expected = pipe(context.load(), generator=torch.Generator().manual_seed(0), **options).levels
    tree = read(path)
    for name, values in expected.items():
        np.testing.assert_allclose(tree[name]["traffic"], values, rtol=1e-4, atol=1e-4)
        assert summary["levels"][name]["shape"] == list(values.shape)
        assert summary["levels"][name]["mean"] == pytest.approx(values.mean(), rel=1e-4)
    assert str(tree["grid_50m"]["time"].values[0]).startswith("2026-03-07T00:00")
    assert tree["grid_50m"]["x"].values[0] == 360_000 and tree.attrs["seed"] == 0


def test_generate_into_a_store_for_large_areas(context_file, tmp_path):
    words = ["--context", context_file, "--out", tmp_path / "city.zarr", "--hours", 48, "--steps", 8, "--samples", 2]
    done = zoomdiff("generate", *words, "--json")
    assert done.exit_code == 0, done.output
    with xarray.open_datatree(tmp_path / "city.zarr", engine="zarr", consolidated=False) as tree:
        finest, cells = tree["grid_50m/traffic"], tree["cell/traffic"]
        assert json.loads(done.stdout)["levels"]["cell"]["shape"] == list(cells.shape) == [2, 1, 12, 4, 6]
        sums = finest.values.reshape(2, 1, 12, 4, 4, 4, 6, 4).mean((3, 5, 7))
        np.testing.assert_allclose(sums, cells.values, rtol=1e-4)
        assert tree["grid_50m"]["x"].values[0] == 360_000
    done = zoomdiff("generate", *words)
    assert done.exit_code == 1 and "`output` must not exist yet" in done.stderr


def test_two_processes_of_accelerate_make_one_store_and_one_summary(context_file, tmp_path):
    words = ["generate", "--context", context_file, "--hours", 48, "--steps", 8, "--json", "--output"]
    assert zoomdiff(*words, tmp_path / "one.zarr").exit_code == 0
    launch = ["--multi_gpu", "--num_processes", 2, "--num_machines", 1, "--mixed_precision", "no"]
    launch += ["--dynamo_backend", "no", "--main_process_port", 0, "-m", "zoomdiff_diffusers.commands"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, *words, tmp_path / "two.zarr"]
    paths = os.pathsep.join([str(Path(__file__).parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["output"] == str(tmp_path / "two.zarr")
    for level in ("bs", "grid_50m"):
        first, second = (
            xarray.open_datatree(tmp_path / name, engine="zarr", consolidated=False)[level]["traffic"].values
            for name in ("one.zarr", "two.zarr")
        )
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4 * first.mean())


def test_refine_keeps_the_sums_and_fills_gaps(context_file, generated, tmp_path):
    tree = read(generated[0])
    stations = tree["bs"].to_dataset().isel(sample=[0])
    for gaps in (False, True):
        given = stations.copy(deep=True)
        if gaps:
            given["traffic"][0, 0, 1, 0, 2] = np.nan
        write_netcdf(xarray.DataTree.from_dict({"/": xarray.Dataset(), "/bs": given}), tmp_path / "bs.nc")
        words = ["--traffic", tmp_path / "bs.nc", "--context", context_file, "--output", tmp_path / "fine.nc"]
        done = zoomdiff("refine", *words, "--steps", 8)
        assert done.exit_code == 0, done.output
        assert "grid_50m" in done.stdout and str(tmp_path / "fine.nc") in done.stdout
        finest = read(tmp_path / "fine.nc")["grid_50m"]["traffic"].values
        sums = finest.reshape(1, 1, 2, 24, 2, 8, 3, 8).mean((3, 5, 7))
        known = np.isfinite(given["traffic"].values)
        np.testing.assert_allclose(sums[known], given["traffic"].values[known], rtol=1e-4)
        assert np.isfinite(finest).all() and known.all() != gaps


def test_refine_keeps_the_totals_of_zones_and_refuses_those_of_others(tmp_path):
    zoned_pipeline().save_pretrained(tmp_path / "model")
    layers = context_with_zones()
    axes = {"poi": ("poi_channel", "y", "x"), "population_over_time": ("hour", "y", "x")}
    context = xarray.Dataset({name: (axes.get(name, ("y", "x")), values) for name, values in layers.items()})
    context.to_netcdf(tmp_path / "context.nc", engine="netcdf4")
    words = ["--context", tmp_path / "context.nc", "--model", tmp_path / "model", "--steps", 8, "--units", "sum"]
    done = zoomdiff("generate", *words, "--output", tmp_path / "traffic.nc")
    assert done.exit_code == 0, done.output
    words += ["--traffic", tmp_path / "traffic.nc", "--level", "bs", "--seed", 1]
    done = zoomdiff("refine", *words, "--output", tmp_path / "fine.nc")
    assert done.exit_code == 0, done.output
    given, refined = (read(tmp_path / name) for name in ("traffic.nc", "fine.nc"))
    np.testing.assert_allclose(refined["bs"]["traffic"], given["bs"]["traffic"], rtol=1e-5)
    finest = refined["grid_1"]["traffic"].values[0, 0].reshape(2, 24, 16, 24).sum(axis=1, dtype=np.float64)
    for site in range(layers["site"].max() + 1):
        totals = given["bs"]["traffic"].values[0, 0][:, layers["site"] == site][:, 0]
        np.testing.assert_allclose(finest[:, layers["site"] == site].sum(axis=1), totals, rtol=1e-4)

    context["site"][0, 0] = int(context["site"].max()) - int(context["site"][0, 0])
    context.to_netcdf(tmp_path / "moved.nc", engine="netcdf4")
    done = zoomdiff("refine", *words, "--context", tmp_path / "moved.nc", "--output", tmp_path / "no.nc")
    assert done.exit_code == 1 and not (tmp_path / "no.nc").exists()
    assert "the zones 'site' of level 'bs' in" in done.stderr and "differ at 1 of 384 cells" in done.stderr
    assert str(tmp_path / "traffic.nc") in done.stderr and str(tmp_path / "moved.nc") in done.stderr


def test_channels_keep_their_units_from_the_model_to_every_reader(tmp_path):
    tiny_pipeline(channels=2).save_pretrained(tmp_path / "model")
    axes = {"poi": ("poi_channel", "y", "x"), "population_over_time": ("hour", "y", "x")}
    layers = {name: (axes.get(name, ("y", "x")), values) for name, values in random_context().items()}
    place = {"y": 50.0 * np.arange(8) + 25, "x": 50.0 * np.arange(16) + 25}
    xarray.Dataset(layers, place).to_netcdf(tmp_path / "context.nc", engine="netcdf4")
    words = ["--context", tmp_path / "context.nc", "--model", tmp_path / "model", "--steps", 8]
    paths = {name: tmp_path / f"{name}.nc" for name in ("generated", "truth", "refined")}
    done = zoomdiff("generate", *words, "--output", paths["generated"], "--samples", 2, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["levels"]["bs"]["unit"] == "MB, 1"
    assert read(paths["generated"])["bs"]["unit"].to_series().to_dict() == {"traffic": "MB", "users": "1"}

    assert zoomdiff("generate", *words, "--output", paths["truth"], "--seed", 1).exit_code == 0
    files = ["--generated", paths["generated"], "--truth", paths["truth"]]
    done = zoomdiff("evaluate", *files, "--output", tmp_path / "report", "--json")
    assert done.exit_code == 0 and list(json.loads(done.stdout)["channels"]) == ["traffic", "users"], done.output
    done = zoomdiff("refine", *words, "--traffic", paths["generated"], "--level", "bs", "--output", paths["refined"])
    assert done.exit_code == 0 and list(read(paths["refined"])["bs"]["unit"].values) == ["MB", "1"], done.output

    assert zoomdiff("generate", *words, "--output", tmp_path / "city.zarr").exit_code == 0
    statistics = ["summarise", "--traffic", tmp_path / "city.zarr", "--output", tmp_path / "statistics.zarr"]
    assert zoomdiff(*statistics).exit_code == 0
    for path in (*paths.values(), tmp_path / "city.zarr", tmp_path / "statistics.zarr"):
        done = zoomdiff("export", "--traffic", path, "--level", "bs", "--output", tmp_path / "bs.csv")
        assert done.exit_code == 0, done.output
        table = pandas.read_csv(tmp_path / "bs.csv")
        assert dict(zip(table["channel"], table["unit"])) == {"traffic": "MB", "users": "1"}


def test_info_describes_the_bundled_model():
    done = zoomdiff("info", "--json")
    described = json.loads(done.stdout)
    assert [level["side_m"] for level in described["levels"]] == [400, 200, 100, 50]
    assert described["network_calls"] == 28 and described["channels"] == {"traffic": "MB"}
    assert {"surface", "poi", "population_over_time"} <= {layer["name"] for layer in described["context"]}
    assert {level["zones"] for level in described["levels"]} == {None}
    text = zoomdiff("info").stdout
    assert re.search(r"^bs +400 m +24 h$", text, flags=re.MULTILINE) and "needed" not in text
    assert "grid_50m" in text and "population_over_time" in text and f"{described['parameters']:,}" in text


def test_info_names_the_zones_that_a_model_needs(tmp_path):
    zoned_pipeline().save_pretrained(tmp_path)
    described = json.loads(zoomdiff("info", tmp_path, "--json").stdout)
    levels = [(level["side_m"], level["zones"]) for level in described["levels"]]
    assert levels == [(None, "site"), (None, "sector"), (100, None), (50, None)]
    assert described["context"][-1] == {"name": "sector", "kind": "zones", "values": []}
    text = zoomdiff("info", tmp_path).stdout
    assert re.search(r"^bs +by site +24 h$", text, flags=re.MULTILINE) and "400 m" not in text
    assert "number of the site that serves each cell (needed)" in text


@pytest.mark.parametrize(
    "words, message",
    [
        (["--model", "no-such-model"], "'no-such-model' is no folder"),
        (["--model", "helsinki"], "none of the bundled ['simulated-city']"),
        (["--output", "traffic.csv"], "must end in .nc"),
        (["--output", "no/such/folder/traffic.nc"], "does not exist"),
        (["--device", "abacus"], "'abacus' cannot be used"),
        (["--start", "2026-03-07T05:00"], "`start` must lie a multiple of 24 h"),
        (["--hours", "30"], "30"),
        (["--steps", "3"], "`num_inference_steps` must give at least one call"),
    ],
)
def test_a_users_mistake_is_one_line(context_file, tmp_path, words, message):
    done = zoomdiff("generate", "--context", context_file, "--output", tmp_path / "out.nc", "--hours", 24, *words)
    assert done.exit_code == 1, done.output
    assert message in done.stderr and "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_float64_is_passed_over_and_refused_when_asked_for(context_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    for output in ("out.nc", "out.zarr"):
        words = ["--context", context_file, "--output", tmp_path / output, "--hours", 24, "--steps", 4]
        for device in ("mps", "mps:0"):
            done = zoomdiff("generate", *words, "--device", device)
            assert done.exit_code == 1 and f"--device: '{device}' has no float64" in done.stderr
        done = zoomdiff("generate", *words)
        assert done.exit_code == 0, done.output
        assert (tmp_path / output).exists()


def test_no_input_is_overwritten(context_file, tmp_path):
    context = tmp_path / "context.nc"
    shutil.copy(context_file, context)
    for command in ("generate", "refine"):
        words = ["--traffic", context] if command == "refine" else []
        done = zoomdiff(command, "--context", context, "--output", context, *words)
        assert done.exit_code == 1 and "must not be the file that is read" in done.stderr
    assert context.read_bytes() == context_file.read_bytes()


def test_layers_that_the_model_does_not_know_are_refused(tmp_path):
    xarray.Dataset({"altitude": (("y", "x"), np.zeros((8, 8)))}).to_netcdf(tmp_path / "context.nc", engine="netcdf4")
    done = zoomdiff("generate", "--context", tmp_path / "context.nc", "--output", tmp_path / "out.nc")
    assert done.exit_code == 1 and "['altitude'], unknown to the schema" in done.stderr
    (tmp_path / "text.nc").write_text("no NetCDF")
    done = zoomdiff("generate", "--context", tmp_path / "text.nc", "--output", tmp_path / "out.nc")
    assert done.exit_code == 1 and "is not a readable NetCDF-4 file" in done.stderr


def test_refine_refuses_traffic_of_another_place(context_file, generated, tmp_path):
    with xarray.open_dataset(context_file, engine="netcdf4") as context:
        context.assign_coords(x=context.x + 400).to_netcdf(tmp_path / "east.nc", engine="netcdf4")
    words = ["--traffic", generated[0], "--level", "bs", "--output", tmp_path / "out.nc"]
    done = zoomdiff("refine", "--context", tmp_path / "east.nc", *words)
    assert done.exit_code == 1 and "has its middle at x = 360575 m, the context at 360975 m" in done.stderr


def test_refine_refuses_mirrored_traffic_and_other_units_and_channels(context_file, generated, tmp_path):
    stations = read(generated[0])["bs"].to_dataset().isel(sample=[0])
    in_gigabytes, nameless = stations.copy(deep=True), stations.copy(deep=True)
    in_gigabytes["traffic"].attrs["units"] = "GB"
    del nameless["traffic"].attrs["units"]
    words = [
        "--traffic",
        tmp_path / "bs.nc",
        "--context",
        context_file,
        "--output",
        tmp_path / "fine.nc",
        "--steps",
        4,
    ]
    for given, message in (
        (stations.isel(y=slice(None, None, -1)), "the y axis of * is falling, that of the context rising: turn one"),
        (stations.isel(x=slice(None, None, -1)), "the x axis of * is falling, that of the context rising: turn one"),
        (in_gigabytes, "'traffic' of * is in GB, but the model has MB: convert it."),
        (stations.assign_coords(channel=["calls"]), "channels of * are ['calls'], but the model has ['traffic']."),
        (nameless, None),
    ):
        write_netcdf(xarray.DataTree.from_dict({"/": xarray.Dataset(), "/bs": given}), tmp_path / "bs.nc")
        done = zoomdiff("refine", *words)
        assert done.exit_code == (0 if message is None else 1), done.output
        if message is not None:
            assert done.stderr.splitlines()[-1].startswith("zoomdiff: error: --traffic: ")
            assert message.replace("*", str(tmp_path / "bs.nc")) in done.stderr and not (tmp_path / "fine.nc").exists()


def test_refine_refuses_traffic_of_other_levels(context_file, tmp_path):
    place = {"y": 5_600_000.0 + 50 * np.arange(16), "x": 360_200.0 + 50 * np.arange(16)}
    write_traffic(tmp_path / "other.nc", pyramid(finest_traffic(1)[..., :16]), **place)
    words = ["--context", context_file, "--output", tmp_path / "out.nc", "--traffic", tmp_path / "other.nc"]
    done = zoomdiff("refine", *words, "--level", "district")
    assert done.exit_code == 1 and "--level: 'district' must be among" in done.stderr
    done = zoomdiff("refine", *words, "--level", "cell")
    assert done.exit_code == 1 and "`traffic` must be (18, 4, 6) on its last three axes" in done.stderr


# ------------------------------------------------------------------------------------------------------ train and push


def train(*words):
    return zoomdiff("train", "--config", Path(__file__).parents[1] / "configs" / "tiny.yaml", *words)


def test_help_of_train_and_push_has_examples():
    for command, example in (
        ("train", "zoomdiff train --config configs/simulated_city.yaml --max_train_steps 2000"),
        ("push", "zoomdiff push runs/simulated_city my-team/city --license apache-2.0"),
    ):
        done = zoomdiff(command, "--help")
        assert done.exit_code == 0 and example in done.stdout and "Exit codes:" in done.stdout


def test_train_lists_the_arguments_of_the_trainer():
    done = zoomdiff("train", "--arguments")
    assert done.exit_code == 0 and done.stdout.startswith("usage: zoomdiff train ")
    assert all(f"--{name}" in done.stdout for name in ("learning_rate", "dataset", "push_to_hub", "model_license"))


def test_train_writes_the_pipeline_and_prints_a_summary(tmp_path):
    done = train("--output_dir", tmp_path / "run", "--max_train_steps", 3, "--seed", 5, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    summary = json.loads((tmp_path / "run" / "training_summary.json").read_text(encoding="utf-8"))
    assert printed["steps"] == summary["steps"] == 3 and printed["seed"] == 5 and printed["url"] is None
    assert printed["scores"] == summary["validations"][-1]["scores"]
    assert ZoomDiffPipeline.from_pretrained(tmp_path / "run").training_summary == summary


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "Nothing says what to train on."),
        (["--config", "no.yaml"], "`config`: there is no file 'no.yaml'."),
        (["--learning_rat", "0.1"], "Unknown argument: `learning_rat`. Did you mean `learning_rate`?"),
        (["--batch_size", "0"], "`batch_size` must be positive, got 0."),
        (["--dataset", "no.npz", "--layers", "[]"], "`dataset`: there is no file 'no.npz'."),
    ],
)
def test_a_mistake_in_training_is_one_line(words, message):
    done = zoomdiff("train", *words)
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr == f"zoomdiff: error: {message}\n" or done.stderr.startswith(f"zoomdiff: error: {message} Give")


def test_an_unknown_value_of_an_argument_is_a_wrong_argument():
    done = train("--solver", "magic")
    assert done.exit_code == 2 and "Traceback" not in done.output


def test_push_refuses_what_it_cannot_upload(context_file, tmp_path):
    assert zoomdiff("push", tmp_path / "no", "org/name").exit_code == 2
    (tmp_path / "notes.txt").write_text("nothing to upload")
    for words, message in (
        ([], "holds neither a saved pipeline (model_index.json) nor Parquet files."),
        (["--type", "model"], "is no saved pipeline: it has no model_index.json."),
        (["--remote-code"], "--remote-code belongs to a model; the folder holds none."),
        (["--type", "model", "--config", context_file], "--config belongs to a dataset; the folder holds none."),
    ):
        done = zoomdiff("push", tmp_path, "org/name", *words)
        assert done.exit_code == 1 and done.stdout == ""
        assert done.stderr.startswith("zoomdiff: error: ") and message in done.stderr, done.stderr


def test_push_names_a_broken_file(tmp_path):
    shutil.copytree(bundled_model("simulated-city"), tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = zoomdiff("push", tmp_path / "model", "org/name")
    assert done.exit_code == 1 and done.stdout == "" and "Traceback" not in done.stderr
    assert f"'{tmp_path / 'model'}' cannot be loaded" in done.stderr.splitlines()[-1]


def test_push_without_a_connection_or_with_a_wrong_name_is_one_line():
    for name, message in (
        ("org/name", "The Hub cannot be reached"),
        ("a/b/c", "'repo_name' or 'namespace/repo_name'"),
    ):
        done = zoomdiff("push", bundled_model("simulated-city"), name)
        assert done.exit_code == 1 and message in done.stderr and done.stdout == ""
        assert done.stderr.splitlines()[-1].startswith("zoomdiff: error: ") and "Traceback" not in done.stderr
