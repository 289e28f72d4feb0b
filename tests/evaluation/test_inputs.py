# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import xarray as xr
from support.traffic_files import (
    HEIGHT,
    HOURS,
    WIDTH,
    area_types,
    finest_traffic,
    pyramid,
    write_area_types,
    write_mask,
    write_traffic,
)

from zoomdiff_diffusers.data.stores import write_netcdf
from zoomdiff_diffusers.evaluation.inputs import match_truth, read_area_types, read_mask, read_traffic
from zoomdiff_diffusers.hierarchy import Hierarchy


@pytest.fixture(scope="module")
def levels():
    return pyramid(finest_traffic(2, channels=2))


CHANNELS = {"channels": ("traffic", "users"), "unit": ["MB", "1"]}


def test_reads_what_was_written(levels, tmp_path):
    hierarchy = Hierarchy(cell_size=40.0, time_step=0.5)
    path = write_traffic(tmp_path / "a.nc", levels, hierarchy=hierarchy, attrs={"seed": 7}, **CHANNELS)
    stored = read_traffic(path)
    assert list(stored.levels) == hierarchy.names
    for name, values in levels.items():
        np.testing.assert_array_equal(stored.levels[name], values)
    assert dict(stored.hierarchy.config) == dict(hierarchy.config)
    assert (stored.channels, stored.units) == (["traffic", "users"], ["MB", "1"])
    assert stored.start == np.datetime64("2026-03-04") and stored.attrs["seed"] == 7


def test_sums_become_means(levels, tmp_path):
    factors = {level.name: level.spatial_factor**2 * level.temporal_factor for level in Hierarchy().levels}
    sums = {name: values * factors[name] for name, values in levels.items()}
    stored = read_traffic(write_traffic(tmp_path / "a.nc", sums, units="sum", start=None, **CHANNELS))
    for name, values in levels.items():
        np.testing.assert_allclose(stored.levels[name], values, rtol=1e-6)
    assert stored.start is None


def test_levels_that_the_truth_lacks_are_aggregated_and_finer_ones_left_out(levels, tmp_path):
    generated = read_traffic(write_traffic(tmp_path / "a.nc", levels, **CHANNELS))
    single = {name: values[:1] for name, values in levels.items()}
    only = {"grid_100m": single["grid_100m"]}
    truth, matched = match_truth(read_traffic(write_traffic(tmp_path / "b.nc", only, **CHANNELS)), generated)
    assert list(truth.levels) == list(matched.levels) == matched.hierarchy.names == ["bs", "cell", "grid_100m"]
    for name, values in truth.levels.items():
        np.testing.assert_allclose(values, single[name], rtol=1e-5)


def test_a_coarse_unit_is_known_where_all_of_it_was_measured(levels, tmp_path):
    valid = np.ones((HOURS, HEIGHT, WIDTH), dtype=bool)
    valid[30, 3, 21] = False  # hour 6 of the second day
    mask = read_mask(write_mask(tmp_path / "mask.nc", valid), valid.shape)
    np.testing.assert_array_equal(mask, valid)
    generated = read_traffic(write_traffic(tmp_path / "a.nc", levels, **CHANNELS))
    single = {name: values[:1] for name, values in levels.items()}
    truth, _ = match_truth(read_traffic(write_traffic(tmp_path / "b.nc", single, **CHANNELS)), generated, mask)
    unknown = {name: np.argwhere(np.isnan(values[0, 0])).tolist() for name, values in truth.levels.items()}
    assert unknown == {"bs": [[1, 0, 2]], "cell": [[7, 0, 5]], "grid_100m": [[15, 1, 10]], "grid_50m": [[30, 3, 21]]}


def test_a_mask_may_be_of_hours_alone(tmp_path):
    valid = np.arange(HOURS) != 5
    mask = read_mask(write_mask(tmp_path / "mask.nc", valid), (HOURS, HEIGHT, WIDTH))
    assert mask.shape == (HOURS, HEIGHT, WIDTH) and not mask[5].any() and mask[6].all()
    with pytest.raises(ValueError, match=r"\(71, 16, 24\).*found \(72,\)"):
        read_mask(tmp_path / "mask.nc", (71, HEIGHT, WIDTH))


def test_area_types_have_names(tmp_path):
    types, names = read_area_types(write_area_types(tmp_path / "context.nc"), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(types, area_types())
    assert names == {0: "housing", 1: "office park"}
    _, names = read_area_types(write_area_types(tmp_path / "b.nc", area_types() + 1), (HEIGHT, WIDTH))
    assert names == {1: "office park", 2: "type 2"}


@pytest.mark.parametrize(
    ("types", "attributes", "message"),
    [
        (area_types()[:8], {}, r"one per finest cell; found \(8, 24\)"),
        (area_types() + 0.5, {}, "must hold integers"),
        (area_types(), {"flag_meanings": "one two three"}, "2 flag_values, but 3 flag_meanings"),
    ],
)
def test_area_types_that_do_not_fit(types, attributes, message, tmp_path):
    path = write_area_types(tmp_path / "context.nc", types, **attributes)
    with pytest.raises(ValueError, match=message):
        read_area_types(path, (HEIGHT, WIDTH))


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_traffic(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("not NetCDF")
    with pytest.raises(ValueError, match="not a readable NetCDF-4 file"):
        read_traffic(tmp_path / "text.nc")
    write_netcdf(xr.DataTree(xr.Dataset({"rain": ("time", np.zeros(3))})), tmp_path / "rain.nc")
    with pytest.raises(ValueError, match=r"no traffic: .* found the groups \[\] and the variables \['rain'\]"):
        read_traffic(tmp_path / "rain.nc")
    with pytest.raises(ValueError, match=r"no variable `aoi`; found \['rain'\]"):
        read_area_types(tmp_path / "rain.nc", (HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("options", "cut", "message"),
    [
        ({}, slice(0, 2), "must hold one sample, the truth, but holds 2"),
        ({"start": "2026-03-05T00:00"}, slice(0, 1), "The start of"),
        ({"unit": "GB"}, slice(0, 1), "The units of"),
        ({"y": 800.0 - 25.0 - 50.0 * np.arange(HEIGHT)}, slice(0, 1), "The y axis of .*, falling; .*, rising"),
        ({"x": 9000.0 + 50.0 * np.arange(WIDTH)}, slice(0, 1), "The x axis of .* 9575 m"),
    ],
)
def test_truth_of_something_else_is_refused(levels, options, cut, message, tmp_path):
    generated = read_traffic(write_traffic(tmp_path / "a.nc", levels, **CHANNELS))
    single = {name: values[cut] for name, values in levels.items()}
    truth = read_traffic(write_traffic(tmp_path / "b.nc", single, **{**CHANNELS, **options}))
    with pytest.raises(ValueError, match=message):
        match_truth(truth, generated)


def test_truth_of_another_shape_is_refused(levels, tmp_path):
    generated = read_traffic(write_traffic(tmp_path / "a.nc", levels, **CHANNELS))
    shorter = pyramid(levels["grid_50m"][:1, :, :48])
    truth = read_traffic(write_traffic(tmp_path / "b.nc", shorter, **CHANNELS))
    with pytest.raises(ValueError, match=r"'bs': .* is \(2, 2, 2, 3\) in .*, but \(2, 3, 2, 3\) in"):
        match_truth(truth, generated)
    broken = {**levels, "cell": np.where(levels["cell"] > 30, np.nan, levels["cell"])}
    generated = read_traffic(write_traffic(tmp_path / "c.nc", broken, **CHANNELS))
    single = {name: values[:1] for name, values in levels.items()}
    truth = read_traffic(write_traffic(tmp_path / "d.nc", single, **CHANNELS))
    with pytest.raises(ValueError, match="'cell' of .* not finite"):
        match_truth(truth, generated)
