# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import xarray as xr

from zoomdiff_diffusers.data.stores import levels_to_datatree, write_netcdf
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


def test_a_folder_that_does_not_exist_is_named(levels, hierarchy, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_netcdf(make_tree(levels, hierarchy), tmp_path / "nowhere" / "traffic.nc")
