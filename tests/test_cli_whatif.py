# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff whatif`, as a planner uses it."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from support.osm_city import degrees, draw_city, rectangle
from typer.testing import CliRunner

from zoomdiff_diffusers.commands import app
from zoomdiff_diffusers.data.simulated_city import simulate_context


HOURS = ["--hours", "24", "--steps", "4", "--samples", "3"]


def zoomdiff(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


def write_plan(path, points, properties):
    geometry = {"type": "Polygon", "coordinates": [[*map(list, points), list(points[0])]]}
    features = [{"type": "Feature", "geometry": geometry, "properties": properties}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """A simulated city of 16 x 24 cells with people per hour for a day, without a reference system."""
    layers = simulate_context(16, 24, seed=2)
    layers["population_over_time"] = layers["population_over_time"][:24]
    dims = {"poi": ("poi_category", "y", "x"), "population_over_time": ("hour", "y", "x")}
    variables = {name: (dims.get(name, ("y", "x")), values) for name, values in layers.items()}
    start = np.datetime64("2026-03-03", "ns") + np.arange(24) * np.timedelta64(1, "h")
    coordinates = {"y": 50.0 * np.arange(16) + 25, "x": 50.0 * np.arange(24) + 25, "hour": start}
    path = tmp_path_factory.mktemp("context") / "context.nc"
    xr.Dataset(variables, coordinates).to_netcdf(path, engine="netcdf4")
    return path


def test_from_an_extract_and_a_drawn_plan_to_differences(tmp_path):
    draw_city().write(tmp_path / "city.osm.pbf", timestamp="2026-03-01T20:21:22Z")
    assert zoomdiff("context", "--osm", tmp_path / "city.osm.pbf", "--out", tmp_path / "context.nc").exit_code == 0
    plan = write_plan(
        tmp_path / "plan.geojson", degrees(rectangle(300, 210, 260, 240)), {"preset": "offices", "name": "North"}
    )
    output = tmp_path / "difference.nc"
    words = ["whatif", "--context", tmp_path / "context.nc", "--edit", plan, "--output", output, *HOURS]
    done = zoomdiff(*words)
    assert done.exit_code == 0, done.output
    for text in ("feature 1 (North):", "6.2 ha", "residents", "edited cells", "grid_50m", "in the whole period"):
        assert text in done.stdout, done.stdout
    with xr.open_datatree(output) as tree, xr.open_dataset(tmp_path / "context.nc", engine="netcdf4") as layers:
        finest = tree["grid_50m"].to_dataset()
        np.testing.assert_array_equal(finest["x"], layers["x"])
        here = finest["period_difference"][0].argmax(("y", "x"))
        left, bottom, *_ = layers.attrs["bounds_m"]
        x, y = float(finest["x"][here["x"]]), float(finest["y"][here["y"]])
        assert tree["edited_after"].mean() > tree["edited_before"].mean()
        total = finest["difference"].sum(dtype="f8")
        assert total == pytest.approx(float((tree["total_after"] - tree["total_before"]).mean()), rel=1e-4)
        assert json.loads(tree.attrs["plan"])["features"][0]["name"] == "feature 1 (North)"
        assert tree.attrs["seed"] == 0 and f"rise at x {x:.0f}, y {y:.0f}" in done.stdout
    assert abs(x - (layers["x"].values.min() - 25 + 430)) < 400 and abs(y - (bottom + 330)) < 400


def test_people_per_hour_are_left_out_on_both_sides_and_the_time_is_kept(context, tmp_path):
    plan = write_plan(tmp_path / "plan.geojson", rectangle(200, 200, 150, 150), {"population": 0})
    done = zoomdiff("whatif", "--context", context, "--edit", plan, "--out", tmp_path / "d.nc", "--json", *HOURS[2:])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["plan"]["dropped"] == ["population_over_time"] and result["samples"] == 3
    assert result["plan"]["totals"]["population"]["after"] < result["plan"]["totals"]["population"]["before"]
    assert set(result["levels"]) == {"bs", "cell", "grid_100m", "grid_50m"}
    assert result["totals"]["edited"]["difference"] < 0 < result["totals"]["edited"]["spread"]
    with xr.open_datatree(tmp_path / "d.nc") as tree:
        times = tree["grid_50m"]["time"].values
        assert len(times) == 24 and times[0] == np.datetime64("2026-03-03")


def test_a_store_is_made_for_large_areas(context, tmp_path):
    plan = write_plan(tmp_path / "plan.geojson", rectangle(200, 200, 150, 150), {"preset": "park"})
    output = tmp_path / "d.zarr"
    done = zoomdiff(
        "whatif", "--context", context, "--edit", plan, "--out", output, "--units", "mean", *HOURS, "--samples", "2"
    )
    assert done.exit_code == 0 and "per finest cell and time step" in done.stdout, done.output
    with xr.open_datatree(output, engine="zarr", consolidated=False) as tree:
        assert tree["grid_50m"]["spread"].shape == (1, 24, 16, 24) and "plan" in tree.attrs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.zarr", "plan.geojson"]
    again = zoomdiff("whatif", "--context", context, "--edit", plan, "--out", output, *HOURS)
    assert again.exit_code == 1 and "not exist yet" in again.stderr


def test_a_store_has_its_plan_as_soon_as_it_is_there(context, tmp_path, monkeypatch):
    plan = write_plan(tmp_path / "plan.geojson", rectangle(200, 200, 150, 150), {"preset": "park", "name": "Green"})
    output, replace = tmp_path / "d.zarr", os.replace

    def interrupted_after(source, target):
        replace(source, target)
        if Path(target) == output:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted_after)
    words = ["whatif", "--context", context, "--edit", plan, "--out", output, *HOURS, "--samples", "1"]
    assert zoomdiff(*words).exit_code != 0
    with xr.open_datatree(output, engine="zarr", consolidated=False) as tree:
        assert json.loads(tree.attrs["plan"])["features"][0]["name"] == "feature 1 (Green)"
        assert "model simulated-city" in tree.attrs["source"] and "date_created" in tree.attrs


def test_mistakes_are_one_line_and_leave_nothing(context, tmp_path, monkeypatch):
    square = rectangle(200, 200, 150, 150)
    good = write_plan(tmp_path / "good.geojson", square, {"preset": "park"})
    words = ["whatif", "--context", context, "--edit", good, "--out", tmp_path / "d.nc"]
    odd = write_plan(tmp_path / "odd.geojson", square, {"preset": "castle", "name": "Keep"})
    far = write_plan(tmp_path / "far.geojson", rectangle(9000, 0, 100, 100), {"preset": "park"})
    (tmp_path / "broken.geojson").write_text("{")
    empty, bare = tmp_path / "empty.geojson", tmp_path / "bare.nc"
    empty.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    xr.Dataset({"aoi": (("y", "x"), np.zeros((8, 8)))}).to_netcdf(bare, engine="netcdf4")
    before = sorted(tmp_path.iterdir())
    for more, message in (
        (["--edit", odd], "--edit: feature 1 (Keep): `preset` is 'castle'"),
        (["--edit", far], "--edit: feature 1: the geometry lies outside of the area"),
        (["--edit", tmp_path / "broken.geojson"], "broken.geojson is no GeoJSON"),
        (["--context", good], "is not a readable NetCDF-4 file"),
        (["--out", tmp_path / "d.csv"], "must end in .nc or .zarr"),
        (["--out", tmp_path / "no" / "d.nc"], "does not exist"),
        (["--hours", "7"], "24"),
        (["--edit", empty], "empty.geojson has no features, so that nothing changes"),
        (["--out", context], "must not be the file that is read"),
        (["--context", bare], "bare.nc lacks the coordinates y and x of its cells"),
    ):
        done = zoomdiff(*words, *more)
        last = done.stderr.splitlines()[-1]  # after what loading a model says
        assert done.exit_code == 1 and message in last and done.stdout == "", done.output
        assert last.startswith("zoomdiff: error: ") and "Traceback" not in done.output
    assert sorted(tmp_path.iterdir()) == before
    assert zoomdiff(*words, "--samples", "0").exit_code == 2
    monkeypatch.setitem(sys.modules, "shapely", None)
    done = zoomdiff(*words)
    assert done.exit_code == 1 and "shapely is not installed. pip install 'zoomdiff_diffusers[context]'" in done.stderr


def test_help_has_an_example():
    done = zoomdiff("whatif", "--help")
    assert done.exit_code == 0 and "zoomdiff whatif --context context.nc --edit plan.geojson" in done.output
