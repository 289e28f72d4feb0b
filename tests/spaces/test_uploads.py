# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Files made by strangers: what the page reads of them, and what it refuses."""

import gzip
import io
import os
import time
import zipfile

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from support.osm_city import HEIGHT as DRAWN_HEIGHT
from support.osm_city import WIDTH as DRAWN_WIDTH
from support.osm_city import draw_city
from zoomdiff_space import areas, limits, storage

from zoomdiff_diffusers import ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.open_data import build_context


HEIGHT, WIDTH = 8, 16


def small_dataset(**layers):
    people = np.arange(24 * HEIGHT * WIDTH, dtype=np.float32).reshape(24, HEIGHT, WIDTH)
    variables = {
        "population_over_time": (("hour", "y", "x"), people),
        "surface": (("y", "x"), people[0] % 7),
        **layers,
    }
    return xr.Dataset(variables, {"y": 5.6e6 - 50.0 * np.arange(HEIGHT), "x": 50.0 * np.arange(WIDTH)})


def written(dataset, path, **options):
    dataset.to_netcdf(path, engine="netcdf4", **options)
    return str(path)


def bare(path, build, **options):
    """A file made with netCDF4 itself, for what xarray would not write."""
    with netCDF4.Dataset(path, "w", **options) as dataset:
        build(dataset)
    return str(path)


@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF3_64BIT"])
def test_a_file_is_read_as_it_was_written(tmp_path, format):
    dataset = small_dataset()
    area = areas.read_area(written(dataset, tmp_path / "a.nc", format=format))
    xr.testing.assert_equal(area.context.drop_attrs(), dataset)
    assert (area.height, area.width, area.hours) == (HEIGHT, WIDTH, 24)
    np.testing.assert_array_equal(area.coordinates("y"), dataset["y"])


def test_the_first_hour_is_read_where_the_file_tells(tmp_path):
    hours = np.datetime64("2026-03-05", "ns") + np.arange(24) * np.timedelta64(1, "h")
    dated = small_dataset().assign_coords(hour=hours)
    assert areas.read_area(written(dated, tmp_path / "dated.nc")).begins == np.datetime64("2026-03-05T00:00:00")
    counted = small_dataset().assign_coords(hour=np.arange(24))
    assert areas.read_area(written(counted, tmp_path / "counted.nc")).begins is None


def test_packed_and_missing_values_are_decoded(tmp_path):
    values = np.full((HEIGHT, WIDTH), 12.5)
    values[0, 0] = np.nan
    encoding = {"population": {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}}
    path = written(small_dataset(population=(("y", "x"), values)), tmp_path / "a.nc", encoding=encoding)
    np.testing.assert_array_equal(areas.read_area(path).context["population"], values)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"cell_size_m": 100.0}, "says cell_size_m = 100.0; this page takes cells of 50 m"),
        ({"cell_size_m": "wide " * 100}, "says cell_size_m = wide wide"),
        ({"y": 100.0 * np.arange(HEIGHT)}, "the coordinate y changes by 100; this page takes cells of 50 m"),
        ({"x": 0.05 * np.arange(WIDTH)}, "the coordinate x changes by 0.05;"),
        ({"y": 50.0 * np.array([0, 1, 2, 3, 4, 5, 6, 8])}, "the coordinate y changes by 50 to 100;"),
        ({"y": 50.0 * np.array([0, 1, 2, 3, 4, 5, 6, 5])}, "the coordinate y changes by -50 to 50;"),
        ({"y": np.full(HEIGHT, np.nan)}, "the coordinate y changes by nan;"),
    ],
)
def test_cells_of_another_size_are_refused(tmp_path, changed, message):
    attributes = {name: value for name, value in changed.items() if name not in ("y", "x")}
    coordinates = {name: value for name, value in changed.items() if name in ("y", "x")}
    dataset = small_dataset().assign_coords(coordinates).assign_attrs(attributes)
    with pytest.raises(ValueError, match=message) as caught:
        areas.read_area(written(dataset, tmp_path / "a.nc"))
    assert len(str(caught.value)) < 200


def test_cells_of_50_m_are_known_in_any_form(tmp_path):
    single = {axis: small_dataset()[axis].astype(np.float32) for axis in ("y", "x")}
    for dataset in (
        small_dataset().assign_attrs(cell_size_m=np.int32(50)),
        small_dataset().assign_coords(single),
        small_dataset().drop_vars(["y", "x"]),
    ):
        assert areas.read_area(written(dataset, tmp_path / "a.nc")).height == HEIGHT


def test_the_example_is_what_the_model_knows_and_an_upload_of_it_the_same():
    example = areas.example_area()
    upload = areas.read_area(str(areas.EXAMPLES / "area.nc"))
    processor = ZoomDiffPipeline.from_pretrained(bundled_model("simulated-city")).context_processor
    assert set(example.context.data_vars) == {layer["name"] for layer in processor.layers}
    for tensors in zip(*(vars(processor(area.context, 168)).values() for area in (example, upload))):
        if tensors[0] is not None:  # the schema has no such layer
            np.testing.assert_array_equal(*(tensor.numpy() for tensor in tensors))


def archive():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../etc/area.nc", bytes(10**7))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (archive(), "a ZIP archive"),
        (gzip.compress(bytes(10**6)), "a gzip archive"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
        (b"<script>alert(1)</script>", "something else"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "cannot be read as NetCDF"),
        (b"CDF\x01" + b"\xff" * 200, "cannot be read"),
        (bytes(limits.MAX_UPLOAD_BYTES + 1), "has 10.0 MB; this page takes at most 10 MB"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.nc").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        areas.read_area(str(tmp_path / "a.nc"))


def bomb(dataset):
    dataset.createDimension("y", HEIGHT), dataset.createDimension("x", WIDTH), dataset.createDimension("hour", 10**8)
    dataset.createVariable("population_over_time", "f4", ("hour", "y", "x"), zlib=True, chunksizes=(10**4, 8, 16))


def wide(dataset):
    dataset.createDimension("y", HEIGHT), dataset.createDimension("x", WIDTH), dataset.createDimension("c", 10**9)
    dataset.createVariable("poi", "f8", ("c", "y", "x"), zlib=True, chunksizes=(10**4, 8, 16))


def large(dataset):
    dataset.createDimension("y", 10**5), dataset.createDimension("x", 10**5)
    dataset.createVariable("surface", "u1", ("y", "x"), zlib=True, chunksizes=(100, 100))


def words(dataset):
    dataset.createDimension("y", HEIGHT), dataset.createDimension("x", WIDTH)
    dataset.createVariable("surface", str, ("y", "x"))


def many(dataset):
    for index in range(100):
        dataset.createVariable(f"v{index}", "f4", ())


def nameless(dataset):
    dataset.createDimension("lat", HEIGHT), dataset.createDimension("lon", WIDTH)
    dataset.createVariable("a<b>surface", "f4", ("lat", "lon"))


def unknown(dataset):
    dataset.createDimension("y", HEIGHT), dataset.createDimension("x", WIDTH)
    dataset.createVariable("x=cmd|x!A1", "f4", ("y", "x"))


def crooked(dataset):
    dataset.createDimension("y", HEIGHT), dataset.createDimension("x", WIDTH)
    dataset.createVariable("y", "f4", ("y", "x"))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (bomb, "covers 100000000 hours"),
        (wide, "this page takes at most 8,000,000"),
        (large, "100000 × 100000"),
        (words, "'surface' does not hold numbers"),
        (many, "100 variables"),
        (nameless, r"no layer on the dimensions y and x. Found: 'a<b>surface'"),
        (unknown, "does not know: .*=cmd"),
        (crooked, "does not know: 'y'"),
        (lambda dataset: None, "Found: no variables"),
    ],
)
def test_files_that_ask_for_too_much_or_the_wrong_thing_are_refused_quickly(tmp_path, build, message):
    path = bare(tmp_path / "a.nc", build)
    assert os.path.getsize(path) < 10**6
    started = time.perf_counter()
    with pytest.raises(ValueError, match=message):
        areas.read_area(path)
    assert time.perf_counter() - started < 15


def test_a_file_that_points_to_another_file_does_not_get_its_content(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(HEIGHT * WIDTH)))
    with h5py.File(tmp_path / "other.nc", "w") as file:
        file["surface"] = np.ones((HEIGHT, WIDTH))
    for kind in ("stored", "linked"):
        path = written(small_dataset().drop_vars("surface"), tmp_path / f"{kind}.nc")
        with h5py.File(path, "r+") as file:
            if kind == "stored":
                outside = [(str(secret), 0, HEIGHT * WIDTH)]
                layer = file.create_dataset("surface", (HEIGHT, WIDTH), "u1", external=outside)
                for axis, name in enumerate("yx"):
                    layer.dims[axis].attach_scale(file[name])
            else:
                file["surface"] = h5py.ExternalLink(str(tmp_path / "other.nc"), "/surface")
        if kind == "stored":
            with netCDF4.Dataset(path) as dataset:  # what a reader without protection would get
                assert dataset["surface"][0, 1] == 1
        try:
            area = areas.read_area(path)
        except ValueError as error:
            assert "cannot be read" in str(error)
        else:
            assert "surface" not in area.context


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=40), st.floats(0.2, 1))
def test_a_damaged_file_gives_an_area_or_a_message(tmp_path_factory, changes, kept):
    content = bytearray((areas.EXAMPLES / "area.nc").read_bytes())
    for position, value in changes:
        content[8 + position % (len(content) - 8)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.nc"
    path.write_bytes(content[: int(kept * len(content))])
    try:
        area = areas.read_area(str(path))
    except ValueError as error:
        assert str(error) and len(str(error)) < 1000
    else:
        assert area.height * area.width <= limits.MAX_CELLS


@given(st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=3)))
def test_a_whole_number_in_range_or_a_message(value):
    try:
        number = limits.whole_number("Seed", value, 0, limits.MAX_SEED)
    except ValueError as error:
        assert str(error).startswith("Seed must be")
    else:
        assert isinstance(number, int) and 0 <= number <= limits.MAX_SEED and number == value


@given(*(st.integers(1, 2000) for _ in range(2)), st.integers(1, 1000), st.integers(1, 16), st.integers(8, 60))
def test_no_run_is_larger_than_the_limit(height, width, hours, samples, steps):
    try:
        limits.check_work(height, width, hours, samples, steps)
    except ValueError:
        assert height * width > limits.MAX_CELLS or hours > 336 or height * width * hours * samples * steps > 1e8
    else:
        assert height * width <= 6144 and samples * height * width * hours / 24 * steps <= limits.MAX_WORK


def test_a_simulated_city_is_no_city_of_the_training():
    import yaml

    config = yaml.safe_load((areas.EXAMPLES.parents[2] / "configs" / "simulated_city.yaml").read_text())
    assert areas.city_seed(0) > 10 * (config["data"]["train_cities"] + config["data"]["validation_cities"])
    assert areas.simulated_area(next(iter(areas.SIZES)), 3).context["aoi"].shape == (24, 32)


def test_hours_follow_the_weekday_of_the_first_day():
    area = areas.example_area()
    people = area.context["population_over_time"].values
    shifted = area.context_for(np.datetime64("2026-03-05"), 240)["population_over_time"].values  # a Thursday
    np.testing.assert_array_equal(shifted[:96], people[72:])
    np.testing.assert_array_equal(shifted[96:], people[:144])


def test_old_and_then_the_oldest_files_are_removed(tmp_path):
    for age, name in ((500, "old"), (50, "first"), (40, "second"), (5, "third")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(1000))
        for path in (tmp_path / name / "file", tmp_path / name):
            os.utime(path, (time.time() - age,) * 2)
    (tmp_path / "empty").mkdir()
    os.utime(tmp_path / "empty", (time.time() - 500,) * 2)
    storage.clean(tmp_path, keep_seconds=100, max_bytes=10**6)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "third"}
    storage.clean(tmp_path, keep_seconds=100, max_bytes=2 * 4096 + 2000)
    assert {path.name for path in tmp_path.iterdir()} == {"second", "third"}


# Extracts of OpenStreetMap


def test_an_extract_gives_the_layers_of_the_command(tmp_path):
    path = draw_city().write(tmp_path / "city.osm.pbf", timestamp="2026-03-01T20:21:22Z")
    area, expected = areas.read_extract(str(path)), build_context(path)
    for name in ("surface", "aoi", "poi", "building_volume", "population"):
        assert area.context[name].dims == expected[name].dims
        np.testing.assert_array_equal(area.context[name], expected[name])
    np.testing.assert_array_equal(area.coordinates("x"), expected["x"])
    assert area.attribution == "© OpenStreetMap contributors, ODbL 1.0"
    assert area.notes[0].startswith("state of the data: 2026-03-01")
    assert not any("boundary" in note for note in area.notes)


def test_of_a_large_extract_the_middle_is_taken(tmp_path):
    for margin in (3_000, 55_000):  # more cells than the page takes; more than any grid may have
        box = (-margin, -margin, 50 * DRAWN_WIDTH + 2 * margin, 50 * DRAWN_HEIGHT + 2 * margin)
        area = areas.read_extract(str(draw_city().write(tmp_path / "city.osm.pbf", box=box)))
        assert (area.height, area.width) == (limits.EXTRACT_SIDE, limits.EXTRACT_SIDE)
        assert area.context["poi"].sum() > 0 and "its middle, 2 km across, was taken" in area.notes[1]


def blob(kind, data):
    """A block of a PBF file: lengths and the fields type and datasize of its header, then the data."""
    size, rest = [], len(data)
    while True:
        size.append(rest & 127 | (128 if rest > 127 else 0))
        rest >>= 7
        if not rest:
            break
    header = b"\x0a" + bytes([len(kind)]) + kind + b"\x18" + bytes(size)
    return len(header).to_bytes(4, "big") + header + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The extract is empty"),
        (archive(), "must be OpenStreetMap data as .osm.pbf, but is a ZIP archive"),
        (b"<osm version='0.6'/>", "but is something else"),
        (blob(b"OSMHeader", b"\xff" * 40), "The extract cannot be"),
        # A block that claims to unpack to 4 GB.
        (blob(b"OSMHeader", b"\x10\xff\xff\xff\xff\x0f\x1a\x04" + bytes(4)), "The extract cannot be"),
        (bytes(limits.MAX_UPLOAD_BYTES + 1), "this page takes at most 10 MB"),
    ],
)
def test_what_is_no_extract_is_refused_quickly(tmp_path, content, message):
    path = tmp_path / "a.osm.pbf"
    path.write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(ValueError, match=message) as caught:
        areas.read_extract(str(path))
    assert str(tmp_path) not in str(caught.value) and time.perf_counter() - started < 20


@settings(max_examples=4, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=20), st.floats(0.5, 1))
def test_a_damaged_extract_gives_an_area_or_a_message(tmp_path_factory, changes, kept):
    path = draw_city().write(tmp_path_factory.getbasetemp() / "whole.osm.pbf")
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[40 + position % (len(content) - 40)] = value
    damaged = tmp_path_factory.getbasetemp() / "damaged.osm.pbf"
    damaged.write_bytes(content[: int(kept * len(content))])
    try:
        area = areas.read_extract(str(damaged))
    except ValueError as error:
        assert str(error) and len(str(error)) < 1000 and "Traceback" not in str(error)
    else:
        assert area.height * area.width <= limits.MAX_CELLS
