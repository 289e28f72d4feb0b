# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A drawn extract onto cells, against what was drawn."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import osmium
import pyogrio
import pytest
import shapely
from support.osm_city import BOTTOM, HEIGHT, LEFT, WIDTH, OsmCity, degrees, draw_city, rectangle

from zoomdiff_diffusers.data.open_data import osm
from zoomdiff_diffusers.data.open_data.clipping import close_ring, sea_polygons
from zoomdiff_diffusers.data.open_data.extract import open_osm
from zoomdiff_diffusers.data.open_data.grid import Grid, make_grid
from zoomdiff_diffusers.data.open_data.osm import GROUND_CLASSES, read_osm
from zoomdiff_diffusers.data.open_data.tags import DWELLINGS, LINES, ROADS, UNTOLD
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES, POI_CATEGORIES


GRID = Grid(32633, LEFT, BOTTOM, HEIGHT, WIDTH, 50.0)
HELSINKI = Path(__file__).parents[3] / "shared" / "data" / "helsinki_osm" / "Helsinki.osm.pbf"
ARRAYS = ["ground", "land_use", "roads", "footprint", "volume", "poi"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return draw_city().write(tmp_path_factory.mktemp("osm") / "city.osm.pbf", timestamp="2026-03-01T20:21:22Z")


@pytest.fixture(scope="module")
def layers(path):
    return read_osm(open_osm(path), GRID)


def read(city, folder, grid=GRID, **options):
    return read_osm(open_osm(city.write(folder / "drawn.osm.pbf", **options)), grid)


def cells(*slices):
    mask = np.zeros(GRID.shape)
    for rows, columns in slices:
        mask[rows, columns] += 1
    return mask


def test_ground_is_what_is_drawn_the_smaller_upon_the_larger(layers):
    ground = dict(zip(GROUND_CLASSES, layers.ground))
    pond, park = (slice(6, 8), slice(2, 4)), (slice(4, 10), slice(0, 6))
    np.testing.assert_allclose(ground["water"], cells(pond), atol=1e-6)
    np.testing.assert_allclose(ground["vegetation"], cells((slice(0, 4), slice(0, 4)), park) - cells(pond), atol=1e-6)
    # The church is 20 m x 20 m in the middle of a cell: 16 % of it, 4 of its 25 points.
    industry = cells((slice(0, 4), slice(18, 22))) - cells((slice(1, 3), slice(19, 21)))
    expected = cells((slice(0, 8), slice(8, 16))) + industry
    expected[14, 23] = 0.16
    np.testing.assert_allclose(ground["built"], expected, atol=1e-6)


def test_land_use_is_what_is_drawn(layers):
    land_use = dict(zip(AOI_CLASSES, layers.land_use))
    school, pond = (slice(2, 4), slice(10, 12)), (slice(6, 8), slice(2, 4))
    np.testing.assert_allclose(land_use["education"], cells(school), atol=1e-6)
    np.testing.assert_allclose(land_use["residential"], cells((slice(0, 8), slice(8, 16))) - cells(school), atol=1e-6)
    np.testing.assert_allclose(land_use["park"], cells((slice(4, 10), slice(0, 6))) - cells(pond), atol=1e-6)
    np.testing.assert_allclose(land_use["none"], cells((slice(0, 4), slice(0, 4)), pond), atol=1e-6)
    assert land_use["industrial"].sum() == pytest.approx(12)


def test_roads_are_measured_where_they_run(layers):
    roads = dict(zip(ROADS, layers.roads))
    np.testing.assert_allclose(roads["arterial"], 50 * cells((12, slice(None))), atol=0.02)
    np.testing.assert_allclose(roads["railway"], 50 * cells((slice(None), 22)), atol=0.02)
    np.testing.assert_allclose(roads["street"], 30 * cells((14, 16)) + 20 * cells((15, 16)), atol=0.02)
    assert roads["motorway"].sum() == 0


def test_building_volume_is_split_by_the_cells(layers):
    expected = np.zeros(GRID.shape)
    expected[5, 12], expected[5, 13] = 12 * 30 * 15, 8 * 30 * 15
    np.testing.assert_allclose(layers.volume[DWELLINGS], expected, rtol=1e-3)  # positions are kept to 1 cm
    assert layers.volume.sum() == pytest.approx(20 * 30 * 15, rel=1e-3)
    assert layers.footprint[1].sum() == 0 and layers.footprint[0, DWELLINGS].sum() == pytest.approx(600, rel=1e-3)


def test_points_of_interest_are_counted_once(layers):
    poi = dict(zip(POI_CATEGORIES, layers.poi))
    expected = cells((14, 0)) * 2 + cells((14, 1))
    np.testing.assert_array_equal(poi["food"], expected)
    np.testing.assert_array_equal(poi["shop"], cells((14, 0)))
    np.testing.assert_array_equal(poi["public"], cells((14, 23)))
    np.testing.assert_array_equal(poi["transport"], cells((12, 12)))
    assert poi["education"].sum() == 1 and sum(values.sum() for values in poi.values()) == 7


def test_unknown_tags_are_counted_in_the_grid_only(layers):
    assert layers.unknown_tags == {"amenity=teleporter": 2}
    assert layers.repairs == {}


@pytest.mark.parametrize("name, value", [("BATCH", 2), ("FILE_STORE_BYTES", 0)])
def test_batches_and_positions_on_disk_change_nothing(path, layers, monkeypatch, name, value):
    monkeypatch.setattr(osm, name, value)
    again = read_osm(open_osm(path), GRID)
    for array in ARRAYS:
        np.testing.assert_allclose(getattr(again, array), getattr(layers, array), atol=1e-9)


@pytest.mark.parametrize("suffix", [".osm", ".osm.gz", ".opl"])
def test_other_formats_give_the_same(layers, tmp_path, suffix):
    again = read_osm(open_osm(draw_city().write(tmp_path / f"city{suffix}")), GRID)
    for array in ARRAYS:
        np.testing.assert_allclose(getattr(again, array), getattr(layers, array), atol=1e-4)


def test_what_the_header_tells(path, tmp_path):
    source = open_osm(path)
    assert source.timestamp == "2026-03-01T20:21:22Z"
    city = OsmCity()
    city.area(100, 50, 400, 300, landuse="forest")
    found = open_osm(city.write(tmp_path / "no_box.osm", box=None)).box
    np.testing.assert_allclose(found, shapely.Polygon(degrees(rectangle(100, 50, 400, 300))).bounds, atol=1e-6)


def test_buildings_of_which_no_tag_tells_the_use_do_not_overrule_the_land_use(tmp_path):
    city = OsmCity()
    city.area(0, 0, 100, 100, landuse="retail")
    for x in (0, 200):
        city.area(x, 0, 50, 50, building="yes", height="10 m")
    found = read(city, tmp_path)
    land_use = dict(zip(AOI_CLASSES, found.land_use))
    assert land_use["retail"][0, 0] == 1 and land_use["residential"][0, 4] == 1
    assert found.volume[UNTOLD, 0, 0] == pytest.approx(25_000, rel=1e-4)


def test_a_building_whose_outline_has_its_tags_too_counts_once(tmp_path):
    city = OsmCity()
    city.multipolygon((0, 0, 100, 100), (25, 25, 50, 50), building="retail", height="10")
    city.ways[0].tags = {"building": "yes", "height": "10"}
    found = read(city, tmp_path)
    assert found.volume.sum() == pytest.approx(10 * (100**2 - 50**2), rel=1e-3) and found.volume[UNTOLD].sum() == 0


def test_a_relation_that_is_no_multipolygon_leaves_the_building_to_its_way(tmp_path):
    city = OsmCity()
    outline = city.area(0, 0, 100, 100, building="retail", height="10")
    part = city.area(0, 0, 50, 100, **{"building:part": "yes"})
    city.relation([("w", outline, "outline"), ("w", part, "part")], type="building", building="retail", height="10")
    found = read(city, tmp_path)
    assert found.volume.sum() == pytest.approx(10 * 100**2, rel=1e-3) and found.repairs == {}


@pytest.mark.parametrize("tagged_outline", [False, True])
def test_a_building_of_which_the_extract_lacks_a_courtyard_is_there(tmp_path, tagged_outline):
    city = OsmCity()
    tags = {"building": "retail", "height": "10"}
    outer = city.area(0, 0, 100, 100, **(tags if tagged_outline else {}))
    inner = city.area(25, 25, 50, 50)
    city.relation([("w", outer, "outer"), ("w", inner, "inner"), ("w", 999, "inner")], type="multipolygon", **tags)
    city.relation([("w", 998, "outer")], type="multipolygon", **tags)  # all of it elsewhere
    found = read(city, tmp_path)
    assert found.volume.sum() == pytest.approx(10 * (100**2 - 50**2), rel=1e-3)
    assert found.repairs == {"multipolygons that the extract cuts, drawn from the rings that are there": 1}


def test_a_multipolygon_of_which_ways_and_nodes_are_missing_ends_at_the_edge_of_the_extract(tmp_path):
    city = OsmCity()
    shore = [(0.5, 600), (200, 600), (200, 799.5), (200, 2000), (-900, 2000), (-900, 600)]
    lake, island = city.way(shore, True, missing=(3, 4, 5)), city.area(50, 650, 100, 100)
    members = [("w", lake, "outer"), ("w", island, "inner"), ("w", 999, "inner")]
    city.relation(members, type="multipolygon", natural="water")
    found = read(city, tmp_path)
    assert found.ground[GROUND_CLASSES.index("water")].sum() == pytest.approx(16 - 4, rel=0.07)
    assert found.repairs == {"multipolygons that the extract cuts, drawn from the rings that are there": 1}


def test_multipolygons_that_cannot_be_drawn_are_counted(tmp_path):
    city = OsmCity()
    shores = [city.way([(x, 0), (x, 400), (x + 200, 400)]) for x in (0, 400, 90_000)]
    for shore in shores:
        city.relation([("w", shore, "outer"), ("w", 999, "outer")], type="multipolygon", natural="water")
    city.relation([("w", shores[0], "outer"), ("w", 999, "outer")], type="boundary", boundary="administrative")
    city.relation([("w", shores[0], "outer"), ("w", 999, "outer")], type="boundary", place="suburb")
    found = read(city, tmp_path)
    (text,) = found.repairs
    assert found.repairs[text] == 2 and text.startswith("multipolygons that the extract cuts, left out")
    assert not found.ground.any()


def test_long_ways_reach_the_grid_from_far_away(tmp_path):
    far = -30_000
    city = OsmCity()
    city.way([(far, 400), (-100, 400), (1300, 400)], natural="coastline")
    city.way([(far, 400), (-100, 400), (400, 400), (400, 600), (-100, 600), (far, 600)], True, landuse="forest")
    city.way([(far, 725), (0, 725), (1200, 725)], highway="primary")
    city.area(far, 0, 100, 100, landuse="forest")
    found = read(city, tmp_path)
    here = slice(1, -1), slice(1, -1)  # the extract ends within the outermost cells
    ground = dict(zip(GROUND_CLASSES, found.ground))
    np.testing.assert_allclose(ground["water"][here], cells((slice(0, 8), slice(None)))[here], atol=1e-6)
    np.testing.assert_allclose(ground["vegetation"], cells((slice(8, 12), slice(0, 8))), atol=1e-6)
    assert found.roads[ROADS.index("arterial")].sum() == pytest.approx(1200, rel=1e-3)


def test_a_closed_road_is_no_square(tmp_path):
    city = OsmCity()
    city.area(10, 10, 100, 100, highway="pedestrian")
    city.area(200, 0, 100, 100, highway="pedestrian", area="yes")
    found = read(city, tmp_path)
    built = found.ground[GROUND_CLASSES.index("built")]
    np.testing.assert_allclose(built, cells((slice(0, 2), slice(4, 6))), atol=1e-6)
    assert found.roads[ROADS.index("street")].sum() == pytest.approx(400, rel=1e-4)


def test_areas_that_the_extract_cuts_end_at_its_edge(tmp_path):
    city = OsmCity()
    # A lake over the north-western corner, of which only the shore in the extract is known.
    shore = [(0.5, 600), (200, 600), (200, 799.5)]
    city.way([*shore, (200, 2000), (-900, 2000), (-900, 600)], True, missing=(3, 4, 5), natural="water")
    found = read(city, tmp_path)
    water = found.ground[GROUND_CLASSES.index("water")]
    # The edges of the extract follow the degrees, those of the cells the zone: up to 15 m apart here.
    np.testing.assert_allclose(water, cells((slice(12, 16), slice(0, 4))), atol=0.3)
    assert water.sum() == pytest.approx(16, rel=0.07)
    assert found.repairs == {"areas cut off by the edge of the extract, closed along it": 1}


def test_gaps_far_from_the_edge_are_closed_straight():
    ring = close_ring([[(0.4, 0.4), (0.6, 0.4), (0.6, 0.6)]], (0, 0, 1, 1))
    assert ring.area == pytest.approx(0.02)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_sea_lies_to_the_right_of_the_coast(reverse):
    points = [(LEFT - 100, BOTTOM + 400), (LEFT + 500, BOTTOM + 400), (LEFT + 1300, BOTTOM + 600)]
    coast = [shapely.LineString(points[::-1] if reverse else points)]
    box = shapely.Polygon(degrees(rectangle(-300, -300, 2000, 2000))).bounds
    sea = shapely.union_all(sea_polygons(coast, GRID, box))
    south = 500 * 400 + 700 * (400 + 400 + 700 * 200 / 800) / 2
    assert sea.area == pytest.approx(1200 * 800 - south if reverse else south, rel=1e-4)


def test_a_coast_that_the_extract_cuts_and_an_island():
    line = [(LEFT + 5, BOTTOM + 400), (LEFT + 600, BOTTOM + 400), (LEFT + 1190, BOTTOM + 400)]
    island = shapely.LinearRing([(x + LEFT, y + BOTTOM) for x, y in rectangle(600, 100, 100, 100)])
    box = shapely.Polygon(degrees(rectangle(0, 0, 1200, 800))).bounds
    sea = sea_polygons([shapely.LineString(line), shapely.LineString(island.coords)], GRID, box)
    assert shapely.union_all(sea).area == pytest.approx(1200 * 400 - 100 * 100, rel=0.01)
    assert sea_polygons([], GRID, box) == []


def test_the_sea_becomes_water_under_what_is_built_into_it(tmp_path):
    city = OsmCity()
    city.way([(-100, 400), (1300, 400)], natural="coastline")
    city.area(200, 100, 100, 100, man_made="pier")
    found = read(city, tmp_path)
    pier = cells((slice(2, 4), slice(4, 6)))
    water = found.ground[GROUND_CLASSES.index("water")]
    here = slice(1, -1), slice(1, -1)  # the extract ends within the outermost cells
    np.testing.assert_allclose(water[here], (cells((slice(0, 8), slice(None))) - pier)[here], atol=1e-6)


@pytest.mark.skipif(not HELSINKI.is_file(), reason=f"{HELSINKI.name} is not here")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # about what the edge of the extract cuts
def test_gdal_finds_the_same_buildings_and_roads():
    """GDAL has a reader of OpenStreetMap files of its own."""
    grid = make_grid(shapely.box(24.938, 60.1655, 24.951, 60.1755), 50.0, 1)
    found, box = read_osm(open_osm(HELSINKI), grid), shapely.box(*grid.bounds)
    tables = {
        name: pyogrio.read_dataframe(HELSINKI, layer=name, on_invalid="ignore").to_crs(grid.epsg)
        for name in ("multipolygons", "lines")
    }
    areas, lines = tables["multipolygons"], tables["lines"]
    buildings = areas[areas["building"].notna() & ~areas["building"].isin(["no", "construction"])]
    underground = buildings["other_tags"].fillna("").str.contains('"location"=>"underground"')
    shapes = buildings[~underground].geometry.make_valid()
    assert found.footprint.sum() == pytest.approx(shapes.intersection(box).area.sum(), rel=1e-6)
    other = lines["other_tags"].fillna("")
    lines = lines[~other.str.contains('"tunnel"=>"(?!no")|"area"=>"yes"|"location"=>"underground"|"railway"=>')]
    for name in ("arterial", "street"):
        of_class = lines[lines["highway"].isin(LINES["highway"][name].split())]
        expected = of_class.intersection(box).length.sum()
        assert found.roads[ROADS.index(name)].sum() == pytest.approx(expected, rel=1e-9)


# ------------------------------------------------------------------------------------------------------ unusable files


def test_a_file_that_was_cut_off_is_refused_before_it_is_read(path, tmp_path):
    data = path.read_bytes()
    cut = tmp_path / "cut.osm.pbf"
    for length in (len(data) - 1, len(data) // 2):
        cut.write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut.osm.pbf is (cut off|no PBF file, or a damaged one)"):
            open_osm(cut)


@pytest.mark.parametrize("content", [b"", b"no map at all" * 50, b"\0\0\0\x05hello"])
def test_what_is_no_extract_is_refused(tmp_path, content):
    path = tmp_path / "city.osm.pbf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="osm.pbf is empty|is no PBF file, or a damaged one"):
        open_osm(path)


def test_damage_inside_is_found_at_the_latest_while_reading(path, tmp_path):
    data = bytearray(path.read_bytes())
    damaged = tmp_path / "city.osm.pbf"
    data[400:450] = bytes(50)
    damaged.write_bytes(data)
    source = open_osm(damaged)
    with pytest.raises(ValueError, match="city.osm.pbf is damaged"):
        read_osm(source, GRID)


def test_unknown_formats_and_empty_files(tmp_path):
    text = tmp_path / "city.txt"
    text.write_text("no map")
    with pytest.raises(ValueError, match="is no readable OpenStreetMap file"):
        open_osm(text)
    osmium.SimpleWriter(str(tmp_path / "empty.osm.pbf")).close()
    with pytest.raises(ValueError, match="is empty: it has no nodes"):
        open_osm(tmp_path / "empty.osm.pbf")


def test_too_little_space_for_positions_is_said_before_reading(path, monkeypatch):
    monkeypatch.setattr(osm, "FILE_STORE_BYTES", 0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=100))
    with pytest.raises(ValueError, match="GiB free, but positions of nodes may need .* Set TMPDIR"):
        read_osm(open_osm(path), GRID)
