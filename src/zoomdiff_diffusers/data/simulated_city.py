# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A simulated city whose law of traffic given the urban context is known.

The city is a grid of 50 m cells. Its context is what an OpenStreetMap user could have: surface and road class, AOI
class, POI counts, building volume, residents and, optionally, the people present hour by hour. Traffic is in MB per
cell and hour, and its law given the context is

    traffic = thinning( m(context)[t, y, x] * area * day[t] * cell * hour[t] * events[t] )

- `m`, the mean field, depends on the context of the cell itself and on the hour of the week, on nothing else: the
  context says how many residents, workers, students, shoppers, visitors and travellers use the cell, every group has
  its own weekly rhythm of presence and of demand per person, and `m` is the sum over the groups;
- `area`, log-normal, correlated over 8 cells, constant: the unobserved demand of a base station's area;
- `day`, log-normal, first-order autoregressive over the days, partly city-wide and partly local;
- `cell`, log-normal, correlated over 1.5 cells, constant, wider in some land uses than in others;
- `hour`, log-normal, first-order autoregressive over the hours (3 h), correlated over 3 cells;
- `events`, shot noise: evenings at leisure and transport places, 2 to 4 hours, up to 2 to 5 times the usual traffic;
- thinning: the value is the expected volume of a Poisson number of sessions with exponential volumes, so that places
  that hardly anybody visits have hours with exactly no traffic.

Every factor is divided by its expectation, so `m` is the mean of the traffic given the context.
"""

from itertools import product

import numpy as np
from scipy.ndimage import correlate1d

from ..hierarchy import Hierarchy
from .simulated_context import (
    AOI_BUILDINGS,
    AOI_CLASSES,
    CULTURES,
    HOURS_PER_WEEK,
    SIMULATED_LAYERS,
    gaussian_field,
    hours_of_week,
    simulate_context,
    sum_over_groups,
    weekly_rhythms,
)


__all__ = ["CULTURES", "SIMULATED_LAYERS", "SimulatedCity", "mean_traffic", "noise_floor", "simulate_context"]

TRAFFIC_UNIT = "MB"
SESSION_MB = 1.5  # mean volume of one session: the size of the quanta that give exact zeros
AREA_LOG_STD, AREA_CELLS = 0.28, 8.0  # log-standard deviation and correlation length, as in the next lines
DAY_LOG_STD, DAY_CELLS, DAY_MEMORY = 0.14, 16.0, 0.6
CELL_CELLS = 1.5
HOUR_LOG_STD, HOUR_CELLS, HOUR_MEMORY = 0.30, 3.0, float(np.exp(-1 / 3))
EVENT_RATE, EVENT_CELLS = 0.0015, 3.0  # events per venue cell and day; radius (cells)
EVENT_STARTS, EVENT_DURATIONS, EVENT_GAIN = [17, 18, 19, 20], [2, 3, 4], (1.0, 4.0)


def mean_traffic(context: dict, culture: str = "default", hours: int = 168, start: int = 0) -> np.ndarray:
    """The mean field `m(context)`: expected traffic given the context; arguments as `people_over_time`.

    Returns:
        `np.ndarray` of shape (T, H, W), float32, in MB per cell and hour.
    """
    presence, demand = weekly_rhythms(culture)
    return sum_over_groups(context, culture, presence * demand, hours, start)


class SimulatedCity:
    """A simulated city: its context and the law of its traffic given that context (see the module's docstring).

    Args:
        height, width (`int`): size in cells of 50 m; any size.
        seed (`int`): the city; the same seed gives the same city.
        culture (`str`, defaults to `"default"`): one of `CULTURES`.

    Raises:
        ValueError: if a size is not positive or the culture is unknown.
    """

    def __init__(self, height: int, width: int, seed: int, culture: str = "default"):
        self.height, self.width, self.seed, self.culture = height, width, seed, culture
        self.context = simulate_context(height, width, seed, culture)

    def context_for(self, hours: int = 168, start: int = 0) -> dict[str, np.ndarray]:
        """The context with `population_over_time` for `hours` hours from hour `start` of the week."""
        over_time = np.take(self.context["population_over_time"], hours_of_week(hours, start), axis=0)
        return {**self.context, "population_over_time": over_time}

    def mean_traffic(self, hours: int = 168, start: int = 0) -> np.ndarray:
        """Expected traffic given the context, (T, H, W) float32, MB per cell and hour."""
        return mean_traffic(self.context, self.culture, hours, start)

    def sample_traffic(self, num_samples: int = 1, hours: int = 168, seed: int = 0, start: int = 0) -> np.ndarray:
        """Independent realisations of the traffic given the context.

        Args:
            num_samples (`int`, defaults to 1): how many; the first ones do not depend on it.
            hours (`int`, defaults to 168): number of hours T.
            seed (`int`, defaults to 0): of the realisations; the city stays the same.
            start (`int`, defaults to 0): hour of the week of the first hour; 0 = Monday 00:00.

        Returns:
            `np.ndarray` of shape (num_samples, 1, T, H, W), float32, in MB per cell and hour.

        Raises:
            ValueError: if `num_samples` or `hours` is not positive or `start` is not in 0..167.
        """
        if num_samples < 1 or hours < 1:
            raise ValueError(f"`num_samples` and `hours` are {num_samples} and {hours}, expected at least 1")
        if not 0 <= start < HOURS_PER_WEEK:
            raise ValueError(f"`start` is {start}, expected an hour of the week, 0 (Monday 00:00) to 167")
        traffic = np.empty((num_samples, 1, hours, self.height, self.width), dtype=np.float32)
        for index in range(num_samples):
            rng = np.random.default_rng([self.seed, 2, seed, index])
            self._realise(rng, hours, start, out=traffic[index, 0])
        return traffic

    def _realise(self, rng: np.random.Generator, hours: int, start: int, out: np.ndarray) -> None:
        """Write one realisation (T, H, W) into `out`, hour by hour, so that no second array of its size is needed."""
        out[...] = self.mean_traffic(hours, start)
        out *= self._static_factor(rng)
        self._add_events(rng, start, out)
        day_noise, hour_noise = None, None
        for step in range(hours):
            if day_noise is None or (start + step) % 24 == 0:
                day_noise = self._next_day(rng, day_noise)
            hour_noise = _autoregress(hour_noise, self._field(rng, HOUR_CELLS), HOUR_MEMORY)
            log_factor = DAY_LOG_STD * day_noise + HOUR_LOG_STD * hour_noise
            log_factor -= 0.5 * (DAY_LOG_STD**2 + HOUR_LOG_STD**2)
            out[step] = _thin(rng, out[step] * np.exp(log_factor))

    def _field(self, rng: np.random.Generator, correlation: float) -> np.ndarray:
        return gaussian_field(rng, self.height, self.width, correlation)

    def _static_factor(self, rng: np.random.Generator) -> np.ndarray:
        """The factors `area` and `cell`, (H, W)."""
        cell_log_std = AOI_BUILDINGS[self.context["aoi"], 4].astype(np.float32)
        log_factor = AREA_LOG_STD * self._field(rng, AREA_CELLS) + cell_log_std * self._field(rng, CELL_CELLS)
        return np.exp(log_factor - 0.5 * (AREA_LOG_STD**2 + cell_log_std**2))

    def _next_day(self, rng: np.random.Generator, previous: np.ndarray | None) -> np.ndarray:
        """Unit-variance noise of the next day: half of its variance is city-wide, half local; (H, W)."""
        city_wide = rng.standard_normal(dtype=np.float32)
        fresh = np.float32(np.sqrt(0.5)) * (city_wide + self._field(rng, DAY_CELLS))
        return _autoregress(previous, fresh, DAY_MEMORY)

    def _add_events(self, rng: np.random.Generator, start: int, traffic: np.ndarray) -> None:
        """Multiply `traffic` (T, H, W) by the shot noise of the events, divided by its expectation, in place."""
        venue = np.isin(self.context["aoi"], [AOI_CLASSES.index("leisure"), AOI_CLASSES.index("transport")])
        places = np.argwhere(venue)
        radius = int(3 * EVENT_CELLS)
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / EVENT_CELLS) ** 2).astype(np.float32)
        nearby = correlate1d(venue.astype(np.float32), kernel, axis=0, mode="constant")
        nearby = correlate1d(nearby, kernel, axis=1, mode="constant")  # number of venue cells, weighted by distance
        active = np.zeros(24, dtype=np.float32)  # probability that an event of the day is on
        for first, duration in product(EVENT_STARTS, EVENT_DURATIONS):
            active[first : first + duration] += 1 / (len(EVENT_STARTS) * len(EVENT_DURATIONS))

        hours = start + np.arange(traffic.shape[0])
        for day in np.unique(hours // 24):
            boost = np.zeros((24, self.height + 2 * radius, self.width + 2 * radius), dtype=np.float32)
            for _ in range(rng.poisson(EVENT_RATE * len(places))):
                y, x = places[rng.integers(len(places))]
                first = rng.choice(EVENT_STARTS)
                last = first + rng.choice(EVENT_DURATIONS)
                patch = rng.uniform(*EVENT_GAIN) * np.outer(kernel, kernel)
                boost[first:last, y : y + len(kernel), x : x + len(kernel)] += patch
            for step in np.flatnonzero((hours // 24 == day) & (active[hours % 24] > 0)):
                hour = hours[step] % 24
                expected = EVENT_RATE * np.mean(EVENT_GAIN) * active[hour] * nearby
                traffic[step] *= (1 + boost[hour, radius:-radius, radius:-radius]) / (1 + expected)


def _autoregress(previous: np.ndarray | None, fresh: np.ndarray, memory: float) -> np.ndarray:
    """Next state of a stationary first-order autoregression of unit variance, of which `memory` is the correlation."""
    return fresh if previous is None else memory * previous + np.float32(np.sqrt(1 - memory**2)) * fresh


def _thin(rng: np.random.Generator, expected: np.ndarray) -> np.ndarray:
    """The volume of a Poisson number of sessions with exponential volumes, `expected` MB in the mean."""
    sessions = rng.poisson(expected / SESSION_MB)
    return np.float32(SESSION_MB) * rng.standard_gamma(sessions.astype(np.float32), dtype=np.float32)


def noise_floor(
    city: SimulatedCity, hierarchy: Hierarchy, num_samples: int = 16, hours: int = 168, seed: int = 0, start: int = 0
) -> dict[str, dict[str, float]]:
    """The best scores that any forecast of the city's traffic from its context can reach, per level.

    Both are expectations under the true law, averaged over the units and time steps of a level and estimated from its
    own samples without bias: CRPS as half the mean absolute difference of two samples, MAE as that of the median
    (half-way between the median with and without the scored sample, whose biases cancel to first order).

    Args:
        city (`SimulatedCity`): the city.
        hierarchy (`Hierarchy`): the levels; its factors must divide the city and the hours.
        num_samples (`int`, defaults to 16): number of samples, even; all are held at once.
        hours, seed, start: as in `SimulatedCity.sample_traffic`.

    Returns:
        `dict` of level name to `{"crps": ..., "mae": ...}`, in MB per cell and hour.

    Raises:
        ValueError: if `num_samples` is odd or less than 2, or the hierarchy does not fit.
    """
    if num_samples < 2 or num_samples % 2:
        raise ValueError(f"`num_samples` is {num_samples}, expected an even number of at least 2")
    hierarchy.shapes(hours, city.height, city.width)
    samples = city.sample_traffic(num_samples, hours, seed, start)
    floor = {}
    for name, level in zip(hierarchy.names, hierarchy.pyramid(samples)):
        ordered = np.sort(level, axis=0).reshape(num_samples, -1)
        mean = ordered.mean(axis=1, dtype=np.float64)  # of every order statistic
        half = num_samples // 2
        rank_weight = 2 * np.arange(num_samples) - num_samples + 1
        crps = (rank_weight * mean).sum() / (num_samples * (num_samples - 1))
        mae = (mean[half:].sum() - mean[:half].sum()) / num_samples + (mean[half] - mean[half - 1]) / 4
        floor[name] = {"crps": float(crps), "mae": float(mae)}
    return floor
