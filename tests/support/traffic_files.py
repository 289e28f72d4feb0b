# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A small area with daily rhythms, generated and true, in memory and as the files that an evaluation reads."""

import numpy as np
import xarray as xr

from zoomdiff_diffusers.data.stores import levels_to_datatree, write_netcdf
from zoomdiff_diffusers.hierarchy import Hierarchy


START = "2026-03-04T00:00"  # a Wednesday
HOURS, HEIGHT, WIDTH = 72, 16, 24
TYPES = ["housing", "office_park"]


def area_types():
    """Housing in the west; offices in the east, 8 x 8 cells and a strip."""
    types = np.zeros((HEIGHT, WIDTH), dtype=np.int16)
    types[:, 14:] = 1
    return types


def finest_traffic(samples, seed=0, channels=1):
    """(samples, channels, HOURS, HEIGHT, WIDTH), gamma noise about a daily rhythm that peaks at 18 h and 12 h."""
    peak = np.where(area_types() == 0, 18, 12)
    rhythm = 1.2 + np.cos(2 * np.pi * (np.arange(HOURS)[:, None, None] - peak) / 24)
    noise = np.random.default_rng(seed).gamma(4.0, 0.25, (samples, channels, HOURS, HEIGHT, WIDTH))
    return (20.0 * rhythm * noise).astype(np.float32)


def pyramid(finest):
    return dict(zip(Hierarchy().names, Hierarchy().pyramid(finest)))


def write_traffic(path, levels, units="mean", channels=("traffic",), hierarchy=None, **options):
    arguments = {"start": START, "unit": "MB", **options}
    tree = levels_to_datatree(levels, hierarchy or Hierarchy(), channels=list(channels), units=units, **arguments)
    write_netcdf(tree, path)
    return path


def write_area_types(path, types=None, **attributes):
    types = area_types() if types is None else types
    flags = {"flag_values": np.arange(len(TYPES), dtype=np.int16), "flag_meanings": " ".join(TYPES), **attributes}
    write_netcdf(xr.DataTree(xr.Dataset({"aoi": (("y", "x"), types, flags)})), path)
    return path


def write_mask(path, valid):
    dimensions = ("time", "y", "x")[: valid.ndim]
    write_netcdf(xr.DataTree(xr.Dataset({"valid": (dimensions, valid.astype(np.int8))})), path)
    return path


def write_files(folder, samples=3, truth_levels=None):
    """`out.nc`, `truth.nc` with all or some levels, and `context.nc`."""
    attrs = {"source": "a <b>made-up</b> model", "seed": 1}
    write_traffic(folder / "out.nc", pyramid(finest_traffic(samples, seed=1)), attrs=attrs)
    truth = pyramid(finest_traffic(1, seed=2))
    write_traffic(folder / "truth.nc", {name: truth[name] for name in truth_levels or truth})
    write_area_types(folder / "context.nc")
    return folder
