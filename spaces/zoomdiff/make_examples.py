# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Writes the two files in `examples/`, both of one simulated city: `python make_examples.py [FOLDER]`.

`area.nc` has the context layers that the bundled model knows, in whole numbers where they are counts of people.
`stations.csv` has one week of base-station traffic in MB a day, with some days missing, as measurements have.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import xarray as xr
from zoomdiff_space.areas import EXAMPLES, city_seed

from zoomdiff_diffusers import Hierarchy
from zoomdiff_diffusers.data.simulated_city import SIMULATED_LAYERS, SimulatedCity


HEIGHT, WIDTH = 24, 32
CITY = 0  # no visitor can choose this one
FIRST_DAY = np.datetime64("2026-03-02")
EMPTY = {(2, 1, 1), (3, 1, 1), (5, 0, 2)}  # day, row and column with a line but no value
ABSENT = {(6, 2, 3), (4, 2, 0)}  # without a line


def main(folder: Path):
    city = SimulatedCity(HEIGHT, WIDTH, city_seed(CITY))
    write_area(city, folder / "area.nc")
    write_stations(city, folder / "stations.csv")


def write_area(city, path):
    variables, encoding = {}, {}
    for layer in SIMULATED_LAYERS:
        name, values = layer["name"], city.context[layer["name"]]
        labels = layer.get("classes") or layer["channels"]
        dimensions = [f"{name}_channel"] * (values.ndim > 2 and layer["kind"] != "temporal")
        dimensions += ["hour"] * (layer["kind"] == "temporal") + ["y", "x"]
        attributes = {"kind": layer["kind"], "names": ", ".join(labels)}
        if layer["kind"] in ("continuous", "temporal"):
            values = values.reshape(values.shape[-len(dimensions) :])
        small = "u1" if layer["kind"] == "categorical" and values.ndim == 2 else "u2"
        whole = (
            np.rint(values).clip(0, np.iinfo(small).max) if name != "building_volume" else np.rint(values / 10) * 10
        )
        variables[name] = (dimensions, whole.astype("f4" if name == "building_volume" else small), attributes)
        encoding[name] = {"zlib": True, "complevel": 9, "shuffle": True}
    centres = {axis: (np.arange(size) + 0.5) * 50.0 for axis, size in (("y", HEIGHT), ("x", WIDTH))}
    coordinates = {axis: (axis, values, {"units": "m"}) for axis, values in centres.items()}
    title = "Context layers of a simulated city, for 50 m cells; hour 0 is Monday 00:00"
    dataset = xr.Dataset(variables, coordinates, {"Conventions": "CF-1.11", "title": title})
    dataset.to_netcdf(path, engine="netcdf4", encoding=encoding)


def write_stations(city, path):
    hierarchy = Hierarchy()
    daily = hierarchy.aggregate(city.sample_traffic(1, seed=3)[0, 0], "bs", reduction="sum")
    side = hierarchy.spatial_factors[0] * hierarchy.config.cell_size
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["date", "y", "x", "value"])
        for day, row, column in np.ndindex(daily.shape):
            if (day, row, column) not in ABSENT:
                value = "" if (day, row, column) in EMPTY else round(float(daily[day, row, column]))
                writer.writerow([FIRST_DAY + day, f"{(row + 0.5) * side:g}", f"{(column + 0.5) * side:g}", value])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES)
