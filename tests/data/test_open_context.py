# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A whole context: layers, coordinates and where they came from."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray
from pyproj import CRS
from support.osm_city import (
    BOTTOM,
    EPSG,
    HEIGHT,
    LEFT,
    WIDTH,
    OsmCity,
    draw_city,
    rectangle,
    write_boundary,
    write_raster,
)

from zoomdiff_diffusers import ContextProcessor
from zoomdiff_diffusers.data.open_data import build_context, summarise
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES, POI_CATEGORIES, SIMULATED_LAYERS, SURFACE_CLASSES


ROOT = Path(__file__).parents[2]
HELSINKI = ROOT.parent / "shared" / "data" / "helsinki_osm" / "Helsinki.osm.pbf"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    draw_city().write(folder / "city.osm.pbf", box=(-100, -100, 1400, 1000), timestamp="2026-03-01T20:21:22Z")
    write_boundary(folder / "city.geojson", rectangle(1, 1, 50 * WIDTH - 2, 50 * HEIGHT - 2))
    return folder


@pytest.fixture(scope="module")
def dataset(folder):
    return build_context(folder / "city.osm.pbf", folder / "city.geojson")


def named(layer, names):
    return np.array(names)[layer.values]


def test_the_grid_is_the_boundary_in_whole_cells(dataset):
    assert dict(dataset.sizes) == {"y": HEIGHT, "x": WIDTH, "poi_category": 9}
    np.testing.assert_array_equal(dataset["x"], LEFT + 25 + 50 * np.arange(WIDTH))
    np.testing.assert_array_equal(dataset["y"], BOTTOM + 25 + 50 * np.arange(HEIGHT))
    assert CRS.from_wkt(dataset["spatial_ref"].attrs["crs_wkt"]).to_epsg() == EPSG
    assert dataset.attrs["crs"] == f"EPSG:{EPSG}" and dataset["surface"].attrs["grid_mapping"] == "spatial_ref"


def test_surface_and_aoi_are_what_is_drawn(dataset):
    surface = np.full((HEIGHT, WIDTH), "vegetation", dtype=object)
    surface[6:8, 2:4] = "water"
    surface[0:8, 8:16] = surface[0:4, 18:22] = "built"
    surface[1:3, 19:21] = "vegetation"
    surface[12, :] = "arterial"
    surface[14, 16] = "street"  # 30 m of it; the 20 m in the next cell are too few
    surface[:, 22] = "railway"
    np.testing.assert_array_equal(named(dataset["surface"], SURFACE_CLASSES), surface)
    aoi = np.full((HEIGHT, WIDTH), "none", dtype=object)
    aoi[4:10, 0:6] = "park"
    aoi[6:8, 2:4] = "none"
    aoi[0:8, 8:16] = "residential"
    aoi[2:4, 10:12] = "education"
    aoi[0:4, 18:22] = "industrial"
    aoi[1:3, 19:21] = "none"
    aoi[14, 23] = "leisure"  # the church, on 16 % of the cell
    np.testing.assert_array_equal(named(dataset["aoi"], AOI_CLASSES), aoi)


def test_the_processor_reads_it_as_it_is(dataset):
    tensors = ContextProcessor(SIMULATED_LAYERS)(dataset, hours=24)
    assert tensors.present.tolist() == [[1, 1, 1, 1, 1, 0]] and tensors.static.shape[-2:] == (HEIGHT, WIDTH)
    assert not set(dataset.data_vars) - {layer["name"] for layer in SIMULATED_LAYERS}


def test_population_is_estimated_and_marked(dataset, folder):
    assert dataset["population"].attrs["estimated"] == 1
    assert dataset["population"].sum() == pytest.approx(9000 * 0.9 / 280, rel=1e-3)
    assert dataset["population"].values[5, 12] == pytest.approx(5400 * 0.9 / 280, rel=1e-3)
    scaled = build_context(folder / "city.osm.pbf", folder / "city.geojson", total_population=777)
    assert scaled["population"].sum() == pytest.approx(777) and scaled["population"].attrs["estimated"] == 1


def test_a_raster_and_a_table_replace_the_estimate_and_the_points_of_the_extract(folder, tmp_path):
    values = np.random.default_rng(0).integers(0, 90, (5, 7)).astype(np.int16)
    write_raster(tmp_path / "people.tif", values, LEFT + 130, BOTTOM + 700, 110, nodata=-1)
    (tmp_path / "poi.csv").write_text(f"x,y,category\n{LEFT + 60},{BOTTOM + 10},health\n0,0,food\n1,1,moonbase\n")
    inputs = {"population": tmp_path / "people.tif", "poi": tmp_path / "poi.csv", "poi_crs": f"EPSG:{EPSG}"}
    found = build_context(folder / "city.osm.pbf", folder / "city.geojson", **inputs)
    assert found["population"].sum(dtype=np.float64) == pytest.approx(values.sum(), rel=1e-6)
    assert found["population"].attrs["estimated"] == 0
    assert found["poi"].sum() == 1 and found["poi"].sel(poi_category="health").values[0, 1] == 1
    assert json.loads(found.attrs["unknown_poi_categories"]) == {"moonbase": 1}
    assert "1 points of interest lie outside of the grid" in summarise(found)["notes"]
    for name in ("population", "poi"):
        recorded = json.loads(found.attrs["inputs"])[name]
        assert recorded["sha256"] == hashlib.sha256(inputs[name].read_bytes()).hexdigest()


def test_provenance(dataset, folder):
    recorded = json.loads(dataset.attrs["inputs"])
    for name, file in (("osm", "city.osm.pbf"), ("boundary", "city.geojson")):
        data = (folder / file).read_bytes()
        assert recorded[name] == {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert dataset.attrs["osm_timestamp"] == "2026-03-01T20:21:22Z"
    assert "© OpenStreetMap contributors" in dataset.attrs["licence"] and "ODbL" in dataset.attrs["licence"]


def test_the_state_of_the_data_without_a_date_in_the_header(tmp_path):
    city = OsmCity()
    city.area(10, 10, 100, 100, landuse="forest")
    found = build_context(city.write(tmp_path / "a.osm.pbf", box=(0, 0, 400, 400)))
    assert (found.attrs["osm_timestamp"], found.attrs["osm_timestamp_source"]) == ("unknown", "unknown")
    city.ways[0].timestamp = datetime(2026, 3, 1, 20, 21, 22, tzinfo=UTC)
    found = build_context(city.write(tmp_path / "a.osm.pbf", box=(0, 0, 400, 400)))
    assert (found.attrs["osm_timestamp"], found.attrs["osm_timestamp_source"]) == (
        "2026-03-01T20:21:22Z",
        "newest object",
    )


def test_the_summary_counts(dataset):
    summary = summarise(dataset)
    assert json.loads(json.dumps(summary)) == summary
    assert summary["poi"] == {name: {"food": 3, "shop": 1, "education": 1, "public": 1, "transport": 1}.get(name, 0)
                              for name in POI_CATEGORIES}  # fmt: skip
    assert summary["unknown_tags"] == {"amenity=teleporter": 2}
    assert sum(summary["surface"].values()) == pytest.approx(1) == sum(summary["aoi"].values())
    assert summary["surface"]["railway"] == pytest.approx(1 / WIDTH)
    assert summary["unmapped_ground_share"] == pytest.approx(1 - (16 + 36 + 64 + 12 + 0.16) / 384, abs=1e-4)


def test_without_a_boundary_the_extract_tells_the_area(folder):
    found = build_context(folder / "city.osm.pbf", multiple=4, cell_size=100.0)
    assert found.sizes["y"] % 4 == 0 == found.sizes["x"] % 4 and "inside_boundary" not in found.coords
    assert (found["x"].values - 50) % 100 == pytest.approx(0) and found["poi"].sum() == 7
    assert found["building_volume"].sum() == pytest.approx(9000, rel=1e-3)


def test_heights_that_nobody_mapped(tmp_path):
    city = OsmCity()
    city.area(10, 10, 20, 20, building="yes", height="12 m")
    city.area(60, 10, 20, 40, building="yes")
    city.area(110, 10, 10, 10, building="garage")
    found = build_context(city.write(tmp_path / "a.osm", box=(0, 0, 300, 300)))
    mean = (400 * 12 + 100 * 3) / 500
    assert found["building_volume"].sum() == pytest.approx(500 * mean + 800 * mean, rel=1e-3)
    assert found["building_volume"].attrs["share_of_footprint_with_known_height"] == pytest.approx(5 / 13, rel=1e-3)
    unmapped = OsmCity()
    unmapped.area(60, 10, 20, 40, building="yes")
    found = build_context(unmapped.write(tmp_path / "b.osm", box=(0, 0, 300, 300)))
    assert found["building_volume"].sum() == pytest.approx(800 * 6, rel=1e-3)


def test_ground_that_nobody_mapped_is_built_where_there_are_buildings(tmp_path):
    city = OsmCity()
    city.area(210, 210, 20, 20, building="yes")
    found = build_context(city.write(tmp_path / "a.osm", box=(0, 0, 400, 400)))
    built = np.argwhere(named(found["surface"], SURFACE_CLASSES) == "built")
    assert [(found["y"].values[row], found["x"].values[column]) for row, column in built] == [
        (BOTTOM + 225, LEFT + 225)
    ]
    assert (named(found["aoi"], AOI_CLASSES) == "residential").sum() == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cell_size": -50.0}, "`cell_size` must be positive, but is -50 m"),
        ({"total_population": -1.0}, "`total_population` must be positive"),
        ({"population": "x.tif", "total_population": 5.0}, "only scales an estimate"),
        ({"poi_crs": "EPSG:3067"}, "`poi_crs` is given, but no table"),
        ({"cell_size": 50_000.0}, "of the grid of 8 x 8 cells of 50000 m: the cells are too large"),
    ],
)
def test_arguments_that_do_not_fit(folder, options, message):
    with pytest.raises(ValueError, match=message):
        build_context(folder / "city.osm.pbf", **options)


def test_inputs_are_checked_before_the_extract_is_read(folder, tmp_path):
    data = bytearray((folder / "city.osm.pbf").read_bytes())
    data[400:450] = bytes(50)  # found only while reading
    damaged = tmp_path / "damaged.osm.pbf"
    damaged.write_bytes(data)
    outside = write_boundary(tmp_path / "outside.geojson", rectangle(9000, 0, 100, 100))
    with pytest.raises(ValueError, match="The boundary .* lies outside of the extract"):
        build_context(damaged, outside)
    raster = write_raster(tmp_path / "people.tif", np.ones((2, 2)), LEFT, BOTTOM, 100, crs=None)
    with pytest.raises(ValueError, match="has no coordinate reference system"):
        build_context(damaged, folder / "city.geojson", population=raster)
    (tmp_path / "poi.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="lacks the columns lon and lat"):
        build_context(damaged, folder / "city.geojson", poi=tmp_path / "poi.csv")
    with pytest.raises(ValueError, match="is damaged"):
        build_context(damaged, folder / "city.geojson")


def test_a_part_of_the_extract_without_anything_is_refused(folder, tmp_path):
    city = OsmCity()
    city.area(0, 0, 100, 100, landuse="forest")
    city.write(tmp_path / "a.osm", box=(0, 0, 5000, 5000))
    with pytest.raises(ValueError, match="has nothing in the area"):
        build_context(tmp_path / "a.osm", write_boundary(tmp_path / "b.geojson", rectangle(4000, 4000, 500, 500)))


@pytest.mark.skipif(not HELSINKI.is_file(), reason=f"{HELSINKI.name} is not here")
def test_central_helsinki(tmp_path):
    """Places that everybody can look up on a map."""
    found = build_context(HELSINKI)
    assert found.sizes == {"y": 40, "x": 24, "poi_category": 9} and found.attrs["crs"] == "EPSG:32635"

    def at(layer, x, y, names):
        return names[int(found[layer].sel(x=x, y=y, method="nearest"))]

    assert at("surface", 385750, 6672700, SURFACE_CLASSES) == "railway"  # the tracks north of the central station
    assert at("aoi", 385750, 6672700, AOI_CLASSES) == "transport"
    assert at("surface", 385975, 6672925, SURFACE_CLASSES) == "water"  # Kaisaniemenlahti, by its coastline
    assert at("aoi", 386100, 6672600, AOI_CLASSES) == "park"  # Kaisaniemenpuisto
    assert at("aoi", 385975, 6671825, AOI_CLASSES) == "park"  # Esplanadi
    assert at("surface", 385550, 6672125, SURFACE_CLASSES) == "arterial"  # Mannerheimintie
    assert 300 < found["poi"].sel(poi_category="food").sum() < 600
    assert 3_000 < found["population"].sum() < 20_000
    assert 5e6 < found["building_volume"].sum() < 2e7
    path = tmp_path / "context.nc"
    found.to_netcdf(path, engine="netcdf4")
    with xarray.open_dataset(path, engine="netcdf4") as stored:
        assert set(stored.data_vars) == set(found.data_vars)
