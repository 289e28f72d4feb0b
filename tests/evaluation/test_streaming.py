# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json
import math

import numpy as np
import pytest
import scoringrules
from scipy.stats import chisquare, wasserstein_distance
from skimage.metrics import peak_signal_noise_ratio
from statsmodels.tsa.stattools import acf

from zoomdiff_diffusers.evaluation import StreamingScores, ensemble_scores, streaming
from zoomdiff_diffusers.evaluation.streaming import autocorrelation, daily_profile, spatial_correlation


MEMBERS, SHAPE = 4, (5, 2, 14, 3, 7)  # (B, C, T, H, W)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def windows(rng):
    samples, truth = rng.gamma(0.5, size=(MEMBERS, *SHAPE)), rng.gamma(0.5, size=SHAPE)
    samples[rng.random(samples.shape) < 0.1] = 0.0
    truth[rng.random(truth.shape) < 0.1] = 0.0
    return samples, truth


def scores_of(samples, truth, mask=None, time_step_hours=1.0, unit=1.0):
    scores = StreamingScores(time_step_hours, unit)
    scores.update(samples, truth, mask)
    return scores.compute()


def close(scores, expected, leave_out=()):
    """Nested dicts of numbers agree up to rounding."""
    assert scores.keys() == expected.keys()
    for key in scores.keys() - set(leave_out):
        assert scores[key] == pytest.approx(expected[key], rel=1e-9, abs=1e-12), key


def test_any_split_into_calls_and_chunks_gives_the_same_scores(windows, rng, monkeypatch):
    samples, truth = windows
    mask = rng.random((SHAPE[0], *SHAPE[2:])) < 0.8
    whole = scores_of(samples, truth, mask)
    monkeypatch.setattr(streaming, "_CHUNK", 1)
    parts = StreamingScores(1.0)
    for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
        parts.update(samples[:, part], truth[part], mask[part])
    close(parts.compute(), whole, leave_out=["rank_histogram"])  # ties fall at random
    assert sum(parts.compute()["rank_histogram"]) == pytest.approx(1.0)


def test_point_scores_are_those_of_the_plain_functions(windows):
    samples, truth = windows
    scores = scores_of(samples, truth)
    for key, value in ensemble_scores(samples, truth).items():
        assert scores[key] == pytest.approx(value), key
    library = scoringrules.crps_ensemble(truth, samples, m_axis=0, estimator="fair", backend="numpy")
    assert scores["crps"] == pytest.approx(library.mean())
    assert scores["rmse_of_sample"] == pytest.approx(np.sqrt(((samples - truth) ** 2).mean()))
    assert scores["count"] == truth.size


@pytest.mark.parametrize("error", [0.0, 6e-8])  # none, and that of single precision
@pytest.mark.parametrize("members", [2, 3, 7])
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_what_is_nothing_but_rounding_counts_as_exact(rng, members, error, unit):
    truth = unit * rng.gamma(0.5, size=SHAPE)
    given = np.repeat(truth[None] * (1 + error * rng.uniform(-1, 1, size=SHAPE)), members, axis=0)
    scores = scores_of(given, truth)
    assert scores["crps"] == scores["rmse_of_mean"] == scores["rmse_of_sample"] == 0.0
    assert math.copysign(1, scores["crps"]) == 1
    assert scores["spread_skill"] is scores["psnr_of_mean"] is scores["psnr_of_sample"] is None
    plain = ensemble_scores(given, truth)
    assert plain["crps"] == 0.0 and plain["spread_skill"] is None
    wide = given * (1 + 1e-3 * np.linspace(-1, 1, members)).reshape(-1, *[1] * truth.ndim)  # about the exact mean
    assert scores_of(wide, truth)["spread_skill"] is ensemble_scores(wide, truth)["spread_skill"] is None
    assert scores_of(wide, truth)["rmse_of_sample"] > 0
    assert scores_of(given * (1 + 1e-5), truth)["spread_skill"] == pytest.approx(0.0, abs=1e-9)


def test_the_median_of_a_skewed_law_has_the_smaller_absolute_error(rng):
    width, members = 0.8, 64
    samples, truth = (
        rng.lognormal(0.0, width, (members, 4, 1, 168, 5, 7)),
        rng.lognormal(0.0, width, (4, 1, 168, 5, 7)),
    )
    scores = scores_of(samples, truth)
    # E|Y - median| and E|Y - mean| of a log-normal law
    mean = math.exp(width**2 / 2)
    assert scores["mae_of_median"] == pytest.approx(mean * math.erf(width / math.sqrt(2)), rel=0.03)
    assert scores["mae_of_mean"] == pytest.approx(2 * mean * math.erf(width / 2 / math.sqrt(2)), rel=0.03)
    assert scores["mae_of_median"] < scores["mae_of_mean"]


def test_psnr_is_that_of_scikit_image(windows):
    samples, truth = windows
    scores = scores_of(samples[:1], truth)
    expected = peak_signal_noise_ratio(truth, samples[0], data_range=truth.max())
    assert scores["psnr_of_sample"] == pytest.approx(expected)
    assert scores["psnr_of_mean"] == pytest.approx(expected)


def test_sprmse_sees_the_offset_of_a_place_and_not_what_averages_out(rng):
    truth = rng.gamma(0.5, size=SHAPE)
    offset = rng.normal(size=(SHAPE[0], SHAPE[1], 1, *SHAPE[3:]))
    ripple = np.where(np.arange(SHAPE[2]) % 2, 1.0, -1.0)[:, None, None]
    scores = scores_of(truth + offset + np.array([5.0, 7.0, -2.0]).reshape(3, 1, 1, 1, 1, 1) * ripple, truth)
    assert scores["sprmse_of_mean"] == pytest.approx(np.sqrt((offset**2).mean()))
    assert scores["sprmse_of_sample"] == pytest.approx(np.sqrt((offset**2).mean()))
    opposite = scores_of(truth + offset * np.array([1.0, -1.0]).reshape(2, 1, 1, 1, 1, 1), truth)
    assert opposite["sprmse_of_mean"] == pytest.approx(0.0, abs=1e-12)
    assert opposite["sprmse_of_sample"] == pytest.approx(np.sqrt((offset**2).mean()))


def test_energy_score_is_that_of_scoringrules_for_whole_windows(windows):
    samples, truth = windows
    flat_samples, flat_truth = samples.reshape(MEMBERS, SHAPE[0], -1), truth.reshape(SHAPE[0], -1)
    library = scoringrules.es_ensemble(flat_truth, np.swapaxes(flat_samples, 0, 1), estimator="nrg", backend="numpy")
    # Its estimator has the mean over all n * n pairs, ours over those of distinct members.
    distances = np.linalg.norm(flat_samples - flat_truth, axis=-1).mean(axis=0)
    fair = distances - (distances - library) * MEMBERS / (MEMBERS - 1)
    expected = fair.mean() / math.sqrt(flat_truth.shape[1])
    assert scores_of(samples, truth)["energy_score"] == pytest.approx(expected)


def test_energy_score_of_single_values_is_the_crps(rng):
    samples, truth = rng.normal(size=(6, 50, 1, 1, 1, 1)), rng.normal(size=(50, 1, 1, 1, 1))
    scores = scores_of(samples, truth)
    assert scores["energy_score"] == pytest.approx(scores["crps"])


def test_the_rank_histogram_is_flat_when_calibrated_and_hollow_when_overconfident(rng):
    truth = rng.normal(size=(20, 1, 1000, 1, 1))
    samples = rng.normal(size=(3, *truth.shape))
    calibrated = np.array(scores_of(samples, truth)["rank_histogram"])
    assert chisquare(calibrated * truth.size).pvalue > 0.001
    low, *middle, high = scores_of(0.3 * samples, truth)["rank_histogram"]
    assert min(low, high) > 2 * max(middle)


def test_ties_are_spread_evenly_over_the_ranks():
    zeros = np.zeros((20, 1, 1000, 1, 1))
    ranks = np.array(scores_of(np.zeros((4, *zeros.shape)), zeros)["rank_histogram"])
    assert len(ranks) == 5
    assert chisquare(ranks * zeros.size).pvalue > 0.001


def test_wasserstein_is_that_of_scipy_on_all_values(windows):
    samples, truth = windows
    samples = 1.3 * samples - 0.2
    scores = scores_of(samples, truth)
    values = [wasserstein_distance(samples[:, :, c].ravel(), truth[:, c].ravel()) for c in range(SHAPE[1])]
    assert scores["wasserstein"] == pytest.approx(np.mean(values), rel=5e-3)
    differences = [
        wasserstein_distance(np.diff(samples[:, :, c], axis=2).ravel(), np.diff(truth[:, c], axis=1).ravel())
        for c in range(SHAPE[1])
    ]
    assert scores["wasserstein_differences"] == pytest.approx(np.mean(differences), rel=5e-3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_marginals_of_a_shifted_law(rng, scale):
    truth = scale * rng.gamma(2.0, size=(40, 1, 24, 3, 5))
    scores = scores_of(truth[None] + 20 * scale, truth)
    assert scores["wasserstein"] == pytest.approx(20 * scale, rel=1e-3)
    assert scores["wasserstein_differences"] == pytest.approx(0.0, abs=1e-3 * scale)
    assert scores["jsd"] == pytest.approx(1.0)  # nothing in common
    assert scores["jsd_differences"] == pytest.approx(0.0, abs=1e-3)


def test_divergence_of_two_atoms_is_the_closed_form():
    # P = (1, 0), Q = (1/4, 3/4), M = (5/8, 3/8): JSD = (KL(P|M) + KL(Q|M)) / 2
    truth = np.ones((8, 1, 1, 1, 1))
    samples = np.where(np.arange(8) < 2, 1.0, 9.0).reshape(1, 8, 1, 1, 1, 1)
    expected = (math.log2(8 / 5) + 0.25 * math.log2(0.25 / 0.625) + 0.75 * math.log2(0.75 / 0.375)) / 2
    assert scores_of(samples, truth)["jsd"] == pytest.approx(expected)


def test_the_same_law_has_little_divergence_and_another_scale_much(rng):
    truth = rng.gamma(2.0, size=(50, 1, 24, 2, 3))
    same, wider = rng.gamma(2.0, size=(2, *truth.shape)), 1.5 * rng.gamma(2.0, size=(2, *truth.shape))
    assert scores_of(same, truth)["jsd"] < 0.005
    assert scores_of(wider, truth)["jsd"] > 0.05


@pytest.mark.parametrize("missing", [False, True])
def test_autocorrelation_is_that_of_statsmodels(rng, missing):
    values = rng.normal(size=(2, 30, 3, 2)).cumsum(axis=1)
    known = rng.random(values.shape) < 0.8 if missing else np.ones(values.shape, dtype=bool)
    found = autocorrelation(values, known, range(1, 6))
    series = np.where(known, values, np.nan)
    for place in np.ndindex(2, 3, 2):
        one = series[place[0], :, place[1], place[2]]
        expected = acf(one, nlags=5, fft=False, missing="conservative" if missing else "none")[1:]
        np.testing.assert_allclose(found[(slice(None), *place)], expected, atol=1e-12)


def test_autocorrelation_error_of_an_autoregression_taken_for_noise(rng):
    # The autocorrelation of an AR(1) process is phi ** lag, that of white noise is 0.
    phi, steps = 0.8, 4000
    noise = rng.normal(size=(steps, 20))
    series = np.zeros_like(noise)
    for step in range(1, steps):
        series[step] = phi * series[step - 1] + noise[step]
    truth = series.reshape(1, 1, steps, 4, 5)
    expected = np.mean(phi ** np.arange(1, 5))  # 48 h are four steps
    scores = scores_of(rng.normal(size=(2, *truth.shape)), truth, time_step_hours=12.0)
    assert scores["autocorrelation_error"] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("missing", [False, True])
def test_spatial_correlation_is_morans_i_with_its_weight_matrix(rng, distance, missing):
    values = rng.normal(size=(4, 5))
    known = rng.random((4, 5)) < 0.8 if missing else np.ones((4, 5), dtype=bool)
    places = np.argwhere(known)
    apart = np.abs(places[:, None] - places[None])
    weights = ((apart.sum(axis=2) == distance) & (apart.min(axis=2) == 0)).astype(float)
    deviations = values[known] - values[known].mean()
    expected = len(places) / weights.sum() * deviations @ weights @ deviations / (deviations**2).sum()
    assert spatial_correlation(values, known, [distance])[0] == pytest.approx(expected)


def test_constant_series_and_maps_have_no_correlation(rng):
    known = np.ones((6, 3, 2), dtype=bool)
    assert np.isnan(autocorrelation(np.full((6, 3, 2), 0.1), known, [1, 9])).all()
    assert np.isnan(spatial_correlation(np.full((6, 3, 2), 0.1), known, [1, 9])).all()


def test_a_mean_day_of_days_with_gaps():
    values = np.array([1.0, 2.0, 3.0, 5.0, 99.0, 7.0, 8.0]).reshape(7, 1, 1)
    known = (values != 99.0) & (values != 2.0)
    np.testing.assert_allclose(daily_profile(values, known, 3).ravel(), [14 / 3, np.nan, 5.0])


@pytest.mark.parametrize(
    ("time_step", "moved", "expected"), [(1.0, 3, 3.0), (1.0, 22, 2.0), (2.0, 1, 2.0), (4.0, 5, 4.0)]
)
def test_peak_hours_are_compared_around_the_clock(time_step, moved, expected):
    steps = round(24 / time_step)
    day = np.exp(np.cos(2 * np.pi * np.arange(steps) / steps))
    truth = np.tile(day, 3)[: 3 * steps - 1].reshape(1, 1, -1, 1, 1) * np.array([1.0, 2.0])
    samples = np.roll(np.tile(day, 4), moved)[: 3 * steps - 1].reshape(1, 1, 1, -1, 1, 1) * np.array([3.0, 1.0])
    assert scores_of(samples, truth, time_step_hours=time_step)["peak_hour_error"] == pytest.approx(expected)


def test_peak_value_error_is_relative_to_the_peaks(rng):
    truth = rng.gamma(1.0, size=SHAPE)
    samples = np.stack([1.2 * truth, 0.7 * truth])
    assert scores_of(samples, truth)["peak_value_error"] == pytest.approx((0.2 + 0.3) / 2)


def test_nothing_of_what_is_unknown_is_looked_at(windows, rng):
    samples, truth = windows
    mask = rng.random((SHAPE[0], *SHAPE[2:])) < 0.7
    mask[2] = False
    mask[:, :, 1, 4] = False
    expected = scores_of(samples, truth, mask)
    unknown = np.broadcast_to(~mask[:, None], SHAPE)
    spoilt_samples, spoilt_truth = samples.copy(), truth.copy()
    spoilt_samples[:, unknown] = 1e9
    spoilt_truth[unknown] = np.nan
    close(scores_of(spoilt_samples, spoilt_truth, mask[:, None]), expected)
    assert expected["count"] == SHAPE[1] * mask.sum()
    assert expected["crps"] == pytest.approx(ensemble_scores(samples, truth, mask[:, None])["crps"])


def test_averages_over_time_are_those_of_the_known_steps(rng):
    truth = rng.gamma(1.0, size=(2, 1, 6, 1, 2))
    offset = np.array([3.0, -1.0])  # of two places
    mask = rng.random((2, 6, 1, 2)) < 0.5
    mask[0, :, 0, 0] = False  # three places and windows are left, of which one has the first offset
    mask[1, 2] = mask[0, 3, 0, 1] = True
    scores = scores_of((truth + offset)[None], truth, mask)
    assert scores["sprmse_of_mean"] == pytest.approx(math.sqrt((9 + 1 + 1) / 3))


def test_scores_are_in_multiples_of_the_unit(windows):
    samples, truth = windows
    unit = np.array([3.0, 0.25]).reshape(2, 1, 1, 1)
    close(scores_of(samples * unit, truth * unit, unit=unit), scores_of(samples, truth))


def test_a_deterministic_system_has_no_spread(windows):
    samples, truth = windows
    scores = scores_of(samples[:1], truth)
    assert scores["crps"] == scores["mae_of_mean"] == scores["mae_of_sample"]
    assert scores["spread_skill"] is None and scores["rank_histogram"] is None
    assert scores["energy_score"] > 0


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (3, 1, 7, 1, 1), (2, 2, 1, 3, 1), SHAPE])
@pytest.mark.parametrize("members", [1, 3])
def test_every_shape_gives_strict_json(rng, shape, members):
    truth = rng.gamma(1.0, size=shape).astype(np.float32)
    for samples in (np.repeat(truth[None], members, axis=0), np.zeros((members, *shape), dtype=np.float32)):
        for time_step in (24.0, 1.0, 5.0):
            scores = scores_of(samples, truth, time_step_hours=time_step)
            assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores_of(truth[None], truth)["psnr_of_mean"] is None
    assert scores_of(truth[None], truth, time_step_hours=24.0)["peak_hour_error"] is None


def test_what_cannot_be_scored_is_refused(windows):
    samples, truth = windows
    scores = StreamingScores(1.0)
    with pytest.raises(ValueError, match="at least one `update`"):
        scores.compute()
    with pytest.raises(ValueError, match=r"found samples \(4, 5, 2, 14, 3, 7\) and truth \(5, 2, 14, 3\)"):
        scores.update(samples, truth[..., 0])
    scores.update(samples, truth)
    with pytest.raises(ValueError, match="must have 4 members"):
        scores.update(samples[:2], truth)
    with pytest.raises(ValueError, match="`truth` has values that are not finite"):
        scores.update(samples, np.where(truth > 2, np.inf, truth))
    with pytest.raises(ValueError, match="`unit` must be positive"):
        StreamingScores(1.0, unit=np.zeros((2, 1, 1, 1)))
