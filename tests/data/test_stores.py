# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import errno
import shutil
from collections import namedtuple

import netCDF4
import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr
from support.tiny import random_context, tiny_pipeline

from zoomdiff_diffusers.data.stores import (
    levels_to_datatree,
    open_levels,
    replace_file,
    shared_grid_mapping,
    write_netcdf,
)
from zoomdiff_diffusers.hierarchy import Hierarchy


START = "2026-03-04T00:00"  # a Wednesday


@pytest.fixture
def hierarchy():
    return Hierarchy()


@pytest.fixture
def levels(hierarchy):
    finest = np.random.default_rng(0).gamma(0.5, size=(3, 2, 48, 16, 24)).astype(np.float32)
    return dict(zip(hierarchy.names, hierarchy.pyramid(finest)))


def make_tree(levels, hierarchy, **arguments):
    defaults = {"start": START, "channels": ["traffic", "users"], "unit": "MB", "units": "mean"}
    return levels_to_datatree(levels, hierarchy, **{**defaults, **arguments})


def test_every_level_is_a_group_with_named_axes(levels, hierarchy):
    tree = make_tree(levels, hierarchy, attrs={"seed": 3})
    assert list(tree.children) == list(hierarchy.names)
    for name, values in levels.items():
        traffic = tree[name]["traffic"]
        assert traffic.dims == ("sample", "channel", "time", "y", "x")
        np.testing.assert_array_equal(traffic, values)
        assert list(traffic.channel.values) == ["traffic", "users"]
    assert tree.attrs["seed"] == 3


def test_times_are_the_starts_of_each_levels_intervals(levels, hierarchy):
    tree = make_tree(levels, hierarchy)
    assert list(tree["bs"].time.values) == [np.datetime64("2026-03-04"), np.datetime64("2026-03-05")]
    assert tree["cell"].time.values[1] == np.datetime64("2026-03-04T04:00")
    assert tree["grid_100m"].time.values[-1] == np.datetime64("2026-03-05T22:00")
    assert tree["grid_50m"].time.dt.dayofweek.values[[0, 24]].tolist() == [2, 3]


def test_without_a_start_hours_are_counted(levels, hierarchy):
    tree = make_tree(levels, hierarchy, start=None)
    assert tree["cell"].time.values[:3].tolist() == [0.0, 4.0, 8.0]
    assert tree["cell"].time.attrs["units"] == "h"


def test_units_lie_at_the_centre_of_their_cells(levels, hierarchy):
    tree = make_tree(levels, hierarchy)
    assert tree["grid_50m"].x.values[:3].tolist() == [25.0, 75.0, 125.0]
    assert tree["grid_100m"].y.values[:2].tolist() == [50.0, 150.0]
    assert tree["bs"].x.values.tolist() == [200.0, 600.0, 1000.0]
    assert tree["bs"].y.values.tolist() == [200.0, 600.0]


def test_own_coordinates_are_carried_to_every_level(levels, hierarchy):
    y = 6_672_000.0 - 50.0 * np.arange(16)  # north to south, as in a raster
    tree = make_tree(levels, hierarchy, y=y, x=np.arange(24) * 50.0)
    np.testing.assert_array_equal(tree["grid_50m"].y, y)
    np.testing.assert_allclose(tree["bs"].y, [y[:8].mean(), y[8:].mean()])


def test_the_description_says_what_the_values_are(levels, hierarchy):
    mean = make_tree(levels, hierarchy)["bs"]["traffic"].attrs
    total = make_tree(levels, hierarchy, units="sum")["bs"]["traffic"].attrs
    assert mean["units"] == total["units"] == "MB"
    assert "50 m cell and 1 h" in mean["long_name"]
    assert "400 m unit and 24 h" in total["long_name"]


def test_each_channel_may_have_its_own_unit(levels, hierarchy):
    traffic = make_tree(levels, hierarchy, unit=["MB", "users"])["cell"]["traffic"]
    assert traffic.sel(channel="users").unit.item() == "users"
    assert make_tree(levels, hierarchy, unit=["MB", "MB"])["cell"]["traffic"].attrs["units"] == "MB"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": "total"}, "`units`.*'total'"),
        ({"channels": ["traffic"]}, r"'bs'.*1 channel\(s\).*\(3, 2, 2, 2, 3\)"),
        ({"y": np.arange(15)}, r"`y` has shape \(15,\).*'bs' covers 16"),
    ],
)
def test_what_does_not_fit_is_refused(levels, hierarchy, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_tree(levels, hierarchy, **arguments)


def test_a_level_needs_all_its_axes(levels, hierarchy):
    with pytest.raises(ValueError, match="'bs' must be"):
        make_tree({"bs": levels["bs"][0]}, hierarchy)


@pytest.mark.parametrize("start", [START, None])
def test_a_file_holds_everything(levels, hierarchy, tmp_path, start):
    tree = make_tree(levels, hierarchy, start=start, attrs={"model": "tiny", "seed": 3})
    path = tmp_path / "traffic.nc"
    write_netcdf(tree, path)
    with xr.open_datatree(path, engine="netcdf4", decode_timedelta=False) as read:
        assert read.attrs == tree.attrs
        for name in hierarchy.names:
            xr.testing.assert_equal(read[name].to_dataset(), tree[name].to_dataset())
            assert read[name]["traffic"].attrs == tree[name]["traffic"].attrs
            assert read[name]["traffic"].dtype == np.float32
    assert [file.name for file in tmp_path.iterdir()] == ["traffic.nc"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(levels, hierarchy, tmp_path):
    path = tmp_path / "traffic.nc"
    write_netcdf(make_tree(levels, hierarchy), path)
    before = path.read_bytes()
    unwritable = make_tree(levels, hierarchy, attrs={"seed": object()})  # NetCDF has no type for it
    with pytest.raises(TypeError):
        write_netcdf(unwritable, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["traffic.nc"]


def test_a_full_disk_is_called_so(levels, hierarchy, tmp_path, monkeypatch):
    # Without space for its first bytes, the NetCDF library says "Permission denied"; later, "HDF error".
    usage = namedtuple("usage", ["total", "used", "free"])
    for error in (PermissionError(13, "Permission denied"), RuntimeError("NetCDF: HDF error")):

        def write(path, error=error):
            path.write_bytes(b"a part")
            raise error

        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 0))
        with pytest.raises(OSError, match="No space left on device") as caught:
            replace_file(tmp_path / "traffic.nc", write)
        assert caught.value.errno == errno.ENOSPC
        monkeypatch.undo()
        with pytest.raises(type(error), match=str(error.args[-1])):
            replace_file(tmp_path / "traffic.nc", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_named(levels, hierarchy, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_netcdf(make_tree(levels, hierarchy), tmp_path / "nowhere" / "traffic.nc")


# ------------------------------------------------------------------------------------------------- place and opening


@pytest.mark.parametrize("north_first", [False, True])
def test_gis_libraries_find_the_place_and_the_reference_system(levels, hierarchy, tmp_path, north_first):
    crs = pyproj.CRS.from_epsg(32635)
    y = 6_672_025.0 + 50.0 * np.arange(16)
    y, x = y[::-1] if north_first else y, 380_025.0 + 50.0 * np.arange(24)
    context = xr.Dataset(coords={"y": y, "x": x, "spatial_ref": ((), 0, {"crs_wkt": crs.to_wkt(), **crs.to_cf()})})
    tree = make_tree(levels, hierarchy, y=y, x=x, grid_mapping=shared_grid_mapping([context, context]))
    write_netcdf(tree, tmp_path / "traffic.nc")
    for name in hierarchy.names:
        row, column = 1, 2
        place = tree[name].x.values[column], tree[name].y.values[row]
        with rasterio.open(f"netcdf:{tmp_path / 'traffic.nc'}:/{name}/traffic") as image:
            assert image.crs.to_epsg() == 32635
            (bands,) = image.sample([place])
        np.testing.assert_array_equal(bands, levels[name][..., row, column].ravel())
        side = tree[name].attrs["spatial_resolution_m"]
        assert image.bounds == pytest.approx((380_000, 6_672_000, 381_200, 6_672_800))
        assert image.res == (side, side)
    with netCDF4.Dataset(tmp_path / "traffic.nc") as file:
        cells = file["cell"]
        assert pyproj.CRS.from_cf(cells[cells["traffic"].grid_mapping].__dict__) == crs
        assert cells["x"].standard_name == "projection_x_coordinate"
        # CF: a unit that counts from a date, a calendar, and what the time of an interval is.
        times = netCDF4.num2date(cells["time"][:], cells["time"].units, cells["time"].calendar)
        assert (times[0].isoformat(), times[1].isoformat()) == ("2026-03-04T00:00:00", "2026-03-04T04:00:00")
        assert cells["time"].long_name == "start of the 4 h interval, local time"


def test_without_a_common_reference_system_there_is_none(levels, hierarchy):
    wkt = [pyproj.CRS.from_epsg(code).to_wkt() for code in (32635, 32636)]
    contexts = [xr.Dataset(coords={"spatial_ref": ((), 0, {"crs_wkt": text})}) for text in wkt]
    assert shared_grid_mapping(contexts[:1])["crs_wkt"] == wkt[0]
    for others in (contexts, [contexts[0], xr.Dataset()], [contexts[0], {"aoi": np.zeros((8, 8))}], []):
        assert shared_grid_mapping(others) is None
    assert "spatial_ref" not in make_tree(levels, hierarchy)["bs"].coords
    with pytest.raises(ValueError, match="`grid_mapping` must have `crs_wkt`, but has"):
        make_tree(levels, hierarchy, grid_mapping={"name": "UTM"})


def test_a_file_and_a_store_open_alike_and_others_are_refused(levels, hierarchy, tmp_path):
    tree = make_tree(levels, hierarchy, attrs={"levels": hierarchy.names})
    write_netcdf(tree, tmp_path / "traffic.nc")
    texts = {"channel": ("channel", np.array(["traffic", "users"], object))}
    tree.map_over_datasets(lambda level: level.assign_coords(texts) if level else level).to_zarr(
        tmp_path / "traffic.zarr", consolidated=False
    )
    for path in (tmp_path / "traffic.nc", tmp_path / "traffic.zarr"):
        with open_levels(path) as (root, found):
            assert list(found) == hierarchy.names and list(root.attrs["levels"]) == hierarchy.names
            np.testing.assert_array_equal(found["cell"]["traffic"], levels["cell"])
    (tmp_path / "text.nc").write_text("no NetCDF")
    xr.Dataset({"aoi": (("y", "x"), np.zeros((2, 2)))}).to_netcdf(tmp_path / "flat.nc")
    (tmp_path / "empty").mkdir()
    for name, message in (("text.nc", "neither"), ("flat.nc", "no levels"), ("empty", "neither")):
        with pytest.raises(ValueError, match=f"{name} .*{message}"):
            with open_levels(tmp_path / name):
                pass


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A store of two samples of 16 x 24 cells, a chunk for each."""
    layers = random_context(2, 24, 16, 24)
    context = xr.Dataset({"surface": (("y", "x"), layers["surface"])}, {"x": 50.0 * np.arange(24)})
    path = tmp_path_factory.mktemp("city") / "city.zarr"
    return tiny_pipeline().generate_city(context, path, num_hours=24, num_samples=2, num_inference_steps=4)


@pytest.mark.parametrize(
    "lost, message",
    [
        ("grid_50m/traffic/c/1", "incomplete: only 1 of 2 chunks of grid_50m/traffic are there"),
        ("grid_50m", r"incomplete: the values of the level\(s\) \['grid_50m'\] are missing"),
        ("cell/traffic", r"the values of the level\(s\) \['cell'\] are missing"),
        ("bs/x", r"incomplete: level 'bs' lacks the coordinates \['x'\]"),
        ("zarr.json", "neither a readable NetCDF-4 file nor a Zarr store"),
    ],
)
def test_a_store_of_which_parts_are_missing_is_refused(city, tmp_path, lost, message):
    path = tmp_path / "city.zarr"
    shutil.copytree(city, path)
    with open_levels(path) as (_, found):
        assert np.isfinite(found["grid_50m"]["traffic"]).all()
    shutil.rmtree(path / lost) if (path / lost).is_dir() else (path / lost).unlink()
    with pytest.raises(ValueError, match=message):
        with open_levels(path):
            pass


def test_what_cannot_be_decompressed_is_called_damaged(city, levels, hierarchy, tmp_path):
    path, file = tmp_path / "city.zarr", tmp_path / "traffic.nc"
    shutil.copytree(city, path)
    chunk = next(each for each in (path / "grid_50m" / "traffic" / "c" / "0").rglob("*") if each.is_file())
    chunk.write_bytes(chunk.read_bytes()[:100])
    write_netcdf(make_tree(levels, hierarchy), file)
    content = bytearray(file.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 20_000)  # of the values of the finest level
    content[middle] = np.random.default_rng(0).bytes(20_000)
    file.write_bytes(content)
    for damaged in (path, file):
        with pytest.raises(ValueError, match=f"{damaged.name} is damaged"):
            with open_levels(damaged) as (_, found):
                for level in found.values():
                    level["traffic"].load()
