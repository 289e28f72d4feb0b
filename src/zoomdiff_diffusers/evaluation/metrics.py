# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Scores of an ensemble against the truth, as plain functions on arrays.

An ensemble has its members on the first axis: `samples` is `(n, ...)` and `truth` is `(...)`, in the same units.
Scores come out in these units (spread/skill is a ratio); lower is better. `mask` is True where the truth is known.
"""

from collections.abc import Mapping

import numpy as np

from .zones import adds_up, as_batch


# An error below this share of the truth's root mean square is rounding: traffic is stored in single precision.
ROUNDING = 1e-6
_CHUNK = 2**20  # points scored at once: bounds the memory of a sort to a few tens of megabytes per member


def fair_crps(samples, truth):
    """
    Continuous ranked probability score at every point, with the fair estimator.

    `mean |x_i - y| - sum_{i<j} |x_i - x_j| / (n (n - 1))`, which is unbiased for any number of members: a small
    ensemble is not punished for being small (Ferro 2014, https://doi.org/10.1002/qj.2270). The pair sum is taken from
    the sorted members, so that memory stays proportional to `n` and not to `n * n`.

    Args:
        samples (`np.ndarray`): `(n, ...)`, at least two members.
        truth (`np.ndarray`): `(...)`.

    Returns:
        `np.ndarray`: `(...)`, float64. A single point may be negative; only the mean over points is a score.

    Raises:
        ValueError: If there are fewer than two members or the shapes do not match.
    """
    samples, truth = _check(samples, truth, minimum=2)
    members = samples.shape[0]
    # In sorted order x_(1) <= ... <= x_(n), the sum over pairs of |x_i - x_j| is sum_i (2i - n - 1) x_(i).
    weights = (2 * np.arange(1, members + 1) - members - 1) / (members * (members - 1))
    flat_samples, flat_truth = samples.reshape(members, -1), truth.reshape(-1)
    scores = np.empty(flat_truth.size, dtype=np.float64)
    for first in range(0, flat_truth.size, _CHUNK):
        part = slice(first, first + _CHUNK)
        ordered = np.sort(flat_samples[:, part].astype(np.float64), axis=0)
        scores[part] = np.abs(ordered - flat_truth[part]).mean(axis=0) - weights @ ordered
    return scores.reshape(truth.shape)


def mae_of_mean(samples, truth, mask=None):
    """Mean absolute error of the ensemble mean. With a single member this is the error of that member."""
    samples, truth = _check(samples, truth)
    return _mean(np.abs(samples.mean(axis=0, dtype=np.float64) - truth), mask)


def mae_of_sample(samples, truth, mask=None):
    """Mean absolute error of one sample, averaged over the members. It is larger than that of the ensemble mean by
    the ensemble's spread; a paper that quotes "MAE" may mean either."""
    samples, truth = _check(samples, truth)
    return float(np.mean([_mean(np.abs(member.astype(np.float64) - truth), mask) for member in samples]))


def rmse_of_mean(samples, truth, mask=None):
    """Root mean squared error of the ensemble mean."""
    samples, truth = _check(samples, truth)
    return float(np.sqrt(_mean((samples.mean(axis=0, dtype=np.float64) - truth) ** 2, mask)))


def spread_skill(samples, truth, mask=None):
    """
    Spread of the ensemble over the error of its mean: 1 when calibrated, below 1 when overconfident.

    `sqrt((n + 1) / n * mean variance) / rmse_of_mean`, where the variance among the `n` members is the unbiased one
    (divided by `n - 1`) and averaged over all points. The factor `(n + 1) / n` is there because the mean of `n`
    members itself scatters: with it the ratio is 1 for an ensemble drawn from the truth's own law, for any `n`
    (Fortin et al. 2014, https://doi.org/10.1175/JHM-D-14-0008.1).

    Returns:
        `float`, or `None` where the error is nothing but rounding, as at a level that was given.

    Raises:
        ValueError: If there are fewer than two members or the shapes do not match.
    """
    samples, truth = _check(samples, truth, minimum=2)
    members = samples.shape[0]
    variance = _mean(samples.var(axis=0, ddof=1, dtype=np.float64), mask)
    error = rmse_of_mean(samples, truth, mask)
    if error <= _rounding(truth, mask):
        return None
    return float(np.sqrt((members + 1) / members * variance) / error)


def ensemble_scores(samples, truth, mask=None):
    """
    All scores of one level at once.

    Args:
        samples (`np.ndarray`): `(n, ...)`, at least two members.
        truth (`np.ndarray`): `(...)`.
        mask (`np.ndarray`, *optional*): bool, True where the truth is known; broadcast to the shape of `truth`.

    Returns:
        `dict`: `crps` (0 where it is nothing but rounding), `mae_of_mean`, `mae_of_sample`, `rmse_of_mean` and
        `spread_skill`, see there.
    """
    crps = _mean(fair_crps(samples, truth), mask)
    return {
        "crps": crps if abs(crps) > _rounding(truth, mask) else 0.0,
        "mae_of_mean": mae_of_mean(samples, truth, mask),
        "mae_of_sample": mae_of_sample(samples, truth, mask),
        "rmse_of_mean": rmse_of_mean(samples, truth, mask),
        "spread_skill": spread_skill(samples, truth, mask),
    }


def cross_level_error(levels, hierarchy, units="mean", zones=None):
    """
    How far each level is from adding up to the level above it.

    Where a level has zones, neighbours cannot tell each other's sums: squares on a border hold a part of each zone. So
    every level is then compared with the sums of the finest one.

    Args:
        levels (`Mapping[str, np.ndarray]`):
            Levels by name, coarse to fine and consecutive, each `(..., time, y, x)`.
        hierarchy (`Hierarchy`): Defines the aggregation.
        units (`str`, defaults to `"mean"`):
            `"mean"` where values are means per finest cell and step, `"sum"` where they are sums per unit and step.
        zones (`Mapping[str, np.ndarray]`, *optional*):
            For levels with zones: by layer (H, W), or (B, H, W) with one entry for each of the first axis of values.

    Returns:
        `dict[str, float]`: for every level but the first, the largest `|aggregated - coarse|`, relative to the coarse
        value. Coarse values below a millionth of the level's mean count as that, so that exact zeros can be compared.
        With zones the comparison is with the finest level instead, and its name is that of the coarse one: for every
        level but the last. Levels whose units the finest one cuts are left out: it does not tell their sums.

    Raises:
        ValueError: If `levels` is no mapping or `zones` lacks a layer.
    """
    if not isinstance(levels, Mapping):
        raise ValueError(f"`levels` must be a mapping from level name to array, got {type(levels).__name__}.")
    names = list(levels)
    if any(hierarchy.levels[hierarchy.index(name)].zones for name in names):
        return _errors_of_the_finest(levels, hierarchy, units, zones)
    errors = {}
    for coarse_name, fine_name in zip(names, names[1:]):
        coarse = np.asarray(levels[coarse_name], dtype=np.float64)
        fine = np.asarray(levels[fine_name], dtype=np.float64)
        target, source = hierarchy.index(coarse_name), hierarchy.index(fine_name)
        aggregated = hierarchy.aggregate(fine, target, source=source, reduction=units)
        errors[fine_name] = _largest_difference(aggregated, coarse)
    return errors


def _errors_of_the_finest(levels, hierarchy, units, zones):
    members = {name: hierarchy.levels[hierarchy.index(name)] for name in levels}
    zones = as_batch(zones, members.values())

    def means(name):
        values = np.asarray(levels[name], dtype=np.float64)
        if units == "mean":
            return values
        volume = np.asarray(hierarchy.volume(name, zones))
        if members[name].zones:  # (B, 1, 1, H, W)
            volume = volume.reshape(-1, *[1] * (values.ndim - 3), *values.shape[-2:])
        return values / volume

    *coarser, finest = members
    finest_means = means(finest)
    errors = {}
    for name in coarser:
        if adds_up(members[finest], members[name], zones):
            aggregated = hierarchy.aggregate(finest_means, name, source=finest, zones=zones)
            errors[name] = _largest_difference(aggregated, means(name))
    return errors


def _largest_difference(aggregated, coarse):
    floor = max(1e-6 * float(np.abs(coarse).mean()), np.finfo(np.float32).tiny)
    return float(np.max(np.abs(aggregated - coarse) / np.maximum(np.abs(coarse), floor)))


def _check(samples, truth, minimum=1):
    samples, truth = np.asarray(samples), np.asarray(truth)
    if samples.ndim == 0 or samples.shape[1:] != truth.shape:
        raise ValueError(
            f"`samples` must be (members, *truth.shape): found samples {samples.shape} and truth {truth.shape}."
        )
    if samples.shape[0] < minimum:
        raise ValueError(f"`samples` has {samples.shape[0]} member(s) on its first axis; at least {minimum} needed.")
    return samples, truth


def _rounding(truth, mask):
    """Errors up to which scores count as zero."""
    return ROUNDING * np.sqrt(_mean(np.square(truth, dtype=np.float64), mask))


def _mean(values, mask):
    if mask is None:
        return float(values.mean())
    mask = np.broadcast_to(np.asarray(mask, dtype=bool), values.shape)
    if not mask.any():
        raise ValueError("`mask` is False everywhere: there is nothing to score.")
    return float(values[mask].mean())
