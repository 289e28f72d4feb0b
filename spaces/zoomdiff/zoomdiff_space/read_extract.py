# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Makes the context of an uploaded OpenStreetMap extract in a process of its own: `python read_extract.py LIMITS`, in a
folder with `upload.osm.pbf`.

A file made to do harm can crash the C++ libraries that read it, or unpack to far more than it holds. So this process
has little memory and time. Writes `context.safetensors`; prints JSON: the dimensions of the layers, the state of the
data and what should be known about them, or an error.
"""

import importlib.util
import json
import resource
import sys
import types

import numpy as np
from safetensors.numpy import save_file


def main():
    limits = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"],) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 2**20,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        without_pytorch()
        context, answer = read(limits)
        layers = {name: context[name] for name in limits["layers"] if name in context}
        arrays = {name: np.ascontiguousarray(layer.values, dtype=np.float32) for name, layer in layers.items()}
        arrays |= {axis: context[axis].values.astype(np.float64) for axis in ("y", "x")}
        save_file(arrays, "context.safetensors")
        answer["layers"] = {name: list(layer.dims) for name, layer in layers.items()}
    except ValueError as error:
        answer = {"error": f"The extract cannot be used: {str(error).replace('upload.osm.pbf', 'the file')}"}
    except Exception as error:  # noqa: BLE001 whatever the libraries make of a damaged file
        print(repr(error), file=sys.stderr)
        answer = {"error": "The extract cannot be read: it is damaged, or unpacks to more than this page takes."}
    print(json.dumps(answer))


def without_pytorch():
    """Let modules of the package be imported without the package's own start, which takes seconds and a gigabyte."""
    name = "zoomdiff_diffusers"
    package = types.ModuleType(name)
    package.__path__ = list(importlib.util.find_spec(name).submodule_search_locations)
    sys.modules[name] = package


def read(limits):
    """The context of the extract, or of its middle if it is large, and what to say about it."""
    from shapely import box, to_geojson, transform

    from zoomdiff_diffusers.data.open_data import build_context
    from zoomdiff_diffusers.data.open_data.extract import open_osm
    from zoomdiff_diffusers.data.open_data.grid import WGS84, Transformer, make_grid

    area = box(*open_osm("upload.osm.pbf").box)
    side, boundary = limits["side"] * limits["cell_size"], None
    try:
        grid = make_grid(area, limits["cell_size"], limits["multiple"])
        cut = grid.height * grid.width > limits["cells"]
    except ValueError:  # larger than any grid, or than a UTM zone
        cut = True
    if cut:
        centre = area.centroid
        grid = make_grid(centre.buffer(1e-6), limits["cell_size"], 1)
        middle = box(grid.left - side / 2, grid.bottom - side / 2, grid.left + side / 2, grid.bottom + side / 2)
        to_degrees = Transformer.from_crs(grid.epsg, WGS84, always_xy=True).transform
        boundary = "middle.geojson"
        # A little smaller, so that rounding does not add a row of base stations.
        inner = transform(middle.buffer(-0.25 * limits["cell_size"]), to_degrees, interleaved=False)
        with open(boundary, "w", encoding="utf-8") as file:
            file.write(to_geojson(inner))
    context = build_context("upload.osm.pbf", boundary, cell_size=limits["cell_size"], multiple=limits["multiple"])
    notes = [f"the extract is large: its middle, {side / 1000:g} km across, was taken"] if cut else []
    # Without hints that are for the command.
    notes += [note.partition(";")[0] for note in json.loads(context.attrs["notes"]) if "boundary;" not in note]
    day = str(context.attrs["osm_timestamp"])[:10]
    return context, {"timestamp": "unknown" if day.startswith("1970") else day, "notes": notes}


if __name__ == "__main__":
    main()
