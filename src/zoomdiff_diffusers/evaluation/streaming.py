# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""All scores of one level in one pass: ensembles come in batches of windows, and only sums and histograms are kept."""

from collections import defaultdict

import numpy as np
from scipy.spatial.distance import jensenshannon, pdist
from scipy.stats import wasserstein_distance

from .metrics import ROUNDING, fair_crps


HOURS_PER_DAY = 24
LONGEST_LAG = 48.0  # hours: the temporal autocorrelation is compared up to this lag
NEIGHBOURS = 4  # units: the spatial correlation is compared up to this distance
_CHUNK = 2**21  # values of an ensemble scored at once: about 16 MB per temporary array

# Histogram bins of |value|, logarithmic, in scored units. What is below the first edge shares one bin with zero.
_LOWEST, _DECADES, _BINS_PER_DECADE = 1e-6, 15, 64
_BINS = _DECADES * _BINS_PER_DECADE
_FREQUENCY_BINS = 20  # bins of the Jensen-Shannon divergence


class StreamingScores:
    """
    Scores of generated traffic of one level against the truth, in one pass and in memory that does not grow with the
    number of windows.

    Scores are pooled over everything that was given to [`update`] and known, and are in multiples of `unit`; lower is
    better unless stated. "Of the mean" is the error of the ensemble mean, "of the sample" that of one sample, averaged
    over the samples: the second is larger by the ensemble's spread.

    Args:
        time_step_hours (`float`): Time step of the level in hours.
        unit (`float` or `np.ndarray`, defaults to 1.0):
            What the values are divided by, for example the mean traffic per channel, `(C, 1, 1, 1)`.
        unit_side (`int`, defaults to 1):
            Elements of the arrays along the side of a typical unit: more than one where units of any form lie on the
            finest cells. The spatial correlation is compared at multiples of it.

    Raises:
        ValueError: If an argument is not positive.
    """

    def __init__(self, time_step_hours: float, unit: float | np.ndarray = 1.0, unit_side: int = 1):
        self.time_step_hours = float(time_step_hours)
        self.unit = np.asarray(unit, dtype=np.float64)
        for name, value in (("time_step_hours", self.time_step_hours), ("unit", self.unit), ("unit_side", unit_side)):
            if not np.all(np.isfinite(value) & (np.asarray(value) > 0)):
                raise ValueError(f"`{name}` must be positive, but is {value}.")
        steps_per_day = HOURS_PER_DAY / self.time_step_hours
        self._steps_per_day = round(steps_per_day) if steps_per_day == round(steps_per_day) >= 2 else None
        self._lags = range(1, max(2, int(LONGEST_LAG / self.time_step_hours)) + 1)
        self._distances = [unit_side * distance for distance in range(1, NEIGHBOURS + 1)]
        self._members = None
        self._totals = defaultdict(float)  # sums by name, numbers or arrays
        self._peak = 0.0
        self._values, self._differences = _Marginals(), _Marginals()
        self._ties = np.random.default_rng(0)

    def update(self, samples: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> None:
        """
        Score further windows.

        Args:
            samples (`np.ndarray`): `(n, B, C, T, H, W)`, the same n in every call; n = 1 for a deterministic system.
            truth (`np.ndarray`): `(B, C, T, H, W)`.
            mask (`np.ndarray`, *optional*):
                bool, True where the truth is known: `(B, T, H, W)`, or anything that broadcasts to the truth.

        Raises:
            ValueError: If shapes do not match, n changes, or a value at a known place is not finite.
        """
        samples, truth = np.asarray(samples), np.asarray(truth)
        if truth.ndim != 5 or samples.shape[1:] != truth.shape:
            raise ValueError(
                "`samples` must be (n, B, C, T, H, W) and `truth` (B, C, T, H, W): found samples "
                f"{samples.shape} and truth {truth.shape}."
            )
        if self._members not in (None, len(samples)):
            raise ValueError(f"`samples` must have {self._members} members, as before, but has {len(samples)}.")
        self._members = len(samples)
        known = _broadcast_mask(mask, truth.shape)
        windows = max(1, _CHUNK // max(1, samples[:, :1].size))
        for first in range(0, len(truth), windows):
            part = slice(first, first + windows)
            self._update(samples[:, part], truth[part], known[part])

    def _update(self, samples, truth, known):
        samples = np.where(known, samples / self.unit, 0.0)
        truth = np.where(known, truth / self.unit, 0.0)
        for name, values in (("samples", samples), ("truth", truth)):
            if not np.isfinite(values).all():
                raise ValueError(f"`{name}` has values that are not finite where `mask` says the traffic is known.")
        self._totals["count"] += int(known.sum())
        self._peak = max(self._peak, float(truth.max(initial=0.0)))
        self._score_points(samples, truth, known)
        self._score_time_means(samples, truth, known)
        self._score_joint_law(samples, truth, known)
        self._values.add(samples, truth, known)
        both = known[:, :, 1:] & known[:, :, :-1]
        self._differences.add(np.diff(samples, axis=-3), np.diff(truth, axis=-3), both)
        self._score_correlations(samples, truth, known)
        self._score_peaks(samples, truth, known)

    def _score_points(self, samples, truth, known):
        errors = samples - truth
        error_of_mean = samples.mean(axis=0) - truth
        self._totals["absolute_of_mean"] += np.abs(error_of_mean).sum()
        self._totals["absolute_of_median"] += np.abs(np.median(samples, axis=0) - truth).sum()
        self._totals["squared_of_mean"] += (error_of_mean**2).sum()
        self._totals["squared_truth"] += (truth**2).sum()
        self._totals["absolute_of_sample"] += np.abs(errors).sum() / len(samples)
        self._totals["squared_of_sample"] += (errors**2).sum() / len(samples)
        if len(samples) > 1:
            self._totals["crps"] += fair_crps(samples, truth).sum()
            self._totals["variance"] += samples.var(axis=0, ddof=1).sum()
            below, equal = (samples < truth).sum(axis=0)[known], (samples == truth).sum(axis=0)[known]
            ranks = below + self._ties.integers(0, equal + 1)  # a tie may fall anywhere among its equals
            self._totals["ranks"] += np.bincount(ranks, minlength=len(samples) + 1)

    def _score_time_means(self, samples, truth, known):
        count = known.sum(axis=-3)
        errors = (samples - truth).sum(axis=-3) / np.maximum(count, 1)
        self._totals["places"] += int((count > 0).sum())
        self._totals["squared_time_mean_of_mean"] += (errors.mean(axis=0) ** 2).sum()
        self._totals["squared_time_mean_of_sample"] += (errors**2).sum() / len(samples)

    def _score_joint_law(self, samples, truth, known):
        for window in range(len(truth)):
            here = known[window]
            if not here.any():
                continue
            members = samples[:, window][:, here]
            distance = np.linalg.norm(members - truth[window][here], axis=1).mean()
            if len(members) > 1:
                distance -= pdist(members).mean() / 2
            self._totals["energy"] += distance / np.sqrt(here.sum())
            self._totals["windows"] += 1

    def _score_correlations(self, samples, truth, known):
        for source, values in (("samples", samples), ("truth", truth)):
            self._add_mean(f"autocorrelation_{source}", autocorrelation(values, known, self._lags))
            self._add_mean(f"spatial_{source}", spatial_correlation(values, known, self._distances))

    def _add_mean(self, name, curves):
        """Add (lags, ...) to the mean over all but the lags; NaN where undefined."""
        curves = curves.reshape(len(curves), -1)
        self._totals[name] += np.nansum(curves, axis=1)
        self._totals[f"{name}_count"] += np.isfinite(curves).sum(axis=1)

    def _score_peaks(self, samples, truth, known):
        peaks, peaks_truth = (np.where(known, values, -np.inf).max(axis=-3) for values in (samples, truth))
        used = known.any(axis=-3)
        self._totals["peak_value"] += np.abs(peaks[:, used] - peaks_truth[used]).sum() / len(samples)
        self._totals["peak_value_truth"] += peaks_truth[used].sum()
        if self._steps_per_day is not None:
            self._score_peak_hours(samples, truth, known)

    def _score_peak_hours(self, samples, truth, known):
        days, days_truth = (daily_profile(values, known, self._steps_per_day) for values in (samples, truth))
        present = np.isfinite(days_truth)
        steps, steps_truth = (np.where(present, day, -np.inf).argmax(axis=-3) for day in (days, days_truth))
        highest = np.where(present, days_truth, -np.inf).max(axis=-3)
        varies = highest > np.where(present, days_truth, np.inf).min(axis=-3)  # a constant day has no peak
        apart = np.abs(steps - steps_truth)[:, varies]
        self._totals["peak_steps"] += np.minimum(apart, self._steps_per_day - apart).sum() / len(samples)
        self._totals["peak_steps_count"] += int(varies.sum())

    def compute(self) -> dict:
        """
        The scores of all windows so far. What is undefined is `None`: JSON has no infinity. CRPS and RMSE below a
        millionth of the truth's root mean square are rounding, as at a level that was given, and are set to zero.

        Returns:
            `dict`:
            - `crps`: continuous ranked probability score, see [`fair_crps`]; for n = 1 the absolute error.
            - `mae_*`, `rmse_*`: mean absolute and root mean squared error, `_of_mean` and `_of_sample`; the MAE also
              `_of_median`, which is the forecast that minimises it: where traffic is skewed, the mean does not.
            - `sprmse_*`: RMSE of the averages over time, per place and window (the paper's spRMSE).
            - `psnr_*`: `20 log10(peak / rmse)` in dB, where the peak is the maximum of the truth; higher is better.
            - `energy_score`: CRPS of whole windows, `mean |x_i - y| - sum_{i<j} |x_i - x_j| / (n (n - 1))` with
              Euclidean norms (Gneiting & Raftery 2007, https://doi.org/10.1198/016214506000001437), divided by the
              root of the number of known values, so that windows of any size compare.
            - `spread_skill`: 1 when calibrated, below 1 when overconfident, see [`spread_skill`]; `None` where the
              RMSE of the mean is zero.
            - `rank_histogram`: relative frequency of the truth's rank among the members, n + 1 numbers, flat when
              calibrated (Talagrand et al. 1997, ECMWF workshop on predictability); ties at random.
            - `wasserstein`, `wasserstein_differences`: distance of the marginal laws of the values and of their first
              differences in time, per channel and averaged. Values within one of 64 bins per decade are merged.
            - `jsd`, `jsd_differences`: Jensen-Shannon divergence of the same laws in bits, 0 to 1, from 20 bins that
              hold equal parts of the truth and two outside its range. Few values give a divergence by themselves.
            - `autocorrelation_error`: mean absolute difference between the average autocorrelation of the samples'
              series and that of the truth's, over lags up to 48 h (at least two steps).
            - `spatial_correlation_error`: likewise for Moran's I of the maps at distances of 1 to 4 units.
            - `peak_hour_error`: hours between the peaks of a sample's and of the truth's mean day, around the clock,
              averaged over places. `None` where a day does not have at least two whole steps.
            - `peak_value_error`: mean absolute error of the maxima of the series over the mean maximum of the truth.
            - `count`: number of known values of the truth.

        Raises:
            ValueError: If nothing known has been scored.
        """
        totals, count = self._totals, self._totals["count"]
        if not count:
            raise ValueError("`compute` needs at least one `update` with a known value.")
        several = self._members > 1
        rounding = ROUNDING * np.sqrt(totals["squared_truth"] / count)
        crps = (totals["crps"] if several else totals["absolute_of_sample"]) / count
        scores = {"crps": crps if abs(crps) > rounding else 0.0}
        for kind in ("of_mean", "of_sample"):
            rmse = np.sqrt(totals[f"squared_{kind}"] / count)
            rmse = rmse if rmse > rounding else 0.0
            scores[f"mae_{kind}"] = totals[f"absolute_{kind}"] / count
            scores[f"rmse_{kind}"] = rmse
            scores[f"sprmse_{kind}"] = np.sqrt(totals[f"squared_time_mean_{kind}"] / totals["places"])
            scores[f"psnr_{kind}"] = 20 * np.log10(self._peak / rmse) if self._peak > 0 and rmse > 0 else None
        scores["mae_of_median"] = totals["absolute_of_median"] / count
        scores["energy_score"] = totals["energy"] / totals["windows"]
        spread = np.sqrt((self._members + 1) / self._members * totals["variance"] / count)
        scores["spread_skill"] = _ratio(spread, scores["rmse_of_mean"]) if several else None
        scores["rank_histogram"] = (totals["ranks"] / count).tolist() if several else None
        for suffix, marginals in (("", self._values), ("_differences", self._differences)):
            scores[f"wasserstein{suffix}"], scores[f"jsd{suffix}"] = marginals.distances()
        scores["autocorrelation_error"] = self._curve_error("autocorrelation")
        scores["spatial_correlation_error"] = self._curve_error("spatial")
        scores["peak_hour_error"] = _ratio(self.time_step_hours * totals["peak_steps"], totals["peak_steps_count"])
        scores["peak_value_error"] = _ratio(totals["peak_value"], totals["peak_value_truth"])
        scores["count"] = int(count)
        return {key: float(value) if isinstance(value, np.floating) else value for key, value in scores.items()}

    def _curve_error(self, name):
        counts = [self._totals[f"{name}_{source}_count"] for source in ("samples", "truth")]
        defined = (counts[0] > 0) & (counts[1] > 0)
        if not defined.any():
            return None
        generated, truth = (
            self._totals[f"{name}_{source}"][defined] / count[defined]
            for source, count in zip(("samples", "truth"), counts)
        )
        return float(np.abs(generated - truth).mean())


class _Marginals:
    """Histograms of generated and true values per channel, with the sum of the values in every bin."""

    def __init__(self):
        self.counts, self.sums = 0.0, 0.0  # (2, C, bins): samples, truth

    def add(self, samples, truth, known):
        counts, sums = (np.zeros((2, truth.shape[1], 2 * _BINS + 1)) for _ in range(2))
        for channel in range(truth.shape[1]):
            here = known[:, channel]
            for row, values in enumerate((samples[:, :, channel][:, here].ravel(), truth[:, channel][here])):
                bins = _bin_of(values)
                counts[row, channel] = np.bincount(bins, minlength=2 * _BINS + 1)
                sums[row, channel] = np.bincount(bins, weights=values, minlength=2 * _BINS + 1)
        self.counts, self.sums = self.counts + counts, self.sums + sums

    def distances(self):
        """Wasserstein distance and Jensen-Shannon divergence (bits), averaged over the channels with values."""
        distances = []
        for (generated, truth), sums in zip(np.swapaxes(self.counts, 0, 1), np.swapaxes(self.sums, 0, 1)):
            if not truth.any():
                continue
            centres = [total[count > 0] / count[count > 0] for total, count in zip(sums, (generated, truth))]
            distance = wasserstein_distance(*centres, generated[generated > 0], truth[truth > 0])
            distances.append((distance, _divergence(generated, truth)))
        return np.mean(distances, axis=0).tolist() if distances else (None, None)


def _bin_of(values):
    """Bin of every value: `_BINS` is zero, above are positive values and below, mirrored, negative ones."""
    with np.errstate(divide="ignore"):
        magnitude = np.floor(np.log10(np.abs(values) / _LOWEST) * _BINS_PER_DECADE)
    magnitude = np.clip(magnitude + 1, 0, _BINS).astype(np.int64)
    return _BINS + np.where(values < 0, -magnitude, magnitude)


def _divergence(generated, truth):
    """Jensen-Shannon divergence in bits of two histograms whose bins are merged to equal frequencies in the truth."""
    reached = truth.cumsum() / truth.sum()
    merged = np.ceil(_FREQUENCY_BINS * reached).astype(np.int64)
    merged[np.flatnonzero(truth)[-1] + 1 :] += 1  # what lies outside the range of the truth has bins of its own
    return jensenshannon(np.bincount(merged, generated), np.bincount(merged, truth), base=2) ** 2


def autocorrelation(values: np.ndarray, known: np.ndarray, lags) -> np.ndarray:
    """
    Autocorrelation of every series: `sum_t x_t x_{t+lag} / sum_t x_t^2` of deviations from the series' own mean.

    Args:
        values (`np.ndarray`): `(..., T, H, W)`.
        known (`np.ndarray`): bool, broadcasts to `values`. Unknown steps are left out of mean and sums.
        lags (`Iterable[int]`): Lags in steps.

    Returns:
        `np.ndarray`: `(lags, ..., H, W)`, NaN for constant series and lags that are not shorter than the series.
    """
    centred, energy = _centred(values, known, axes=(-3,))
    curves = np.full((len(lags), *energy.shape[:-3], *energy.shape[-2:]), np.nan)
    for row, lag in enumerate(lags):
        if lag < values.shape[-3]:
            products = centred[..., lag:, :, :] * centred[..., :-lag, :, :]
            curves[row] = products.sum(axis=-3) / energy.squeeze(-3)
    return curves


def spatial_correlation(values: np.ndarray, known: np.ndarray, distances) -> np.ndarray:
    """
    Moran's I of every map, `(N / pairs) sum_pairs x_i x_j / sum_i x_i^2` of deviations from the map's own mean, over
    the pairs of units that are `distance` apart along a row or a column (Moran 1950,
    https://doi.org/10.1093/biomet/37.1-2.17).

    Args:
        values (`np.ndarray`): `(..., H, W)`.
        known (`np.ndarray`): bool, broadcasts to `values`. Unknown units are left out.
        distances (`Iterable[int]`): Distances in units.

    Returns:
        `np.ndarray`: `(distances, ...)`, NaN for constant maps and distances without a pair.
    """
    centred, energy = _centred(values, known, axes=(-2, -1))
    count, energy = known.sum(axis=(-2, -1)), energy[..., 0, 0]
    curves = np.full((len(distances), *energy.shape), np.nan)
    for row, distance in enumerate(distances):
        products, pairs = 0.0, 0
        for field, present in ((centred, known), (centred.swapaxes(-2, -1), known.swapaxes(-2, -1))):
            products = products + (field[..., distance:] * field[..., :-distance]).sum(axis=(-2, -1))
            pairs = pairs + (present[..., distance:] & present[..., :-distance]).sum(axis=(-2, -1))
        curves[row] = np.where(pairs > 0, count / np.maximum(pairs, 1) * products / energy, np.nan)
    return curves


def daily_profile(values: np.ndarray, known: np.ndarray, steps_per_day: int) -> np.ndarray:
    """
    Mean day of every series.

    Args:
        values (`np.ndarray`): `(..., T, H, W)`; T need not be whole days.
        known (`np.ndarray`): bool, broadcasts to `values`. Unknown steps are left out.
        steps_per_day (`int`): Steps in a day.

    Returns:
        `np.ndarray`: `(..., steps_per_day, H, W)`; it begins at the clock time of the first step. NaN where no day has
        a known value.
    """
    known = np.broadcast_to(known, values.shape)
    profile = np.full((*values.shape[:-3], steps_per_day, *values.shape[-2:]), np.nan)
    for step in range(min(steps_per_day, values.shape[-3])):
        every_day = (..., slice(step, None, steps_per_day), slice(None), slice(None))
        count = known[every_day].sum(axis=-3)
        total = np.where(known[every_day], values[every_day], 0.0).sum(axis=-3)
        profile[..., step, :, :] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return profile


def _centred(values, known, axes):
    """Deviations from the mean over `axes`, 0 where unknown, and their sum of squares (kept axes), NaN if constant."""
    values = np.where(known, values, 0.0)
    mean = values.sum(axis=axes, keepdims=True) / np.maximum(known.sum(axis=axes, keepdims=True), 1)
    centred = np.where(known, values - mean, 0.0)
    energy = (centred**2).sum(axis=axes, keepdims=True)
    rounding = 1e-20 * (values**2).sum(axis=axes, keepdims=True)
    return centred, np.where(energy > rounding, energy, np.nan)


def _broadcast_mask(mask, shape):
    if mask is None:
        return np.ones(shape, dtype=bool)
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim == len(shape) - 1:
        mask = mask[:, None]  # (B, T, H, W): the same for all channels
    return np.broadcast_to(mask, shape)


def _ratio(numerator, denominator):
    return float(numerator / denominator) if denominator > 0 else None
