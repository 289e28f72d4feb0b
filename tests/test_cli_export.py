# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff summarise` and `zoomdiff export`, as a planner uses them."""

import json
import resource
import sys

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import xarray
from support.traffic_files import pyramid, write_traffic
from typer.testing import CliRunner

from zoomdiff_diffusers.commands import app
from zoomdiff_diffusers.data.simulated_city import simulate_context


def zoomdiff(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """A NetCDF file: three samples of 16 x 40 cells, two days, in UTM zone 35N."""
    path = tmp_path_factory.mktemp("traffic") / "traffic.nc"
    crs = pyproj.CRS.from_epsg(32635)
    finest = np.random.default_rng(0).gamma(0.5, 10, (3, 1, 48, 16, 40)).astype("f4")
    place = {"y": 6_672_025.0 + 50 * np.arange(16), "x": 380_025.0 + 50 * np.arange(40)}
    levels = pyramid(finest)
    write_traffic(path, levels, start="2026-03-02", grid_mapping={"crs_wkt": crs.to_wkt()}, **place)
    return path, levels


def test_from_generate_to_maps_and_tables(tmp_path):
    layers = simulate_context(height=16, width=24, seed=3)
    maps = {name: (("y", "x"), layers[name]) for name in ("surface", "aoi", "population", "building_volume")}
    place = {"y": 5_600_025.0 + 50 * np.arange(16), "x": 360_025.0 + 50 * np.arange(24)}
    xarray.Dataset(maps, place).to_netcdf(tmp_path / "context.nc", engine="netcdf4")
    store, summary, risk = tmp_path / "city.zarr", tmp_path / "summary.zarr", tmp_path / "risk.tif"
    words = ["--context", tmp_path / "context.nc", "--out", store, "--hours", 24, "--steps", 4, "--samples", 3]
    made = zoomdiff("generate", *words)
    assert made.exit_code == 0, made.output
    with xarray.open_datatree(store, engine="zarr", consolidated=False) as tree:
        samples = tree["cell"]["traffic"].load()
    threshold = float(samples.median())
    words = ["--traffic", store, "--out", summary, "--quantile", 0.25, "--quantile", 0.75, "--quantile", 0.25]
    done = zoomdiff("summarise", *words, "--threshold", f"cell={threshold!r}", "--json")
    assert done.exit_code == 0, done.output
    variables = json.loads(done.stdout)["levels"]
    assert list(variables) == ["bs", "cell", "grid_100m", "grid_50m"]
    assert variables["cell"] == ["mean", "std", "quantiles", "exceedance"] and "exceedance" not in variables["bs"]
    assert json.loads(done.stdout)["quantiles"] == [0.25, 0.75]
    words = [
        "--traffic",
        summary,
        "--out",
        risk,
        "--level",
        "cell",
        "--statistic",
        "exceedance",
        "--crs",
        "EPSG:32632",
    ]
    done = zoomdiff("export", *words)
    assert done.exit_code == 0, done.output
    assert "cell: exceedance, at 6 times from " in done.stdout and "4 x 6 units, EPSG:32632; 6 bands" in done.stdout
    with rasterio.open(risk) as image:
        found = np.array(list(image.sample([(360_025.0 + 50 * 9.5, 5_600_025.0 + 50 * 13.5)])))[0]
    np.testing.assert_allclose(found, (samples[:, 0, :, 3, 2] > threshold).mean("sample"))
    done = zoomdiff("summarise", *words[:1], store, "--out", summary)
    assert done.exit_code == 1 and "`output` must end in .zarr and not exist yet" in done.stderr


def test_every_kind_of_file(traffic, tmp_path):
    path, levels = traffic
    done = zoomdiff("export", "--traffic", path, "--out", tmp_path / "busy.tif", "--time", "busy-hour", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    busiest = levels["grid_50m"].sum((0, 1, 3, 4)).argmax()
    assert (report["level"], report["bands"], report["crs"]) == ("grid_50m", 1, "EPSG:32635")
    assert report["first_time"] == str(np.datetime64("2026-03-02T00:00") + np.timedelta64(busiest, "h")).replace(
        "T", " "
    )
    with rasterio.open(tmp_path / "busy.tif") as image:
        np.testing.assert_allclose(image.read(1), levels["grid_50m"][:, 0, busiest, ::-1].mean(0), rtol=1e-5)
    words = ["--level", "bs", "--statistic", "mean", "--statistic", "q90", "--time", "max"]
    assert zoomdiff("export", "--traffic", path, "--out", tmp_path / "peak.parquet", *words).exit_code == 0
    table = geopandas.read_parquet(tmp_path / "peak.parquet")
    assert table.crs.to_epsg() == 32635 and table.area.tolist() == [160_000] * 10
    np.testing.assert_allclose(table["mean_of_max"], levels["bs"].max(2).mean(0).ravel(), rtol=1e-5)
    words = ["--level", "bs", "--statistic", "exceedance", "--threshold", 5, "--time", "max"]
    done = zoomdiff("export", "--traffic", path, "--out", tmp_path / "risk.csv", *words)
    assert done.exit_code == 0 and "bs: exceedance_of_max, for the whole time" in done.stdout
    table = pd.read_csv(tmp_path / "risk.csv")
    np.testing.assert_allclose(table["exceedance_of_max"], (levels["bs"].max(2) > 5).mean(0).ravel())
    assert zoomdiff("summarise", "--traffic", path, "--out", tmp_path / "summary.zarr").exit_code == 0
    done = zoomdiff("export", "--traffic", tmp_path / "summary.zarr", "--out", tmp_path / "summary.nc")
    assert done.exit_code == 0 and "mean 1 x 48 x 16 x 40" in done.stdout
    with xarray.open_datatree(tmp_path / "summary.nc") as tree:
        np.testing.assert_allclose(tree["cell"]["mean"], levels["cell"].mean(0), rtol=1e-5)
    names = ["busy.tif", "peak.parquet", "risk.csv", "summary.nc", "summary.zarr"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == names


def test_mistakes_are_one_line_and_leave_nothing(traffic, tmp_path):
    path = traffic[0]
    bare, text = tmp_path / "bare.nc", tmp_path / "text.nc"
    write_traffic(bare, {"bs": traffic[1]["bs"]}, start="2026-03-02")
    text.write_text("no NetCDF")
    folder = tmp_path / "map_folder.tif"
    folder.mkdir()
    before = sorted(tmp_path.iterdir())
    for words, message in (
        (["--out", tmp_path / "map.png"], "must end in .tif, .parquet, .csv, .nc"),
        (["--out", tmp_path / "no" / "map.tif"], "does not exist"),
        (["--level", "district"], "`level` must be one of ['bs', 'cell', 'grid_100m', 'grid_50m']"),
        (["--statistic", "median"], "but one is 'median'"),
        (["--statistic", "exceedance"], "`threshold` is needed for the exceedance"),
        (["--crs", "EPSG:3067"], "is in WGS 84 / UTM zone 35N"),
        (["--crs", "EPSG:3067", "--out", tmp_path / "table.csv"], "--crs is for GeoTIFF, GeoParquet, not for CSV"),
        (["--time", "max", "--out", tmp_path / "copy.nc"], "--time is for GeoTIFF, GeoParquet, CSV, not for NetCDF"),
        (["--traffic", bare], "Give `crs`, such as EPSG:32635"),
        (["--traffic", text], "is neither a readable NetCDF-4 file nor a Zarr store"),
        (["--traffic", bare, "--out", bare], "must not be the file that is read"),
        (["--out", folder], "map_folder.tif is a folder"),
    ):
        done = zoomdiff("export", "--traffic", path, "--out", tmp_path / "map.tif", *words)
        assert done.exit_code == 1, (words, done.output)
        assert done.stderr.startswith("zoomdiff: error: ") and message in done.stderr and done.stdout == ""
        assert done.stderr.count("\n") == 1 and "Traceback" not in done.output
    for words, message in (
        (["--threshold", "12.5"], "--threshold: must be a level and a number, such as grid_50m=12.5, but is '12.5'"),
        (["--threshold", "bs=much"], "but is 'bs=much'"),
        (["--threshold", "bs=nan"], "but is 'bs=nan'"),
        (["--threshold", "bs=1", "--threshold", "bs=2"], "'bs' is given twice"),
        (["--threshold", "district=1"], "`thresholds` must name levels out of"),
        (["--out", tmp_path / "summary.nc"], "`output` must end in .zarr"),
        (["--out", tmp_path / "no" / "summary.zarr"], "does not exist"),
        (["--traffic", text], "is neither a readable NetCDF-4 file nor a Zarr store"),
    ):
        done = zoomdiff("summarise", "--traffic", path, "--out", tmp_path / "summary.zarr", *words)
        assert done.exit_code == 1 and done.stdout == "", (words, done.output)
        assert done.stderr.startswith("zoomdiff: error: ") and message in done.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert zoomdiff("export", "--traffic", path, "--out", "map.tif", "--time", "noon").exit_code == 2
    assert zoomdiff("export", "--traffic", tmp_path / "no.nc", "--out", "map.tif").exit_code == 2
    assert zoomdiff("summarise", "--traffic", path, "--out", "s.zarr", "--quantile", 2).exit_code == 2


def test_a_full_disk_leaves_what_was_there(traffic, tmp_path):
    output = tmp_path / "map.tif"
    output.write_bytes(b"an earlier map")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # as a disk with 4 KiB left
    try:
        done = zoomdiff("export", "--traffic", traffic[0], "--out", output)
        summary = zoomdiff("summarise", "--traffic", traffic[0], "--out", tmp_path / "summary.zarr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.exit_code == 1 and f"--output: cannot write {output}" in done.stderr
    assert summary.exit_code == 1 and "--output: cannot write" in summary.stderr
    assert output.read_bytes() == b"an earlier map" and list(tmp_path.iterdir()) == [output]


def test_a_missing_library_is_named_with_what_installs_it(traffic, tmp_path, monkeypatch):
    words = ["export", "--traffic", traffic[0], "--out"]
    for name, library in (("map.tif", "rasterio"), ("map.parquet", "pyarrow.parquet"), ("map.tif", "pyproj")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            done = zoomdiff(*words, tmp_path / name)
        assert done.exit_code == 1 and done.stderr.startswith(f"zoomdiff: error: {library} is not installed. pip "), (
            name
        )
        assert "zoomdiff_diffusers[context]" in done.stderr


def test_help_has_an_example():
    for command, example in (
        ("export", "zoomdiff export --traffic traffic.nc --output busy.tif --level grid_50m --statistic q90"),
        ("summarise", "zoomdiff summarise --traffic city.zarr --output summary.zarr --quantile 0.9"),
    ):
        done = zoomdiff(command, "--help")
        assert done.exit_code == 0 and example in done.output and "Exit codes:" in done.output
