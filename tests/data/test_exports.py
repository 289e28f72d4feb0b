# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Exports, read by the libraries that planners use: rasterio (GDAL), geopandas, pandas and xarray."""

import resource

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet
import pyproj
import pytest
import rasterio
import torch
import xarray as xr

from zoomdiff_diffusers.data.ensembles import summarise_ensemble
from zoomdiff_diffusers.data.exports import (
    LevelStatistics,
    export_csv,
    export_geoparquet,
    export_geotiff,
    export_netcdf,
    geotiff,
    level_statistics,
    rows,
)
from zoomdiff_diffusers.data.stores import levels_to_datatree, open_levels, write_netcdf
from zoomdiff_diffusers.hierarchy import Hierarchy, Level


HEIGHT, WIDTH, HOURS = 24, 40, 48
SOUTH, WEST = 6_672_000.0, 380_000.0
CRS = pyproj.CRS.from_epsg(32635)
LICENCE = "Contains information from OpenStreetMap, © OpenStreetMap contributors"


def make_tree(height=HEIGHT, width=WIDTH, samples=5, channels=("traffic", "users"), north_first=False, crs=CRS):
    hierarchy = Hierarchy()
    finest = np.random.default_rng(0).gamma(0.5, 10, (samples, len(channels), HOURS, height, width)).astype("f4")
    finest[..., 31, :, :] *= 3  # the busy hour
    y, x = SOUTH + 25 + 50.0 * np.arange(height), WEST + 25 + 50.0 * np.arange(width)
    return levels_to_datatree(
        dict(zip(hierarchy.names, hierarchy.pyramid(finest))),
        hierarchy,
        "2026-03-02",
        list(channels),
        ["MB", "1"][: len(channels)],
        "mean",
        y=y[::-1] if north_first else y,
        x=x,
        attrs={"title": "Generated mobile traffic", "seed": 3, "levels": hierarchy.names, "context_licence": LICENCE},
        grid_mapping=None if crs is None else {"crs_wkt": crs.to_wkt(), **crs.to_cf()},
    )


def write_store(tree, path):
    """As `generate_city` writes it: a sample per chunk, chunks that do not divide the area."""
    encoding = {
        f"/{name}": {"traffic": {"chunks": (1, node.sizes["channel"], max(1, node.sizes["time"] // 2), 7, 11)}}
        for name, node in tree.children.items()
    }
    tree = tree.map_over_datasets(
        lambda level: level.assign_coords(
            {name: it.astype(object) for name, it in level.coords.items() if it.dtype.kind == "U"}
        )
    )
    tree.to_zarr(path, consolidated=False, encoding=encoding)
    return path


@pytest.fixture(scope="module", params=["file, south first", "store, south first", "store, north first"])
def source(request, tmp_path_factory):
    """The tree, and its NetCDF file or Zarr store."""
    kind, direction = request.param.split(", ")
    tree = make_tree(north_first=direction == "north first")
    folder = tmp_path_factory.mktemp("source")
    if kind == "store":
        return tree, write_store(tree, folder / "city.zarr")
    write_netcdf(tree, folder / "traffic.nc")
    return tree, folder / "traffic.nc"


@pytest.fixture
def small_blocks(monkeypatch):
    """Many blocks, tiles and row groups, as a large area has."""
    monkeypatch.setattr(level_statistics, "VALUES_PER_BLOCK", 3000)
    monkeypatch.setattr(rows, "ROWS_PER_GROUP", 150)
    monkeypatch.setattr(geotiff, "TILE", 16)


OVER_TIME = {
    "each": lambda traffic: traffic,
    "mean": lambda traffic: traffic.mean("time"),
    "max": lambda traffic: traffic.max("time"),
    "busy-hour": lambda traffic: traffic.isel(time=[int(traffic[:, 0].sum(("sample", "y", "x")).values.argmax())]),
}
OVER_SAMPLES = {
    "mean": lambda traffic: traffic.mean("sample"),
    "std": lambda traffic: traffic.std("sample", ddof=1),
    "q90": lambda traffic: traffic.quantile(0.9, "sample"),
    "exceedance": lambda traffic: (traffic > 12).mean("sample"),
}


def expected(tree, level, time, statistic):
    """What xarray makes of it: (channel, time, y, x), or without time."""
    traffic = OVER_TIME[time](tree[level]["traffic"].astype("f8"))
    return OVER_SAMPLES[statistic](traffic)


def threshold(statistics):
    return 12.0 if "exceedance" in statistics else None


@pytest.mark.parametrize(
    "level, time, statistics",
    [
        ("grid_50m", "busy-hour", ["q90", "exceedance"]),
        ("cell", "max", ["mean", "q90"]),
        ("grid_100m", "mean", ["std"]),
        ("bs", "each", ["mean", "std"]),
    ],
)
def test_gdal_finds_the_right_value_at_a_place(source, small_blocks, tmp_path, level, time, statistics):
    tree, path = source
    report = export_geotiff(path, tmp_path / "map.tif", level, statistics, time, threshold(statistics))
    axes = tree[level]
    with rasterio.open(tmp_path / "map.tif") as image:
        assert image.crs.to_epsg() == 32635 and image.transform.e < 0 < image.transform.a
        assert image.bounds == pytest.approx((WEST, SOUTH, WEST + 50 * WIDTH, SOUTH + 50 * HEIGHT))
        assert np.isnan(image.nodata) and image.compression.name == "deflate" and image.profile["tiled"]
        wanted = [expected(tree, level, time, statistic) for statistic in statistics]
        bands = [band for values in wanted for band in values.values.reshape(-1, *values.shape[-2:])]
        assert image.count == report["bands"] == len(bands)
        places = [(x, y) for y in axes.y.values[[0, 1, -1]] for x in axes.x.values[[0, -2, -1]]]
        found = np.array(list(image.sample(places)))
        right = np.array([[band[row, column] for band in bands] for row in (0, 1, -1) for column in (0, -2, -1)])
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)
        total = sum(image.read(number, out_dtype="f8").sum() for number in image.indexes)
        assert total == pytest.approx(sum(band.sum() for band in bands), rel=1e-5)
        texts = image.descriptions
    if level == "grid_50m":
        assert texts[0] == "traffic q90 2026-03-03 07:00" and texts[-1] == "users exceedance 2026-03-03 07:00"
        with rasterio.open(tmp_path / "map.tif") as image:
            assert image.units == ("MB", "1", "1", "1")
    elif level == "cell":
        assert texts[1] == "users mean maximum over the time"
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]


def test_a_band_per_hour_of_one_channel(small_blocks, tmp_path):
    tree = make_tree(channels=("traffic",), samples=1)
    write_netcdf(tree, tmp_path / "traffic.nc")
    export_geotiff(tmp_path / "traffic.nc", tmp_path / "map.tif")
    with rasterio.open(tmp_path / "map.tif") as image:
        assert image.shape == (HEIGHT, WIDTH) and image.count == HOURS
        assert image.descriptions[25] == "mean 2026-03-03 01:00" and image.units[25] == "MB"
        np.testing.assert_array_equal(image.read(26), tree["grid_50m"]["traffic"].values[0, 0, 25, ::-1])
        assert image.tags()["level"] == "grid_50m" and image.tags()["seed"] == "3"


@pytest.mark.parametrize("level, time", [("cell", "max"), ("bs", "each"), ("grid_50m", "busy-hour")])
def test_geopandas_finds_squares_that_tile_the_area(source, small_blocks, tmp_path, level, time):
    tree, path = source
    report = export_geoparquet(path, tmp_path / "units.parquet", level, ["mean", "std"], time)
    table = geopandas.read_parquet(tmp_path / "units.parquet")
    side, (height, width) = tree[level].attrs["spatial_resolution_m"], tree[level]["traffic"].shape[-2:]
    assert table.crs == CRS and len(table) == report["rows"] and set(table.geom_type) == {"Polygon"}
    np.testing.assert_allclose(table.area, side**2)
    np.testing.assert_allclose(table.total_bounds, [WEST, SOUTH, WEST + 50 * WIDTH, SOUTH + 50 * HEIGHT])
    one = table[table["channel"] == "traffic"]
    one = one if "time" not in one else one[one["time"] == one["time"].iloc[0]]
    assert len(one) == height * width and one.union_all().area == pytest.approx(2500 * HEIGHT * WIDTH)
    np.testing.assert_allclose(np.stack([table.centroid.y, table.centroid.x]), [table["y"], table["x"]])
    suffix = "_of_max" if time == "max" else ""
    index = [name for name in ("channel", "time", "y", "x") if name in table]
    for statistic in ("mean", "std"):
        wanted = expected(tree, level, time, statistic).to_series()
        found = table.astype({"channel": str}).set_index(index)[statistic + suffix].reindex(wanted.index)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    metadata = pyarrow.parquet.ParquetFile(tmp_path / "units.parquet").metadata
    assert metadata.num_row_groups > 1 or len(table) <= rows.ROWS_PER_GROUP
    assert [entry.name for entry in tmp_path.iterdir()] == ["units.parquet"]


def test_pandas_sums_are_the_sums_of_the_store(source, small_blocks, tmp_path):
    tree, path = source
    export_csv(path, tmp_path / "cell.csv", "cell", ["samples", "mean"])
    table = pd.read_csv(tmp_path / "cell.csv", parse_dates=["time"])
    samples = [f"sample_{sample}" for sample in range(5)]
    assert list(table.columns) == ["level", "channel", "time", "y", "x", "unit", *samples, "mean"]
    traffic = tree["cell"]["traffic"].astype("f8")
    sums = table.groupby(["channel", "time"])[samples].sum()
    np.testing.assert_allclose(sums.T, traffic.sum(("y", "x")).values.reshape(5, -1), rtol=1e-5)
    places = table.groupby(["y", "x"])["mean"].sum()
    wanted = traffic.mean("sample").sum(("channel", "time")).to_series()
    np.testing.assert_allclose(places.reindex(wanted.index), wanted, rtol=1e-5)
    assert dict(zip(table["channel"], table["unit"])) == {"traffic": "MB", "users": "1"}
    export_csv(path, tmp_path / "bs.csv", "bs", time="mean")
    table = pd.read_csv(tmp_path / "bs.csv")
    assert list(table.columns) == ["level", "channel", "y", "x", "unit", "mean_of_mean"]
    assert len(table) == 2 * 3 * 5 and table["level"].unique() == ["bs"]


def test_a_text_that_a_spreadsheet_would_run_is_quoted(tmp_path):
    write_netcdf(make_tree(8, 8, channels=("=1+1",)), tmp_path / "traffic.nc")
    export_csv(tmp_path / "traffic.nc", tmp_path / "bs.csv", "bs")
    assert pd.read_csv(tmp_path / "bs.csv")["channel"].unique() == ["'=1+1"]


def test_a_store_becomes_one_file_with_the_same_content(source, tmp_path):
    tree, path = source
    report = export_netcdf(path, tmp_path / "copy.nc")
    with xr.open_datatree(tmp_path / "copy.nc", engine="netcdf4") as copy:
        assert list(copy.children) == list(tree.children) and copy.attrs["seed"] == 3
        for name in tree.children:
            xr.testing.assert_identical(copy[name].to_dataset().load(), tree[name].to_dataset())
            assert report["levels"][name]["traffic"] == list(tree[name]["traffic"].shape)
    export_netcdf(path, tmp_path / "one.nc", "cell")
    with rasterio.open(f"netcdf:{tmp_path / 'one.nc'}:/cell/traffic") as image:
        assert image.crs.to_epsg() == 32635 and image.count == 5 * 2 * 12
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy.nc", "one.nc"]


def test_statistics_of_a_store_are_exported_as_they_are(source, small_blocks, tmp_path):
    tree, path = source
    summary = summarise_ensemble(path, tmp_path / "summary.zarr", [0.125, 0.9], {"cell": 12.0})
    options = {"statistics": ["q90", "q12.5", "exceedance"], "level": "cell", "time": "busy-hour"}
    export_geotiff(summary, tmp_path / "map.tif", **options)
    with rasterio.open(tmp_path / "map.tif") as image:
        values, texts, units = image.read(), image.descriptions, image.units
    wanted = expected(tree, "cell", "busy-hour", "q90").values[:, 0]
    top = wanted if tree["cell"].y[0] > tree["cell"].y[-1] else wanted[:, ::-1]
    np.testing.assert_allclose(values[:2], top, rtol=1e-5)
    assert texts[0] == "traffic q90 2026-03-03 04:00" and units[0] == "MB" and units[-1] == "1"
    export_netcdf(summary, tmp_path / "summary.nc")
    with (
        xr.open_datatree(tmp_path / "summary.nc", engine="netcdf4") as copy,
        xr.open_datatree(summary, engine="zarr", consolidated=False) as store,
    ):
        for name in tree.children:
            xr.testing.assert_equal(copy[name].to_dataset(), store[name].to_dataset())
    for change, message in (
        ({"statistics": ["q50"]}, r"among those of .*, \['exceedance', 'mean', 'std', 'q12.5', 'q90'\], .*'q50'"),
        ({"time": "max"}, "`time` 'max' needs the samples"),
        ({"threshold": 3.0}, "`threshold` needs the samples"),
        ({"level": "bs"}, "one is 'exceedance'"),
    ):
        with pytest.raises(ValueError, match=message):
            export_geotiff(summary, tmp_path / "no.tif", **{**options, **change})


def test_any_variable_of_a_level_can_be_exported(tmp_path):
    """As comparisons have them: also without the time."""
    tree = make_tree(channels=("traffic",))
    level = tree["cell"].to_dataset().isel(sample=0, drop=True).rename(traffic="difference")
    level["period_difference"] = level["difference"].mean("time").assign_attrs(units="MB", grid_mapping="spatial_ref")
    tree = xr.DataTree.from_dict({"/": xr.Dataset({"total": ("sample", [1.0, 2.0])}), "/cell": level})
    write_netcdf(tree, tmp_path / "difference.nc")
    export_geotiff(tmp_path / "difference.nc", tmp_path / "map.tif", statistics=["period_difference"])
    with rasterio.open(tmp_path / "map.tif") as image:
        np.testing.assert_array_equal(image.read(1), level["period_difference"].values[0, ::-1])
        assert image.descriptions == ("period_difference of the whole time",)
    export_csv(tmp_path / "difference.nc", tmp_path / "table.csv", statistics=["difference"])
    assert len(pd.read_csv(tmp_path / "table.csv")) == level["difference"].size
    export_netcdf(tmp_path / "difference.nc", tmp_path / "copy.nc")
    with xr.open_datatree(tmp_path / "copy.nc") as copy:
        assert copy["total"].values.tolist() == [1, 2]
        xr.testing.assert_identical(copy["cell"].to_dataset().load(), level)
    for statistics, time, message in (
        (["difference", "period_difference"], "each", "must all be per time step or all of the whole time"),
        (["period_difference"], "busy-hour", "are of the whole time"),
    ):
        with pytest.raises(ValueError, match=message):
            export_csv(tmp_path / "difference.nc", tmp_path / "no.csv", statistics=statistics, time=time)


@pytest.mark.parametrize("kind", ["store", "file"])
def test_areas_that_are_no_squares_have_a_row_each(small_blocks, tmp_path, kind):
    labels = np.random.default_rng(1).integers(0, 9, (HEIGHT // 4, WIDTH // 4)).repeat(4, 0).repeat(4, 1)
    labels[:, :3], labels[5, 7] = 20, 30  # a strip, and a single cell
    hierarchy = Hierarchy([Level("site", 8, 24, "sites"), Level("grid_50m", 1, 1)])
    finest = np.random.default_rng(0).gamma(0.5, 10, (3, 1, HOURS, HEIGHT, WIDTH)).astype("f4")
    levels = dict(zip(hierarchy.names, hierarchy.pyramid(finest, {"sites": torch.from_numpy(labels)[None]})))
    place = {"y": SOUTH + 25 + 50.0 * np.arange(HEIGHT), "x": WEST + 25 + 50.0 * np.arange(WIDTH)}
    place |= {"grid_mapping": {"crs_wkt": CRS.to_wkt()}, "zones": {"sites": labels}}
    tree = levels_to_datatree(levels, hierarchy, "2026-03-02", ["traffic"], "MB", "mean", **place)
    assert "zone" in tree["site"].coords and "zone" not in tree["grid_50m"].coords
    path = tmp_path / "traffic.nc" if kind == "file" else write_store(tree, tmp_path / "city.zarr")
    if kind == "file":
        write_netcdf(tree, path)
    report = export_geoparquet(path, tmp_path / "sites.parquet", "site")
    export_csv(path, tmp_path / "sites.csv", "site", time="max")
    export_geotiff(path, tmp_path / "sites.tif", "site")
    names, cells = np.unique(labels, return_counts=True)
    table = geopandas.read_parquet(tmp_path / "sites.parquet")
    assert len(table) == report["rows"] == 2 * len(names) and table.crs == CRS and table.is_valid.all()
    second = table[table["time"] == "2026-03-03"].set_index("zone").sort_index()
    np.testing.assert_allclose(second.area.loc[names], cells * 2500)
    assert second.union_all().area == pytest.approx(2500 * HEIGHT * WIDTH)
    wanted = [finest[:, 0, 24:, labels == name].mean() for name in names]
    np.testing.assert_allclose(second["mean"].loc[names], wanted, rtol=1e-5)
    np.testing.assert_allclose(np.stack([second.centroid.y, second.centroid.x]), [second["y"], second["x"]])
    table = pd.read_csv(tmp_path / "sites.csv")
    assert list(table.columns) == ["level", "channel", "zone", "y", "x", "unit", "mean_of_max"]
    assert sorted(table["zone"]) == list(names)
    with rasterio.open(tmp_path / "sites.tif") as image:
        ((value, _),) = image.sample([(WEST + 25 + 50 * 7, SOUTH + 25 + 50 * 5)])
    assert value == pytest.approx(finest[:, 0, :24, 5, 7].mean(), rel=1e-5)


def test_blocks_cover_a_level_once_and_stay_small(source, small_blocks):
    tree, path = source
    with open_levels(path) as (_, levels):
        for name in tree.children:
            level = LevelStatistics(path, levels, name)
            covered = np.zeros(tree[name]["traffic"].shape[2:], int)
            for block in level.blocks():
                covered[block] += 1
                size = np.prod([part.stop - part.start for part in block])
                assert size * 5 * 2 <= level_statistics.VALUES_PER_BLOCK or block[0].stop - block[0].start == 1
            assert (covered == 1).all()


def test_a_single_unit_and_missing_values(tmp_path):
    tree = make_tree(8, 16, channels=("traffic",), samples=1)
    tree["bs"]["traffic"][..., 1, 0, 1] = np.nan
    write_netcdf(tree, tmp_path / "traffic.nc")
    export_geotiff(tmp_path / "traffic.nc", tmp_path / "map.tif", "bs")
    with rasterio.open(tmp_path / "map.tif") as image:
        assert image.bounds == (WEST, SOUTH, WEST + 800, SOUTH + 400)
        assert image.read(2, masked=True).mask.tolist() == [[False, True]]
    export_geoparquet(tmp_path / "traffic.nc", tmp_path / "units.parquet", "bs")
    table = geopandas.read_parquet(tmp_path / "units.parquet")
    assert table.area.tolist() == [160_000] * 4 and table["mean"].isna().sum() == 1
    write_netcdf(make_tree(8, 8, samples=1), tmp_path / "one.nc")
    export_geotiff(tmp_path / "one.nc", tmp_path / "map.tif", "bs", time="mean")
    with rasterio.open(tmp_path / "map.tif") as image:
        assert image.bounds == (WEST, SOUTH, WEST + 400, SOUTH + 400)


def test_a_file_without_a_reference_system_needs_one(tmp_path):
    write_netcdf(make_tree(8, 16, crs=None), tmp_path / "bare.nc")
    write_netcdf(make_tree(8, 16), tmp_path / "traffic.nc")
    output = tmp_path / "map.tif"
    for name, crs, message in (
        ("bare.nc", None, "bare.nc does not say in which coordinate reference system"),
        ("bare.nc", "EPSG:4326", "`crs` must count metres"),
        ("bare.nc", "EPSG:nowhere", "'EPSG:nowhere' is no coordinate reference system"),
        ("traffic.nc", "EPSG:3067", r"`crs` is EPSG:3067, but .*traffic.nc is in WGS 84 / UTM zone 35N"),
    ):
        for export in (export_geotiff, export_geoparquet):
            with pytest.raises(ValueError, match=message):
                export(tmp_path / name, output, crs=crs)
    assert not output.exists()
    export_geotiff(tmp_path / "bare.nc", output, crs="EPSG:3067")
    export_geotiff(tmp_path / "traffic.nc", tmp_path / "same.tif", crs="EPSG:32635")
    with rasterio.open(output) as image, rasterio.open(tmp_path / "same.tif") as same:
        assert (image.crs.to_epsg(), same.crs.to_epsg()) == (3067, 32635)


def test_what_is_owed_to_the_sources_goes_along(tmp_path):
    path, image, table = tmp_path / "traffic.nc", tmp_path / "a.tif", tmp_path / "a.parquet"
    write_netcdf(make_tree(8, 16), path)
    reports = [export_geotiff(path, image), export_geoparquet(path, table), export_csv(path, tmp_path / "a.csv")]
    reports.append(export_netcdf(path, tmp_path / "a.nc"))
    assert [report["licence"] for report in reports] == [LICENCE] * 4
    with rasterio.open(image) as opened:
        assert opened.tags()["TIFFTAG_COPYRIGHT"] == opened.tags()["licence"] == LICENCE
    assert pyarrow.parquet.read_schema(table).metadata[b"licence"].decode() == LICENCE
    assert geopandas.read_parquet(table).crs.to_epsg() == 32635
    with xr.open_datatree(tmp_path / "a.nc") as tree:
        assert tree.attrs["context_licence"] == LICENCE


def test_shares_do_not_give_a_table_its_unit(tmp_path):
    path = tmp_path / "traffic.nc"
    write_netcdf(make_tree(8, 16), path)
    export_csv(path, tmp_path / "a.csv", "bs", ["exceedance", "q90"], threshold=3.0)
    table = pd.read_csv(tmp_path / "a.csv")
    assert table.groupby("channel")["unit"].unique().map(list).to_dict() == {"traffic": ["MB"], "users": ["1"]}
    export_csv(path, tmp_path / "a.csv", "bs", ["exceedance"], threshold=3.0)
    assert set(pd.read_csv(tmp_path / "a.csv")["unit"]) == {1}


def test_the_busy_hour_of_a_difference_is_that_of_the_traffic(tmp_path):
    before = np.ones((1, 24, 2, 3), np.float32)
    before[:, 18] = 5
    difference = np.zeros_like(before)
    difference[:, 4] = 3  # a plan that brings most at night
    dims, attributes = ("channel", "time", "y", "x"), {"units": "MB"}
    level = xr.Dataset(
        {"before": (dims, before, attributes), "difference": (dims, difference, attributes)},
        {
            "channel": ["traffic"],
            "time": np.datetime64("2026-03-02", "ns") + np.arange(24) * np.timedelta64(1, "h"),
            "y": 50.0 * np.arange(2),
            "x": 50.0 * np.arange(3),
        },
    )
    write_netcdf(xr.DataTree.from_dict({"/grid_50m": level}), tmp_path / "difference.nc")
    report = export_csv(tmp_path / "difference.nc", tmp_path / "a.csv", statistics=["difference"], time="busy-hour")
    assert report["first_time"] == "2026-03-02 18:00"


def test_what_is_not_there_is_refused(tmp_path):
    path = tmp_path / "traffic.nc"
    write_netcdf(make_tree(8, 16), path)
    for options, message in (
        ({"level": "district"}, r"`level` must be one of \['bs', .*\], the levels of .*, but is 'district'"),
        ({"statistics": ["median"]}, "`statistics` must be mean, std, a quantile such as q90.*'median'"),
        ({"statistics": ["q101"]}, "'q101'"),
        ({"statistics": []}, "must name at least one"),
        ({"time": "noon"}, "`time` must be one of"),
        ({"statistics": ["exceedance"]}, "`threshold` is needed for the exceedance"),
        ({"threshold": 1.0}, "and only for it"),
    ):
        with pytest.raises(ValueError, match=message):
            export_csv(path, tmp_path / "no.csv", **options)
    with pytest.raises(ValueError, match="`level` must be one of"):
        export_netcdf(path, tmp_path / "no.nc", "district")
    with xr.open_datatree(path) as tree:
        level = tree["cell"].to_dataset().load()
    uneven = level.assign_coords(x=level.x.values**1.01)
    write_netcdf(xr.DataTree.from_dict({"/cell": uneven}), tmp_path / "uneven.nc")
    with pytest.raises(ValueError, match="'x' of level 'cell' in .*uneven.nc is not evenly spaced"):
        export_geotiff(tmp_path / "uneven.nc", tmp_path / "no.tif")
    assert not list(tmp_path.glob("*no.*"))


def test_a_damaged_store_is_told_from_a_full_disk(tmp_path):
    store = write_store(make_tree(16, 24), tmp_path / "city.zarr")
    chunk = next(each for each in (store / "bs" / "traffic" / "c").rglob("*") if each.is_file())
    chunk.write_bytes(chunk.read_bytes()[:9])
    for export, suffix in ((export_csv, "csv"), (export_netcdf, "nc")):
        with pytest.raises(ValueError, match="city.zarr is damaged"):
            export(store, tmp_path / f"out.{suffix}", "bs")
    assert list(tmp_path.iterdir()) == [store]


@pytest.mark.parametrize("limit", [2048, 40_000])
@pytest.mark.parametrize(
    "export, suffix",
    [(export_geotiff, "tif"), (export_geoparquet, "parquet"), (export_csv, "csv"), (export_netcdf, "nc")],
)
def test_a_full_disk_leaves_what_was_there(tmp_path, export, suffix, limit):
    path, output = tmp_path / "traffic.nc", tmp_path / f"out.{suffix}"
    write_netcdf(make_tree(16, 24), path)
    output.write_bytes(b"an earlier file")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(OSError):
            export(path, output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert output.read_bytes() == b"an earlier file"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(["traffic.nc", output.name])
