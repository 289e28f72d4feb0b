# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest

from zoomdiff_diffusers.data import simulated_city
from zoomdiff_diffusers.data.simulated_city import (
    CULTURES,
    SESSION_MB,
    SIMULATED_LAYERS,
    SimulatedCity,
    mean_traffic,
    noise_floor,
    simulate_context,
)
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES, gaussian_field, people_over_time, weekly_rhythms
from zoomdiff_diffusers.hierarchy import Hierarchy, Level


@pytest.fixture(scope="module")
def city():
    return SimulatedCity(40, 56, seed=3)


def fair_crps(samples, truths):
    """Mean fair CRPS of `samples` (n, ...) over several `truths` (m, ...), by the definition and not by sorting."""
    count = len(samples)
    skill = np.mean([np.abs(sample - truth).mean() for sample in samples for truth in truths])
    spread = sum(np.abs(samples[i] - samples[j]).mean() for i in range(count) for j in range(i))
    return skill - spread / (count * (count - 1))


# Context


@pytest.mark.parametrize("culture", CULTURES)
@pytest.mark.parametrize("height, width", [(8, 24), (33, 17), (1, 1)])
def test_context_follows_its_schema_at_any_size(height, width, culture):
    context = simulate_context(height, width, seed=0, culture=culture)
    assert list(context) == [layer["name"] for layer in SIMULATED_LAYERS]
    for layer in SIMULATED_LAYERS:
        values = context[layer["name"]]
        assert values.shape[-2:] == (height, width)
        assert np.isfinite(values).all() and values.min() >= 0
        if layer["kind"] == "categorical":
            assert values.dtype == np.int64 and values.max() < len(layer["classes"])
        if layer["kind"] == "count":
            assert len(values) == len(layer["channels"]) and np.array_equal(values, np.rint(values))
    assert context["population_over_time"].shape == (168, height, width)


def test_context_depends_on_seed_and_culture_only():
    first, again = (simulate_context(24, 40, seed=5) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    for other in (simulate_context(24, 40, seed=6), simulate_context(24, 40, seed=5, culture="dense")):
        assert not np.array_equal(first["aoi"], other["aoi"])


def test_every_land_use_occurs_and_the_centre_is_denser():
    context = simulate_context(160, 160, seed=1)
    shares = np.bincount(context["aoi"].ravel(), minlength=len(AOI_CLASSES)) / context["aoi"].size
    assert (shares > 0.001).all() and shares.max() < 0.75
    areas = context["building_volume"].reshape(20, 8, 20, 8).mean(axis=(1, 3))
    assert areas.max() > 5 * np.median(areas) > 5 * areas.min()


def test_population_over_time_adds_nothing_to_the_static_layers_but_the_hour(city):
    static = {name: values for name, values in city.context.items() if name != "population_over_time"}
    np.testing.assert_array_equal(city.context["population_over_time"], people_over_time(static))
    np.testing.assert_array_equal(
        city.context_for(hours=30, start=150)["population_over_time"],
        people_over_time(static, hours=30, start=150),
    )


@pytest.mark.parametrize("correlation", [1.5, 8.0])
def test_gaussian_field_has_unit_variance_and_the_stated_covariance(correlation):
    rng = np.random.default_rng(0)
    fields = np.stack([gaussian_field(rng, 6, 9, correlation) for _ in range(4000)])
    assert fields.shape == (4000, 6, 9)
    assert np.abs(fields.mean()) < 0.05
    for dy, dx in [(0, 0), (0, 1), (2, 0), (1, 3), (5, 8)]:
        covariance = (fields[:, 0, 0] * fields[:, dy, dx]).mean()
        assert covariance == pytest.approx(np.exp(-0.5 * (dy**2 + dx**2) / correlation**2), abs=0.08)


# Mean field


def test_mean_field_is_a_function_of_the_cell_alone(city):
    """Shuffling the cells of the context shuffles the mean field: no neighbourhood, no place, no hidden part."""
    order = np.random.default_rng(0).permutation(40 * 56)

    def shuffle(values):
        return values.reshape(*values.shape[:-2], -1)[..., order].reshape(values.shape)

    shuffled = {name: shuffle(values) for name, values in city.context.items()}
    np.testing.assert_allclose(mean_traffic(shuffled), shuffle(city.mean_traffic()), rtol=1e-5)


@pytest.mark.parametrize("culture", CULTURES)
def test_rhythms_rest_at_night_and_on_the_days_of_rest(culture):
    presence, demand = weekly_rhythms(culture)
    assert presence.shape == demand.shape == (6, 168)
    assert presence.min() >= 0 and demand.min() > 0
    residents, workers = (presence * demand).reshape(6, 7, 24)[:2]
    rest = list(CULTURES[culture].weekend)
    work = [day for day in range(7) if day not in rest]
    assert workers[rest].max() < 0.5 * workers[work].max(axis=1).min()
    assert residents[:, 2:5].max() < 0.5 * residents.max()
    assert 19 <= residents[0].argmax() <= 23 and 9 <= workers[0].argmax() <= 15


def test_start_is_the_hour_of_the_week(city):
    week = city.mean_traffic()
    np.testing.assert_array_equal(city.mean_traffic(hours=50, start=140), np.concatenate([week[140:], week[:22]]))


# Law of the noise


def test_mean_of_the_law_is_the_mean_field():
    """Over places and evenings with events, within four standard errors of many independent realisations."""
    city = SimulatedCity(40, 56, seed=2)
    assert np.isin(city.context["aoi"], [AOI_CLASSES.index("leisure"), AOI_CLASSES.index("transport")]).sum() > 50
    samples = city.sample_traffic(160, hours=10, seed=1, start=14)[:, 0]
    expected = city.mean_traffic(hours=10, start=14)
    ratio = samples.mean(axis=(2, 3), dtype=np.float64) / expected.mean(axis=(1, 2), dtype=np.float64)
    error = ratio.std(axis=0) / np.sqrt(160)
    assert (error < 0.025).all()
    assert (np.abs(ratio.mean(axis=0) - 1) < 4 * error).all()


def test_events_have_mean_one_and_double_the_traffic_of_some_evening():
    city = SimulatedCity(40, 56, seed=2)
    rng = np.random.default_rng(0)
    weeks = np.ones((300, 48, 40, 56), dtype=np.float32)
    for week in weeks:
        city._add_events(rng, 12, week)
    hour = (12 + np.arange(48)) % 24
    np.testing.assert_allclose(weeks.mean(axis=(0, 2, 3)), 1.0, atol=0.01)
    assert (weeks[:, (hour < 17)] == 1).all()
    assert weeks.max() > 3


def test_thinning_is_the_compound_poisson_law():
    rng = np.random.default_rng(0)
    for expected in (0.3, 6.0):
        values = simulated_city._thin(rng, np.full(400_000, expected, dtype=np.float32))
        assert (values == 0).mean() == pytest.approx(np.exp(-expected / SESSION_MB), abs=2e-3)
        assert values.mean(dtype=np.float64) == pytest.approx(expected, rel=0.02)
        assert values.var(dtype=np.float64) == pytest.approx(2 * SESSION_MB * expected, rel=0.03)


def test_autoregression_keeps_its_variance_and_forgets_at_its_rate():
    rng = np.random.default_rng(0)
    states = [rng.standard_normal(50_000)]
    for _ in range(5):
        states.append(simulated_city._autoregress(states[-1], rng.standard_normal(50_000), 0.6))
    assert states[-1].var() == pytest.approx(1.0, abs=0.03)
    assert (states[-1] * states[-3]).mean() == pytest.approx(0.6**2, abs=0.03)


def test_area_factor_survives_aggregation_and_cell_factor_does_not(city):
    rng = np.random.default_rng(0)
    factors = np.stack([city._static_factor(rng) for _ in range(300)])
    aoi_log_std = simulated_city.AOI_BUILDINGS[city.context["aoi"], 4]
    expected = np.sqrt(simulated_city.AREA_LOG_STD**2 + aoi_log_std**2)
    np.testing.assert_allclose(np.log(factors).std(axis=0).mean(), expected.mean(), rtol=0.03)
    areas = factors.reshape(300, 5, 8, 7, 8).mean(axis=(2, 4))
    assert simulated_city.AREA_LOG_STD * 0.8 < np.log(areas).std(axis=0).mean() < expected.mean() * 0.75


def test_quiet_places_have_hours_with_exactly_no_traffic_and_busy_ones_do_not(city):
    samples = city.sample_traffic(2, seed=2)[:, 0]
    expected = city.mean_traffic()
    assert samples.min() == 0
    assert (samples[:, expected < 0.1 * SESSION_MB] == 0).mean() > 0.9
    assert (samples[:, expected > 100 * SESSION_MB] == 0).mean() < 1e-4


def test_values_have_a_heavy_tail(city):
    busiest_day = city.sample_traffic(1, hours=24, seed=2)
    low, high = np.quantile(busiest_day[busiest_day > 0], [0.5, 0.999])
    assert high > 15 * low


def test_samples_depend_on_seed_and_index_only(city):
    two = city.sample_traffic(2, hours=5, seed=7, start=20)
    three = city.sample_traffic(3, hours=5, seed=7, start=20)
    assert two.shape == (2, 1, 5, 40, 56) and two.dtype == np.float32
    np.testing.assert_array_equal(two, three[:2])
    assert not np.array_equal(three[0], three[1])
    assert not np.array_equal(two, city.sample_traffic(2, hours=5, seed=8, start=20))


# Noise floor


class ExponentialCity(SimulatedCity):
    """A city with an exponential law of mean 3 in every cell, of which all scores are known in closed form."""

    def sample_traffic(self, num_samples, hours, seed, start):
        shape = (num_samples, 1, hours, self.height, self.width)
        return np.random.default_rng(seed).exponential(3.0, shape).astype(np.float32)


@pytest.mark.parametrize("num_samples", [2, 8])
def test_noise_floor_of_a_known_law(num_samples):
    hierarchy = Hierarchy([Level("area", 2, 1), Level("cell", 1, 1)])
    floor = noise_floor(ExponentialCity(40, 24, seed=0), hierarchy, num_samples, hours=168)
    assert floor["cell"]["crps"] == pytest.approx(3.0 / 2, rel=0.01)  # half the mean difference of two exponentials
    tolerance = 0.01 if num_samples == 8 else 0.15  # two samples hardly know their median
    assert floor["cell"]["mae"] == pytest.approx(3.0 * np.log(2), rel=tolerance)
    mean_difference_of_gamma_4 = 3.0 * 2 * 35 / 128  # Gini: Gamma(k + 1/2) / (sqrt(pi) Gamma(k + 1)), k = 4
    assert floor["area"]["crps"] == pytest.approx(mean_difference_of_gamma_4 / 2, rel=0.01)


@pytest.mark.parametrize("culture", CULTURES)
def test_the_law_reaches_the_floor_and_simple_forecasts_do_not(culture):
    """On a city that was not trained on: climatology at 2 times the floor or more, no context at 1.5 or more."""
    size, count, hierarchy = 64, 8, Hierarchy()
    known, held_out = (SimulatedCity(size, size, seed, culture) for seed in (21, 22))
    floor = noise_floor(held_out, hierarchy, count, seed=1)
    truth = hierarchy.pyramid(held_out.sample_traffic(count, seed=2))
    own = hierarchy.pyramid(held_out.sample_traffic(count, seed=3))

    past = known.sample_traffic(count, seed=4)
    rng = np.random.default_rng(0)
    elsewhere = [np.roll(week, 8 * rng.integers(0, size // 8, 2), axis=(-2, -1)) for week in past]
    no_context = hierarchy.pyramid(np.stack(elsewhere))
    climatology = hierarchy.pyramid(past.mean(axis=(0, 3, 4), keepdims=True) * np.ones_like(past[:1]))

    for level, name in enumerate(hierarchy.names):
        best = floor[name]["crps"]
        own_score, blind_score = (fair_crps(samples[level], truth[level]) for samples in (own, no_context))
        climatology_score = np.abs(climatology[level] - truth[level]).mean()
        assert own_score == pytest.approx(best, rel=0.15), name
        assert climatology_score > 2.0 * best, name
        assert blind_score > 1.5 * best, name
        assert best < floor[name]["mae"] < 2 * best


# Errors


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda city: simulate_context(0, 8, 0), "`height` and `width` are 0 and 8"),
        (lambda city: SimulatedCity(8, 8, 0, culture="lunar"), "`culture` is 'lunar'.*default"),
        (lambda city: city.sample_traffic(0), "`num_samples` and `hours` are 0 and 168"),
        (lambda city: city.sample_traffic(1, hours=0), "`num_samples` and `hours` are 1 and 0"),
        (lambda city: city.sample_traffic(1, start=168), "`start` is 168"),
        (lambda city: noise_floor(city, Hierarchy(), num_samples=3), "`num_samples` is 3"),
        (lambda city: noise_floor(city, Hierarchy(), hours=25), "25"),
    ],
)
def test_bad_arguments_are_refused(city, call, message):
    with pytest.raises(ValueError, match=message):
        call(city)
