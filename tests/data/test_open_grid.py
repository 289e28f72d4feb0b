# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from support.osm_city import BOTTOM, LEFT, degrees, rectangle, write_boundary, write_geojson

from zoomdiff_diffusers.data.open_data.grid import check_overlap, make_grid, parse_crs, read_boundary


@settings(max_examples=40, deadline=None)
@given(
    longitude=st.floats(-179, 178),
    latitude=st.floats(-70, 70),
    width=st.floats(1e-4, 0.05),
    height=st.floats(1e-4, 0.05),
    cell_size=st.sampled_from([25.0, 50.0, 100.0, 30.5]),
    multiple=st.sampled_from([1, 6, 8]),
)
def test_a_grid_holds_its_area_on_edges_at_multiples_of_the_cell_size(
    longitude, latitude, width, height, cell_size, multiple
):
    area = shapely.box(longitude, latitude, longitude + width, latitude + height)
    grid = make_grid(area, cell_size, multiple)
    assert grid.height % multiple == 0 == grid.width % multiple
    assert np.allclose(np.array(grid.bounds) % cell_size % cell_size, 0, atol=1e-6) or np.allclose(
        np.array(grid.bounds) / cell_size, np.round(np.array(grid.bounds) / cell_size)
    )
    assert grid.epsg // 100 == (326 if latitude + height / 2 >= 0 else 327)
    central_meridian = 6 * (grid.epsg % 100) - 183
    assert abs(longitude + width / 2 - central_meridian) <= 3 + 1e-9
    x, y = Transformer.from_crs(4326, grid.epsg, always_xy=True).transform(*np.array(area.exterior.coords).T)
    left, bottom, right, top = grid.bounds
    assert (x >= left - 1e-3).all() and (x <= right + 1e-3).all()
    assert (y >= bottom - 1e-3).all() and (y <= top + 1e-3).all()
    spare = multiple * cell_size + cell_size
    assert right - left < np.ptp(x) + spare + 20 and top - bottom < np.ptp(y) + spare + 20


def test_rows_run_north_and_positions_fall_into_their_cells():
    grid = make_grid(shapely.Polygon(degrees(rectangle(1, 1, 348, 148))), 50.0, 1)
    assert grid.shape == (3, 7) and grid.bounds == (LEFT, BOTTOM, LEFT + 350, BOTTOM + 150)
    assert grid.y.tolist() == [BOTTOM + 25, BOTTOM + 75, BOTTOM + 125] and grid.x[0] == LEFT + 25
    row, column, inside = grid.rows_and_columns(LEFT + np.array([0, 349, -1]), BOTTOM + np.array([149, 0, 10]))
    assert row.tolist() == [2, 0, 0] and column.tolist() == [0, 6, 0] and inside.tolist() == [True, True, False]


def test_cells_that_are_added_for_the_multiple_lie_on_both_sides():
    grid = make_grid(shapely.Polygon(degrees(rectangle(1, 1, 348, 148))), 50.0, 8)
    assert grid.shape == (8, 8) and grid.bounds == (LEFT, BOTTOM - 100, LEFT + 400, BOTTOM + 300)


def test_areas_that_no_grid_can_have_are_refused():
    with pytest.raises(ValueError, match="more than 4,000,000 are not supported"):
        make_grid(shapely.box(10, 50, 12, 52), 50.0, 8)
    with pytest.raises(ValueError, match="only cover -80 to 84"):
        make_grid(shapely.box(10, 84.5, 10.1, 84.6), 50.0, 8)


def test_boundaries_are_read_as_one_and_repaired(tmp_path):
    bow_tie = [[10, 50], [10.2, 50.2], [10.2, 50], [10, 50.2], [10, 50]]
    square = [[11, 50], [11.1, 50], [11.1, 50.1], [11, 50.1], [11, 50]]
    shapes = [{"type": "Polygon", "coordinates": [ring]} for ring in (bow_tie, square)]
    area, notes = read_boundary(write_geojson(tmp_path / "boundary.geojson", shapes))
    assert area.is_valid and area.area == pytest.approx(0.2 * 0.2 / 2 + 0.1 * 0.1)
    assert notes == ["the boundary had 1 invalid polygon(s), which were repaired"]


@pytest.mark.parametrize("suffix", ["gpkg", "shp"])
def test_boundaries_may_be_projected_and_have_heights(tmp_path, suffix):
    square = shapely.force_3d(shapely.box(LEFT, BOTTOM, LEFT + 400, BOTTOM + 800), 12.0)
    table = geopandas.GeoDataFrame(geometry=[square], crs=32633)
    table.to_crs(3035).to_file(tmp_path / f"a.{suffix}", engine="pyogrio")
    area, notes = read_boundary(tmp_path / f"a.{suffix}")
    assert notes == [] and make_grid(area.buffer(-1e-6), 50.0, 1).shape == (16, 8)
    table.set_crs(None, allow_override=True).to_file(tmp_path / "bare.shp", engine="pyogrio")
    with pytest.raises(ValueError, match="bare.shp has no coordinate reference system"):
        read_boundary(tmp_path / "bare.shp")


def test_a_bow_tie_whose_halves_cancel_is_repaired_too(tmp_path):
    ring = [[10, 50], [10.2, 50.2], [10.2, 50], [10, 50.2], [10, 50]]
    area, notes = read_boundary(
        write_geojson(tmp_path / "boundary.geojson", [{"type": "Polygon", "coordinates": [ring]}])
    )
    assert area.area == pytest.approx(0.2 * 0.2 / 2) and len(notes) == 1


def test_useless_boundaries_are_refused(tmp_path):
    path = tmp_path / "boundary.geojson"
    with pytest.raises(ValueError, match="is empty: the boundary needs at least one polygon"):
        read_boundary(write_geojson(path, []))
    with pytest.raises(ValueError, match="no polygon with an area, only Point"):
        read_boundary(write_geojson(path, [{"type": "Point", "coordinates": [10, 50]}]))
    path.write_text("no GeoJSON")
    with pytest.raises(ValueError, match="is not a readable vector file"):
        read_boundary(path)
    ring = [[500000, 5400000], [500100, 5400000], [500100, 5400100], [500000, 5400000]]
    with pytest.raises(ValueError, match="no longitude and latitude"):
        read_boundary(write_geojson(path, [{"type": "Polygon", "coordinates": [ring]}]))


def test_an_area_elsewhere_is_refused_with_a_hint_if_it_is_swapped(tmp_path):
    points = rectangle(100, 100, 300, 300)
    box = shapely.Polygon(degrees(rectangle(0, 0, 1200, 800))).bounds
    inside, _ = read_boundary(write_boundary(tmp_path / "a.geojson", points))
    check_overlap(inside, box, "The boundary", "the extract")
    swapped, _ = read_boundary(write_boundary(tmp_path / "b.geojson", points, swapped=True))
    with pytest.raises(ValueError, match="lies outside of the extract .* seem to be swapped"):
        check_overlap(swapped, box, "The boundary", "the extract")
    elsewhere, _ = read_boundary(write_boundary(tmp_path / "c.geojson", rectangle(9000, 0, 100, 100)))
    with pytest.raises(ValueError, match=r"lies outside of the extract \([^)]*\)\.$"):
        check_overlap(elsewhere, box, "The boundary", "the extract")


def test_reference_systems():
    assert parse_crs("EPSG:3067").is_projected
    with pytest.raises(ValueError, match="'EPSG:no' is no coordinate reference system"):
        parse_crs("EPSG:no")
