# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff dataset`, as a planner uses it."""

import json
import resource
import sys

import numpy as np
import pandas as pd
import pytest
import xarray
from support.operator_tables import write_long_csv, write_telecom_italia
from support.osm_city import draw_city
from typer.testing import CliRunner

from zoomdiff_diffusers.commands import app


def zoomdiff(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A drawn city, its context, a table of four base stations in it, and where they are."""
    folder = tmp_path_factory.mktemp("inputs")
    draw_city().write(folder / "city.osm.pbf", timestamp="2026-03-01T20:21:22Z")
    done = zoomdiff("context", "--osm", folder / "city.osm.pbf", "--out", folder / "city.nc")
    assert done.exit_code == 0, done.output
    write_long_csv(folder / "table.csv", units=4, days=8, minutes=30)
    with xarray.open_dataset(folder / "city.nc") as context:
        west, south, east, north = context.attrs["bounds_m"]
    sites = pd.DataFrame(
        {
            "id": [f"site_{number:05d}" for number in range(4)],
            "x": np.linspace(west + 90, east - 90, 4),
            "y": np.linspace(south + 90, north - 190, 4),
            "azimuth": [None, 90, None, 180],
        }
    )
    sites.to_csv(folder / "sites.csv", index=False, sep=";")
    return folder


def test_from_a_table_and_an_extract_to_a_training_set(folder, tmp_path):
    out = tmp_path / "measured"
    words = ["--traffic", folder / "table.csv", "--timezone", "Europe/Rome", "--scale", "1e-6", "--value-unit", "MB"]
    words += ["--sites", folder / "sites.csv", "--context", folder / "city.nc", "--out", out]
    done = zoomdiff("dataset", *words)
    assert done.exit_code == 0, done.output
    for text in (
        "1,536 rows of 4 units, every 30 min",
        "2 week(s) from 2026-03-02, local time, of 4 units on 24 x 32",
    ):
        assert text in done.stdout
    table = pd.read_csv(folder / "table.csv")
    with xarray.open_zarr(out / "traffic.zarr", consolidated=False) as store:
        assert store["traffic"].attrs["units"] == "MB" and store.sizes == {
            "channel": 1,
            "time": 336,
            "unit": 4,
            "y": 24,
            "x": 32,
        }
        sums = table.groupby("unit")["traffic"].sum().to_numpy() * 1e-6
        np.testing.assert_allclose(store["traffic"].sum("time").values[0], sums, rtol=1e-12)
    assert sorted(path.name for path in out.iterdir()) == ["areas", "context.nc", "report.json", "traffic.zarr"]
    assert [path.name for path in tmp_path.iterdir()] == ["measured"]

    again = zoomdiff("dataset", *words)
    assert again.exit_code == 1 and "exists already; name another folder, or delete it" in again.stderr
    words[-1] = tmp_path / "second"
    done = zoomdiff("dataset", *words, "--json")
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "second" / "report.json").read_text())
    assert report["known_hours_share"] == pytest.approx(192 / 336) and report["weeks"][1] == "2026-03-09T00:00:00"


def test_published_layouts(tmp_path):
    (tmp_path / "files").mkdir()
    truth = write_telecom_italia(tmp_path / "files", grid_width=9, grid_height=4, days=1)
    words = ["--traffic", tmp_path / "files", "--layout", "telecom-italia", "--grid-width", 9]
    done = zoomdiff("dataset", *words, "--cell-size", 1000, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["totals"]["internet"] == truth[4].sum()
    with xarray.open_zarr(tmp_path / "out" / "traffic.zarr", consolidated=False) as store:
        assert store["x"].values[:2].tolist() == [500, 1500]
    done = zoomdiff(
        "dataset", *words, "--out", tmp_path / "out2", "--counter", "--value-column", "internet", "--scale", 2
    )
    assert done.exit_code == 1 and "leave out --value-column, --counter, --scale" in done.stderr
    unused = ["--first-id", 0, "--sites-crs", "EPSG:3003", "--value-unit", "MB"]
    done = zoomdiff("dataset", *words, "--out", tmp_path / "out2", *unused)
    assert done.exit_code == 1 and "leave out --value-unit, --first-id, --sites-crs" in done.stderr
    uomo = ["--traffic", tmp_path / "files", "--layout", "uomo", "--out", tmp_path / "out2"]
    done = zoomdiff("dataset", *uomo, *unused, "--cell-size", 1000)
    assert done.exit_code == 1 and "leave out --value-unit, --first-id, --sites-crs, --cell-size" in done.stderr
    done = zoomdiff("dataset", *uomo)
    assert done.exit_code == 1 and "There is no file" in done.stderr
    np.savez(tmp_path / "files" / "tiles.npz", traffic=np.zeros((2, 168, 4, 4)), users=0, poi=0, valid_hours=0)
    done = zoomdiff("dataset", "--traffic", tmp_path / "files", "--layout", "uomo", "--out", tmp_path / "out2")
    assert done.exit_code == 1 and "must hold traffic and users" in done.stderr


def test_what_does_not_fit_is_one_line(folder, tmp_path):
    table = ["--traffic", folder / "table.csv", "--out", tmp_path / "out"]
    rome = [*table, "--timezone", "Europe/Rome"]
    for words, message in (
        (table, "are moments and not local hours. Give the time zone"),
        ([*rome, "--context", folder / "city.nc"], "something must say where the units are"),
        ([*rome, "--areas", folder / "sites.csv"], "Coverage polygons need the context"),
        ([*rome, "--sites", folder / "sites.csv", "--grid-width", 3], "Only one of"),
        ([*rome, "--grid-width", 3], "'site_00000' is not the number of a square"),
        ([*rome, "--scale", 0], "`scale` must be positive"),
        ([*rome, "--cell-size", 100], "cell_size needs grid_width"),
        ([*rome, "--first-id", 0], "first_id needs grid_width"),
        ([*rome, "--grid-height", 2], "grid_height needs grid_width"),
        ([*rome, "--grid-width", 3, "--cell-size", 0], "`cell_size` must be positive"),
        ([*rome, "--id-column", "cell"], "id_column needs sites or areas"),
        ([*rome, "--grid-width", 3, "--id-column", "cell"], "id_column needs sites or areas"),
        ([*rome, "--sites-crs", "EPSG:3003"], "sites_crs needs sites"),
        ([*rome, "--layout", "telecom-italia", "--cell-size", 100], "cell_size needs grid_width"),
        ([*rome, "--counter", "--missing-rows", "zero"], "missing rows of counters cannot be zero"),
        ([*rome, "--context", folder / "sites.csv", "--sites", folder / "sites.csv"], "not a readable NetCDF-4 file"),
        (
            [*rome, "--sites", folder / "sites.csv", "--sites-crs", "EPSG:0"],
            "'EPSG:0' is no coordinate reference system",
        ),
    ):
        done = zoomdiff("dataset", *words)
        assert done.exit_code == 1 and message in done.stderr, (message, done.output)
        assert done.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []
    assert zoomdiff("dataset", "--traffic", tmp_path / "none.csv", "--out", tmp_path / "out").exit_code == 2


@pytest.mark.parametrize("room", [4096, 60_000])
def test_a_full_disk_leaves_nothing(folder, tmp_path, room):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # as a disk that has so many bytes left
    try:
        done = zoomdiff(
            *("dataset", "--traffic", folder / "table.csv", "--timezone", "Europe/Rome", "--out", tmp_path / "out"),
            *("--sites", folder / "sites.csv", "--context", folder / "city.nc"),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.exit_code == 1 and f"--output: cannot write {tmp_path / 'out'}" in done.stderr, done.output
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_named_with_what_installs_it(folder, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("zoomdiff_diffusers.data.operator_data")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "polars", None)
    done = zoomdiff("dataset", "--traffic", folder / "table.csv", "--out", tmp_path / "out")
    assert done.exit_code == 1 and "polars is not installed. pip install 'zoomdiff_diffusers[dataset]'" in done.stderr


def test_help_has_an_example():
    done = zoomdiff("dataset", "--help")
    assert done.exit_code == 0 and "zoomdiff dataset --traffic cells.csv --timezone Europe/Rome" in done.output
    assert "tiles.npz" in done.output  # what --layout uomo reads: none of the published files
