# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff refine` of a table of base stations, for the quarter of Helsinki that comes with the package."""

import json

import numpy as np
import pandas as pd
import psutil
import pytest
import xarray
from pyproj import Transformer
from typer.testing import CliRunner

from zoomdiff_diffusers.commands import app
from zoomdiff_diffusers.data.demo_city import load_demo_context
from zoomdiff_diffusers.data.stores import open_levels


# Longitude and latitude of four sites, of which the last is silent, and MB in their hours.
SITES = {
    "north": (24.9440, 60.1770),
    "west": (24.9385, 60.1705),
    "south": (24.9440, 60.1660),
    "new": (24.9460, 60.1722),
}
HOURS = pd.date_range("2026-03-06 00:00", "2026-03-07 23:00", freq="h")


def zoomdiff(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stations")
    load_demo_context().to_netcdf(folder / "city.nc", engine="netcdf4")
    pd.DataFrame([{"id": name, "lon": lon, "lat": lat} for name, (lon, lat) in SITES.items()]).to_csv(
        folder / "sites.csv", index=False
    )
    random = np.random.default_rng(0)
    table = pd.DataFrame({name: random.gamma(2.0, 9000.0, len(HOURS)) for name in list(SITES)[:3]}, HOURS)
    table.loc["2026-03-07 06:00":"2026-03-07 11:00", "west"] = np.nan  # the station was down
    long = table.rename_axis("time").reset_index().melt("time", var_name="id").dropna()
    long.sample(frac=1, random_state=0).to_csv(folder / "bs.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "bs.csv", parse_dates=["time"]).pivot(index="time", columns="id", values="value")


def nearest_sites(levels):
    """(H, W) names, by distance on the ellipsoid's projection of the results."""
    finest = levels["grid_50m"]
    crs = finest["spatial_ref"].attrs["crs_wkt"]
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(*np.transpose(list(SITES.values())))
    distance = np.hypot(
        finest["x"].values[None, None] - x[:, None, None], finest["y"].values[None, :, None] - y[:, None, None]
    )
    return np.array(list(SITES))[distance.argmin(axis=0)], distance.min(axis=0)


def test_every_station_keeps_its_hours_and_gaps_are_filled(folder, table, tmp_path):
    words = ["--traffic", folder / "bs.csv", "--sites", folder / "sites.csv", "--context", folder / "city.nc"]
    words += ["--output", tmp_path / "refined.zarr", "--units", "sum", "--steps", "8", "--samples", "2", "--json"]
    done = zoomdiff("refine", *words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["levels"]["grid_50m"]["shape"] == [2, 1, 48, 32, 16]
    with open_levels(tmp_path / "refined.zarr") as (tree, levels):
        assert tree.attrs["context_licence"].startswith("Contains information from OpenStreetMap")
        finest = levels["grid_50m"].load()
        site, _ = nearest_sites(levels)
        assert str(finest["time"].values[0]).startswith("2026-03-06T00:00")
        values = finest["traffic"].values[:, 0].astype(np.float64)
        for name in table.columns:
            found = values[:, :, site == name].sum(axis=-1)
            known = table[name].notna().to_numpy()
            assert known.sum() == (42 if name == "west" else 48)
            np.testing.assert_allclose(found[:, known], np.tile(table[name][known], (2, 1)), rtol=1e-4)
            assert (found > 0).all()
        assert (values[:, :, site == "new"].sum(axis=(1, 2)) > 0).all()  # silent: generated
        daily = values.reshape(2, 2, 24, 4, 8, 2, 8).sum((2, 4, 6))
        np.testing.assert_allclose(levels["bs"]["traffic"].values[:, 0], daily, rtol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["refined.zarr"]


def test_a_folder_of_the_dataset_command_and_a_limit_of_distance(folder, table, tmp_path):
    words = ["--traffic", folder / "bs.csv", "--sites", folder / "sites.csv", "--context", folder / "city.nc"]
    done = zoomdiff("dataset", *words, "--out", tmp_path / "measured")
    assert done.exit_code == 0, done.output
    words = ["--traffic", tmp_path / "measured", "--context", folder / "city.nc", "--largest-distance", "300"]
    done = zoomdiff("refine", *words, "--output", tmp_path / "refined.zarr", "--units", "sum", "--steps", "8")
    assert done.exit_code == 0, done.output
    with open_levels(tmp_path / "refined.zarr") as (_, levels):
        site, distance = nearest_sites(levels)
        values = levels["grid_50m"]["traffic"].values[0, 0].astype(np.float64)
        near = (site == "south") & (distance <= 300)
        assert 0 < near.sum() < (site == "south").sum()
        np.testing.assert_allclose(values[:, near].sum(axis=-1), table["south"], rtol=1e-4)


def test_what_does_not_fit_is_said_before_the_work(folder, tmp_path):
    words = {"traffic": folder / "bs.csv", "sites": folder / "sites.csv", "context": folder / "city.nc"}
    words["output"] = tmp_path / "refined.zarr"
    swapped = tmp_path / "swapped.csv"
    pd.read_csv(folder / "sites.csv").rename(columns={"lon": "lat", "lat": "lon"}).to_csv(swapped, index=False)
    negative = tmp_path / "negative.csv"
    pd.read_csv(folder / "bs.csv").assign(value=lambda table: -table["value"]).to_csv(negative, index=False)
    cropped = tmp_path / "cropped.nc"
    xarray.load_dataset(folder / "city.nc").isel(x=slice(0, 8)).to_netcdf(cropped)
    measured = tmp_path / "measured"
    done = zoomdiff(
        "dataset", *(f"--{name}={words[name]}" for name in ("traffic", "sites", "context")), "--out", measured
    )
    assert done.exit_code == 0, done.output
    for changes, message in (
        ({"sites": None}, "needs --sites or --areas"),
        ({"output": tmp_path / "refined.nc"}, "must end in .zarr"),
        ({"sites": swapped}, "seem to be swapped"),
        ({"traffic": negative}, "negative"),
        ({"traffic": measured, "sites": None, "context": cropped}, "must have the same cells"),
        ({"traffic": folder / "sites.csv"}, "--traffic"),
        ({"traffic": measured}, "--sites cannot be used with"),
        ({"traffic": measured, "sites": None, "scale": 2}, "--scale cannot be used with"),
        ({"scale": 0}, "`scale` must be positive"),
        ({"level": "bs"}, "--level cannot be used with"),
        ({"traffic": folder / "city.nc", "sites": None, "scale": 2}, "--scale cannot be used with"),
    ):
        given = {name: value for name, value in (words | changes).items() if value is not None}
        done = zoomdiff("refine", *(f"--{name}={value}" for name, value in given.items()))
        assert done.exit_code == 1 and message in " ".join(done.stderr.split()), (message, done.output)
        assert "Traceback" not in done.output
        # HDF5 may crash when a file that is still open is opened again.
        assert str(folder / "city.nc") not in {file.path for file in psutil.Process().open_files()}
    assert not list(tmp_path.glob("*refined*")) and not list(tmp_path.glob(".*"))
