# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Whatever fills a row of the tables: one interface, honest budgets, reproducible samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.places import write_places

from benchmarks.baselines.base import Baseline
from benchmarks.baselines.corrdiff import CorrDiff
from benchmarks.baselines.csdi import CSDI
from benchmarks.baselines.transformer import Transformer
from benchmarks.budgets import BUDGETS
from benchmarks.datasets import load, simulate
from benchmarks.main_tables import forecast_errors, score
from benchmarks.systems import PerLevel, SimulatedLaw, ZoomDiffSystem, aggregated, level_shares, subset
from zoomdiff_diffusers.evaluation import cross_level_error


TINY = BUDGETS["tiny"]


class NoiseAroundTheMean(Baseline):
    """The mean of the training traffic with noise of its spread."""

    name = "noise"

    def fit(self, dataset, budget):
        self.mean, self.std, self.seconds = dataset.traffic.mean(), dataset.traffic.std(), budget.seconds
        return self

    def sample(self, context, num_samples, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return self.mean + self.std * torch.randn((num_samples, *context.shape), generator=generator)

    @property
    def num_parameters(self):
        return 2


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return load("places", write_places(tmp_path_factory.mktemp("places")), train_windows=8)


@pytest.fixture(scope="module")
def zoomdiff(places, tmp_path_factory):
    return ZoomDiffSystem(cache=tmp_path_factory.mktemp("cache") / "zoomdiff").fit(places, TINY)


def test_the_training_time_of_a_baseline_is_shared_over_its_levels(places):
    assert level_shares(1) == [1.0]
    assert sum(level_shares(4)) == pytest.approx(1.0)
    system = PerLevel(NoiseAroundTheMean).fit(places, replace(TINY, seconds=8.0))
    assert [model.seconds for model in system.models] == [4.0, 4.0]
    assert system.num_parameters == 4


@pytest.mark.parametrize("baseline, networks", [(CSDI, 1), (Transformer, 1), (CorrDiff, 2), (NoiseAroundTheMean, 0)])
def test_optimiser_steps_of_all_levels_and_networks_are_counted(baseline, networks, places):
    assert PerLevel(baseline).fit(places, TINY).steps == networks * 2 * TINY.max_steps


def test_every_level_has_its_own_model_and_its_own_noise(places):
    system = PerLevel(NoiseAroundTheMean).fit(places, TINY)
    levels = system.sample(places, num_samples=3, seed=5)
    assert [values.shape for values in levels.values()] == [(3, 2, 2, 2, 2, 3), (3, 2, 2, 48, 4, 6)]
    coarse, fine = levels.values()
    assert np.isfinite(fine).all() and fine.min() >= 0
    assert not np.allclose(coarse.ravel()[:5], fine.ravel()[:5])
    again = system.sample(places, num_samples=3, seed=5)
    np.testing.assert_array_equal(fine, again["cell"])
    assert not np.array_equal(fine, system.sample(places, num_samples=3, seed=6)["cell"])


def test_aggregated_truth_is_the_truth_whatever_the_hours_without_measurement_hold(places):
    mask = places.test["mask"]
    finest = places.test["traffic"].masked_fill(~mask[:, None], 1e6)
    levels = aggregated(finest.numpy()[None], places.hierarchy, mask)
    truth, _ = places.test_truth(0)
    np.testing.assert_allclose(levels["area"][0], truth, rtol=1e-5)


def test_zoomdiff_generates_all_held_out_windows_at_all_levels(places, zoomdiff):
    levels = zoomdiff.sample(places, num_samples=3)
    assert [values.shape for values in levels.values()] == [(3, 2, 2, 2, 2, 3), (3, 2, 2, 48, 4, 6)]
    assert max(cross_level_error(levels, places.hierarchy).values()) < 1e-5
    assert zoomdiff.steps == TINY.max_steps
    assert zoomdiff.num_parameters > 1000


def test_samples_of_zoomdiff_depend_on_the_seed_only(places, zoomdiff):
    first, again, other = (zoomdiff.sample(places, num_samples=2, seed=seed)["cell"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_window_gets_its_own_context_and_start(places, zoomdiff):
    """The windows start on a Saturday and a Monday, so that they go through the pipeline in two calls."""
    whole = zoomdiff.sample(places, num_samples=2)["cell"]
    first = zoomdiff.sample(subset(places, 1), num_samples=2)["cell"]
    np.testing.assert_allclose(whole[:, :1], first, rtol=1e-4, atol=1e-5)


def test_a_pipeline_in_the_cache_is_used_again_for_the_same_arguments_only(places, zoomdiff):
    summary = zoomdiff.cache / "training_summary.json"
    written = summary.stat().st_mtime_ns
    again = ZoomDiffSystem(cache=zoomdiff.cache).fit(places, TINY)
    assert summary.stat().st_mtime_ns == written
    np.testing.assert_array_equal(
        again.sample(places, num_samples=1)["cell"], zoomdiff.sample(places, num_samples=1)["cell"]
    )
    ZoomDiffSystem(["--learning_rate", "0.01"], cache=zoomdiff.cache).fit(places, TINY)
    assert summary.stat().st_mtime_ns > written
    assert [path.name for path in zoomdiff.cache.parent.iterdir()] == [zoomdiff.cache.name]


def test_the_full_chain_takes_every_step_of_the_trained_one(places, zoomdiff):
    full = zoomdiff.full_chain()
    steps = [4, 3]
    levels = full.sample(subset(places, 1), 1, num_inference_steps=steps)
    assert len(full.pipe.scheduler.timesteps) == sum(steps)
    assert full.pipe.scheduler.config.solver == "ddpm"
    assert zoomdiff.pipe.scheduler.config.solver != "ddpm"
    assert np.isfinite(levels["cell"]).all()


def test_the_simulated_law_with_the_seed_of_the_truth_is_the_truth():
    words = ["--config", "configs/tiny.yaml", "--crop_hours", "168", "--city_weeks", "2", "--city_width", "24"]
    data = load("simulated", words, train_windows=1)
    samples = SimulatedLaw().sample(data, num_samples=2, seed=1_000_000)
    for index, (area, _) in enumerate(data.test_places):
        for level, name in enumerate(data.hierarchy.names):
            truth, _ = data.test_truth(level)
            np.testing.assert_allclose(samples[name][area % 2, index], truth[index], rtol=1e-5)


def test_errors_of_forecasts_are_those_of_the_scores(places, zoomdiff):
    samples = zoomdiff.sample(places, num_samples=3)
    errors, scores = forecast_errors(samples, places), score(samples, places)
    for level in places.hierarchy.names:
        assert errors[level] == pytest.approx({which: scores[level][which] for which in errors[level]}, rel=1e-5)


def test_windows_are_scored_against_every_true_week():
    words = ["--config", "configs/tiny.yaml", "--crop_hours", "168", "--city_width", "24"]
    data = load("simulated", words, train_windows=1)
    weeks = replace(data, more_weeks=simulate(data, num_weeks=2, seed=7))
    alone = [replace(data, test={**data.test, "traffic": week}) for week in (data.test["traffic"], *weeks.more_weeks)]
    samples = SimulatedLaw().sample(data, num_samples=3)
    for level, name in enumerate(data.hierarchy.names):
        truths = [truth for truth, _ in weeks.test_truths(level)]
        assert len(truths) == 3 and not np.allclose(truths[0], truths[1]) and not np.allclose(truths[1], truths[2])
        crps = [score(samples, one)[name]["crps"] for one in alone]
        assert score(samples, weeks)[name]["crps"] == pytest.approx(np.mean(crps), rel=1e-5)
    part = subset(weeks, 1)
    np.testing.assert_array_equal(part.more_weeks[:, 0], weeks.more_weeks[:, 0])
    np.testing.assert_allclose(SimulatedLaw().sample(part, 3)["bs"], samples["bs"][:, :1], rtol=1e-6)
