# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Cards and checks of folders, without a Hub."""

import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from matplotlib.image import imread
from support.hub_client import SUMMARY
from support.tiny import tiny_pipeline, tiny_regressor, tiny_unet, zoned_pipeline

from zoomdiff_diffusers import (
    ContextProcessor,
    DRDMScheduler,
    Hierarchy,
    TrafficProcessor,
    ZoomDiffPipeline,
    bundled_model,
)
from zoomdiff_diffusers.data.simulated_context import SIMULATED_LAYERS, simulate_context
from zoomdiff_diffusers.hub.cards import dataset_card, dataset_facts, model_card
from zoomdiff_diffusers.hub.upload import _draw, check_dataset_folder, check_pipeline_folder, refuse_tokens
from zoomdiff_diffusers.training.arguments import Arguments


ROOT = Path(__file__).parents[2]


def parts(card):
    _, metadata, text = str(card).split("---\n", 2)
    return yaml.safe_load(metadata), text


def table(text, heading):
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def test_what_is_unknown_is_called_not_stated():
    metadata, text = parts(model_card(tiny_pipeline(), "org/unknown", {}))
    assert set(metadata) == {"library_name", "tags"}
    assert "## Scores\n\nNot stated." in text
    assert ["budget and seed", "not stated"] in table(text, "Training")
    assert table(text, "Training data") == [["data", "not stated"], ["licence", "not stated"]]
    assert "- Weights: not stated" in text and "![" not in text and "remote-code" not in text


def test_statements_win_over_the_training_and_every_run_is_listed():
    pipe = tiny_pipeline()
    pipe.training_summary = {"runs": [{"steps": 1, "seconds": 1.0, "seed": 1}, SUMMARY]}
    statements = {"model_license": "mit", "data_description": "two\nlines"}
    metadata, text = parts(model_card(pipe, "org/lyon", statements, "zoom.png", remote_code=True))
    assert metadata["license"] == "mit"
    assert ["data", "two lines"] in table(text, "Training data")
    training = table(text, "Training")
    assert ["run 1: seed", "1"] in training and ["run 2: seed", "7"] in training and ["run 2: steps", "6"] in training
    assert "![" in text and 'revision="remote-code", trust_remote_code=True' in text


def test_the_card_of_the_bundled_model_has_both_of_its_runs():
    pipe = ZoomDiffPipeline.from_pretrained(bundled_model("simulated-city"))
    metadata, text = parts(model_card(pipe, "org/city", {}))
    data, training = dict(table(text, "Training data")), dict(table(text, "Training"))
    assert data["run 1: simulated cities"] == "80 of 96 x 96 cells, 1 x 168 h each"
    assert data["run 2: simulated cities"] == "40 of 64 x 64 cells, 1 x 504 h each"
    assert data["run 2: continued from"] == "run 1" and "run 1: continued from" not in data
    assert data["data"].startswith("simulated by") and "run 1" not in data["data"]  # the same for both
    assert training["run 1: steps"] == "9,000, with 6,000 of the forecast before"
    assert (training["run 1: time"], training["run 2: steps"]) == ("72.4 minutes", "1,500")
    assert "on at most 8 windows of 24 x 16 x 16 time steps and cells that were held out; 8 samples each." in text
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == "simulated city, held out"


def with_data(**data):
    """A run, with some settings of its data."""
    return {**SUMMARY, "config": {**SUMMARY["config"], "data": {**SUMMARY["config"]["data"], **data}}}


EAST, WEST = {"columns": [0, 20]}, {"columns": [20, 28]}
ON_EAST, ON_ALL = with_data(train_region=EAST, validation_region=WEST), with_data()
CITIES = {"dataset": "simulated_city", "city_weeks": 1, "city_height": 8, "city_width": 8, "train_cities": 2,
          "cultures": ["default"]}  # fmt: skip


@pytest.mark.parametrize(
    "earlier, held_out",
    [(ON_EAST, True), (ON_ALL, False), (with_data(**CITIES), True), ({"steps": 1, "seconds": 1.0, "seed": 1}, False),
     (with_data(train_region=EAST, dataset="other.npz"), False)],
)  # fmt: skip
def test_windows_count_as_held_out_only_if_no_run_was_trained_on_them(earlier, held_out):
    pipe = tiny_pipeline()
    pipe.training_summary = {"runs": [earlier, ON_EAST]}
    metadata, text = parts(model_card(pipe, "org/lyon", {}))
    assert ("cells that were held out;" in text) == held_out
    assert ("that the last run held out, but that an earlier one may have seen;" in text) == (not held_out)
    name = metadata["model-index"][0]["results"][0]["dataset"]["name"]
    assert name == ("lyon.npz, held out" if held_out else "lyon.npz, held out by the last run only")


def test_what_an_unknown_pipeline_was_trained_on_may_be_what_was_held_out():
    pipe = tiny_pipeline()
    pipe.training_summary = {**ON_EAST, "config": {**ON_EAST["config"], "model": {"pretrained_pipeline": "first"}}}
    assert "an earlier one may have seen" in parts(model_card(pipe, "org/lyon", {}))[1]


def test_simulated_data_are_said_to_be_all_only_if_they_are():
    pipe = tiny_pipeline()
    pipe.training_summary = {"runs": [with_data(**CITIES), ON_EAST]}
    metadata, text = parts(model_card(pipe, "org/lyon", {}))
    data = dict(table(text, "Training data"))
    assert data["licence"] == "run 1: none needed: the data are simulated; run 2: not stated"
    assert "Trained on simulated data" not in text and "simulated" not in metadata["tags"]
    assert data["run 2: training region"] == "columns [0, 20]" and "run 1: training region" not in data


def test_the_paper_can_be_cited_from_a_card():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["preferred-citation"]
    _, text = parts(model_card(tiny_pipeline(), "org/lyon", {}))
    entry = dict(re.findall(r"^  (\w+) += \{(.*)\},?$", text.split("@misc{zoomdiff,")[1].split("\n}\n")[0], re.M))
    assert entry["title"] == citation["title"].strip() and entry["year"] == str(citation["year"])
    assert entry["url"] == citation["url"] and entry["url"].endswith(entry["eprint"])
    assert entry["archivePrefix"] == "arXiv" and entry["author"].count(" and ") == len(citation["authors"]) - 1


@pytest.mark.parametrize(
    "train, validation, held_out",
    [
        (None, None, False),
        ({"rows": [0, 8]}, None, False),
        (None, {"rows": [0, 8]}, False),
        ({"rows": [0, 8]}, {"rows": [0, 8]}, False),
        ({"rows": [0, 8]}, {"rows": [8, 16]}, True),
        ({"columns": [0, 28]}, {"columns": [20, 28]}, False),
        ({"columns": [0, 20]}, {"columns": [16, 28]}, False),
        ({"columns": [20, 28]}, {"columns": [0, 20]}, True),
        ({"rows": [0, 8]}, {"columns": [20, 28]}, False),
        ({"rows": [0, 8], "columns": [0, 20]}, {"rows": [0, 8], "columns": [20, 28]}, True),
        ({"rows": [0, 8], "columns": [0, 20]}, {"rows": [4, 9], "columns": [10, 28]}, False),
        ({"areas": [0, 1]}, {"areas": [1, 2]}, False),
        ({"areas": [0, 1]}, {"areas": [2]}, True),
        ({"areas": [0, 1]}, {"rows": [0, 8]}, False),
        ({"areas": [0, 1], "rows": [0, 8]}, {"areas": [1], "rows": [8, 16]}, True),
        ({"areas": {"folds": 5, "without": 4}}, {"areas": {"folds": 5, "only": 4}}, True),
        ({"areas": {"folds": 5, "without": 4}}, {"areas": {"folds": 5, "only": 3}}, False),
        ({"areas": {"folds": 5, "only": 4}}, {"areas": {"folds": 5, "only": 3}}, True),
        ({"areas": {"folds": 2, "only": 0}}, {"areas": {"folds": 4, "only": 1}}, True),
        ({"areas": {"folds": 2, "only": 0}}, {"areas": {"folds": 5, "only": 1}}, False),
        ({"areas": {"folds": 5, "without": 4}}, {"areas": [4]}, False),
    ],
)
def test_scores_count_as_held_out_only_if_something_was(train, validation, held_out):
    pipe, config = tiny_pipeline(), SUMMARY["config"]
    data = {**config["data"], "train_region": train, "validation_region": validation}
    pipe.training_summary = {**SUMMARY, "config": {**config, "data": data}}
    metadata, text = parts(model_card(pipe, "org/lyon", {}))
    assert ("cells that were held out" in text) == held_out
    assert ("none were held out" in text) == (not held_out)
    (result,) = metadata["model-index"][0]["results"]
    assert result["dataset"]["name"] == ("lyon.npz, held out" if held_out else "lyon.npz, training data")


def test_a_data_set_on_the_hub_and_a_pipeline_to_start_from_are_named():
    pipe, config = tiny_pipeline(), SUMMARY["config"]
    data = {**config["data"], "dataset": "org/traffic"}
    model = {"pretrained_pipeline": "/home/planner/runs/first"}
    pipe.training_summary = {**SUMMARY, "config": {**config, "data": data, "model": model}}
    metadata, text = parts(model_card(pipe, "org/lyon", {}))
    assert metadata["datasets"] == ["org/traffic"]
    assert ["continued from", "`first`"] in table(text, "Training data")


def test_channels_levels_and_a_model_without_context():
    levels = [
        {"name": "town", "spatial_factor": 3, "temporal_factor": 6},
        {"name": "lot", "spatial_factor": 1, "temporal_factor": 1},
    ]
    factors = {"spatial_factors": [3, 1], "temporal_factors": [6, 1]}
    pipe = ZoomDiffPipeline(
        unet=tiny_unet([], channels=2, coarsest_unit=[6, 3], time_step=0.5, **factors),
        scheduler=DRDMScheduler(**factors),
        hierarchy=Hierarchy(levels, cell_size=250.0, time_step=0.5),
        traffic_processor=TrafficProcessor(["down", "up"], ["MB", ""], maximum=[12345.678, 2.0]),
        context_processor=ContextProcessor([]),
    )
    _, text = parts(model_card(pipe, "org/lots", {}))
    assert table(text, "Levels") == [["`town`", "750 m", "3 h"], ["`lot`", "250 m", "0.5 h"]]
    assert table(text, "Traffic channels") == [["`down`", "MB", "12,350"], ["`up`", "not stated", "2"]]
    assert "This model has none" in text and "multiples of\n3 cells" in text
    snippet = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    scope = {}
    exec(re.sub(r'ZoomDiffPipeline.from_pretrained\(".*?"\)', "PIPE", snippet), {"PIPE": pipe}, scope)
    assert scope["out"].levels["lot"].shape == (4, 2, 336, 6, 9)


def run_the_snippet(text, pipe):
    snippet = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1]
    scope = {}
    exec(re.sub(r'ZoomDiffPipeline.from_pretrained\(".*?"\)', "PIPE", snippet), {"PIPE": pipe}, scope)
    return snippet, scope["out"].levels


def test_levels_by_site_say_so_and_name_the_layers_that_they_need():
    pipe = zoned_pipeline()
    _, text = parts(model_card(pipe, "org/sites", {}, remote_code=True))
    rows = [["`bs`", "by site", "1 day"], ["`cell`", "by sector", "4 h"], ["`grid_2`", "100 m", "2 h"]]
    assert table(text, "Levels")[:3] == rows and "| level | unit | time step |" in text
    assert "The finest level sums up exactly to every other one" in text and "400 m" not in text
    assert "Any layer may be left out, but not `site`, `sector`, which the levels need: whole numbers from 0" in text
    assert table(text, "Context")[-2] == [
        "`site`", "zones (numbers of units)", "(H, W)", "the site that serves the cell"
    ]  # fmt: skip
    snippet, levels = run_the_snippet(text, pipe)
    assert '"sector": np.zeros((16, 24), dtype=int)' in snippet and "each but the zones may be left out" in snippet
    assert levels["bs"].shape == (4, 1, 7, 16, 24)


@pytest.mark.parametrize("layers", [["site", "sector"], ["site"]])
def test_a_simulated_city_has_sites_in_the_snippet_and_the_figure(layers, tmp_path):
    levels = [
        {"name": "bs", "spatial_factor": 4, "temporal_factor": 24, "zones": "site"},
        {"name": "grid", "spatial_factor": 1, "temporal_factor": 1},
    ]
    if "sector" in layers:
        levels.insert(1, {"name": "cell", "spatial_factor": 2, "temporal_factor": 4, "zones": "sector"})
    hierarchy = Hierarchy(levels)
    zones = [{"name": name, "kind": "zones"} for name in layers]
    processor = ContextProcessor(SIMULATED_LAYERS + zones).fit([simulate_context(16, 24, 0)])
    factors = {"spatial_factors": hierarchy.raster_factors, "temporal_factors": hierarchy.temporal_factors}
    pipe = ZoomDiffPipeline(
        unet=tiny_unet(processor.layer_specs, coarsest_unit=[24, 4], **factors),
        scheduler=DRDMScheduler(spatial_factors=hierarchy.spatial_factors, coarsest_prior=True,
                                temporal_factors=hierarchy.temporal_factors),
        hierarchy=hierarchy,
        traffic_processor=TrafficProcessor(unit="MB", maximum=[100.0]),
        context_processor=processor,
        regressor=tiny_regressor(processor.layer_specs),
    )  # fmt: skip
    _, text = parts(model_card(pipe, "org/city", {}))
    snippet, levels = run_the_snippet(text, pipe)
    assert f'context["{layers[-1]}"] = zones["{layers[-1]}"]' in snippet and levels["bs"].shape[-2:] == (8, 12)
    assert np.unique(levels["bs"][0, 0, 0]).size > 1  # several sites
    assert _draw(pipe, None, tmp_path / "zoom.png")
    assert imread(tmp_path / "zoom.png").std() > 0.05


def test_a_score_that_is_undefined_is_left_out():
    pipe = tiny_pipeline()
    summary = deepcopy(SUMMARY)
    summary["validations"][0]["scores"]["grid_50m"]["spread_skill"] = None
    pipe.training_summary = summary
    metadata, text = parts(model_card(pipe, "org/lyon", {}))
    (result,) = metadata["model-index"][0]["results"]
    assert "spread_skill" not in [metric["type"] for metric in result["metrics"]] and len(result["metrics"]) == 4
    assert "| `grid_50m` | 1,235 | 1,235 | 1,235 | 1,235 | – |" in text


def test_the_card_of_a_data_set_with_zones(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"traffic": np.full((24, 4, 6), 2.0).tolist(), "site": np.eye(4, 6, dtype=int).tolist(), "area": 3}] * 2
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    arguments = Arguments()
    arguments.data.layers = [{"name": "site", "kind": "zones"}]
    _, text = parts(dataset_card(dataset_facts(tmp_path, arguments), "org/measured", {}))
    assert "| `site` | context layer, zones (numbers of units) | (4, 6) | the site that serves the cell |" in text
    assert "| `area` | number of the place, the same for all its rows | one number | whole number |" in text


def test_the_card_of_measured_traffic_without_a_configuration(tmp_path):
    pytest.importorskip("zarr")
    from zoomdiff_diffusers.data.operator_data import TableFormat, build_dataset

    hours = [f"2026-03-{2 + hour // 24:02d} {hour % 24:02d}:00" for hour in range(168)]
    rows = [f"{unit},{hour},{unit}" for hour in hours for unit in (1, 2, 3, 4, 5, 6)]
    (tmp_path / "squares.csv").write_text("\n".join(["id,time,value", *rows]) + "\n")
    context = xr.Dataset(
        {
            "population": (("y", "x"), np.ones((2, 3), np.float32)),
            "surface": (("y", "x"), np.eye(2, 3, dtype=np.int8), {"flag_meanings": "grass water"}),
        },
        {"y": [25.0, 75.0], "x": [25.0, 75.0, 125.0]},
    )
    form = TableFormat(timezone="Europe/Rome")
    build_dataset(tmp_path / "squares.csv", tmp_path / "measured", form, grid_width=3, context=context)
    facts = dataset_facts(tmp_path / "measured/areas")
    assert [layer["name"] for layer in facts["layers"]] == ["population", "surface"]
    _, text = parts(dataset_card(facts, "org/measured", {}))
    assert "| `start` | first time step, local time | one text | date and time |" in text
    assert (
        "| `surface_names` | names of the classes or channels of `surface`, in their order | one text each |" in text
    )
    assert "`population_names`" not in text


# -------------------------------------------------------------------------------------------------- checks of folders


def test_a_complete_folder_passes_with_shards_and_variants(tmp_path):
    check_pipeline_folder(bundled_model("simulated-city"))
    pipe = tiny_pipeline(regression=True)
    pipe.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    check_pipeline_folder(tmp_path / "shards")
    pipe.save_pretrained(tmp_path / "variant", variant="fp16")
    check_pipeline_folder(tmp_path / "variant", "fp16")
    shards = sorted((tmp_path / "shards" / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    shards[0].unlink()
    with pytest.raises(ValueError, match=f"unet/ has no {re.escape(shards[0].name)}"):
        check_pipeline_folder(tmp_path / "shards")
    with pytest.raises(ValueError, match="has no diffusion_pytorch_model.safetensors"):
        check_pipeline_folder(tmp_path / "variant")


@pytest.mark.parametrize(
    "name, message",
    [
        ("model_index.json", "is no saved pipeline: it has no model_index.json"),
        ("hierarchy/hierarchy_config.json", "hierarchy/ has no configuration"),
        ("unet/diffusion_pytorch_model.safetensors", "unet/ has no diffusion_pytorch_model.safetensors"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path, name, message):
    tiny_pipeline().save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=message):
        check_pipeline_folder(tmp_path)


def test_pickles_are_refused(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.BIN").write_bytes(b"\x80")
    for check in (check_pipeline_folder, check_dataset_folder):
        with pytest.raises(ValueError, match="unet/diffusion_pytorch_model.BIN: such files can run code"):
            check(tmp_path)


def test_a_folder_of_neither_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="neither a saved pipeline .* nor Parquet files"):
        check_dataset_folder(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        check_dataset_folder(tmp_path / "no")


def test_a_token_is_found_in_any_text(tmp_path):
    (tmp_path / "README.md").write_text("hf_transfer is no token")
    refuse_tokens(tmp_path, "my-secret")
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text('{"note": "my-secret"}')
    with pytest.raises(ValueError, match=r"config\.json holds an access token"):
        refuse_tokens(tmp_path, "my-secret")


# ------------------------------------------------------------------------------------------------ the training summary


def test_the_summary_goes_with_the_weights_and_not_with_others(tmp_path):
    pipe = tiny_pipeline()
    assert pipe.training_summary is None
    pipe.training_summary = SUMMARY
    pipe.save_pretrained(tmp_path)
    assert ZoomDiffPipeline.from_pretrained(tmp_path).training_summary == SUMMARY
    loaded = ZoomDiffPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.training_summary == SUMMARY
    tiny_pipeline(gain=0.5).save_pretrained(tmp_path)  # other weights into the same folder
    assert not (tmp_path / "training_summary.json").exists()
