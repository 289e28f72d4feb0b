# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The hours of a measured data set, on the grid of a context, for refinement."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from .places import SAME_SQUARE


@dataclass(frozen=True)
class Measured:
    """
    Args:
        values (`np.ndarray`): (channel, hour, unit) totals, NaN where they are not known; whole days.
        labels (`np.ndarray`): (H, W), the unit that serves each cell, -1 for none.
        start (`np.datetime64`): The first hour, local time.
    """

    values: np.ndarray
    labels: np.ndarray
    start: np.datetime64


def read_measured(folder, context: xr.Dataset, largest_distance: float | None = None) -> Measured:
    """
    Read what [`build_dataset`] made of a table with sites or coverage polygons, from the first to the last day with a
    known hour.

    Args:
        folder (`str` or `os.PathLike`): The folder that it made.
        context (`xr.Dataset`): The context that the refinement is for; it must have the cells of the data set.
        largest_distance (`float`, *optional*): Cells farther from what serves them, in m, have the label -1.

    Raises:
        ValueError: If the folder is none, or does not fit the context.
    """
    path = Path(folder) / "traffic.zarr"
    if not path.is_dir():
        raise ValueError(f"{folder} is no folder of `zoomdiff dataset`: it has no traffic.zarr.")
    with xr.open_dataset(path, engine="zarr", consolidated=False) as store:
        if "zone" not in store:
            raise ValueError(
                f"{folder} does not say which cell a unit serves: make it with sites or areas and a context."
            )
        side = max(np.abs(np.diff(store[axis].values)).max(initial=0) for axis in ("y", "x"))
        for axis in ("y", "x"):
            found, expected = store[axis].values, context[axis].values if axis in context.coords else None
            # A tolerance relative to the coordinates would be a whole cell: northings are millions of metres.
            if (
                expected is None
                or found.shape != expected.shape
                or not np.allclose(found, expected, rtol=0, atol=SAME_SQUARE * side)
            ):
                raise ValueError(f"{folder} and the context must have the same cells, but differ along {axis}.")
        labels = store["zone"].values.astype(np.int64)
        if largest_distance is not None:
            labels[store["distance"].values > largest_distance] = -1
        days = store["traffic"].notnull().any(["channel", "unit"]).values.reshape(-1, 24).any(axis=1).nonzero()[0]
        if len(days) == 0:
            raise ValueError(f"{folder} has no hour with a known value.")
        hours = slice(24 * days[0], 24 * (days[-1] + 1))
        values = store["traffic"].isel(time=hours).transpose("channel", "time", "unit").values
        start = store["time"].values[hours.start]
    lost = np.bincount(labels[labels >= 0], minlength=values.shape[-1]) == 0
    values[..., lost] = np.nan  # they serve cells that are too far from them
    return Measured(values, labels, start)
