# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest

from zoomdiff_diffusers.evaluation import (
    discriminative_score,
    generation,
    nearest_neighbour_distances,
    train_on_synthetic_test_on_real,
)


@pytest.fixture(autouse=True)
def fewer_examples(monkeypatch):
    monkeypatch.setattr(generation, "EXAMPLES", 2000)


def city(seed, windows=10, channels=1, steps=48, height=5, width=3, noise=0.3):
    """Places of different size with a common day and noise: the same law for every seed."""
    rng = np.random.default_rng(seed)
    size = rng.gamma(2.0, size=(windows, channels, 1, height, width))
    day = 1 + 0.8 * np.sin(2 * np.pi * np.arange(steps) / 24).reshape(-1, 1, 1)
    return size * day * np.exp(noise * rng.normal(size=(windows, channels, steps, height, width)))


def without_time(windows):
    """The same values in a random order."""
    return np.random.default_rng(0).permuted(windows, axis=2)


def test_a_classifier_tells_series_without_a_day_and_not_those_of_the_same_law():
    assert discriminative_score(city(0), without_time(city(1))) > 0.4
    assert discriminative_score(city(0), city(1)) < 0.1


def test_a_classifier_sees_places_that_do_not_go_together():
    rng = np.random.default_rng(5)
    alone, common = rng.normal(size=(2, 100, 1, 30, 2, 2)), rng.normal(size=(2, 100, 1, 30, 1, 1))
    together = (alone + 2 * common) / np.sqrt(5)  # the same law at every single place
    assert discriminative_score(together[0], together[1]) < 0.1
    assert discriminative_score(together[0], alone[1]) > 0.4


def test_missing_hours_give_nothing_away():
    real, generated = (city(seed, channels=2, steps=30) for seed in (0, 1))
    missing = np.random.default_rng(2).random(real.shape) < 0.3
    real[missing] = np.nan
    spoilt = np.where(missing, 1e6, generated)
    assert discriminative_score(real, spoilt) == discriminative_score(real, generated) < 0.1


def test_a_single_place_without_neighbours_can_be_scored():
    real = city(0, windows=200, height=1, width=1)
    assert discriminative_score(real, without_time(real)) > 0.4


def test_training_on_traffic_of_the_same_law_is_as_good_as_real():
    real_train, real_test = city(0), city(1)
    scores = train_on_synthetic_test_on_real(city(2), real_train, real_test)
    assert scores["ratio"] == pytest.approx(1.0, abs=0.1)
    assert scores["ratio"] == pytest.approx(scores["mae_synthetic"] / scores["mae_real"])
    same = train_on_synthetic_test_on_real(real_train, real_train, real_test)
    assert same["ratio"] == 1.0


def test_training_on_traffic_without_a_day_is_worse():
    assert train_on_synthetic_test_on_real(without_time(city(2)), city(0), city(1))["ratio"] > 1.5


def test_the_forecast_is_near_what_is_possible():
    # With log-normal noise of 0.3 the best forecast is the median; its error is E|exp(0.3 z) - 1| times the mean.
    noise = np.exp(0.3 * np.random.default_rng(0).normal(size=100_000))
    best = np.abs(noise - 1).mean() / noise.mean()
    found = train_on_synthetic_test_on_real(city(2), city(0, windows=40), city(1, windows=40))["mae_real"]
    assert best < found < 1.4 * best


def test_examples_of_the_forecast_have_no_gap():
    values = np.arange(60.0).reshape(1, 2, 30, 1, 1)
    values[0, 1, 3] = np.nan
    inputs, targets = generation._forecast_examples(values, 24, np.random.default_rng(0))
    assert sorted(targets) == [*range(24, 30), *range(58, 60)]
    np.testing.assert_array_equal(targets - inputs[:, -1], 1.0)


def test_copies_are_near_their_originals_and_new_windows_are_not():
    train, test = city(0, windows=30), city(1)
    fresh = nearest_neighbour_distances(city(2), train, test)
    assert fresh["median_ratio"] == pytest.approx(1.0, abs=0.15)
    assert fresh["smallest_ratio"] == pytest.approx(1.0, abs=0.3)
    copies = nearest_neighbour_distances(train[:9] * 1.001, train, test)
    assert copies["median_ratio"] < 0.01
    one_copy = nearest_neighbour_distances(np.concatenate([city(2), train[7:8]]), train, test)
    assert one_copy["median_ratio"] > 0.8 and one_copy["smallest_ratio"] < 0.01


def test_distances_are_root_mean_squares_of_logarithms_over_what_is_known():
    train = np.ones((3, 1, 4, 2, 3))
    generated, test = np.full((2, 1, 4, 2, 3), np.e * 2 - 1), np.full((5, 1, 4, 2, 3), np.e**2 * 2 - 1)
    generated[0, 0, 1] = np.nan
    scores = nearest_neighbour_distances(generated, train, test)
    assert scores["generated_to_train"] == pytest.approx(1.0)
    assert scores["test_to_train"] == pytest.approx(2.0)
    assert [scores["median_ratio"], scores["smallest_ratio"]] == pytest.approx([0.5, 0.5])


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`real` must be \(N, C, T, H, W\)"):
        discriminative_score(city(0)[0], city(1)[0])
    with pytest.raises(ValueError, match="same shape with at least two windows"):
        discriminative_score(city(0, windows=1), city(1, windows=1))
    with pytest.raises(ValueError, match=r"`real_train` must have 1 channel\(s\) and more than 24 steps"):
        train_on_synthetic_test_on_real(city(0), city(1, steps=24), city(2))
    with pytest.raises(ValueError, match=r"`test` \(10, 1, 48, 5, 4\)"):
        nearest_neighbour_distances(city(0), city(1), city(2, width=4))
