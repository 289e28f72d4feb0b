# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import math

import numpy as np
import pytest
import scoringrules

from zoomdiff_diffusers.evaluation import (
    cross_level_error,
    ensemble_scores,
    fair_crps,
    mae_of_mean,
    mae_of_sample,
    metrics,
    rmse_of_mean,
    spread_skill,
)
from zoomdiff_diffusers.hierarchy import Hierarchy


SHAPE = (5, 3, 7)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.mark.parametrize("members", [2, 3, 16])
def test_crps_equals_the_definition_summed_over_all_pairs(rng, members):
    samples, truth = rng.gamma(0.5, size=(members, *SHAPE)), rng.gamma(0.5, size=SHAPE)
    pairs = np.abs(samples[:, None] - samples[None]).sum(axis=(0, 1)) / (2 * members * (members - 1))
    expected = np.abs(samples - truth).mean(axis=0) - pairs
    np.testing.assert_allclose(fair_crps(samples, truth), expected, atol=1e-13)
    library = scoringrules.crps_ensemble(truth, samples, m_axis=0, estimator="fair", backend="numpy")
    np.testing.assert_allclose(fair_crps(samples, truth), library, atol=1e-13)


@pytest.mark.parametrize("members", [2, 5, 40])
def test_crps_of_a_gaussian_ensemble_is_the_closed_form_for_any_number_of_members(rng, members):
    # CRPS(N(0, 1), y) = y (2 Phi(y) - 1) + 2 phi(y) - 1 / sqrt(pi)
    truth = 0.7
    phi = math.exp(-(truth**2) / 2) / math.sqrt(2 * math.pi)
    expected = truth * math.erf(truth / math.sqrt(2)) + 2 * phi - 1 / math.sqrt(math.pi)
    scores = fair_crps(rng.normal(size=(members, 200_000)), np.full(200_000, truth))
    assert scores.mean() == pytest.approx(expected, abs=4 * scores.std() / math.sqrt(scores.size))


def test_a_calibrated_gaussian_ensemble_reaches_the_known_scores(rng):
    # For truth and n members drawn from N(0, s): CRPS = s / sqrt(pi); |mean - y| is half normal with s sqrt(1 + 1/n).
    std, members = 2.5, 8
    scores = ensemble_scores(rng.normal(0, std, (members, 300_000)), rng.normal(0, std, 300_000))
    spread_of_error = std * math.sqrt(1 + 1 / members)
    assert scores["crps"] == pytest.approx(std / math.sqrt(math.pi), rel=0.01)
    assert scores["mae_of_mean"] == pytest.approx(spread_of_error * math.sqrt(2 / math.pi), rel=0.01)
    assert scores["mae_of_sample"] == pytest.approx(2 * std / math.sqrt(math.pi), rel=0.01)
    assert scores["rmse_of_mean"] == pytest.approx(spread_of_error, rel=0.01)
    assert scores["spread_skill"] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_spread_skill_tells_overconfidence_from_too_much_spread(rng, factor):
    members = 10
    ratio = spread_skill(factor * rng.normal(size=(members, 200_000)), rng.normal(size=200_000))
    expected = math.sqrt((1 + 1 / members) * factor**2 / (1 + factor**2 / members))
    assert ratio == pytest.approx(expected, rel=0.01)


def test_the_spread_over_an_error_of_nothing_but_rounding_is_undefined(rng):
    truth = rng.gamma(0.5, size=SHAPE)
    mask = rng.random(SHAPE) < 0.6
    spoilt = np.where(mask, truth, np.nan)
    for samples in (
        np.stack([truth] * 3),
        np.stack([truth] * 3).astype(np.float32),
        truth + np.array([-1, 0, 1.0])[:, None, None, None],
    ):
        assert spread_skill(samples, truth) is None and spread_skill(samples, spoilt, mask) is None
    assert ensemble_scores(np.zeros((3, *SHAPE)), np.zeros(SHAPE))["spread_skill"] is None
    assert ensemble_scores(np.stack([truth] * 3), truth)["crps"] == 0.0


def test_the_mask_leaves_out_what_is_unknown(rng):
    samples, truth = rng.normal(size=(4, *SHAPE)), rng.normal(size=SHAPE)
    mask = rng.random(SHAPE) < 0.6
    spoilt = np.where(mask, truth, 1e9)
    masked = ensemble_scores(samples, spoilt, mask)
    assert masked == pytest.approx(ensemble_scores(samples[:, mask], truth[mask]))


def test_a_mask_over_time_is_broadcast(rng):
    samples, truth = rng.normal(size=(4, *SHAPE)), rng.normal(size=SHAPE)
    mask = np.array([True, False, True, True, False])[:, None, None]
    kept = mask[:, 0, 0]
    assert mae_of_mean(samples, truth, mask) == pytest.approx(mae_of_mean(samples[:, kept], truth[kept]))


def test_scoring_in_chunks_changes_nothing(rng, monkeypatch):
    samples, truth = rng.normal(size=(6, *SHAPE)), rng.normal(size=SHAPE)
    whole = fair_crps(samples, truth)
    monkeypatch.setattr(metrics, "_CHUNK", 11)
    np.testing.assert_allclose(fair_crps(samples, truth), whole, rtol=1e-12)


def test_a_perfect_forecast_scores_zero(rng):
    truth = rng.normal(size=SHAPE)
    samples = np.repeat(truth[None], 3, axis=0)
    assert np.abs(fair_crps(samples, truth)).max() < 1e-15
    assert mae_of_mean(samples, truth) == pytest.approx(0.0, abs=1e-15)
    assert mae_of_sample(samples, truth) == 0.0
    assert rmse_of_mean(samples, truth) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("score", [fair_crps, mae_of_mean, mae_of_sample, rmse_of_mean, spread_skill])
def test_shapes_that_do_not_match_are_refused(score):
    with pytest.raises(ValueError, match=r"\(4, 3, 5\).*\(5, 3\)"):
        score(np.zeros((4, 3, 5)), np.zeros((5, 3)))


@pytest.mark.parametrize("score", [fair_crps, spread_skill])
def test_one_member_has_no_spread_to_score(score):
    with pytest.raises(ValueError, match="at least 2"):
        score(np.zeros((1, 3)), np.zeros(3))


def test_a_mask_without_a_single_point_is_refused():
    with pytest.raises(ValueError, match="nothing to score"):
        mae_of_mean(np.zeros((2, 3)), np.zeros(3), np.zeros(3, dtype=bool))


@pytest.mark.parametrize("units", ["mean", "sum"])
def test_cross_level_error_is_zero_for_a_pyramid_and_finds_one_changed_cell(rng, units):
    hierarchy = Hierarchy()
    finest = rng.gamma(0.5, size=(2, 1, 48, 16, 24))
    finest[..., :8, :8] = 0.0
    levels = {
        name: hierarchy.aggregate(finest, target, reduction=units) for target, name in enumerate(hierarchy.names)
    }
    errors = cross_level_error(levels, hierarchy, units=units)
    assert list(errors) == list(hierarchy.names)[1:]
    assert max(errors.values()) < 1e-12

    last, above = hierarchy.names[-1], hierarchy.names[-2]
    levels[last] = levels[last].copy()
    levels[last][1, 0, 9, 13, 3] += 0.5
    change = 0.5 / (1 if units == "sum" else 2 * 2 * 2)
    expected = change / levels[above][1, 0, 4, 6, 1]
    assert cross_level_error(levels, hierarchy, units=units)[last] == pytest.approx(expected, rel=1e-9)
    assert cross_level_error(levels, hierarchy, units=units)[above] < 1e-12


def test_cross_level_error_sees_traffic_under_a_silent_parent():
    hierarchy = Hierarchy()
    levels = {
        "bs": np.zeros((1, 1, 1, 1, 1)),
        "cell": np.full((1, 1, 6, 2, 2), 1e-3),
    }
    assert cross_level_error(levels, hierarchy)["cell"] > 1.0
