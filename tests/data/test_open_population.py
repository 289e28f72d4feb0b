# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Residents on cells: sums are kept, places are right, unusable rasters are refused."""

import numpy as np
import pytest
from pyproj import Transformer
from support.osm_city import BOTTOM, EPSG, LEFT, write_raster

from zoomdiff_diffusers.data.open_data.grid import WGS84, Grid
from zoomdiff_diffusers.data.open_data.population import estimate_population, read_population
from zoomdiff_diffusers.data.open_data.tags import DWELLINGS, NO_DWELLINGS, UNTOLD
from zoomdiff_diffusers.data.simulated_context import AOI_BUILDINGS, AOI_CLASSES, CUBIC_METRES_PER_RESIDENT


GRID = Grid(EPSG, LEFT, BOTTOM, 80, 104, 50.0)  # more rows than are read at once


def residents(shape, seed=0):
    return np.random.default_rng(seed).gamma(0.5, 40.0, shape).astype(np.float32)


def origin_and_pixel(crs, margin):
    """North-western corner and side of square pixels, 40 across the grid, `margin` pixels inside of it."""
    west, south, east, north = GRID.bounds_in(crs)
    pixel = min(east - west, north - south) / 40
    return west + margin * pixel, north - margin * pixel, pixel


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035", "EPSG:32632", "EPSG:3857", "ESRI:54009"])
def test_all_residents_of_a_raster_inside_of_the_grid_arrive(tmp_path, crs):
    left, top, pixel = origin_and_pixel(crs, margin=10)
    values = residents((17, 21))
    found, details = read_population(write_raster(tmp_path / "a.tif", values, left, top, pixel, crs), GRID)
    assert found.sum() == pytest.approx(values.sum(dtype=np.float64), rel=1e-6)
    assert found.shape == GRID.shape and found.min() >= 0
    # And they arrive where they were: the mean position is that of the pixels.
    x = left + pixel * (np.arange(21) + 0.5)
    y = top - pixel * (np.arange(17) + 0.5)
    x, y = Transformer.from_crs(crs, EPSG, always_xy=True).transform(*np.meshgrid(x, y))
    for axis, positions in (("x", x), ("y", y)):
        grid_positions = GRID.x[None, :] if axis == "x" else GRID.y[:, None]
        assert (found * grid_positions).sum() / found.sum() == pytest.approx(
            (values * positions).sum() / values.sum(), abs=2
        )
    assert 0.1 < details["covered_share"] < 0.5


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3035"])
def test_a_raster_that_goes_beyond_the_grid_is_cut_by_area(tmp_path, crs):
    left, top, pixel = origin_and_pixel(crs, margin=-20)
    values = residents((110, 130))
    found, details = read_population(write_raster(tmp_path / "a.tif", values, left, top, pixel, crs), GRID)
    # Independently: every pixel as 24 x 24 points with a share each.
    offset = (np.arange(24) + 0.5) / 24
    x = left + pixel * (np.arange(130)[:, None] + offset).ravel()
    y = top - pixel * (np.arange(110)[:, None] + offset).ravel()
    x, y = Transformer.from_crs(crs, EPSG, always_xy=True).transform(*np.meshgrid(x, y))
    row, column, inside = GRID.rows_and_columns(x, y)
    expected = np.zeros(GRID.shape)
    np.add.at(expected, (row, column), np.where(inside, np.kron(values, np.ones((24, 24))) / 24**2, 0))
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-3)
    assert np.abs(found - expected).max() < 0.1 * expected.max() and details["covered_share"] == pytest.approx(1)


def test_pixels_on_the_same_edges_are_shared_out_evenly(tmp_path):
    values = np.arange(12, dtype=np.int32).reshape(3, 4)
    path = write_raster(tmp_path / "a.tif", values, LEFT + 200, BOTTOM + 700, 100)
    found, _ = read_population(path, GRID)
    expected = np.zeros(GRID.shape)
    expected[8:14, 4:12] = np.kron(values[::-1], np.ones((2, 2))) / 4  # the raster's first row is the northernmost
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_missing_and_negative_values_are_nobody(tmp_path):
    values = np.array([[10.0, -99999.0, np.nan], [-3.0, 20.0, 5.0]], dtype=np.float32)
    found, details = read_population(
        write_raster(tmp_path / "a.tif", values, LEFT, BOTTOM + 200, 100, nodata=-99999.0), GRID
    )
    assert found.sum() == pytest.approx(35) and details["smallest"] == -3


def test_unusable_rasters_are_refused(tmp_path):
    path, values = tmp_path / "a.tif", residents((4, 5))
    with pytest.raises(ValueError, match="a.tif has no coordinate reference system"):
        read_population(write_raster(path, values, LEFT, BOTTOM + 400, 100, crs=None), GRID)
    with pytest.raises(ValueError, match=r"a.tif \(.*lies outside of the area"):
        read_population(write_raster(path, values, LEFT + 90_000, BOTTOM, 100), GRID)
    west, _, _, north = GRID.bounds_in(WGS84)
    with pytest.raises(ValueError, match="seem to be swapped"):
        read_population(write_raster(path, values, north - 0.02, west + 0.02, 0.01, WGS84.to_wkt()), GRID)
    with pytest.raises(ValueError, match="no residents in the area"):
        read_population(write_raster(path, -values, LEFT, BOTTOM + 400, 100), GRID)
    write_raster(path, residents((400, 500)), LEFT - 20_000, BOTTOM + 20_000, 100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(ValueError, match="a.tif is not a readable raster, or a damaged one .*[Rr]ead"):
        read_population(path, GRID)
    path.write_text("no raster")
    with pytest.raises(ValueError, match="is not a readable raster"):
        read_population(path, GRID)


def test_an_estimate_goes_by_the_volume_that_is_lived_in():
    volume = np.zeros((3, 2, 3))
    volume[DWELLINGS, 0, 1], volume[NO_DWELLINGS, 1, 1], volume[UNTOLD, 1, 2] = 2800.0, 5000.0, 2800.0
    aoi = np.full((2, 3), AOI_CLASSES.index("retail"))
    found = estimate_population(volume, aoi)
    expected = np.zeros((2, 3))
    expected[0, 1], expected[1, 2] = 9.0, 10 * AOI_BUILDINGS[AOI_CLASSES.index("retail"), 2]
    np.testing.assert_allclose(found, expected)
    assert CUBIC_METRES_PER_RESIDENT == 280
    scaled = estimate_population(volume, aoi, total=1234.0)
    np.testing.assert_allclose(scaled / expected.clip(1e-9), 1234 / expected.sum() * (expected > 0))
    with pytest.raises(ValueError, match="no buildings in the area in which the total population could live"):
        estimate_population(0 * volume, aoi, total=1.0)
