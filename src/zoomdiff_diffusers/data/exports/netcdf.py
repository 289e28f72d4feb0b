# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels as one NetCDF file."""

from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from ..stores import open_levels, replace_file
from .level_statistics import parts
from .report import licence_of


def export_netcdf(path, output, level=None) -> dict:
    """
    Write a store as one NetCDF-4 file with the same groups, variables and attributes.

    Args:
        path (`str` or `os.PathLike`): Zarr store or NetCDF file of levels, or of statistics over their samples.
        output (`str` or `os.PathLike`): The file. An existing one is replaced when the new one is complete.
        level (`str`, *optional*): The only level to write; all by default.

    Returns:
        `dict`: what was written, JSON-safe.

    Raises:
        ValueError: If there is no such level.
        OSError: If `output` cannot be written.
    """
    with open_levels(path) as (root, levels):
        if level is not None:
            if level not in levels:
                raise ValueError(f"`level` must be one of {list(levels)}, the levels of {path}, but is {level!r}.")
            levels = {level: levels[level]}
        top = root.to_dataset().assign_attrs(levels=list(levels))

        def write(file):
            try:
                _write_netcdf(file, levels, top, path)
            except RuntimeError as error:  # the NetCDF library's own errors
                raise OSError(f"{error}; is the disk full?") from error

        replace_file(Path(output), write)
        shapes = {name: {it: list(values.shape) for it, values in each.items()} for name, each in levels.items()}
        return {"output": str(output), "levels": shapes, **licence_of(root)}


def _write_netcdf(file: Path, levels: dict[str, xr.Dataset], top: xr.Dataset, path):
    import netCDF4

    maps = {
        name: [it for it, values in level.data_vars.items() if {"y", "x"} <= set(values.dims)]
        for name, level in levels.items()
    }
    small = {f"/{name}": level.drop_vars(maps[name]) for name, level in levels.items()}
    tree = xr.DataTree.from_dict({"/": top, **small})
    tree.to_netcdf(file, engine="netcdf4")
    with netCDF4.Dataset(file, "a") as dataset:
        for name, level in levels.items():
            group = dataset[name]
            for dimension, size in level.sizes.items():
                if dimension not in group.dimensions:
                    group.createDimension(dimension, size)
            for variable in (level[it] for it in maps[name]):
                _copy(variable, group, path)


def _copy(variable: xr.DataArray, group, path):
    """Copy a variable of the file at `path` into a NetCDF group, chunk by chunk."""
    in_source = variable.encoding.get("preferred_chunks", {})
    chunks = [min(size, in_source.get(axis, size)) for axis, size in variable.sizes.items()]
    copy = group.createVariable(
        variable.name,
        variable.dtype.newbyteorder("="),
        variable.dims,
        chunksizes=chunks,
        fill_value=np.nan if variable.dtype.kind == "f" else None,
        compression="zlib",
        complevel=1,
        shuffle=True,
    )
    copy.setncatts(variable.attrs)
    for part in product(*(parts(size, step) for size, step in zip(variable.shape, chunks))):
        try:
            values = variable[part].values
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged ({error}).") from error
        copy[part] = values
