# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Similarity of the traffic of two levels: the RV coefficient (Eq. 1 of the paper; Robert & Escoufier 1976)."""

from collections.abc import Mapping

import numpy as np


def rv_coefficient(a: np.ndarray, b: np.ndarray, center: bool = True) -> float:
    """
    RV coefficient of two data matrices that describe the same observations (https://doi.org/10.2307/2347233).

    `tr(A A' B B') / sqrt(tr((A A')^2) tr((B B')^2))`: 1 when the observations have the same configuration in both, up
    to rotation and scale, and 0 when every column of one is uncorrelated with every column of the other. With one
    column each it is the squared correlation. Few observations of many columns give a high value by themselves.

    Args:
        a (`np.ndarray`): `(observations, p)`: Gamma_1, for example time steps by places.
        b (`np.ndarray`): `(observations, q)`: Gamma_2.
        center (`bool`, defaults to `True`):
            Subtract the mean of every column first, as Robert and Escoufier do. Eq. 1 read to the letter, without it,
            is close to 1 for any two matrices of non-negative traffic.

    Returns:
        `float`: 0 to 1; NaN if a matrix is constant along the observations.

    Raises:
        ValueError: If the arguments are not matrices with the same number of rows.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"`a` and `b` must be matrices with the same number of rows: found {a.shape} and {b.shape}.")
    (a, a_varies), (b, b_varies) = _scaled(a, center), _scaled(b, center)
    if not (a_varies and b_varies):
        return float("nan")
    return float(_trace(a, b) / np.sqrt(_trace(a, a) * _trace(b, b)))


def rv_matrix(
    levels: Mapping[str, np.ndarray], hierarchy, places: np.ndarray | None = None, center: bool = True
) -> np.ndarray:
    """
    RV coefficients between all levels (Fig. 3 of the paper).

    For two levels the finer one in time is averaged to the time step of the coarser one. Observations are the time
    steps, columns are the units of a level; the coefficients of several samples are averaged.

    Args:
        levels (`Mapping[str, np.ndarray]`): Levels by name, each `(..., T, H, W)`: means per finest cell and step.
        hierarchy (`Hierarchy`): Gives every level its factors.
        places (`np.ndarray`, *optional*):
            bool, `(H, W)` on the finest grid, for example one type of area; only these are compared. A coarser unit
            counts when at least half of it does; of a level with zones, every cell counts by itself.
        center (`bool`, defaults to `True`): See [`rv_coefficient`].

    Returns:
        `np.ndarray`: `(K, K)`, symmetric, in the order of `levels`. NaN where a level has no unit in `places`, does
        not vary, or has a single time step in common.

    Raises:
        ValueError: If the levels do not cover the same time.
    """
    matrices = {name: _matrices(values, hierarchy, name, places) for name, values in levels.items()}
    factors = {name: hierarchy.levels[hierarchy.index(name)].temporal_factor for name in levels}
    names = list(levels)
    result = np.full((len(names), len(names)), np.nan)
    for row, first in enumerate(names):
        for column, second in enumerate(names[: row + 1]):
            step = max(factors[first], factors[second])
            pair = [_averaged(matrices[name], step, factors[name], name) for name in (first, second)]
            if pair[0].shape[:2] != pair[1].shape[:2]:
                raise ValueError(
                    f"`levels` must hold the same samples and time, but {first!r} and {second!r} have "
                    f"{pair[0].shape[:2]} and {pair[1].shape[:2]} (samples, common steps)."
                )
            result[row, column] = result[column, row] = np.mean([rv_coefficient(*both, center) for both in zip(*pair)])
    return result


def _matrices(values, hierarchy, name, places):
    """(..., T, H, W) -> (samples, T, units) of the chosen places."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim < 3:
        raise ValueError(f"Level {name!r} must be (..., T, H, W), found shape {values.shape}.")
    matrices = values.reshape(-1, values.shape[-3], values.shape[-2] * values.shape[-1])
    if places is None:
        return matrices
    factor = hierarchy.levels[hierarchy.index(name)].raster_factor
    height, width = values.shape[-2:]
    places = np.asarray(places, dtype=bool)
    if places.shape != (height * factor, width * factor):
        raise ValueError(
            f"`places` must be {(height * factor, width * factor)} to fit level {name!r}, found {places.shape}."
        )
    share = places.reshape(height, factor, width, factor).mean(axis=(1, 3))
    return matrices[:, :, share.ravel() >= 0.5]


def _averaged(matrices, step, factor, name):
    """Means over the steps that make one step of the coarser level."""
    samples, steps, units = matrices.shape
    ratio = step // factor
    if steps % ratio:
        raise ValueError(f"Level {name!r} must have a multiple of {ratio} steps, found {steps}.")
    return matrices.reshape(samples, steps // ratio, ratio, units).mean(axis=2)


def _scaled(matrix, center):
    """Centred and divided by its norm, which the coefficient does not see; and whether anything is left."""
    size = np.linalg.norm(matrix)
    if center and len(matrix):
        matrix = matrix - matrix.mean(axis=0)
    norm = np.linalg.norm(matrix)
    return matrix / (norm or 1.0), norm > 1e-12 * size


def _trace(a, b):
    """tr(A A' B B') by the smaller products: the squared norm of A'B, or the sum of the two Gram matrices' product."""
    if len(a) < min(a.shape[1], b.shape[1]):
        return ((a @ a.T) * (b @ b.T)).sum()
    return ((a.T @ b) ** 2).sum()
