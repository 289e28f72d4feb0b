# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The arithmetic of the benchmarks, on cases whose answer is known."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.held_out import climatology, cut_tiles, score_levels
from benchmarks.report import publish
from benchmarks.shandong import FOLDS, PLACES, fold_arguments, summarise
from benchmarks.simulated_city import ratios, score_against_many
from zoomdiff_diffusers import Hierarchy
from zoomdiff_diffusers.data.datasets import make_area
from zoomdiff_diffusers.training.arguments import parse_arguments


def area(weeks=2, height=18, width=8, valid=None, start_hour=0):
    traffic = np.random.default_rng(0).gamma(2.0, size=(168 * weeks, height, width))
    return make_area("test", traffic, {"population": np.ones((height, width))}, valid, start_hour)


def test_samples_of_the_law_itself_reach_the_floor_against_many_truths():
    random = np.random.default_rng(1)
    scores = score_against_many(random.normal(10, 1, (8, 3, 40_000)), random.normal(10, 1, (4, 3, 40_000)))
    assert scores["crps"] == pytest.approx(1 / math.sqrt(math.pi), rel=0.01)
    assert scores["spread_skill"] == pytest.approx(1.0, rel=0.01)
    assert scores["crps"] == pytest.approx(np.mean(scores["crps_per_city"]), rel=1e-12)


def test_ratios_pair_the_cities():
    same = {"squared_error_per_city": [1.0, 1.0], "log_variance_per_city": [2.0, 3.0]}
    few = {"bs": {"crps_per_city": [1.0, 1.2], "variance_per_city": [0.81, 0.81], **same}}
    full = {"bs": {"crps_per_city": [0.9, 1.1], "variance_per_city": [1.0, 1.0], **same}}
    (result,) = ratios(few, full).values()
    expected = {"crps": 1.1, "spread_skill": 0.9, "log_spread": 1.0}
    errors = {"crps": (1 / 0.9 - 1.2 / 1.1) / 2, "spread_skill": 0.0, "log_spread": 0.0}  # leaving either city out
    errors = {f"{name}_standard_error": error for name, error in errors.items()}
    assert result == pytest.approx({**expected, **errors}, abs=1e-12)


def test_tiles_are_whole_windows_without_overlap():
    data = SimpleNamespace(crop_hours=168, crop_height=8, crop_width=8)
    whole = area()
    tiles = cut_tiles([whole], data)
    assert len(tiles) == 2 * 2 * 1
    covered = sum(part.traffic[:, hours].sum(dtype=np.float64) for part, hours in tiles)
    assert covered == pytest.approx(whole.traffic[:, :, :16].sum(dtype=np.float64))


def test_climatology_is_the_mean_of_each_hour_of_the_week_over_measured_cells():
    valid = np.ones(336, dtype=bool)
    valid[170] = False
    training = area(valid=valid, start_hour=24)
    tiles = [(training, slice(168, 336))]
    (forecast,) = climatology([training], tiles)
    traffic = training.traffic[0]
    assert forecast[0, 0, 5, 3, 3] == pytest.approx(np.concatenate([traffic[5], traffic[173]]).mean(), rel=1e-6)
    assert forecast[0, 0, 2, 0, 0] == pytest.approx(traffic[2].mean(), rel=1e-6)  # the other week is not measured


def test_scores_of_the_truth_itself_are_zero_where_it_was_measured():
    valid = np.ones(336, dtype=bool)
    valid[4::24] = False
    held_out = area(valid=valid)
    tiles = cut_tiles([held_out], SimpleNamespace(crop_hours=168, crop_height=8, crop_width=8))
    truth = np.stack([part.traffic[:, hours] for part, hours in tiles])[None].copy()
    truth[:, :, :, 4::24] = 1e6  # whatever is said about hours without a measurement does not count
    scores = score_levels(truth, tiles, Hierarchy(), unit=2.0)
    assert list(scores) == Hierarchy().names
    assert max(score["mae"] for score in scores.values()) < 1e-6


def test_every_place_is_held_out_once():
    held_out = []
    for fold in range(FOLDS):
        data = parse_arguments(fold_arguments(fold)).data
        assert sorted(data.train_region["areas"] + data.validation_region["areas"]) == list(range(PLACES))
        held_out += data.validation_region["areas"]
    assert sorted(held_out) == list(range(PLACES))


def test_folds_are_summarised_by_mean_and_standard_deviation():
    folds = [{"tiles": 7, "zoomdiff": {"area": {"crps": value}}} for value in (1.0, 2.0, 3.0)]
    assert summarise(folds) == {"zoomdiff": {"area": {"crps": {"mean": 2.0, "std": 1.0}}}}


def test_a_report_is_json_and_says_how_it_came_about(tmp_path, capsys):
    arguments = SimpleNamespace(output=tmp_path / "figures.json", seed=3)
    publish({"seconds": [1.23456789]}, arguments)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(arguments.output.read_text(encoding="utf-8"))
    assert printed["results"] == {"seconds": [1.2346]}
    assert printed["arguments"]["seed"] == 3
    assert {"torch", "threads", "processor", "commit"} <= set(printed["circumstances"])
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
