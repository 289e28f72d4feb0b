# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Zone rasters: every cell has the right zone, by brute force, by hand and by another's table of real sites."""

from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from zoomdiff_diffusers.data import zones
from zoomdiff_diffusers.data.zones import (
    polygon_zones,
    sector_zones,
    sites_outside,
    voronoi_zones,
    zones_without_cells,
)
from zoomdiff_diffusers.hierarchy import Hierarchy, Level


MILAN = Path(__file__).parents[3] / "shared" / "data" / "milan_sites"
Y, X = 5_000_000 + 50.0 * np.arange(13), 400_000 + 50.0 * np.arange(9)


def nearest_by_brute_force(site_x, site_y, y, x):
    """The first of the nearest sites, one cell after another."""
    labels = np.empty((len(y), len(x)), dtype=int)
    for row, column in np.ndindex(labels.shape):
        distance = np.hypot(site_x - x[column], site_y - y[row])
        labels[row, column] = np.flatnonzero(distance <= distance.min() * (1 + 1e-9))[0]
    return labels


def bearing(site_x, site_y, x, y):
    return np.degrees(np.arctan2(x - site_x, y - site_y)) % 360


@pytest.mark.parametrize("y, x", [(Y, X), (Y[::-1], X), (Y, X[::-1]), (Y[:1], X)])
def test_sites_serve_what_is_nearest(y, x, monkeypatch):
    monkeypatch.setattr(zones, "CELLS_AT_ONCE", 40)
    random = np.random.default_rng(0)
    site_x, site_y = random.uniform(X[0], X[-1], 30), random.uniform(Y[0], Y[-1], 30)
    labels = voronoi_zones(site_x, site_y, y, x)
    assert labels.dtype == np.int32 and labels.shape == (len(y), len(x))
    np.testing.assert_array_equal(labels, nearest_by_brute_force(site_x, site_y, y, x))


def test_ties_and_twins_go_to_the_lower_index():
    assert voronoi_zones([25.0, -25.0], [0.0, 0.0], [0.0], [-50.0, 0.0, 50.0]).tolist() == [[1, 0, 0]]
    assert voronoi_zones([-25.0, 25.0, -25.0], [0.0] * 3, [0.0], [-50.0, 0.0, 50.0]).tolist() == [[0, 0, 1]]
    # Twelve sites on a circle around one cell, moved by an amount that rounding cannot keep.
    angle = np.radians(30 * np.arange(12))
    circle = 1e6 / 3 + 100 * np.sin(angle), 1e7 / 3 + 100 * np.cos(angle)
    for shift in range(12):
        assert voronoi_zones(*(np.roll(axis, shift) for axis in circle), [1e7 / 3], [1e6 / 3]).item() == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_cell_is_covered_and_sectors_are_nested_in_sites(data):
    whole = st.integers(-4, 12)
    sites = data.draw(st.lists(st.tuples(whole, whole), min_size=1, max_size=7))
    height, width = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    site_x, site_y = (50.0 * np.array(axis) for axis in zip(*sites))
    y, x = 50.0 * np.arange(height), 50.0 * np.arange(width)[::-1]
    labels = voronoi_zones(site_x, site_y, y, x)
    np.testing.assert_array_equal(labels, nearest_by_brute_force(site_x, site_y, y, x))
    of = np.array([*range(len(sites)), *data.draw(st.lists(st.integers(0, len(sites) - 1), max_size=9))])
    azimuth = [data.draw(st.sampled_from([0.0, 45.0, 120.0, 240.0, np.nan])) for _ in of]
    sectors = sector_zones(of, np.array(azimuth), site_x, site_y, y, x)
    assert sectors.dtype == np.int32
    np.testing.assert_array_equal(of[sectors], labels)


def test_sectors_serve_their_direction(monkeypatch):
    monkeypatch.setattr(zones, "CELLS_AT_ONCE", 40)
    site_x, site_y = np.array([X[2] + 7, X[6] - 3]), np.array([Y[4] + 5, Y[9] - 11])
    of, azimuth = np.array([0, 1, 0, 1, 0]), np.array([0.0, 90.0, 120.0, 630.0, -120.0])  # 630 is west
    labels = sector_zones(of, azimuth, site_x, site_y, Y[::-1], X)
    sites = voronoi_zones(site_x, site_y, Y[::-1], X)
    for row, column in np.ndindex(labels.shape):
        site = sites[row, column]
        towards = bearing(site_x[site], site_y[site], X[column], Y[::-1][row])
        apart = [min(abs(towards - a) % 360, 360 - abs(towards - a) % 360) for a in azimuth % 360]
        own = np.flatnonzero(of == site)
        assert labels[row, column] == min(own, key=lambda sector: apart[sector])
    assert zones_without_cells(labels, 6).tolist() == [5]


def test_sectors_without_azimuth_and_the_cell_of_the_site():
    y = x = np.array([-50.0, 0.0, 50.0])
    assert (sector_zones(np.array([0]), np.array([np.nan]), [0.0], [0.0], y, x) == 0).all()
    # Beside others an omnidirectional sector gets nothing; of two such sectors the first gets all.
    mixed = sector_zones(np.array([0, 0, 0]), np.array([np.nan, 180.0, 90.0]), [0.0], [0.0], y, x)
    assert mixed.tolist() == [[1, 1, 1], [1, 1, 2], [1, 2, 2]]
    twins = sector_zones(np.array([0, 0]), np.full(2, np.nan), [0.0], [0.0], y, x)
    assert zones_without_cells(twins, 2).tolist() == [1]


@pytest.mark.parametrize(
    "of, azimuth, message",
    [
        ([0, 0], [0.0, 120.0], "1 have none; the first is 1"),
        ([0, 2], [0.0, 120.0], "indices of the 2 sites"),
        ([0, 1], [0.0, np.inf], "1 are infinite"),
        ([0, 1], [0.0], "one entry per sector"),
    ],
)
def test_unusable_sectors_are_refused(of, azimuth, message):
    with pytest.raises(ValueError, match=message):
        sector_zones(np.array(of), np.array(azimuth), [0.0, 100.0], [0.0, 0.0], Y, X)


@pytest.mark.parametrize(
    "site_x, site_y, y, message",
    [
        ([], [], Y, "at least one"),
        ([0.0], [0.0, 1.0], Y, "one entry per site"),
        ([0.0, np.nan], [0.0, 1.0], Y, r"1 site\(s\) have no finite position; the first is number 1"),
        ([0.0], [0.0], [0.0, 50.0, 20.0], "`y` must be centres"),
    ],
)
def test_unusable_sites_and_grids_are_refused(site_x, site_y, y, message):
    with pytest.raises(ValueError, match=message):
        voronoi_zones(site_x, site_y, y, X)


def test_sites_outside_of_the_grid_are_told():
    outside = sites_outside([X[0] - 24, X[0] - 26, X[3], X[3]], [Y[0], Y[0], Y[-1] + 26, Y[5]], Y[::-1], X)
    assert outside.tolist() == [False, True, True, False]


@pytest.mark.parametrize("y, x", [(Y, X), (Y[::-1], X), (Y, X[::-1])])
def test_a_cell_goes_to_the_polygon_with_the_largest_share(y, x):
    random = np.random.default_rng(3)
    west, south = X[0] - 25, Y[0] - 25
    centres = shapely.multipoints(np.stack([random.uniform(0, 500, 20) + west, random.uniform(0, 700, 20) + south], 1))
    polygons = list(shapely.voronoi_polygons(centres).geoms) + [shapely.Point(X[3], Y[3]).buffer(90)]
    polygons = [polygon for polygon in polygons if polygon.centroid.x < X[6]]
    labels, found = polygon_zones(polygons, y, x)
    none = several = 0
    for row, column in np.ndindex(labels.shape):
        cell = shapely.box(x[column] - 25, y[row] - 25, x[column] + 25, y[row] + 25)
        shares = shapely.area(shapely.intersection(polygons, cell)) / 2500
        several += shares.sum() > 1 + 1e-6
        none += shares.sum() < 1e-9
        if shares.sum() > 1e-9:
            assert shares[labels[row, column]] == pytest.approx(shares.max(), abs=1e-5)
        else:
            apart = shapely.distance(polygons, shapely.Point(x[column], y[row]))
            assert apart[labels[row, column]] == pytest.approx(apart.min(), abs=1e-6)
    assert found == {"in_several": several, "in_none": none} and several > 5 and none > 5


def test_equal_shares_go_to_the_lower_polygon_and_small_polygons_get_nothing():
    halves = [shapely.box(0, 0, 75, 100), shapely.box(75, 0, 150, 100), shapely.box(10, 10, 12, 12)]
    labels, found = polygon_zones(halves, [25.0, 75.0], [25.0, 75.0, 125.0])
    assert labels.tolist() == [[0, 0, 1], [0, 0, 1]] and found == {"in_several": 1, "in_none": 0}
    assert zones_without_cells(labels, 3).tolist() == [2]
    labels, _ = polygon_zones(halves[1::-1], [25.0, 75.0], [25.0, 75.0, 125.0])
    assert labels.tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    "polygons, message",
    [
        ([], "is empty"),
        ([shapely.box(0, 0, 1, 1), shapely.Polygon()], "1 of 2 are empty or no polygon; the first is number 1"),
        ([shapely.Point(0, 0)], "empty or no polygon"),
        ([shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])], "1 of 1 are invalid.*Self-intersection"),
    ],
)
def test_unusable_polygons_are_refused(polygons, message):
    with pytest.raises(ValueError, match=message):
        polygon_zones(polygons, Y, X)


@pytest.mark.skipif(not MILAN.is_dir(), reason=f"the real sites of Milan are not in {MILAN}")
def test_real_sites_serve_the_cells_that_their_table_says():
    sites, table = (
        np.genfromtxt(MILAN / f"{name}-LTE.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
        for name in ("aggregated_bs_data", "cell_base_stations_aggregated")
    )
    project = Transformer.from_crs(4326, 32632, always_xy=True).transform
    site_x, site_y = project(sites["lng"], sites["lat"])
    their_x, their_y = (axis.reshape(100, 100) for axis in project(table["lng"], table["lat"]))
    distance = 1000 * table["distance"].reshape(100, 100)
    # The table measures from the mean of the five points of a cell's closed ring, of which the north-western one
    # counts twice, and takes a site that stands in the cell to be at distance 0.
    y, x = 5_022_575 + 235 * np.arange(100) + 141, 500_900 + 235 * np.arange(100) + 94
    labels = voronoi_zones(site_x, site_y, y, x)
    ours = np.hypot(site_x[labels] - x, site_y[labels] - y[:, None])
    away = distance > 0
    assert np.abs(ours - distance)[away].max() < 20 and np.abs(ours - distance)[away].mean() < 1
    same = (site_x[labels] == their_x) & (site_y[labels] == their_y)
    assert same[away].mean() > 0.98
    assert (ours <= np.hypot(their_x - x, their_y - y[:, None]) + 1e-6).all()
    _, first = np.unique(np.stack([site_x, site_y]), axis=1, return_index=True)
    repeated = np.setdiff1d(np.arange(len(sites)), first)
    assert len(repeated) >= 28 and np.isin(repeated, zones_without_cells(labels, len(sites))).all()


@pytest.mark.skipif(not MILAN.is_dir(), reason=f"the real sites of Milan are not in {MILAN}")
def test_real_sites_and_their_sectors_are_levels_with_exact_sums():
    """Sites and sectors, squares of 235 m as in the Milan grid, cells of 78 m: dense sites need finer cells."""
    sites = np.genfromtxt(
        MILAN / "aggregated_bs_data-LTE.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    site_x, site_y = Transformer.from_crs(4326, 32632, always_xy=True).transform(sites["lng"], sites["lat"])
    side = 235 / 3
    y, x = 5_022_575 + side * (np.arange(300) + 0.5), 500_900 + side * (np.arange(300) + 0.5)
    site = voronoi_zones(site_x, site_y, y, x)
    coarse = voronoi_zones(site_x, site_y, y[1::3], x[1::3])
    without = [len(zones_without_cells(labels, len(sites))) for labels in (coarse, site)]
    assert without[1] < 0.2 * without[0] and without[0] > 300  # areas that are finer than 235 m
    sectors = np.repeat(np.arange(len(sites)), 3)
    sector = sector_zones(sectors, np.tile([0.0, 120.0, 240.0], len(sites)), site_x, site_y, y, x)
    layers = {
        name: torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(1, 300, 300))
        for name, labels in (("site", site), ("sector", sector))
    }
    levels = [Level("bs", 6, 4, "site"), Level("cell", 3, 2, "sector"), Level("square", 3, 1), Level("fine", 1, 1)]
    hierarchy, generator = Hierarchy(levels, cell_size=side), torch.Generator().manual_seed(0)
    field = None
    published = []
    for position, shape in enumerate(hierarchy.shapes(4, 300, 300)):
        values = torch.rand((1, 1, *shape), generator=generator, dtype=torch.float64).pow(4) * 1e6
        values = hierarchy.over_units(values, position, layers)
        field = values if field is None else hierarchy.reconcile(values, field, position, zones=layers)
        published.append(hierarchy.level_of(field, position, layers))
    assert field.min() >= 0
    for name, values in zip(hierarchy.names, published):
        torch.testing.assert_close(hierarchy.aggregate(field, name, zones=layers), values, rtol=1e-9, atol=1e-3)
    total = np.bincount(site.ravel(), field[0, 0].sum(dim=0).numpy().ravel(), minlength=len(sites))
    daily = published[0] * hierarchy.volume("bs", layers)
    assert daily[0, 0, 0, 150, 150].item() == pytest.approx(total[site[150, 150]], rel=1e-9)
