# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The area that traffic is made for: Helsinki, a simulated city, an uploaded context file or OpenStreetMap extract."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from safetensors.numpy import load_file

from zoomdiff_diffusers import Hierarchy
from zoomdiff_diffusers.data.demo_city import load_demo_context
from zoomdiff_diffusers.data.simulated_city import SIMULATED_LAYERS, simulate_context

from . import limits


EXAMPLES = Path(__file__).parents[1] / "examples"
HELSINKI, EXAMPLE, SIMULATED = "Central Helsinki", "Simulated example city", "Another simulated city"
OWN, EXTRACT = "Your own context file", "Your own OpenStreetMap extract"
SOURCES = (HELSINKI, EXAMPLE, SIMULATED, OWN, EXTRACT)
ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0"
SIZES = {
    f"{height * 0.05:.1f} × {width * 0.05:.1f} km ({height} × {width} cells)": (height, width)
    for height, width in ((24, 32), (32, 48), (48, 64))
}
LARGEST_CITY = 9999
FIRST_CITY = 3_000_000  # the seeds from here on belong to no city that the bundled model was trained on
OTHER_KINDS = {
    b"PK": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x89PNG": "a picture",
    b"\xff\xd8": "a picture",
}


@dataclass(frozen=True)
class Area:
    """
    Args:
        name (`str`): For titles.
        context (`dict` or `xarray.Dataset`): Layers as the pipeline takes them.
        height (`int`), width (`int`): Finest cells.
        whole_week (`bool`): Whether `hour` counts from Monday 00:00 and may be repeated; otherwise it begins with the
            traffic.
        begins (`np.datetime64`, *optional*): The first hour, where the file tells.
        attribution (`str`): Whose data they are, to be shown with everything that is made from them.
        notes (`tuple[str, ...]`): What should be known about the layers.
    """

    name: str
    context: dict | xr.Dataset
    height: int
    width: int
    whole_week: bool
    begins: np.datetime64 | None = None
    attribution: str = ""
    notes: tuple[str, ...] = ()

    @property
    def hours(self) -> int:
        """Length of the layers on `hour`, or one week if there is none."""
        return self.context.sizes.get("hour", 168) if isinstance(self.context, xr.Dataset) else 168

    def coordinates(self, axis: str) -> np.ndarray | None:
        """Centres of the cells along `"y"` or `"x"` (m), where the file has them."""
        return np.asarray(self.context[axis]) if axis in getattr(self.context, "coords", ()) else None

    def layers_in_metres(self, cell: int) -> xr.Dataset:
        """The layers at metres from the first row and column, without people per hour: a plan has no count of them."""
        layers = dict(self.context.items())
        layers.pop("population_over_time", None)
        centres = {axis: cell * (np.arange(size) + 0.5) for axis, size in (("y", self.height), ("x", self.width))}
        variables = {}
        for name, values in layers.items():
            values = values.transpose(..., "y", "x").values if isinstance(values, xr.DataArray) else values
            variables[name] = (("channel", "y", "x")[-values.ndim :], values)
        return xr.Dataset(variables, centres)

    def context_for(self, start: np.datetime64, hours: int) -> dict | xr.Dataset:
        """The layers for the `hours` from `start` on."""
        if not self.whole_week:
            return self.context
        first = int((start - np.datetime64("2024-01-01")) / np.timedelta64(1, "h"))
        steps = (first + np.arange(hours)) % 168
        if isinstance(self.context, xr.Dataset):
            return self.context.isel(hour=steps)
        return {**self.context, "population_over_time": self.context["population_over_time"][steps]}


def choose_area(source: str, size: str, number, file: str | None) -> Area:
    """
    The area that a visitor chose.

    Raises:
        ValueError: If something is missing or wrong; the message is for the visitor.
    """
    if source == EXAMPLE:
        return example_area()
    if source == SIMULATED:
        return simulated_area(size, number)
    if source == HELSINKI:
        return helsinki_area()
    if file is None:
        kind = "an OpenStreetMap extract (.osm.pbf)" if source == EXTRACT else "a context file (NetCDF)"
        raise ValueError(f"No file yet: upload {kind}, or choose another area.")
    return read_extract(file) if source == EXTRACT else read_area(file)


@cache
def helsinki_area() -> Area:
    context = load_demo_context()
    size = context.sizes["y"], context.sizes["x"]
    notes = (f"state of the data: {context.attrs['osm_timestamp'][:10]}; residents are estimated from the buildings",)
    return Area("central Helsinki", context, *size, whole_week=False, attribution=ATTRIBUTION, notes=notes)


@cache
def example_area() -> Area:
    context = xr.load_dataset(EXAMPLES / "area.nc", engine="netcdf4")
    return Area("the example city", context, context.sizes["y"], context.sizes["x"], whole_week=True)


def simulated_area(size: str, number) -> Area:
    height, width = SIZES[size]
    number = limits.whole_number("City number", number, 1, LARGEST_CITY)
    context = simulate_context(height, width, city_seed(number))
    return Area(f"simulated city {number}", context, height, width, whole_week=True)


def city_seed(number: int) -> int:
    return FIRST_CITY + number


def check_upload(path: str, what: str) -> None:
    """Refuse empty and large files before anything reads them."""
    size = os.path.getsize(path)
    if size == 0:
        raise ValueError(f"The {what} is empty.")
    if size > limits.MAX_UPLOAD_BYTES:
        raise ValueError(
            f"The {what} has {size / 2**20:.1f} MB; this page takes at most {limits.MAX_UPLOAD_BYTES / 2**20:g} MB."
        )


def read_area(path: str) -> Area:
    """
    Read an uploaded NetCDF file, in a process of its own (see `read_context`).

    Raises:
        ValueError: If it is too large or not what is expected; the message is for the visitor.
    """
    check_upload(path, "context file")
    with open(path, "rb") as file:
        beginning = file.read(8)
    if not beginning.startswith((b"\x89HDF\r\n\x1a\n", b"CDF")):
        kind = next((name for start, name in OTHER_KINDS.items() if beginning.startswith(start)), "something else")
        raise ValueError(f"The context file must be NetCDF (.nc), but is {kind}.")
    allowed = {
        "layers": [layer["name"] for layer in SIMULATED_LAYERS],
        "cells": limits.MAX_CELLS,
        "cell_size": Hierarchy().config.cell_size,
        "hours": 24 * limits.MAX_DAYS,
        "values": limits.MAX_VALUES,
        "variables": limits.MAX_VARIABLES,
        "seconds": limits.READ_SECONDS,
    }
    answer, arrays = _read_apart("read_context.py", path, "upload.nc", allowed, "context file")
    variables = {name: (dimensions, arrays[name]) for name, dimensions in answer["layers"].items()}
    coordinates = {axis: arrays[axis] for axis in ("y", "x") if axis in arrays}
    context = xr.Dataset(variables, coords=coordinates)
    begins = np.datetime64(answer["begins"], "s") if answer["begins"] else None
    return Area("your area", context, context.sizes["y"], context.sizes["x"], whole_week=False, begins=begins)


def read_extract(path: str) -> Area:
    """
    Make the context of an uploaded OpenStreetMap extract, in a process of its own (see `read_extract`).

    Raises:
        ValueError: If it is too large or not what is expected; the message is for the visitor.
    """
    check_upload(path, "extract")
    with open(path, "rb") as file:
        beginning = file.read(32)
    if b"OSMHeader" not in beginning:
        kind = next((name for start, name in OTHER_KINDS.items() if beginning.startswith(start)), "something else")
        raise ValueError(f"The extract must be OpenStreetMap data as .osm.pbf, but is {kind}.")
    hierarchy = Hierarchy()
    allowed = {
        "layers": [layer["name"] for layer in SIMULATED_LAYERS],
        "cells": limits.MAX_CELLS,
        "side": limits.EXTRACT_SIDE,
        "cell_size": hierarchy.config.cell_size,
        "multiple": hierarchy.spatial_factors[0],
        "seconds": limits.EXTRACT_SECONDS,
    }
    answer, arrays = _read_apart("read_extract.py", path, "upload.osm.pbf", allowed, "extract")
    variables = {name: (dimensions, arrays[name]) for name, dimensions in answer["layers"].items()}
    context = xr.Dataset(variables, coords={axis: arrays[axis] for axis in ("y", "x")})
    notes = (f"state of the data: {answer['timestamp']}; residents are estimated from the buildings", *answer["notes"])
    size = context.sizes["y"], context.sizes["x"]
    return Area("your extract", context, *size, whole_week=False, attribution=ATTRIBUTION, notes=notes)


def _read_apart(script: str, path: str, name: str, allowed: dict, what: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Let a script read a copy of an upload; return what it says and the arrays that it wrote."""
    with tempfile.TemporaryDirectory(prefix="zoomdiff-read-") as folder:
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_USE_FILE_LOCKING": "FALSE"}
        shutil.copyfile(path, Path(folder) / name)
        command = [sys.executable, "-I", str(Path(__file__).with_name(script)), json.dumps(allowed)]
        options = {"cwd": folder, "env": {**threads, "TMPDIR": folder}, "capture_output": True, "check": False}
        try:
            done = subprocess.run(command, timeout=2 * allowed["seconds"], **options)
            answer = json.loads(done.stdout) if done.returncode == 0 else {}
        except subprocess.TimeoutExpired:
            answer = {"error": f"The {what} takes too long to read."}
        if "layers" not in answer:
            raise ValueError(answer.get("error", f"The {what} cannot be read: it is damaged."))
        return answer, load_file(Path(folder) / "context.safetensors")
