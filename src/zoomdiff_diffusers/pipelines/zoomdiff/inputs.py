# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Checks and conversions of what users pass to [`ZoomDiffPipeline`]."""

from datetime import date, datetime, time

import numpy as np
import torch

from ...hierarchy import Hierarchy


SECONDS_PER_DAY = 86400
MONDAY = datetime(2024, 1, 1)


def parse_start(start, hierarchy: Hierarchy, begins: np.datetime64 | None = None) -> datetime:
    """
    Return the first hour as a naive local `datetime`; for `None` that at which the context `begins`, else a Monday.

    Raises:
        ValueError: If `start` is no date, carries a time zone, does not lie on a time step of the coarsest level, or
            is not where the context begins.
    """
    start = begins if start is None else start
    if start is None:
        return MONDAY
    if isinstance(start, np.datetime64):
        start = start.astype("datetime64[us]").item()
    try:
        parsed = datetime.fromisoformat(start) if isinstance(start, str) else start
        if isinstance(parsed, date) and not isinstance(parsed, datetime):
            parsed = datetime.combine(parsed, time())
        parsed = datetime(*parsed.timetuple()[:6], parsed.microsecond, tzinfo=parsed.tzinfo)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"`start` must be a date and time such as '2024-01-01T00:00', but is {start!r}.") from error
    if parsed.tzinfo is not None:
        raise ValueError(f"`start` must be local time without a time zone, but is {start!r}.")
    step = min(hierarchy.temporal_factors[0] * hierarchy.config.time_step * 3600, SECONDS_PER_DAY)
    since_midnight = parsed - datetime.combine(parsed, time())
    if since_midnight.total_seconds() % step:
        raise ValueError(
            f"`start` must lie a multiple of {step / 3600:g} h after midnight, where a time step of the coarsest level"
            f" {hierarchy.names[0]!r} begins, but is {start!r}."
        )
    if begins is not None and np.datetime64(parsed, "s") != begins.astype("datetime64[s]"):
        raise ValueError(
            f"`start` is {parsed.isoformat()}, but the coordinate `hour` of the context begins at {begins}: cut the"
            " context to the hours that are wanted."
        )
    return parsed


def hour_of_week(start: datetime) -> float:
    """Return the time since Monday 00:00 in hours, with a fraction where `start` lies within an hour."""
    midnight = datetime.combine(start, time())
    return start.weekday() * 24 + (start - midnight).total_seconds() / 3600


def check_cell_size(contexts: list, hierarchy: Hierarchy):
    """Raise a `ValueError` for a context whose attribute `cell_size_m` is not the side of the hierarchy's cells."""
    for context in contexts:
        found = getattr(context, "attrs", {}).get("cell_size_m", hierarchy.config.cell_size)
        if found != hierarchy.config.cell_size:
            raise ValueError(
                f"The context has cells of {found:g} m, but the model was made for {hierarchy.config.cell_size:g} m."
            )


def first_hour(contexts: list, time_step: float) -> np.datetime64 | None:
    """
    Return the time at which the contexts' layers begin, where their coordinate `hour` tells; else `None`.

    Args:
        contexts (`list` of `dict` or `xarray.Dataset`): Raw layers; only a dataset has coordinates.
        time_step (`float`): Finest time step of the model in hours.

    Raises:
        ValueError: If they begin at different times, or their times are not one time step apart.
    """
    starts = set()
    for position, context in enumerate(contexts):
        hour = getattr(context, "coords", {}).get("hour")
        if hour is None or hour.dtype.kind != "M" or not hour.size:
            continue
        times = np.atleast_1d(hour.values)
        deviations = abs(np.diff(times) - np.timedelta64(round(time_step * 3600), "s"))
        # Files that count in days round their hours.
        irregular = np.flatnonzero(~(deviations < np.timedelta64(1, "s")))
        if irregular.size:
            before, after = times[irregular[0] : irregular[0] + 2].astype("datetime64[s]")
            raise ValueError(
                f"The times of the coordinate `hour` of context {position} must be {time_step:g} h apart, the time"
                f" step of the model, but {before} is followed by {after}."
            )
        starts.add(times[0])
    if len(starts) > 1:
        raise ValueError(f"All contexts of one call must begin at the same hour, but begin at {sorted(starts)}.")
    return starts.pop() if starts else None


def expand_generators(generator, count: int) -> list[torch.Generator]:
    """
    Return one generator per sample, so that a sample does not depend on the batch that it is computed in.

    Args:
        generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
            One, from which `count` seeds are drawn (PyTorch's default one if `None`), or one per sample.
        count (`int`): Number of samples.
    """
    if isinstance(generator, (list, tuple)):
        if len(generator) != count:
            raise ValueError(f"`generator` must be one or a list of {count}, one per sample, not {len(generator)}.")
        return list(generator)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            "`generator` must be a torch.Generator, such as torch.Generator().manual_seed(0), or a list of them, but "
            f"is {generator!r}."
        )
    device = "cpu" if generator is None else generator.device
    # One draw per sample: a larger ensemble begins with the samples of a smaller one.
    seeds = [torch.randint(2**63 - 1, (), generator=generator, device=device).item() for _ in range(count)]
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def cell_centres(context, size: tuple[int, int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """
    Return the coordinates `y` and `x` of the finest cells; `None` for one that the context does not have.

    Args:
        context (`dict` or `xarray.Dataset`): Raw layers; only a dataset has coordinates.
        size (`tuple[int, int]`): Height and width of its grid.

    Raises:
        ValueError: If they are not numbers that rise or fall steadily, one per row or column.
    """
    coordinates = getattr(context, "coords", {})
    centres = [coordinates[axis].values if axis in coordinates else None for axis in ("y", "x")]
    for axis, values, count in zip(("y", "x"), centres, size):
        if values is None:
            continue
        steps = np.diff(values) if values.ndim == 1 and values.dtype.kind in "iuf" else np.full(1, np.nan)
        if values.shape != (count,) or not (np.isfinite(values).all() and ((steps > 0).all() or (steps < 0).all())):
            raise ValueError(
                f"The coordinate {axis!r} of the context must be {count} numbers that rise or fall steadily, but is"
                f" {values.dtype} of shape {values.shape}: {np.array2string(values, threshold=4, edgeitems=2)}."
            )
    return tuple(centres)


def as_traffic(traffic, channels: int, num_contexts: int, device: torch.device) -> torch.Tensor:
    """
    Return given traffic as (N, C, T, H, W) in float32 with N a multiple of `num_contexts`.

    Raises:
        ValueError: For other shapes, and for negative or infinite values. NaN stands for a missing value.
    """
    values = traffic if isinstance(traffic, torch.Tensor) else torch.as_tensor(np.array(traffic))
    values = values.to(device, torch.float32)
    if values.ndim == 4:
        values = values[None]
    if values.ndim != 5 or values.shape[1] != channels or len(values) == 0 or len(values) % num_contexts:
        raise ValueError(
            f"`traffic` must have the shape (N, {channels}, T, H, W) with N a multiple of the number of contexts,"
            f" {num_contexts}, but has {tuple(traffic.shape)}."
        )
    if (values < 0).any() or values.isinf().any():
        raise ValueError("`traffic` must be finite and not negative; write NaN where a value is missing.")
    return values


def check_zone_traffic(traffic: torch.Tensor, level: int, hierarchy: Hierarchy, zones: dict | None):
    """
    Raise a `ValueError` for given traffic of a level with zones whose cells do not have the value of their unit.

    Args:
        traffic (`torch.Tensor`): (N, C, T_k, H_k, W_k), NaN where nothing is known.
        level (`int`): Its level.
        hierarchy ([`Hierarchy`]): The levels.
        zones (`dict[str, torch.Tensor]`, *optional*): Those of each of the N, if the hierarchy has any.
    """
    for values in (traffic.isnan().float(), traffic.nan_to_num(nan=0.0)):
        units = hierarchy.over_units(values, level, zones)
        if not torch.allclose(values, units, rtol=1e-3, atol=0):
            different = int((~torch.isclose(values, units, rtol=1e-3, atol=0)).flatten(2).any(2).sum())
            raise ValueError(
                f"`traffic` of level {hierarchy.names[level]!r} must have one value in all cells of a unit of"
                f" {hierarchy.levels[level].zones!r}, or none, but has several in {different} of"
                f" {values.shape[0] * values.shape[1]} tensors (sample and channel)."
            )
