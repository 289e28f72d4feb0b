# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic levels as named arrays with units: an xarray DataTree with one group per level, and its NetCDF file."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr


DIMENSIONS = ("sample", "channel", "time", "y", "x")


def levels_to_datatree(levels, hierarchy, start, channels, unit, units, y=None, x=None, attrs=None):
    """
    Name the axes of generated levels.

    Args:
        levels (`Mapping[str, np.ndarray]`):
            Levels by name, coarse to fine, each `(sample, channel, time, y, x)`; numpy arrays or tensors.
        hierarchy (`Hierarchy`): Gives each level its factors, cell size (m) and time step (h).
        start (`str`, `datetime.datetime` or `np.datetime64`, *optional*):
            First hour, as local time. `None`: the time coordinate counts hours from the first one.
        channels (`list[str]`): Names of the channels, for example `["traffic"]`.
        unit (`str` or `list[str]`):
            Physical unit of the values, for example `"MB"`, or one per channel. Different units become a coordinate of
            the channels.
        units (`str`):
            What the values are: `"mean"` per finest cell and time step, or `"sum"` over the unit and its interval.
        y (`np.ndarray`, *optional*), x (`np.ndarray`, *optional*):
            Centres of the finest cells, for example projected coordinates in metres. Default: metres from the corner
            of the first cell. A coarser unit is placed at the mean of its cells.
        attrs (`dict`, *optional*): Attributes of the root: provenance such as model, seed, date.

    Returns:
        `xarray.DataTree`: one group per level, each with the variable `traffic`.

    Raises:
        ValueError: If a level's shape does not fit the coordinates or the channels, or `units` is unknown.
    """
    if units not in ("mean", "sum"):
        raise ValueError(f'`units` must be "mean" or "sum", got {units!r}.')
    tree = {"/": xr.Dataset(attrs={"Conventions": "CF-1.11", **(attrs or {})})}
    for name, values in levels.items():
        level = hierarchy.levels[hierarchy.index(name)]
        values = np.asarray(values)
        if values.ndim != len(DIMENSIONS) or values.shape[1] != len(channels):
            raise ValueError(
                f"Level {name!r} must be {DIMENSIONS} with {len(channels)} channel(s) {list(channels)}, "
                f"found shape {values.shape}."
            )
        tree[f"/{name}"] = _level_dataset(values, level, hierarchy, start, channels, unit, units, y, x)
    return xr.DataTree.from_dict(tree)


def write_netcdf(tree, path):
    """
    Write a tree to one NetCDF-4 file, compressed, all or nothing.

    The file is written under a temporary name in the same folder and renamed when it is complete, so an interrupted
    run or a full disk leaves what was at `path` before as it was.

    Args:
        tree (`xarray.DataTree`): For example from [`levels_to_datatree`].
        path (`str` or `os.PathLike`): Target file. An existing file is replaced.

    Raises:
        FileNotFoundError: If the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: the folder {path.parent} does not exist.")
    encoding = {
        node.path: {name: {"zlib": True, "complevel": 1, "shuffle": True} for name in node.data_vars}
        for node in tree.subtree
        if node.data_vars
    }
    replace_file(path, lambda temporary: tree.to_netcdf(temporary, engine="netcdf4", encoding=encoding))


def replace_file(path: Path, write: Callable[[Path], None]):
    """Let `write` fill a temporary file in the same folder; when it is complete, put it at `path`."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _level_dataset(values, level, hierarchy, start, channels, unit, units, y, x):
    hours = level.temporal_factor * hierarchy.config.time_step
    metres = level.spatial_factor * hierarchy.config.cell_size
    height, width = (size * level.spatial_factor for size in values.shape[-2:])
    coordinates = {
        "sample": ("sample", np.arange(values.shape[0])),
        "channel": ("channel", list(channels)),
        "time": ("time", _times(values.shape[2], hours, start), _time_attributes(hours, start)),
        "y": ("y", _centres("y", y, height, level, hierarchy), {"units": "m", "axis": "Y", "long_name": "y"}),
        "x": ("x", _centres("x", x, width, level, hierarchy), {"units": "m", "axis": "X", "long_name": "x"}),
    }
    unit_of_channel = [unit] * len(channels) if isinstance(unit, str) else list(unit)
    if len(set(unit_of_channel)) > 1:
        coordinates["unit"] = ("channel", unit_of_channel)
    unit = unit_of_channel[0] if len(set(unit_of_channel)) == 1 else "see the coordinate unit"
    if units == "mean":
        per = f"per {hierarchy.config.cell_size:g} m cell and {hierarchy.config.time_step:g} h"
        description = {"units": unit, "long_name": f"mean traffic {per}", "cell_methods": "time: y: x: mean"}
    else:
        per = f"per {metres:g} m unit and {hours:g} h"
        description = {"units": unit, "long_name": f"traffic {per}", "cell_methods": "time: y: x: sum"}
    return xr.Dataset(
        {"traffic": (DIMENSIONS, values, description)},
        coords=coordinates,
        attrs={
            "level": level.name,
            "spatial_resolution_m": metres,
            "temporal_resolution_h": hours,
            "spatial_factor": level.spatial_factor,
            "temporal_factor": level.temporal_factor,
        },
    )


def _times(count, hours, start):
    if start is None:
        return np.arange(count) * float(hours)
    step = np.timedelta64(round(hours * 3600), "s")
    return (np.datetime64(start, "s") + np.arange(count) * step).astype("datetime64[ns]")


def _time_attributes(hours, start):
    attributes = {"axis": "T", "long_name": f"start of the {hours:g} h interval, local time"}
    # With a calendar date xarray writes the CF units itself.
    return attributes if start is not None else {**attributes, "units": "h"}


def _centres(axis, finest, size, level, hierarchy):
    """Centres of a level's units along one axis, from those of the `size` finest cells."""
    if finest is None:
        finest = (np.arange(size) + 0.5) * hierarchy.config.cell_size
    finest = np.asarray(finest, dtype=np.float64)
    if finest.shape != (size,):
        raise ValueError(
            f"`{axis}` has shape {finest.shape}, but level {level.name!r} covers {size} of the finest cells along it."
        )
    return finest.reshape(-1, level.spatial_factor).mean(axis=1)
