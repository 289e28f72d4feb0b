# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json

import numpy as np
import pytest
import shapely
import xarray as xr
from pyproj import CRS, Geod, Transformer

from zoomdiff_diffusers.data.datasets import smooth_context
from zoomdiff_diffusers.data.edits import PRESETS, edit_context
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES, POI_CATEGORIES, SURFACE_CLASSES


HEIGHT, WIDTH = 10, 14
LEFT, BOTTOM, EPSG = 400_000.0, 5_400_000.0, 32633
TO_DEGREES = Transformer.from_crs(EPSG, 4326, always_xy=True).transform


def make_context(crs=False, seed=0):
    """Cells of 50 m, from the corner at 0, 0 or at one of a UTM zone; rows from south to north."""
    random = np.random.default_rng(seed)
    plane = ("y", "x")
    left, bottom = (LEFT, BOTTOM) if crs else (0.0, 0.0)
    coordinates = {"y": bottom + 50 * np.arange(HEIGHT) + 25, "x": left + 50 * np.arange(WIDTH) + 25}
    coordinates["poi_category"] = POI_CATEGORIES
    if crs:
        coordinates["spatial_ref"] = ((), np.int32(0), {"crs_wkt": CRS.from_epsg(EPSG).to_wkt()})
    return xr.Dataset(
        {
            "surface": (plane, random.integers(0, 7, (HEIGHT, WIDTH)).astype(np.int8)),
            "aoi": (plane, random.integers(0, 10, (HEIGHT, WIDTH)).astype(np.int8)),
            "poi": (("poi_category", *plane), random.poisson(1.0, (9, HEIGHT, WIDTH)).astype(np.float32)),
            "building_volume": (plane, (1e4 * random.random((HEIGHT, WIDTH))).astype(np.float32)),
            "population": (plane, random.integers(0, 60, (HEIGHT, WIDTH)).astype(np.uint16)),
        },
        coordinates,
    )


def box(left, bottom, right, top):
    return shapely.geometry.mapping(shapely.box(left, bottom, right, top))


def collection(*features, **members):
    features = [
        {"type": "Feature", "geometry": geometry, "properties": properties} for geometry, properties in features
    ]
    return {"type": "FeatureCollection", "features": features, **members}


def total(layer):
    return float(layer.sum(dtype=np.float64))


def test_half_covered_cells_take_their_share_and_totals_are_exact():
    context = make_context()
    # 2.5 columns and 2 rows: the last column is covered by half, and gets the class too.
    plan, report = edit_context(context, collection((box(100, 50, 225, 150), {"population": 1000, "aoi": "office"})))
    old, new = context["population"].values.astype(float), plan["population"].values
    np.testing.assert_allclose(new[1:3, 2:4], 200)
    np.testing.assert_allclose(new[1:3, 4], 100 + old[1:3, 4] / 2)
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[1:3, 2:5] = False
    np.testing.assert_array_equal(new[outside], old[outside])
    assert total(plan["population"]) == pytest.approx(1000 + old[outside].sum() + old[1:3, 4].sum() / 2)
    assert (plan["aoi"].values[~outside] == AOI_CLASSES.index("office")).all()
    np.testing.assert_array_equal(plan["aoi"].values[outside], context["aoi"].values[outside])
    np.testing.assert_allclose(plan["edited"].values[1:3, 2:5], [[1, 1, 0.5]] * 2)
    (feature,) = report["features"]
    assert (feature["cells"], feature["cells_mostly_covered"], feature["hectares"]) == (6, 6, 1.25)
    assert report["totals"]["population"]["before"] == total(context["population"])
    assert report["totals"]["population"]["after"] == pytest.approx(total(plan["population"]))
    json.dumps(report)
    assert plan.data_vars.keys() == context.data_vars.keys()
    xr.testing.assert_identical(context, make_context())


def test_shares_are_those_of_an_independent_library(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    exactextract = pytest.importorskip("exactextract")
    random = np.random.default_rng(3)
    angles = np.sort(random.uniform(0, 2 * np.pi, 9))
    star = [(350 + (60 + 150 * reach) * np.cos(a), 250 + (60 + 150 * reach) * np.sin(a))
            for a, reach in zip(angles, random.random(9))]  # fmt: skip
    polygon = shapely.Polygon(star)
    plan, report = edit_context(make_context(), collection((polygon.__geo_interface__, {"population": 77.5})))
    transform = rasterio.transform.from_origin(0, 50 * HEIGHT, 50, 50)
    options = {"driver": "GTiff", "height": HEIGHT, "width": WIDTH, "count": 1, "dtype": "float64"}
    with rasterio.open(tmp_path / "grid.tif", "w", crs="EPSG:32633", transform=transform, **options) as file:
        file.write(np.zeros((1, HEIGHT, WIDTH)))
    feature = {"type": "Feature", "geometry": polygon.__geo_interface__, "properties": {}}
    with rasterio.open(tmp_path / "grid.tif") as file:
        found = exactextract.exact_extract(file, feature, ["cell_id", "coverage"])[0]["properties"]
    expected = np.zeros(HEIGHT * WIDTH)
    expected[found["cell_id"]] = found["coverage"]
    np.testing.assert_allclose(plan["edited"], expected.reshape(HEIGHT, WIDTH)[::-1], atol=1e-6)
    assert report["features"][0]["hectares"] == pytest.approx(polygon.area / 1e4, rel=1e-4)
    old = make_context()["population"].values
    assert total(plan["population"]) == pytest.approx(77.5 + (old * (1 - plan["edited"].values)).sum())


def test_degrees_and_a_named_reference_system_mean_the_same_place(tmp_path):
    context = make_context(crs=True)
    corners = [(105, 55), (390, 80), (360, 310), (120, 260), (105, 55)]
    metres = [(LEFT + x, BOTTOM + y) for x, y in corners]
    degrees = [list(TO_DEGREES(*point)) for point in metres]
    values = {"population": 500, "poi": {"shop": 11}, "building_volume": None}
    path = tmp_path / "plan.geojson"
    path.write_text(json.dumps(collection(({"type": "Polygon", "coordinates": [degrees]}, values))))
    plan, report = edit_context(context, path)
    named = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{EPSG}"}}
    in_metres = collection(({"type": "Polygon", "coordinates": [metres]}, values), crs=named)
    xr.testing.assert_allclose(plan, edit_context(context, in_metres)[0], atol=1e-2)
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(*zip(*degrees))
    assert report["features"][0]["hectares"] == pytest.approx(abs(area) / 1e4, rel=1e-3)  # a UTM zone scales by 0.9996
    inside = shapely.contains_xy(shapely.Polygon(metres), *np.meshgrid(context["x"], context["y"]))
    assert (inside == (plan["edited"].values > 0.5)).mean() > 0.97
    with pytest.raises(ValueError, match="but the context has none"):
        edit_context(make_context(), in_metres)


@pytest.mark.parametrize("axis", ["y", "x"])
def test_rows_and_columns_may_run_in_either_direction(axis):
    edits = collection((box(110, 60, 420, 190), {"population": 90, "surface": "water", "building_volume": 10}))
    plan, _ = edit_context(make_context(), edits)
    turned, _ = edit_context(make_context().isel({axis: slice(None, None, -1)}), edits)
    xr.testing.assert_identical(turned.isel({axis: slice(None, None, -1)}), plan)


def test_points_of_interest_are_whole_and_spread_over_the_polygon():
    context = make_context()
    edits = collection(
        (box(0, 0, 300, 210), {"poi": {"shop": 17, "food": 0}}),
        ({"type": "Point", "coordinates": [660, 470]}, {"poi": {"transport": 2}, "name": "Stop"}),
    )
    plan, report = edit_context(context, edits)
    assert total(plan["poi"][1, :4, :6]) + total((plan["poi"] - context["poi"])[1, 4, :6]) == 17
    shops = plan["poi"].values[POI_CATEGORIES.index("shop"), :4, :6]
    assert shops.max() == 1 and all((shops.sum(axis=axis) >= 2).all() for axis in (0, 1))
    assert not plan["poi"].values[POI_CATEGORIES.index("food"), :4, :6].any()
    others = [index for index, name in enumerate(POI_CATEGORIES) if name not in ("shop", "food", "transport")]
    np.testing.assert_array_equal(plan["poi"].values[others], context["poi"].values[others])
    # A row that is covered by a fifth keeps what it has.
    kept = plan["poi"].values[:, 4, :6] - context["poi"].values[:, 4, :6]
    assert (kept >= 0).all()
    stop = POI_CATEGORIES.index("transport"), 9, 13
    assert plan["poi"].values[stop] == context["poi"].values[stop] + 2
    assert total(plan["poi"][stop[0]]) == total(context["poi"][stop[0]]) + 2
    assert report["features"][1]["name"] == "feature 2 (Stop)"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_values_per_hectare_and_yields_to_numbers(preset):
    expected = PRESETS[preset]
    geometry = box(100, 100, 300, 250)  # 3 ha
    plan, report = edit_context(make_context(), collection((geometry, {"preset": preset})))
    part = plan.isel(y=slice(2, 5), x=slice(2, 6))
    assert (part["aoi"] == AOI_CLASSES.index(expected["aoi"])).all()
    assert (part["surface"] == SURFACE_CLASSES.index(expected["surface"])).all()
    assert total(part["building_volume"]) == pytest.approx(3 * expected["building_volume"])
    assert total(part["population"]) == pytest.approx(3 * expected["population"])
    counts = part["poi"].sum(("y", "x")).to_series()
    for category in POI_CATEGORIES:
        assert counts[category] == round(3 * expected["poi"].get(category, 0))
    own = {"preset": preset, "population": 12.5, "poi": {"lodging": 5}}
    part = edit_context(make_context(), collection((geometry, own)))[0].isel(y=slice(2, 5), x=slice(2, 6))
    assert total(part["population"]) == pytest.approx(12.5)
    counts = part["poi"].sum(("y", "x")).to_series()
    assert counts["lodging"] == 5 and counts["leisure"] == round(3 * expected["poi"].get("leisure", 0))


def test_what_a_gis_program_adds_is_no_plan(tmp_path):
    """GDAL, which QGIS writes with, adds a number, and null for an empty field; JSON in a text becomes an object."""
    import geopandas

    table = geopandas.GeoDataFrame(
        {"fid": [7, 8], "preset": ["park", None], "population": [None, None], "poi": [None, '{"transport": 2}']},
        geometry=[shapely.box(100, 100, 300, 300), shapely.Point(660, 470)],
    )
    table.to_file(tmp_path / "plan.geojson", driver="GeoJSON")
    drawn = json.loads((tmp_path / "plan.geojson").read_text())
    assert drawn["features"][0]["properties"] == {"fid": 7, "preset": "park", "population": None, "poi": None}
    plan, _ = edit_context(make_context(), tmp_path / "plan.geojson")
    stop = {"type": "Point", "coordinates": [660, 470]}
    same = collection((box(100, 100, 300, 300), {"preset": "park"}), (stop, {"poi": {"transport": 2}}))
    xr.testing.assert_identical(plan, edit_context(make_context(), same)[0])


def test_what_is_no_plan_changes_nothing_and_the_later_feature_wins():
    context = make_context()
    plan, report = edit_context(context, collection())
    xr.testing.assert_identical(plan.drop_vars("edited"), context)
    assert not plan["edited"].any() and report == {"features": [], "totals": {}, "dropped": []}
    first, second = (box(100, 100, 300, 250), {"aoi": "park"}), (box(150, 100, 300, 250), {"aoi": "office"})
    codes = edit_context(context, collection(first, second))[0]["aoi"].values
    assert (codes[2:5, 2] == AOI_CLASSES.index("park")).all() and (codes[2:5, 3:6] == 2).all()


def test_counted_people_are_left_out_of_a_plan_and_other_layers_stay():
    context = make_context()
    context["population_over_time"] = ("hour", "y", "x"), np.ones((24, HEIGHT, WIDTH), np.float32)
    context["sites"] = ("y", "x"), np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    assert "population_over_time" in edit_context(context, collection())[0]
    plan, report = edit_context(context, collection((box(100, 100, 300, 250), {"population": 3})))
    assert report["dropped"] == ["population_over_time"] and "population_over_time" not in plan
    xr.testing.assert_identical(plan["sites"].drop_vars("edited"), context["sites"])


SCHEMA = [
    {"name": "surface", "kind": "categorical", "classes": SURFACE_CLASSES},
    {"name": "aoi", "kind": "categorical", "classes": AOI_CLASSES},
    {"name": "poi", "kind": "count", "channels": POI_CATEGORIES},
    {"name": "building_volume", "kind": "continuous", "channels": ["volume"]},
    {"name": "population", "kind": "continuous", "channels": ["people"], "log": True},
]


def with_smoothed_copies(context):
    layers = {name: values.values for name, values in context.data_vars.items()}
    for name, values in smooth_context(layers, SCHEMA, [1.0, 2.5]).items():
        if name not in context:
            dims = ("y", "x") if len(values) == 1 else (f"{name}_channel", "y", "x")
            context[name] = dims, values.squeeze()
    return context


def test_smoothed_copies_follow_what_changes():
    values = {"preset": "housing", "population": 9000}
    plan, report = edit_context(with_smoothed_copies(make_context()), collection((box(100, 100, 310, 250), values)))
    expected = with_smoothed_copies(edit_context(make_context(), collection((box(100, 100, 310, 250), values)))[0])
    assert report["dropped"] == [] and "building_volume_smooth_2.5" in plan
    xr.testing.assert_allclose(plan, expected)
    plan, _ = edit_context(with_smoothed_copies(make_context()), collection((box(0, 0, 90, 90), {"population": 9000})))
    unchanged = with_smoothed_copies(make_context())["aoi_smooth_1"]
    xr.testing.assert_equal(plan["aoi_smooth_1"].drop_vars("edited"), unchanged)


def test_copies_that_were_smoothed_in_another_way_are_left_out_of_a_plan():
    context = with_smoothed_copies(make_context())
    context["population_smooth_2.5"] = context["population_smooth_2.5"] * 1.01
    context["population_smooth_wide"] = context["population_smooth_1"]
    context["population_smooth_9"] = ("y",), np.ones(HEIGHT)
    context["poi_smooth_2.5"] = context["poi_smooth_2.5"] * 1.01
    plan, report = edit_context(context, collection((box(100, 100, 300, 250), {"population": 9000})))
    assert report["dropped"] == ["population_smooth_2.5", "population_smooth_wide", "population_smooth_9"]
    assert set(context.data_vars) - set(plan.data_vars) == set(report["dropped"])
    # Nobody lived here: small numbers and their logarithms are alike, those of the plan are not.
    empty = make_context().drop_vars(["surface", "aoi", "poi", "building_volume"])
    empty["population"][:] = 0
    _, report = edit_context(with_smoothed_copies(empty), collection((SQUARE, {"population": 9000})))
    assert report["dropped"] == ["population_smooth_1", "population_smooth_2.5"]


@pytest.mark.parametrize("epsg", [4326, 2263])
@pytest.mark.parametrize("place", ["spatial_ref", "crs"])
def test_contexts_in_degrees_or_feet_are_refused(epsg, place):
    context = make_context()
    if place == "crs":
        context.attrs["crs"] = f"EPSG:{epsg}"
    else:
        context = context.assign_coords(spatial_ref=((), 0, {"crs_wkt": CRS.from_epsg(epsg).to_wkt()}))
    with pytest.raises(
        ValueError, match=f"The context's .*`{place}` must count metres, but (WGS 84|NAD83.*) does not"
    ):
        edit_context(context, collection((SQUARE, {"aoi": "park"})))


def test_coordinates_that_say_that_they_are_no_metres_are_refused():
    context = make_context()
    context["x"].attrs["units"] = "degrees_east"
    with pytest.raises(ValueError, match="coordinate `x` of the context must be in m, but its `units` are 'degrees_e"):
        edit_context(context, collection((SQUARE, {"aoi": "park"})))
    for axis in ("y", "x"):
        context[axis].attrs["units"] = "metre"
    edit_context(context, collection((SQUARE, {"aoi": "park"})))


SQUARE = box(100, 100, 300, 250)
BOW_TIE = {"type": "Polygon", "coordinates": [[[0, 0], [100, 100], [100, 0], [0, 100], [0, 0]]]}


@pytest.mark.parametrize(
    ("geometry", "properties", "message"),
    [
        (
            SQUARE,
            {"aoi": "castle", "name": "Keep"},
            r"feature 2 \(Keep\): `aoi` is 'castle', expected one of \['none'",
        ),
        (SQUARE, {"resident": 3}, r"unknown properties \['resident'\]; a Polygon may have"),
        (SQUARE, {"preset": "castle"}, "`preset` is 'castle', expected one of .'housing'"),
        (SQUARE, {"preset": ["park"]}, "`preset` is"),
        (SQUARE, {"population": -1}, "`population` must be a number that is not negative"),
        (SQUARE, {"population": float("nan")}, "`population` must be a number"),
        (SQUARE, {"population": "12"}, "but is '12'"),
        (SQUARE, {"poi": {"pub": 1}}, r"unknown categories \['pub'\]"),
        (SQUARE, {"poi": {"shop": 0.5}}, "must be whole numbers"),
        (SQUARE, {"poi": 3}, "must map categories to numbers"),
        (SQUARE, {"name": "nothing"}, "sets nothing"),
        (SQUARE, {"population_over_time": 1}, "unknown properties"),
        ({"type": "Point", "coordinates": [110, 120]}, {"population": 3}, r"a Point may have \['name', 'poi'\]"),
        ({"type": "LineString", "coordinates": [[0, 0], [9, 9]]}, {"aoi": "park"}, "but is LineString"),
        (None, {"aoi": "park"}, "but is None"),
        ({"type": "Polygon", "coordinates": []}, {"aoi": "park"}, "the geometry is empty"),
        ({"type": "Polygon", "coordinates": [[["a"]]]}, {"aoi": "park"}, "the coordinates are no Polygon"),
        (BOW_TIE, {"aoi": "park"}, "cannot be used: Self-intersection"),
        (box(900, 900, 950, 950), {"aoi": "park"}, "lies outside of the area. In m it goes from x 900 to 950"),
        (box(600, 100, 800, 200), {"aoi": "park"}, "lies outside of the area by 50.0%"),
        ({"type": "Point", "coordinates": [1e300, 1]}, {"poi": {"shop": 1}}, "lies outside of the area"),
    ],
)
def test_a_feature_that_cannot_be_applied_is_named(geometry, properties, message):
    edits = collection((SQUARE, {"aoi": "park"}), (geometry, properties))
    context = make_context()
    with pytest.raises(ValueError, match=message) as caught:
        edit_context(context, edits)
    assert str(caught.value).startswith("feature 2")
    xr.testing.assert_identical(context, make_context())


def test_classes_with_codes_of_their_own_are_refused():
    context = make_context()
    context["surface"].attrs = {"flag_values": np.arange(1, 8), "flag_meanings": " ".join(SURFACE_CLASSES)}
    with pytest.raises(
        ValueError, match=r"'surface' must number its classes .* from 0 on, but has the flag_values \[1"
    ):
        edit_context(context, collection((box(100, 100, 200, 200), {"surface": "built"})))
    context["surface"].attrs["flag_values"] = np.arange(7)
    plan, _ = edit_context(context, collection((box(100, 100, 200, 200), {"surface": "built"})))
    assert (plan["surface"][2:4, 2:4] == SURFACE_CLASSES.index("built")).all()


def test_files_and_contexts_that_do_not_fit_are_refused(tmp_path):
    broken = tmp_path / "broken.geojson"
    broken.write_text("{")
    for edits, message in (
        (broken, "is no GeoJSON"),
        (tmp_path / "none.geojson", "cannot be read: No such file"),
        ({"type": "Feature"}, "must be a GeoJSON FeatureCollection"),
        (collection(crs={"type": "name", "properties": {"name": "EPSG:0"}}), "names no coordinate reference system"),
    ):
        with pytest.raises(ValueError, match=message):
            edit_context(make_context(crs=True), edits)
    edits = collection((SQUARE, {"aoi": "park"}))
    with pytest.raises(ValueError, match="no layer 'aoi'"):
        edit_context(make_context().drop_vars("aoi"), edits)
    plan, _ = edit_context(make_context().drop_vars("aoi"), collection((SQUARE, {"preset": "park"})))
    assert "aoi" not in plan
    for context in (make_context().drop_vars("x"), make_context().assign_coords(x=np.arange(WIDTH) ** 2)):
        with pytest.raises(ValueError, match="`x`"):
            edit_context(context, edits)
