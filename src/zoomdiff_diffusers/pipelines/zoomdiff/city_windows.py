# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""How a whole city is cut into windows, and how far these must reach for their cores to be exact."""

from dataclasses import dataclass
from functools import cache
from itertools import product
from math import prod

import numpy as np
from scipy.ndimage import find_objects


@dataclass(frozen=True)
class Window:
    """
    Part of an area, counted in units of the coarsest level along time, y and x.

    Args:
        core (`tuple[slice, slice, slice]`): What the window is responsible for.
        whole (`tuple[slice, slice, slice]`):
            The core and the zones that its values are shared out over or summed over; the core without zones.
        outer (`tuple[slice, slice, slice]`): That and what the network sees around it, inside the area.
    """

    core: tuple[slice, slice, slice]
    whole: tuple[slice, slice, slice]
    outer: tuple[slice, slice, slice]


def within(part: tuple[slice, slice, slice], larger: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
    """Where a part lies in a larger one."""
    return tuple(slice(inner.start - outer.start, inner.stop - outer.start) for inner, outer in zip(part, larger))


def scaled(slices: tuple[slice, slice, slice], unit: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """The same part in steps and cells of which `unit` make up a coarsest unit, per axis."""
    return tuple(slice(part.start * size, part.stop * size) for part, size in zip(slices, unit))


def make_windows(
    area: tuple[int, int, int], size: tuple[int, int, int], margin: tuple[int, int, int], extent: int = 0
) -> list[Window]:
    """
    Cut an area into windows.

    Args:
        area (`tuple[int, int, int]`): Coarsest units of the area along time, y and x.
        size (`tuple[int, int, int]`): Those of a core, at most.
        margin (`tuple[int, int, int]`): Those around it.
        extent (`int`, defaults to 0): Those around a core that zones need, along y and x; see [`extent_of_chains`].
    """
    starts = [range(0, whole, step) for whole, step in zip(area, size)]
    windows = []
    for corner in product(*starts):
        core = tuple(slice(start, min(start + step, whole)) for start, step, whole in zip(corner, size, area))
        whole = widened(core, (0, extent, extent), area)
        windows.append(Window(core, whole, widened(whole, margin, area)))
    return windows


def widened(
    part: tuple[slice, slice, slice], margin: tuple[int, int, int], area: tuple[int, int, int]
) -> tuple[slice, slice, slice]:
    """A part with a margin around it, as far as the area goes."""
    return tuple(
        slice(max(0, axis.start - around), min(size, axis.stop + around))
        for axis, around, size in zip(part, margin, area)
    )


def share_out(windows: list[Window], num_processes: int) -> list[list[Window]]:
    """About as much work for every process: the largest window first, to the process that has the least."""

    def size(window: Window) -> int:
        return prod(part.stop - part.start for part in window.outer)

    shares = [[] for _ in range(num_processes)]
    for window in sorted(windows, key=size, reverse=True):
        min(shares, key=lambda share: sum(map(size, share))).append(window)
    return shares


def extent_of_zones(labels: np.ndarray, side: int) -> int:
    """
    How many squares of `side` cells after its first the widest zone of a raster (H, W) reaches, along y or x; -1 is
    not a zone.
    """
    boxes = [box for box in find_objects(labels + 1) if box is not None]
    return max(((axis.stop - 1) // side - axis.start // side for box in boxes for axis in box), default=0)


def lies_in(fine: np.ndarray, coarse: np.ndarray) -> bool:
    """Whether every unit of a raster (H, W) lies within one unit of another; -1 is not a unit."""
    inside = fine >= 0
    fine, coarse = fine[inside], coarse[inside]
    coarse_of_unit = np.full(fine.max(initial=-1) + 1, -1)
    coarse_of_unit[fine] = coarse
    return bool((coarse >= 0).all() and (coarse_of_unit[fine] == coarse).all())


def extent_of_chains(chains: list[list], rasters: dict, side: int) -> int:
    """
    How many squares of `side` cells around some squares hold all cells to which any of the chains leads from there.

    A chain leads from cells to all cells of the units of its first raster that they lie in, from these to all cells of
    the units of the second that they lie in, and so on. Cells in no unit lead to themselves.

    Args:
        chains (`list[list]`): Names of rasters, or factors: squares of so many cells, that divide `side`.
        rasters (`dict[str, np.ndarray]`): (H, W) numbers of the units; -1 is not a unit.
        side (`int`): See above.
    """
    height, width = next(iter(rasters.values())).shape

    @cache
    def nested(fine, coarse) -> bool:
        return lies_in(raster(fine), raster(coarse))

    @cache
    def extent(unit) -> int:
        return 0 if isinstance(unit, int) else extent_of_zones(rasters[unit], side)

    def raster(unit) -> np.ndarray:
        if not isinstance(unit, int):
            return rasters[unit]
        return np.arange(height)[:, None] // unit * (width // unit) + np.arange(width) // unit

    largest = 0
    for chain in chains:
        kept = []
        for unit in chain:
            # Whole units of the coarser of two nested rasters are whole units of the finer one, too: a single step.
            while kept and nested(kept[-1], unit):
                kept.pop()
            if not kept or not nested(unit, kept[-1]):
                kept.append(unit)
        # Each step begins in whole squares, and leads at most as far beyond them as the widest unit reaches.
        largest = max(largest, sum(map(extent, kept)))
    return largest
