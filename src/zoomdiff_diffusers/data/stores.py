# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic levels as named arrays with units: an xarray DataTree with one group per level, and its files."""

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import xarray as xr


DIMENSIONS = ("sample", "channel", "time", "y", "x")
# Name of the CF grid mapping, the variable whose attributes describe the coordinate reference system.
GRID_MAPPING = "spatial_ref"
FULL_DISK = 2**16  # bytes: with less to spare, what failed to be written did so for want of space


def levels_to_datatree(
    levels, hierarchy, start, channels, unit, units, y=None, x=None, attrs=None, grid_mapping=None, zones=None
):
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
        grid_mapping (`dict`, *optional*):
            Coordinate reference system of `y` and `x`: attributes of a CF grid mapping with at least `crs_wkt`, as
            [`shared_grid_mapping`] takes them from a context. Every group then carries them as `spatial_ref`.
        zones (`dict[str, np.ndarray]`, *optional*):
            Layers (y, x) on the finest cells that say which area serves each cell. The groups of the levels that have
            such `zones` then carry them as the coordinate `zone`.

    Returns:
        `xarray.DataTree`: one group per level, each with the variable `traffic`.

    Raises:
        ValueError: If a level's shape does not fit the coordinates or the channels, `units` is unknown, or
            `grid_mapping` names no coordinate reference system.
    """
    if units not in ("mean", "sum"):
        raise ValueError(f'`units` must be "mean" or "sum", got {units!r}.')
    if grid_mapping is not None and "crs_wkt" not in grid_mapping:
        raise ValueError(f"`grid_mapping` must have `crs_wkt`, but has {sorted(grid_mapping)}.")
    tree = {"/": xr.Dataset(attrs={"Conventions": "CF-1.11", **(attrs or {})})}
    for name, values in levels.items():
        level = hierarchy.levels[hierarchy.index(name)]
        values = np.asarray(values)
        if values.ndim != len(DIMENSIONS) or values.shape[1] != len(channels):
            raise ValueError(
                f"Level {name!r} must be {DIMENSIONS} with {len(channels)} channel(s) {list(channels)}, "
                f"found shape {values.shape}."
            )
        dataset = _level_dataset(values, level, hierarchy, start, channels, unit, units, y, x)
        if level.zones:
            dataset.attrs["zones"] = level.zones
            if zones is not None:
                text = {"long_name": f"{level.zones} that serves the cell"}
                dataset = dataset.assign_coords(zone=(("y", "x"), np.asarray(zones[level.zones], np.int32), text))
        tree[f"/{name}"] = dataset if grid_mapping is None else _with_grid_mapping(dataset, grid_mapping)
    return xr.DataTree.from_dict(tree)


def shared_grid_mapping(contexts: Sequence) -> dict | None:
    """
    Attributes of the CF grid mapping of the contexts, for [`levels_to_datatree`].

    Args:
        contexts (`Sequence`): Raw layers; only an `xarray.Dataset` can have one, in its coordinate `spatial_ref`.

    Returns:
        `dict`, or `None` if one of them has none with `crs_wkt`, or they differ.
    """
    found = [dict(getattr(context, "coords", {}).get(GRID_MAPPING, xr.DataArray()).attrs) for context in contexts]
    texts = {attributes.get("crs_wkt") for attributes in found}
    return None if len(texts) != 1 or None in texts else found[0]


def channel_units(variable: xr.DataArray) -> list[str]:
    """The unit of each channel of a variable of a level: its coordinate `unit`, or else one for all; "" if unknown."""
    if "unit" in variable.coords:
        return [str(unit) for unit in variable["unit"].values]
    return [str(variable.attrs.get("units", ""))] * variable.sizes["channel"]


def check_metres(crs, what: str) -> None:
    """
    Refuse a coordinate reference system in degrees, feet or the like.

    Args:
        crs (`pyproj.CRS`): The system.
        what (`str`): Where it was given, for the message.

    Raises:
        ValueError: If its coordinates are not metres.
    """
    if not crs.is_projected or any(axis.unit_conversion_factor != 1 for axis in crs.axis_info):
        raise ValueError(f"{what} must count metres, but {crs.name} does not.")


def shared_attributes(contexts: Sequence) -> dict[str, str]:
    """What the result owes to its contexts: their licences, `context_licence`, if they state any."""
    licences = [getattr(context, "attrs", {}).get("licence") for context in contexts]
    stated = dict.fromkeys(text for text in licences if text)
    return {"context_licence": "; ".join(stated)} if stated else {}


@contextmanager
def open_levels(path: str | os.PathLike) -> Iterator[tuple[xr.DataTree, dict[str, xr.Dataset]]]:
    """
    Open a NetCDF file or a Zarr store of levels; values are read when they are asked for.

    Args:
        path (`str` or `os.PathLike`): A file of [`write_netcdf`], or a store, which is a folder.

    Returns:
        A context manager that gives the tree and its levels by name, coarse to fine.

    Raises:
        ModuleNotFoundError: Without netCDF4, or zarr for a store.
        ValueError: If it is no such file or store, or parts of it are missing or damaged.
    """
    path = Path(path)
    options = {"engine": "zarr", "consolidated": False} if path.is_dir() else {"engine": "netcdf4"}
    import_module("zarr" if path.is_dir() else "netCDF4")  # xarray would speak of engines
    try:
        tree = xr.open_datatree(path, cache=False, decode_timedelta=False, **options)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is neither a readable NetCDF-4 file nor a Zarr store.") from error
    with tree:
        levels = {name: node.to_dataset() for name, node in tree.children.items() if node.data_vars}
        if not levels:
            raise ValueError(f"{path} has no levels: expected one group per level, found {list(tree.children)}.")
        # The groups of a store are read in any order; its attribute has that of the levels.
        stated = np.atleast_1d(tree.attrs.get("levels", [])).tolist()
        levels = {name: levels[name] for name in dict.fromkeys([*(it for it in stated if it in levels), *levels])}
        _check_complete(path, levels, stated)
        try:
            yield tree, levels
        except RuntimeError as error:  # of the NetCDF library and of what decompresses the chunks of a store
            raise ValueError(f"{path} is damaged ({error}).") from error


def _check_complete(path: Path, levels: Mapping[str, xr.Dataset], stated: list[str]):
    """Refuse what was cut off: missing levels or coordinates, and chunks that would be read as no values."""
    if missing := [name for name in stated if name not in levels]:
        raise ValueError(f"{path} is incomplete: the values of the level(s) {missing} are missing.")
    for name, level in levels.items():
        if missing := [axis for axis in ("time", "y", "x") if axis in level.dims and axis not in level.coords]:
            raise ValueError(f"{path} is incomplete: level {name!r} lacks the coordinates {missing}.")
    if not path.is_dir():
        return
    group = import_module("zarr").open_group(path, mode="r")
    for array in (group[f"{name}/traffic"] for name, level in levels.items() if "traffic" in level):
        # With another fill value, chunks that hold nothing else are left out on purpose.
        if np.isnan(array.fill_value) and array.nchunks_initialized < array.nchunks:
            there = f"{array.nchunks_initialized} of {array.nchunks}"
            raise ValueError(f"{path} is incomplete: only {there} chunks of {array.path} are there.")


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
    """
    Let `write` fill a temporary file in the same folder; when it is complete, put it at `path`.

    Raises:
        OSError: If the file cannot be written; also for a full disk, of which some libraries say something else.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        full = shutil.disk_usage(path.parent).free < FULL_DISK
        temporary.unlink(missing_ok=True)
        if full and isinstance(error, (OSError, RuntimeError)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise


def _level_dataset(values, level, hierarchy, start, channels, unit, units, y, x):
    hours = level.temporal_factor * hierarchy.config.time_step
    metres = level.spatial_factor * hierarchy.config.cell_size
    height, width = (size * level.raster_factor for size in values.shape[-2:])
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
        per = f"per {level.zones or f'{metres:g} m unit'} and {hours:g} h"
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


def _with_grid_mapping(dataset: xr.Dataset, grid_mapping: Mapping) -> xr.Dataset:
    dataset = dataset.assign_coords({GRID_MAPPING: ((), np.int32(0), dict(grid_mapping))})
    dataset["traffic"].attrs["grid_mapping"] = GRID_MAPPING
    for axis in ("y", "x"):
        dataset[axis].attrs["standard_name"] = f"projection_{axis}_coordinate"
    return dataset


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
    return finest.reshape(-1, level.raster_factor).mean(axis=1)
