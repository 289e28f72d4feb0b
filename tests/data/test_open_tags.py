# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The tables of tags are complete and say nothing twice."""

from collections import Counter

import pytest

from zoomdiff_diffusers import ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.open_data.tags import (
    AREA_OF_TAG,
    AREAS,
    DWELLINGS,
    LINES,
    LOW_BUILDINGS,
    NO_DWELLINGS,
    POIS,
    ROADS,
    UNTOLD,
    area_classes,
    building_use,
    metres,
    poi_category,
    road_class,
    unknown_tags,
)
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES, POI_CATEGORIES, SURFACE_CLASSES


def meanings(table):
    return {meaning for values in table.values() for meaning in values}


def test_every_class_of_the_schema_is_reachable_and_no_other():
    areas = meanings(AREAS)
    surfaces = {surface for surface, _ in areas} | meanings(LINES)
    assert surfaces - {None} == set(SURFACE_CLASSES)
    assert meanings(LINES) - {None} == set(ROADS) == set(SURFACE_CLASSES[3:])
    assert {aoi for _, aoi in areas} - {None} == set(AOI_CLASSES)
    assert meanings(POIS) - {None} == set(POI_CATEGORIES)


def test_the_classes_are_those_of_the_bundled_weights():
    layers = {layer["name"]: layer for layer in ZoomDiffPipeline.from_pretrained(
        bundled_model("simulated-city")
    ).context_processor.layers}  # fmt: skip
    assert list(layers["surface"]["classes"]) == SURFACE_CLASSES and list(layers["aoi"]["classes"]) == AOI_CLASSES
    assert list(layers["poi"]["channels"]) == POI_CATEGORIES


@pytest.mark.parametrize("table", [AREAS, LINES, POIS])
def test_no_value_has_two_meanings(table):
    for key, values in table.items():
        counts = Counter(value for text in values.values() for value in text.split())
        assert {value for value, count in counts.items() if count > 1} == set(), key


def test_low_buildings_are_buildings():
    assert LOW_BUILDINGS <= set(AREA_OF_TAG["building"])


@pytest.mark.parametrize(
    "tags, expected",
    [
        ({"building": "yes"}, ("built", None)),
        ({"building": "no"}, (None, None)),
        ({"building": "castle_in_the_air"}, ("built", None)),
        ({"building": "apartments", "amenity": "school"}, ("built", "education")),
        ({"landuse": "grass", "leisure": "park"}, ("vegetation", "park")),
        ({"landuse": "grass;meadow"}, ("vegetation", None)),
        ({"office": "anything"}, ("built", "office")),
        ({"name": "nowhere"}, (None, None)),
    ],
)
def test_areas(tags, expected):
    assert area_classes(tags) == expected


@pytest.mark.parametrize(
    "tags, expected",
    [
        ({"highway": "trunk_link"}, "motorway"),
        ({"highway": "footway"}, None),
        ({"railway": "rail", "highway": "service"}, "railway"),
        ({"railway": "tram", "highway": "residential"}, "street"),
        ({"railway": "razed", "highway": "primary"}, "arterial"),
        ({"railway": "tram"}, None),
        ({"railway": "rail", "tunnel": "yes"}, None),
        ({"railway": "rail", "tunnel": "no"}, "railway"),
        ({"highway": "pedestrian", "area": "yes"}, None),
    ],
)
def test_lines(tags, expected):
    assert road_class(tags) == expected


@pytest.mark.parametrize(
    "tags, expected",
    [
        ({"amenity": "cafe"}, "food"),
        ({"amenity": "cafe", "shop": "bakery"}, "shop"),
        ({"shop": "vacant", "amenity": "bar"}, "food"),
        ({"amenity": "bench"}, None),
        ({"office": "diplomatic"}, "public"),
        ({"amenity": "bench;pub"}, "food"),
        ({"railway": "tram_stop"}, "transport"),
    ],
)
def test_points_of_interest(tags, expected):
    assert poi_category(tags) == expected


def test_a_value_that_any_table_has_is_known():
    assert unknown_tags({"amenity": "restaurant", "landuse": "forest"}, AREAS) == ()
    assert unknown_tags({"amenity": "teleporter", "landuse": "moon;forest"}, AREAS) == ("amenity=teleporter",)
    assert unknown_tags({"shop": "whatever", "highway": "skyway", "name": "x"}, [*POIS]) == ("highway=skyway",)


@pytest.mark.parametrize(
    "text, expected", [("12", 12), ("12.5 m", 12.5), ("7,5", 7.5), ("40'", 12.192), ("-3", None), ("0", None)]
)
def test_heights(text, expected):
    assert metres(text) == (pytest.approx(expected) if expected else pytest.approx(float("nan"), nan_ok=True))


@pytest.mark.parametrize(
    "tags, use, height",
    [
        ({"building": "apartments", "building:levels": "4"}, DWELLINGS, 12),
        ({"building": "yes", "building:levels": "4", "height": "15 m"}, UNTOLD, 15),
        ({"building": "yes", "amenity": "school"}, NO_DWELLINGS, None),
        ({"building": "garage"}, NO_DWELLINGS, 3),
        ({"building": "garage", "height": "4"}, NO_DWELLINGS, 4),
        ({"building": "yes", "height": "-4"}, UNTOLD, None),
    ],
)
def test_buildings(tags, use, height):
    found = building_use(tags)
    assert found[0] == use and found[1] == pytest.approx(height if height else float("nan"), nan_ok=True)


@pytest.mark.parametrize("tags", [{}, {"building": "no"}, {"building": "yes", "location": "underground"}])
def test_what_is_no_building_above_the_ground(tags):
    assert building_use(tags) is None
