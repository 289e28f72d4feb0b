# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic by type of area of interest (AOI): trend and daily season (the paper's Fig. 4), RV coefficients (Fig. 3).

A unit counts for a type by the share of its cells that are of this type. So every type is seen at every scale, also
where it never fills a whole base-station area.
"""

import numpy as np

from .similarity import rv_matrix
from .zones import adds_up, over_units


HOURS_PER_DAY, HOURS_PER_WEEK = 24, 168


def types_by_traffic(truth, area_types):
    """
    The types that occur, those with most traffic first.

    Args:
        truth (`np.ndarray`): (time, y, x) of the finest level, NaN where unknown.
        area_types (`np.ndarray`): (y, x) int, the same size or a multiple of it.

    Returns:
        `list[int]`.
    """
    total = np.nansum(truth, axis=0)
    factor = area_types.shape[0] // total.shape[0]
    values = np.unique(area_types)
    amounts = [(total * share_of_type(area_types, value, factor)).sum() for value in values]
    return [int(values[index]) for index in np.argsort(amounts, kind="stable")[::-1]]


def share_of_type(area_types, value, factor):
    """Share of the cells of one type in units of `factor` x `factor` cells: (y, x) -> (y / factor, x / factor)."""
    height, width = (size // factor for size in area_types.shape)
    return (area_types == value).reshape(height, factor, width, factor).mean(axis=(1, 3))


def decompose(series, time_step):
    """
    Split a series into trend, season and remainder by seasonal-trend decomposition with LOESS.

    MSTL (Bandara et al. 2021, https://arxiv.org/abs/2107.13462) with a daily season, and a weekly one where there are
    more than two weeks.

    Args:
        series (`np.ndarray`): (time,), without gaps, more than two days.
        time_step (`float`): Hours; a day must have at least two whole steps.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: trend and season, (time,) each.

    Raises:
        ValueError: If the series is too short or a day has no two whole steps.
    """
    from statsmodels.tsa.seasonal import MSTL

    steps = HOURS_PER_DAY / time_step
    if steps != round(steps) or steps < 2 or len(series) <= 2 * steps:
        raise ValueError(
            f"`series` must span more than two days in whole steps of half a day or less, but has {len(series)} steps "
            f"of {time_step} h."
        )
    periods = [round(steps)]
    if len(series) * time_step > 2 * HOURS_PER_WEEK:
        periods.append(7 * periods[0])
    fitted = MSTL(np.asarray(series, dtype=np.float64), periods=periods).fit()
    return fitted.trend, fitted.seasonal.reshape(len(series), -1).sum(axis=1)


def decomposition_by_type(generated, truth, hierarchy, area_types, values, zones=None):
    """
    Trend and season of the mean traffic of each type at each spatial scale, truth and ensemble mean.

    Args:
        generated (`np.ndarray`): (sample, time, y, x) of the finest level.
        truth (`np.ndarray`): (time, y, x), NaN where unknown.
        hierarchy (`Hierarchy`):
            Its spatial units are the scales; all series have the finest time step. Units that those of the finest
            level cut are left out.
        area_types (`np.ndarray`): (Y, X) int, one per finest cell.
        values (`list[int]`): Types.
        zones (`Mapping[str, torch.Tensor]`, *optional*): Of levels with zones, from [`as_batch`].

    Returns:
        `dict[int, dict[str, dict]]`: by type and scale (such as `"400 m"` or `"by site"`), for `"truth"` and
        `"generated"` the lists `"trend"` and `"season"`, and `"trend_error"` and `"season_error"`: the mean absolute
        difference relative to the mean of the truth. A series with a gap is left out. Empty where the time is too
        short.
    """
    time_step = hierarchy.config.time_step * hierarchy.temporal_factors[-1]
    if len(truth) * time_step <= 2 * HOURS_PER_DAY or (HOURS_PER_DAY / time_step) % 1 or time_step > HOURS_PER_DAY / 2:
        return {}
    mean = generated.mean(axis=0, dtype=np.float64)
    result = {value: {} for value in values}
    finest = hierarchy.levels[-1]
    scales = {name_of_scale(level, hierarchy): level for level in hierarchy.levels}
    for scale, level in scales.items():
        if not adds_up(finest, level, zones):
            continue
        fields = [over_units(field, level, finest.raster_factor, zones) for field in (truth, mean)]
        for value in values:
            share = over_units((area_types == value)[None], level, 1, zones)[0]
            series = [_mean_over_places(field, share, known=fields[0]) for field in fields]
            if np.isfinite(series[0]).all() and series[0].mean() > 0:
                result[value][scale] = _compare(*series, time_step)
    return {value: scales for value, scales in result.items() if scales}


def rv_by_type(generated, truth, hierarchy, area_types=None, values=(), zones=None):
    """
    RV coefficients (the paper's Eq. 1) between all pairs of levels, of the truth and averaged over the samples.

    Args:
        generated (`Mapping[str, np.ndarray]`): Levels by name, (sample, time, y, x).
        truth (`Mapping[str, np.ndarray]`): (time, y, x), NaN where unknown. Units with a gap are left out of both.
        hierarchy (`Hierarchy`): The levels.
        area_types (`np.ndarray`, *optional*): (Y, X) int, one per finest cell.
        values (`Sequence[int]`): Types.
        zones (`Mapping[str, torch.Tensor]`, *optional*): Of levels with zones, from [`as_batch`].

    Returns:
        `dict`: for `None` (all cells) and every type, `{"truth": (K, K), "generated": (K, K)}` as lists, with `None`
        where a coefficient is undefined; a type is left out where a level has no unit of it without a gap.
    """
    result = {}
    for value in (None, *values):
        weights = {}
        for name, field in truth.items():
            level, share = hierarchy.levels[hierarchy.index(name)], 1.0
            if value is not None:
                share = over_units((area_types == value)[None], level, 1, zones)[0]
            weights[name] = np.sqrt(share * np.isfinite(field).all(axis=0))  # of a column: its square enters the RV
        if not all(((weights[name] > 0) * np.nan_to_num(truth[name])).any() for name in truth):
            continue
        result[value] = {
            kind: _as_lists(
                rv_matrix({name: np.nan_to_num(levels[name]) * weights[name] for name in truth}, hierarchy)
            )
            for kind, levels in (("truth", truth), ("generated", generated))
        }
    return result


def name_of_scale(level, hierarchy):
    """Such as `"400 m"` or, of a level with zones, `"by site"`."""
    return f"by {level.zones}" if level.zones else f"{level.spatial_factor * hierarchy.config.cell_size:g} m"


def _as_lists(matrix):
    return [[float(value) if np.isfinite(value) else None for value in row] for row in matrix]


def _mean_over_places(field, share, known):
    """(time, y, x) -> (time,): mean of the known units, weighted by `share`."""
    weights = share * np.isfinite(known)
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(field) * weights).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))


def _compare(truth, generated, time_step):
    parts = {"truth": decompose(truth, time_step), "generated": decompose(generated, time_step)}
    scale = truth.mean()
    errors = [float(np.abs(parts["truth"][part] - parts["generated"][part]).mean() / scale) for part in (0, 1)]
    return {
        **{name: {"trend": _rounded(trend), "season": _rounded(season)} for name, (trend, season) in parts.items()},
        "trend_error": errors[0],
        "season_error": errors[1],
    }


def _rounded(series):
    return [float(f"{value:.6g}") for value in series]
