# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Refining the truth of a coarse level to the finest one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.places import write_places

from benchmarks.baselines.boosted_trees import BoostedTrees
from benchmarks.baselines.climatology import HourlyClimatology
from benchmarks.baselines.corrdiff import CorrDiff
from benchmarks.budgets import BUDGETS
from benchmarks.datasets import load
from benchmarks.refiners import ConditionedRefiner, Interpolation, ProportionalToPopulation
from benchmarks.systems import PerLevel


TINY = replace(BUDGETS["tiny"], max_steps=50)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return load("places", write_places(tmp_path_factory.mktemp("places")), train_windows=12)


def with_test_traffic(data, traffic):
    return replace(data, test={**data.test, "traffic": traffic})


def test_interpolation_reproduces_planes_between_the_centres(places):
    steps, rows, columns = (torch.arange(size) + 0.5 for size in (48, 4, 6))
    plane = 7 + 0.1 * steps[:, None, None] + 2 * rows[:, None] + 0.5 * columns
    data = with_test_traffic(places, plane.expand(2, 2, -1, -1, -1).clone())
    data.test.pop("mask")
    (fine,) = Interpolation().fit(data, TINY).sample(data, 3).values()
    assert fine.shape == (1, 2, 2, 48, 4, 6)
    # Coarse units are 24 hours by 2 by 2 cells: their centres are 12 hours and one cell from the edge.
    inner = np.s_[..., 12:36, 1:3, 1:5]
    np.testing.assert_allclose(fine[0][inner], data.test["traffic"].numpy()[inner], rtol=1e-5)
    np.testing.assert_allclose(fine[0, ..., 0, 0, 0], fine[0, ..., 11, 0, 0], rtol=1e-6)


def test_shares_follow_people_and_hours_and_keep_sums(places):
    system = ProportionalToPopulation().fit(places, TINY)
    (fine,) = system.sample(places, 1).values()
    truth, _ = places.test_truth(0)
    np.testing.assert_allclose(places.hierarchy.aggregate(fine[0], 0), truth, rtol=1e-5)
    people = places.test_areas[1].context["population"]
    np.testing.assert_allclose(
        fine[0, 1, 0, :, 0, 0] / fine[0, 1, 0, :, 1, 1], people[0, 0] / people[1, 1] * np.ones(48), rtol=1e-4
    )
    profile = HourlyClimatology(places.traffic_processor).fit(places.train_windows(1), TINY.training(1.0))
    hourly = places.decode(profile.sample(places.test_context(1), 1))[0, 1, :, :, 0, 0]
    day = fine[0, 1, :, :24, 3, 5]
    np.testing.assert_allclose(
        day / day.mean(axis=1, keepdims=True), (hourly / hourly[:, :24].mean(1)[:, None])[:, :24], rtol=1e-4
    )


def test_the_layer_with_people_must_exist(places):
    system = ProportionalToPopulation(layer="inhabitants").fit(places, TINY)
    with pytest.raises(ValueError, match="'inhabitants'.*"):
        system.sample(places, 1)


@pytest.mark.parametrize("baseline", [BoostedTrees, CorrDiff])
def test_any_baseline_refines(places, baseline):
    system = ConditionedRefiner(baseline, source="area").fit(places, replace(TINY, max_steps=2))
    (samples,) = system.sample(places, 3, seed=1).values()
    assert samples.shape == (3 if system.has_distribution else 1, 2, 2, 48, 4, 6)
    assert samples.dtype == np.float32 and (samples >= 0).all()
    assert system.num_parameters > 0 and system.training_seconds > 0


def test_trees_use_the_coarse_value(places):
    truth, known = places.test_truth(-1)
    known = np.broadcast_to(known, truth.shape)
    blind = PerLevel(BoostedTrees).fit(places, TINY).sample(places, 1)["cell"][0]
    (seeing,) = ConditionedRefiner(BoostedTrees).fit(places, TINY).sample(places, 1).values()
    double = with_test_traffic(places, 2 * places.test["traffic"])
    (doubled,) = ConditionedRefiner(BoostedTrees).fit(places, TINY).sample(double, 1).values()
    assert np.abs(seeing[0] - truth)[known].mean() < 0.95 * np.abs(blind - truth)[known].mean()
    assert doubled.mean() > 1.05 * seeing.mean()  # not 2: trees do not extrapolate
