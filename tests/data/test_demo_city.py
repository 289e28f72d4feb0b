# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The bundled context of a real quarter: it is what the open-data builder makes, and every reader can open it."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from pyproj import CRS, Transformer
from scipy.io import netcdf_file

from zoomdiff_diffusers import ContextProcessor, bundled_model
from zoomdiff_diffusers.data.demo_city import DEMO_CONTEXT, load_demo_context
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES, POI_CATEGORIES, SURFACE_CLASSES
from zoomdiff_diffusers.data.stores import write_netcdf


ROOT = Path(__file__).parents[2]
HELSINKI = ROOT.parent / "shared" / "data" / "helsinki_osm" / "Helsinki.osm.pbf"
STATION = (24.9414, 60.1713)  # Helsinki Central, longitude and latitude


@pytest.fixture(scope="module")
def context():
    return load_demo_context()


def cell_of(context, longitude, latitude):
    x, y = Transformer.from_crs(4326, context.attrs["crs"], always_xy=True).transform(longitude, latitude)
    return context.sel(x=x, y=y, method="nearest")


def test_it_has_the_layers_that_the_bundled_model_knows(context):
    assert list(context.data_vars) == ["surface", "aoi", "building_volume", "population", "poi"]
    processor = ContextProcessor.from_pretrained(bundled_model("simulated-city"), subfolder="context_processor")
    tensors = processor([context], hours=24)
    assert tensors.present.tolist() == [[1, 1, 1, 1, 1, 0]] and tensors.static.shape[-2:] == (32, 16)
    assert context["poi_category"].values.tolist() == POI_CATEGORIES
    assert context["surface"].attrs["flag_meanings"].split() == SURFACE_CLASSES
    assert context["aoi"].attrs["flag_meanings"].split() == AOI_CLASSES


def test_the_layers_are_within_what_the_model_was_trained_on(context):
    """Standardised by the statistics of the training cities, hardly anything lies where the values are cut."""
    processor = ContextProcessor.from_pretrained(bundled_model("simulated-city"), subfolder="context_processor")
    static = np.abs(processor([context], hours=24).static.numpy())
    assert (static >= processor.config.largest_deviation).sum() <= 1
    assert np.abs(np.log1p(context["building_volume"])).max() < np.log(2e5)


def test_every_cell_lies_in_the_extract_and_the_grid_where_it_says(context):
    assert (context["inside_extract"] > 0.9999).all() and (context["inside_boundary"] > 0.95).all()
    assert CRS.from_wkt(context["spatial_ref"].attrs["crs_wkt"]).to_epsg() == 32635
    left, bottom, right, top = context.attrs["bounds_m"]
    np.testing.assert_array_equal(context["x"], np.arange(left + 25, right, 50))
    np.testing.assert_array_equal(context["y"], np.arange(bottom + 25, top, 50))
    assert context.attrs["cell_size_m"] == 50 and context.attrs["crs"] == "EPSG:32635"


def test_the_places_are_those_of_helsinki(context):
    names = {"surface": SURFACE_CLASSES, "aoi": AOI_CLASSES}
    found = {}
    for place, where in {"platforms": (24.9415, 60.1730), "Esplanadi": (24.9462, 60.1674)}.items():
        cell = cell_of(context, *where)
        found[place] = [names[layer][int(cell[layer])] for layer in names]
    assert found["platforms"] == ["railway", "transport"]
    assert found["Esplanadi"][1] == "park"
    bay = cell_of(context, 24.9420, 60.1775)  # Eläintarhanlahti
    assert bay["surface"] == SURFACE_CLASSES.index("water")
    assert float(cell_of(context, *STATION)["poi"].sum()) > 0


def test_the_attribution_is_in_the_file_beside_it_and_in_the_notice(context):
    for text in (
        context.attrs["licence"],
        DEMO_CONTEXT.with_name("README.md").read_text(encoding="utf-8"),
        (ROOT / "NOTICE").read_text(encoding="utf-8"),
    ):
        assert re.search(r"(©|\(c\)) OpenStreetMap contributors", text) and "ODbL" in text
        assert "https://www.openstreetmap.org/copyright" in text
    assert context.attrs["osm_timestamp"].startswith("2019-04-21")
    assert context["population"].attrs["estimated"] == 1


def test_the_description_has_the_numbers_of_the_file(context):
    text = DEMO_CONTEXT.with_name("README.md").read_text(encoding="utf-8")
    inputs = json.loads(context.attrs["inputs"])
    assert inputs["osm"]["sha256"] in text and f"{inputs['osm']['bytes']:,} bytes" in text
    assert f"{float(context['population'].sum()):,.0f} in all" in text
    volume = context["building_volume"].attrs
    assert f"{volume['share_of_footprint_with_known_height']:.0%}".replace("%", " %") in text
    assert f"{volume['assumed_height_m']:.1f} m" in text
    assert f"{context.attrs['unmapped_ground_share']:.0%}".replace("%", " %") in text


def test_scipy_alone_and_the_netcdf_library_read_the_same(context, tmp_path):
    assert DEMO_CONTEXT.stat().st_size < 50_000
    with netcdf_file(DEMO_CONTEXT, mmap=False) as file:
        np.testing.assert_array_equal(file.variables["population"][:], context["population"])
    with xarray.open_dataset(DEMO_CONTEXT, engine="netcdf4") as other:
        xarray.testing.assert_identical(other.load().drop_encoding(), context)
    write_netcdf(xarray.DataTree(context), tmp_path / "context.nc")
    with xarray.open_dataset(tmp_path / "context.nc") as again:
        xarray.testing.assert_identical(again.load().drop_encoding(), context)


@pytest.mark.skipif(not HELSINKI.exists(), reason="the extract of Helsinki is not there")
def test_the_script_makes_the_same_from_the_extract(context, tmp_path, monkeypatch):
    output = tmp_path / "context.nc"
    monkeypatch.setattr(sys, "argv", ["make_demo_city.py", str(HELSINKI), "--output", str(output)])
    runpy.run_path(str(ROOT / "examples" / "make_demo_city.py"), run_name="__main__")
    with xarray.open_dataset(output, engine="scipy") as file:
        made = file.load()
    assert list(made.data_vars) == list(context.data_vars) and set(made.coords) == set(context.coords)
    for name in context.variables:
        if context[name].dtype.kind == "f":
            np.testing.assert_allclose(made[name], context[name], rtol=1e-4, atol=1e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(made[name], context[name], err_msg=name)
    for name in ("crs", "osm_timestamp", "licence", "inputs", "unknown_tags", "notes", "title"):
        assert made.attrs[name] == context.attrs[name], name
