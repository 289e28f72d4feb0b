# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Reads an uploaded NetCDF file in a process of its own: `python read_context.py LIMITS`, in a folder with `upload.nc`.

A file made to do harm can crash the C libraries that read it, claim huge arrays or point to other files. So this
process has little memory and time, and can open no other file while it reads. Writes `context.safetensors`; prints
JSON: the dimensions of the layers and the time at which they begin, or an error.
"""

import json
import os
import resource
import sys

import netCDF4
import numpy as np
from safetensors.numpy import save_file


ROUNDING = 0.02  # of a cell's side: coordinates may be of single precision


class Refused(Exception):
    """The file is not what it should be; the message is for the visitor."""


def main():
    limits = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"],) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        layers, arrays, first_hour = read(limits)
        save_file(arrays, "context.safetensors")
        answer = {"layers": layers, "begins": begin(*first_hour) if first_hour else None}
    except Refused as error:
        answer = {"error": str(error)}
    except Exception as error:  # noqa: BLE001 whatever the library makes of a damaged file
        print(repr(error), file=sys.stderr)
        answer = {"error": "The file cannot be read as NetCDF: it is damaged or of another kind."}
    print(json.dumps(answer))


def read(limits):
    """`{name: dimensions}` of the layers, the arrays of these and of the coordinates, and the first hour."""
    before = allow_one_more_file()
    with netCDF4.Dataset("upload.nc") as dataset:
        layers = {name: list(variable.dimensions) for name, variable in checked_layers(dataset, limits).items()}
        arrays = {name: numbers(dataset.variables[name], np.float32) for name in layers}
        for axis in ("y", "x"):
            if axis in dataset.variables:
                arrays[axis] = numbers(dataset.variables[axis], np.float64)
        check_cell_size(dataset, arrays, limits["cell_size"])
        hour = dataset.variables.get("hour")
        dated = hour is not None and hour.dimensions == ("hour",) and "since" in str(getattr(hour, "units", ""))
        first = (float(hour[0]), str(hour.units), str(getattr(hour, "calendar", "standard"))) if dated else None
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    return layers, arrays, first


def begin(hour, units, calendar):
    """The time of the first hour, such as `2026-03-02T00:00:00`."""
    return netCDF4.num2date(hour, units, calendar).isoformat()


def allow_one_more_file():
    """Let this process open a single file from now on; return the limits as they were."""
    free = os.open(os.devnull, os.O_RDONLY)
    os.closerange(free, free + 256)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
    return before


def checked_layers(dataset, limits):
    """The variables that are layers, by name. Only names and sizes are looked at, no data."""
    if len(dataset.variables) > limits["variables"]:
        raise Refused(f"The file has {len(dataset.variables)} variables; at most {limits['variables']} are read.")
    on_grid = {
        name: variable for name, variable in dataset.variables.items() if {"y", "x"} <= set(variable.dimensions)
    }
    known = ", ".join(limits["layers"])
    if not on_grid:
        found = ", ".join(short(name) for name in list(dataset.variables)[:8]) or "no variables"
        raise Refused(f"The file holds no layer on the dimensions y and x. Found: {found}. Expected some of: {known}.")
    unknown = [short(name) for name in on_grid if name not in limits["layers"]]
    if unknown:
        raise Refused(f"The file holds layers that the model does not know: {', '.join(unknown)}. It knows: {known}.")
    height, width = len(dataset.dimensions["y"]), len(dataset.dimensions["x"])
    if not 0 < height * width <= limits["cells"]:
        raise Refused(
            f"The area has {height} × {width} = {height * width} cells of 50 m; this page takes 1 to"
            f" {limits['cells']}."
        )
    axes = [dataset.variables[axis] for axis in ("y", "x") if axis in dataset.variables]
    for variable in (*on_grid.values(), *axes):
        if not isinstance(variable.dtype, np.dtype) or variable.dtype.kind not in "biuf":
            raise Refused(f"{short(variable.name)} does not hold numbers.")
    if any(axis.dimensions != (axis.name,) for axis in axes):
        raise Refused("The coordinates y and x must each have one dimension, their own.")
    hours = len(dataset.dimensions["hour"]) if "hour" in dataset.dimensions else 0
    if hours > limits["hours"]:
        raise Refused(f"The file covers {hours} hours; this page takes at most {limits['hours']}.")
    values = sum(int(np.prod([float(size) for size in variable.shape])) for variable in on_grid.values())
    if values > limits["values"]:
        raise Refused(f"The layers hold {values:,} numbers; this page takes at most {limits['values']:,}.")
    return on_grid


def check_cell_size(dataset, arrays, size):
    """Refuse cells of another side than the model's, as the attribute `cell_size_m` or the coordinates tell."""
    stated = getattr(dataset, "cell_size_m", size)
    if not np.array_equal(np.ravel(stated), [size]):
        raise Refused(f"The file says cell_size_m = {str(stated)[:30]}; this page takes cells of {size:g} m.")
    for axis in ("y", "x"):
        steps = np.diff(arrays.get(axis, []))
        if not (np.allclose(steps, size, rtol=ROUNDING) or np.allclose(steps, -size, rtol=ROUNDING)):
            found = " to ".join(dict.fromkeys(f"{step:g}" for step in (steps.min(), steps.max())))
            raise Refused(
                f"From cell to cell, the coordinate {axis} changes by {found}; this page takes cells of {size:g} m,"
                " with y and x in m."
            )


def numbers(variable, dtype):
    """All values, with scale and offset applied, NaN where missing."""
    return np.ma.filled(np.ma.asarray(variable[...]).astype(np.float64), np.nan).astype(dtype)


def short(name):
    return repr(name[:30])


if __name__ == "__main__":
    main()
