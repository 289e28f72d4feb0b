# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from support.traffic_files import HOURS, area_types, finest_traffic, pyramid

from zoomdiff_diffusers.evaluation.aoi_types import (
    decompose,
    decomposition_by_type,
    rv_by_type,
    share_of_type,
    types_by_traffic,
)
from zoomdiff_diffusers.evaluation.similarity import rv_coefficient
from zoomdiff_diffusers.hierarchy import Hierarchy


def test_shares_count_cells():
    shares = share_of_type(area_types(), 1, 8)
    np.testing.assert_array_equal(shares, [[0.0, 0.25, 1.0], [0.0, 0.25, 1.0]])


def test_types_come_with_the_most_traffic_first():
    truth = np.ones((3, 4, 6))
    truth[:, :2] *= 5.0
    truth[1] = np.nan
    types = np.full((8, 12), 7)
    types[:4] = 2
    types[0, 0] = 4
    assert types_by_traffic(truth, types) == [2, 7, 4]


@pytest.mark.parametrize("weeks", [1, 4])
def test_trend_and_season_are_recovered(weeks):
    hours = np.arange(168 * weeks)
    day, week = 3.0 * np.sin(2 * np.pi * hours / 24), np.cos(2 * np.pi * hours / 168) * (weeks > 1)
    slope = 10.0 + hours / 100
    noise = np.random.default_rng(0).normal(0.0, 0.1, len(hours))
    trend, season = decompose(slope + day + week + noise, 1.0)
    np.testing.assert_allclose(trend, slope, atol=0.2)
    np.testing.assert_allclose(season, day + week, atol=0.4)
    assert np.abs(season - day - week).mean() < 0.1


@pytest.mark.parametrize(("steps", "hours"), [(47, 1.0), (48, 1.0), (100, 5.0), (14, 24.0)])
def test_short_or_uneven_days_have_no_season(steps, hours):
    with pytest.raises(ValueError, match=f"has {steps} steps of {hours} h"):
        decompose(np.ones(steps), hours)


def test_every_type_peaks_at_its_own_hour():
    finest = finest_traffic(4, seed=3)[:, 0]
    result = decomposition_by_type(finest[1:], finest[0], Hierarchy(), area_types(), [0, 1])
    assert list(result) == [0, 1] and list(result[0]) == ["400 m", "200 m", "100 m", "50 m"]
    for value, peak in ((0, 18), (1, 12)):
        for source in ("truth", "generated"):
            season = np.array(result[value]["50 m"][source]["season"])
            assert season.reshape(-1, 24).mean(axis=0).argmax() == pytest.approx(peak, abs=1)
            # Near the border a base station serves both types: its rhythm is flatter.
            assert np.std(result[value]["400 m"][source]["season"]) < np.std(season)
        assert result[value]["50 m"]["trend_error"] < 0.05 and result[value]["50 m"]["season_error"] < 0.1


def test_a_perfect_ensemble_has_no_error_and_a_gap_leaves_a_series_out():
    truth = finest_traffic(1)[0, 0].astype(np.float64)
    same = decomposition_by_type(np.stack([truth, truth]), truth, Hierarchy(), area_types(), [0])[0]
    assert same["200 m"]["trend_error"] == same["200 m"]["season_error"] == 0.0
    gap = truth.copy()
    gap[10, :, 14:] = np.nan  # all cells of type 1, and with them every unit that has a share of it
    assert list(decomposition_by_type(truth[None], gap, Hierarchy(), area_types(), [0, 1])) == [0]
    assert decomposition_by_type(truth[None, :24], truth[:24], Hierarchy(), area_types(), [0, 1]) == {}


def test_rv_of_a_type_that_fills_its_units_is_that_of_these_units():
    types = np.zeros((16, 24), dtype=int)
    types[:, 8:] = 1
    generated, truth = pyramid(finest_traffic(2, seed=1)[:, 0]), pyramid(finest_traffic(1)[0, 0])
    hierarchy = Hierarchy()
    result = rv_by_type(generated, truth, hierarchy, types, [0, 1])
    assert list(result) == [None, 0, 1]
    cells, grid = truth["cell"][:, :, 2:].reshape(18, -1), truth["grid_50m"][:, :, 8:].reshape(18, 4, -1).mean(axis=1)
    assert result[1]["truth"][1][3] == pytest.approx(rv_coefficient(cells, grid), rel=1e-9)
    members = [
        rv_coefficient(generated["cell"][n].reshape(18, -1), generated["grid_100m"][n].reshape(18, 2, -1).mean(axis=1))
        for n in range(2)
    ]
    assert result[None]["generated"][1][2] == pytest.approx(np.mean(members), rel=1e-9)
    assert np.diagonal(result[0]["truth"]) == pytest.approx(1.0)


def test_rv_leaves_out_units_with_a_gap():
    finest = finest_traffic(1)[0, 0].astype(np.float64)
    broken = finest.copy()
    broken[:, :8, :8] = 1e6
    broken[HOURS // 2, 0, 0] = np.nan
    truth, with_gap = pyramid(finest), pyramid(broken)
    with_gap["grid_50m"][:, :8, :8] = np.nan
    with_gap["grid_100m"][:, :4, :4] = np.nan
    with_gap["cell"][:, :2, :2] = np.nan
    types = np.ones((16, 24), dtype=int)
    types[:8, :8] = 0
    generated = {name: field[None] for name, field in truth.items()}
    result = rv_by_type(generated, with_gap, Hierarchy(), types, [0, 1])
    assert list(result) == [None, 1]  # nothing of type 0 is known
    np.testing.assert_allclose(result[1]["truth"], result[1]["generated"], rtol=1e-9)
