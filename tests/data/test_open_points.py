# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from support.osm_city import BOTTOM, EPSG, LEFT, degrees

from zoomdiff_diffusers.data.open_data import points
from zoomdiff_diffusers.data.open_data.grid import Grid
from zoomdiff_diffusers.data.open_data.points import read_points
from zoomdiff_diffusers.data.simulated_context import POI_CATEGORIES


GRID = Grid(EPSG, LEFT, BOTTOM, 8, 16, 50.0)
PLACES = [(10, 10, "food"), (20, 30, "amenity=cafe"), (760, 390, "Shop"), (60, 10, "moonbase"), (9000, 0, "food")]


def write(path, header, rows, delimiter=","):
    path.write_text("\n".join(delimiter.join(map(str, row)) for row in [header, *rows]) + "\n", encoding="utf-8")
    return path


def in_degrees(places):
    return [(*position, category) for position, (_, _, category) in zip(degrees([row[:2] for row in places]), places)]


def expected():
    counts = np.zeros((9, 8, 16))
    counts[POI_CATEGORIES.index("food"), 0, 0] = 2
    counts[POI_CATEGORIES.index("shop"), 7, 15] = 1
    return counts


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_points_are_counted_in_their_cells(tmp_path, monkeypatch, delimiter):
    monkeypatch.setattr(points, "ROWS_AT_ONCE", 2)
    path = write(tmp_path / "poi.csv", ["Lon", "Lat", "Category"], in_degrees(PLACES), delimiter)
    counts, unknown, rows = read_points(path, GRID)
    np.testing.assert_array_equal(counts, expected())
    assert unknown == {"moonbase": 1} and rows == {"inside": 3, "outside": 1}


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas_are_understood(tmp_path, delimiter):
    rows = [(str(x).replace(".", ","), str(y).replace(".", ","), kind) for x, y, kind in in_degrees(PLACES)]
    path = write(tmp_path / "poi.csv", ["lon", "lat", "category"], rows, delimiter)
    np.testing.assert_array_equal(read_points(path, GRID)[0], expected())


def test_projected_coordinates_and_other_columns(tmp_path):
    rows = [(category, "a name, with a comma", LEFT + x, BOTTOM + y) for x, y, category in PLACES]
    path = tmp_path / "poi.csv"
    lines = [f'{category},"{name}",{x},{y}' for category, name, x, y in rows]
    path.write_text("\n".join(["category,name,x,y", *lines, ""]), encoding="utf-8")
    np.testing.assert_array_equal(read_points(path, GRID, crs=f"EPSG:{EPSG}")[0], expected())
    with pytest.raises(ValueError, match="lacks the columns lon and lat.* give their coordinate reference system"):
        read_points(path, GRID)


def test_swapped_coordinates_are_told(tmp_path):
    rows = [(latitude, longitude, category) for longitude, latitude, category in in_degrees(PLACES[:3])]
    with pytest.raises(ValueError, match="With lon and lat exchanged 3 would: they seem to be swapped"):
        read_points(write(tmp_path / "a.csv", ["lon", "lat", "category"], rows), GRID)
    with pytest.raises(ValueError, match="line 2: lat must lie between -90 and 90, but is 120.*swapped"):
        read_points(write(tmp_path / "b.csv", ["lat", "lon", "category"], [(120, 30, "food")]), GRID)


@pytest.mark.parametrize(
    "header, row, message",
    [
        (["lon", "lat"], (1, 2), "lacks the column category"),
        (["lon", "lat", "category"], (13.6, "", "food"), "line 2: lat must be a number, but is ''"),
        (["lon", "lat", "category"], (13.6, "inf", "food"), "line 2: lat must be a number, but is 'inf'"),
        (["lon", "lat", "category"], (13.6, 48), "line 2: 2 columns, but the first line names 3"),
        (["lon", "lat", "category"], (13.6, 48, "moonbase"), r"no point of a known category; found 'moonbase' \(1\)"),
        (["lon", "lat", "category"], (0, 0, "food"), r"None of the 1 points of .*a.csv lies in the area\.$"),
    ],
)
def test_unusable_tables_are_refused(tmp_path, header, row, message):
    with pytest.raises(ValueError, match=message):
        read_points(write(tmp_path / "a.csv", header, [row]), GRID)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"lon,lat,category\n1,2,caf\xe9\n")
    with pytest.raises(ValueError, match="is no UTF-8 text"):
        read_points(path, GRID)
    path.write_text('lon,lat,category\n1,2,"food\n')
    with pytest.raises(ValueError, match="is no CSV text"):
        read_points(path, GRID)
