# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Generated traffic against the truth: every score of every level, as one dictionary."""

import numpy as np

from .aoi_types import decomposition_by_type, rv_by_type, types_by_traffic
from .metrics import cross_level_error
from .streaming import StreamingScores
from .zones import as_batch


def evaluate(generated, truth, hierarchy, channels=("traffic",), area_types=None, type_names=None, zones=None):
    """
    Score an ensemble of one area at all its levels.

    A level with zones has arrays on the finest cells, and every cell counts: a unit counts by its area.

    Args:
        generated (`Mapping[str, np.ndarray]`):
            Levels by name, coarse to fine, each (sample, channel, time, y, x): means per finest cell and time step.
        truth (`Mapping[str, np.ndarray]`): The same levels, each (channel, time, y, x); NaN where unknown.
        hierarchy (`Hierarchy`): These levels.
        channels (`Sequence[str]`, defaults to `("traffic",)`): Names of the channels; each is scored on its own.
        area_types (`np.ndarray`, *optional*): (Y, X) int, the type of the area around every finest cell.
        type_names (`Mapping[int, str]`, *optional*): Names of the types.
        zones (`Mapping[str, np.ndarray]`, *optional*):
            Layers (Y, X) of whole numbers from 0 on, which levels with zones need: the unit that serves each cell.

    Returns:
        `dict`, JSON-safe: `samples`, `levels` (names), `resolutions` (metres and hours by level; of a level with zones
        also their layer, `zones`, and the metres of a typical unit) and `channels`: for each of them
        - `mean`: mean of the truth at the finest level, the unit of all scores;
        - `levels`: by name, the scores of [`StreamingScores.compute`] with `mean_ratio` (mean of what was generated
          over that of the truth) and [`cross_level_error`], but for the coarsest level or, with zones, the finest;
          `None` where nothing is known;
        - `rv`: by type, RV coefficients between the levels, see [`rv_by_type`]; `"all"` is the whole area;
        - `decomposition`: by type, trend and season, see [`decomposition_by_type`]; `"all"` without types.

    Raises:
        ValueError: If shapes do not match, zones are missing, or the truth is zero everywhere.
    """
    _check(generated, truth, hierarchy, channels, area_types)
    zones = as_batch(zones, hierarchy.levels)
    resolutions = {
        level.name: {
            "metres": level.spatial_factor * hierarchy.config.cell_size,
            "hours": level.temporal_factor * hierarchy.config.time_step,
            **({"zones": level.zones} if level.zones else {}),
        }
        for level in hierarchy.levels
    }
    result = {
        "samples": len(generated[hierarchy.names[-1]]),
        "levels": hierarchy.names,
        "resolutions": resolutions,
        "channels": {},
    }
    for index, channel in enumerate(channels):
        of_channel = {name: values[:, index] for name, values in generated.items()}
        truth_of_channel = {name: values[index] for name, values in truth.items()}
        result["channels"][channel] = _evaluate_channel(
            of_channel, truth_of_channel, hierarchy, channel, area_types, type_names, zones
        )
    return result


def _evaluate_channel(generated, truth, hierarchy, channel, area_types, type_names, zones):
    finest = truth[hierarchy.names[-1]]
    mean = float(np.nanmean(finest, dtype=np.float64))
    if not mean > 0:
        raise ValueError(f"The truth of channel {channel!r} is zero everywhere: there is no unit to score in.")
    errors = cross_level_error(generated, hierarchy, zones=zones)
    levels = {}
    for level in hierarchy.levels:
        hours = level.temporal_factor * hierarchy.config.time_step
        side = level.spatial_factor // level.raster_factor
        levels[level.name] = _scores(generated[level.name], truth[level.name], hours, mean, side)
        if levels[level.name] is not None and level.name in errors:
            levels[level.name]["cross_level_error"] = errors[level.name]
    if area_types is None:
        names, area_types, types = {0: "all"}, np.zeros(_cells(finest, hierarchy), dtype=int), [0]
        rv = rv_by_type(generated, truth, hierarchy, zones=zones)
    else:
        names, types = dict(type_names or {}), types_by_traffic(finest, area_types)
        rv = rv_by_type(generated, truth, hierarchy, area_types, types, zones)
    names = {value: names.get(value, f"type {value}") for value in types}
    decomposition = decomposition_by_type(generated[hierarchy.names[-1]], finest, hierarchy, area_types, types, zones)
    return {
        "mean": mean,
        "levels": levels,
        "rv": {"all" if value is None else names[value]: matrices for value, matrices in rv.items()},
        "decomposition": {names[value]: scales for value, scales in decomposition.items()},
    }


def _scores(generated, truth, hours, unit, side):
    """All scores of one level, (sample, time, y, x) and (time, y, x); `None` where nothing is known."""
    known = np.isfinite(truth)
    if not known.any():
        return None
    scores = StreamingScores(hours, unit, side)
    scores.update(generated[:, None, None], truth[None, None], known[None, None])
    mean = float(truth[known].mean(dtype=np.float64))
    ratio = float(generated[:, known].mean(dtype=np.float64)) / mean if mean > 0 else None
    return {**scores.compute(), "mean_ratio": ratio}


def _cells(finest, hierarchy):
    return tuple(size * hierarchy.raster_factors[-1] for size in finest.shape[-2:])


def _check(generated, truth, hierarchy, channels, area_types):
    for name, levels in (("generated", generated), ("truth", truth)):
        if list(levels) != hierarchy.names:
            raise ValueError(f"`{name}` must hold the levels {hierarchy.names} in this order, found {list(levels)}.")
    for name in hierarchy.names:
        shape, expected = generated[name].shape, truth[name].shape
        if len(shape) != 5 or shape[1:] != expected or shape[1] != len(channels):
            raise ValueError(
                f"Level {name!r} must be (sample, channel, time, y, x) with {len(channels)} channel(s) in `generated` "
                f"and without the first axis in `truth`; found {shape} and {expected}."
            )
    cells = _cells(truth[hierarchy.names[-1]], hierarchy)
    if area_types is not None and area_types.shape != cells:
        raise ValueError(f"`area_types` must be {cells}, one per finest cell, found {area_types.shape}.")
