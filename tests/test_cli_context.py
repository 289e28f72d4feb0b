# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff context`, as a planner uses it."""

import json
import resource
import sys

import numpy as np
import pytest
import xarray
from support.osm_city import (
    BOTTOM,
    HEIGHT,
    LEFT,
    WIDTH,
    draw_city,
    rectangle,
    write_boundary,
    write_geojson,
    write_raster,
)
from typer.testing import CliRunner

from zoomdiff_diffusers.commands import app


def zoomdiff(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    draw_city().write(folder / "city.osm.pbf", timestamp="2026-03-01T20:21:22Z")
    write_boundary(folder / "city.geojson", rectangle(1, 1, 50 * WIDTH - 2, 50 * HEIGHT - 2))
    write_raster(folder / "people.tif", np.full((4, 5), 30, dtype=np.uint8), LEFT + 100, BOTTOM + 600, 100)
    (folder / "poi.csv").write_text(f"x,y,category\n{LEFT + 60},{BOTTOM + 10},health\n")
    return folder


def test_the_shortest_form_goes_into_generate(folder, tmp_path):
    context, traffic = tmp_path / "context.nc", tmp_path / "traffic.nc"
    done = zoomdiff("context", "--osm", folder / "city.osm.pbf", "--cell-size", 50, "--out", context)
    assert done.exit_code == 0, done.output
    for text in ("cells of 50 m, EPSG:32633", "2026-03-01T20:21:22Z", "railway", "food 3, shop 1", "estimated from"):
        assert text in done.stdout
    assert "2 objects with 1 unknown tags: amenity=teleporter (2)" in done.stdout
    assert "© OpenStreetMap contributors" in done.stdout
    made = zoomdiff("generate", "--context", context, "--out", traffic, "--hours", 24, "--steps", 4, "--json")
    assert made.exit_code == 0, made.output
    with xarray.open_dataset(context, engine="netcdf4") as layers, xarray.open_datatree(traffic) as tree:
        finest = tree["grid_50m"]["traffic"]
        assert finest.shape == (1, 1, 24, layers.sizes["y"], layers.sizes["x"])
        np.testing.assert_array_equal(tree["grid_50m"]["x"], layers["x"])
        np.testing.assert_array_equal(tree["grid_50m"]["y"], layers["y"])
        built, field = (finest.values[0, 0][:, layers["aoi"].values == code].mean() for code in (1, 0))
        assert built > field > 0


def test_all_inputs_and_the_report_as_json(folder, tmp_path):
    words = ["--boundary", folder / "city.geojson", "--population", folder / "people.tif", "--poi", folder / "poi.csv"]
    words += ["--poi-crs", "EPSG:32633", "--out", tmp_path / "context.nc", "--json"]
    done = zoomdiff("context", "--osm", folder / "city.osm.pbf", *words)
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["height"], report["width"]) == (HEIGHT, WIDTH) and not report["population_estimated"]
    assert report["population"] == pytest.approx(600) and report["poi"]["health"] == 1
    assert set(report["inputs"]) == {"osm", "boundary", "population", "poi"}
    with xarray.open_dataset(tmp_path / "context.nc", engine="netcdf4") as layers:
        assert layers["poi"].sum() == 1 and json.loads(layers.attrs["inputs"]) == report["inputs"]
    assert [path.name for path in tmp_path.iterdir()] == ["context.nc"]


def test_mistakes_are_one_line_and_leave_nothing(folder, tmp_path):
    output = tmp_path / "context.nc"
    cut, empty, bare = tmp_path / "cut.osm.pbf", tmp_path / "empty.geojson", tmp_path / "bare.tif"
    cut.write_bytes((folder / "city.osm.pbf").read_bytes()[:-9])
    write_geojson(empty, [])
    write_raster(bare, np.ones((2, 2)), LEFT, BOTTOM, 100, crs=None)
    taken, raster = tmp_path / "taken.nc", tmp_path / "raster.nc"
    taken.mkdir()
    raster.write_bytes(b"a raster may be a NetCDF file too")
    swapped = write_boundary(tmp_path / "swapped.geojson", rectangle(1, 1, 600, 500), swapped=True)
    before = sorted(tmp_path.iterdir())
    for words, message in (
        (["--osm", cut], "cut.osm.pbf is cut off"),
        (["--boundary", empty], "empty.geojson is empty"),
        (["--boundary", swapped], "seem to be swapped"),
        (["--population", bare], "bare.tif has no coordinate reference system"),
        (["--cell-size", "-5"], "`cell_size` must be positive"),
        (["--cell-size", "0.1"], "are not supported"),
        (["--out", tmp_path / "context.csv"], "must end in .nc"),
        (["--out", tmp_path / "no" / "context.nc"], "does not exist"),
        (["--out", taken], "taken.nc is a folder"),
        (["--population", raster, "--out", raster], "must not be the file that is read"),
    ):
        done = zoomdiff("context", "--osm", folder / "city.osm.pbf", "--out", output, *words)
        assert done.exit_code == 1, words
        assert done.stderr.startswith("zoomdiff: error: ") and message in done.stderr and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.output
    assert sorted(tmp_path.iterdir()) == before
    assert zoomdiff("context", "--osm", tmp_path / "no.osm.pbf", "--out", output).exit_code == 2


def test_a_full_disk_leaves_what_was_there(folder, tmp_path):
    output = tmp_path / "context.nc"
    output.write_bytes(b"an earlier context")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as a disk with 4 KiB left
    try:
        done = zoomdiff("context", "--osm", folder / "city.osm.pbf", "--out", output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.exit_code == 1 and f"--output: cannot write {output}" in done.stderr
    assert output.read_bytes() == b"an earlier context" and list(tmp_path.iterdir()) == [output]


def test_a_missing_library_is_named_with_what_installs_it(folder, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("zoomdiff_diffusers.data.open_data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "osmium", None)
    done = zoomdiff("context", "--osm", folder / "city.osm.pbf", "--out", tmp_path / "context.nc")
    assert done.exit_code == 1 and "osmium is not installed. pip install 'zoomdiff_diffusers[context]'" in done.stderr


def test_help_has_an_example():
    done = zoomdiff("context", "--help")
    assert done.exit_code == 0 and "zoomdiff context --osm city.osm.pbf --boundary city.geojson" in done.output
