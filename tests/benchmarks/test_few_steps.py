# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The default sampler against the full chain: ratios over windows, their errors, and the bar."""

import numpy as np
import pytest
from support.places import write_places

from benchmarks.budgets import BUDGETS
from benchmarks.datasets import DATASETS, NamedDataset
from benchmarks.few_steps import bars, run_cell, tables, window_scores
from zoomdiff_diffusers.evaluation.streaming import StreamingScores


NAMES = ("crps", "variance", "squared_error")


def document(*folds, dataset="bonn", seed=0):
    results = {"folds": [{"levels": {"fine": fold}} for fold in folds]}
    return {"cell": {"dataset": dataset, "system": "ZoomDiff", "seed": seed}, "results": results}


def windows(crps=1.0, spread=1.0, scatter=0.0):
    """Scores of 50 windows of both samplers; `scatter` is that of the few steps' CRPS."""
    full = np.random.default_rng(0).gamma(9.0, 1 / 9, (3, 50))
    noise = scatter * np.random.default_rng(1).standard_normal(50)
    few = full * np.array([crps, spread**2, 1.0])[:, None] + np.stack([noise, 0 * noise, 0 * noise])
    return {
        sampler: dict(zip(NAMES, values.tolist())) for sampler, values in (("few steps", few), ("full chain", full))
    }


@pytest.mark.parametrize(
    "crps, spread, scatter, met",
    [
        (1.01, 1.0, 0.0, True),
        (0.9, 0.99, 0.0, True),
        (1.03, 1.0, 0.0, False),
        (1.0, 0.97, 0.0, False),
        (1.0, 1.03, 0.0, False),
        (1.0, 1.0, 0.5, None),
    ],
)
def test_few_steps_may_be_better_but_not_worse_and_must_keep_the_spread(crps, spread, scatter, met):
    (line,) = bars([document(windows(crps, spread, scatter))])
    assert line["bar"].startswith("bonn, fine: few steps within 2 % of the full chain")
    assert line["met"] is met
    if not scatter:
        assert line["found"].startswith(f"{crps:.3f} ± 0.000 and {spread:.3f} ± 0.000 of it; spread/skill ")


def test_the_error_of_a_ratio_is_that_of_independent_windows():
    """Where the full chain always scores 1, the ratio is the mean of the few steps' scores."""
    few = np.random.default_rng(0).normal(1.0, 0.3, 40)
    ones = [1.0] * 40
    folds = [
        {
            "few steps": dict(zip(NAMES, (few[part].tolist(), ones[part], ones[part]))),
            "full chain": dict.fromkeys(NAMES, ones[part]),
        }
        for part in (slice(0, 15), slice(15, 40))
    ]
    (line,) = bars([document(*folds)])
    assert line["found"].startswith(f"{few.mean():.3f} ± {few.std(ddof=1) / 40**0.5:.3f} and 1.000 ± 0.000")


def test_training_seeds_are_averaged_and_datasets_keep_the_order_of_the_tables():
    results = [
        document(windows(), dataset="beijing"),
        document(windows(crps=1.0), seed=0),
        document(windows(crps=1.5), seed=1),
    ]
    table = tables(results)
    assert "Training seeds, whose scores are averaged window by window: beijing 0; bonn 0, 1." in table
    first, second = table.splitlines()[-2:]
    assert first.startswith("| bonn, fine |") and "| 1.250 ± 0.000 |" in first
    assert second.startswith("| beijing, fine |") and "| 1.000 ± 0.000 | " in second


def test_scores_of_windows_are_those_of_the_evaluation():
    draw = np.random.default_rng(0)
    samples, truth = draw.gamma(2.0, 1.0, (6, 3, 2, 24, 3, 5)), draw.gamma(2.0, 1.0, (3, 2, 24, 3, 5))
    known = draw.random((3, 1, 24, 3, 5)) < 0.7
    scores = window_scores(samples, truth, known)
    for window in range(3):
        one = slice(window, window + 1)
        streaming = StreamingScores(1.0)
        streaming.update(samples[:, one], truth[one], np.broadcast_to(known[one], truth[one].shape))
        expected = streaming.compute()
        assert scores["crps"][window] == pytest.approx(expected["crps"])
        assert scores["squared_error"][window] == pytest.approx(expected["rmse_of_mean"] ** 2)
        spread = np.sqrt(7 / 6 * scores["variance"][window])
        assert spread / expected["rmse_of_mean"] == pytest.approx(expected["spread_skill"])


def test_both_samplers_of_one_system_are_scored_on_all_windows(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "places", NamedDataset("Places", tuple(write_places(tmp_path))))
    monkeypatch.setattr("benchmarks.main_tables.CACHE", tmp_path / "cache")
    cell = {"experiment": "few_steps", "dataset": "places", "system": "ZoomDiff", "seed": 0}
    (fold,) = run_cell(cell, BUDGETS["tiny"])["folds"]
    assert list(fold["levels"]) == ["area", "cell"]
    for level in fold["levels"].values():
        few, full = (np.array([level[sampler][name] for name in NAMES]) for sampler in ("few steps", "full chain"))
        assert few.shape == full.shape == (3, fold["test_windows"])
        assert np.isfinite(few).all() and np.isfinite(full).all() and not np.array_equal(few, full)
    assert (tmp_path / "cache/tiny/places/zoomdiff-0-0/training_summary.json").is_file()
