# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Whatever the files and arguments are: a complete result, or one line that says what is wrong and nothing written."""

import json
import re
import shutil
import tempfile
import zlib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from support.traffic_files import write_files
from typer.testing import CliRunner

from zoomdiff_diffusers import bundled_model
from zoomdiff_diffusers.commands import app
from zoomdiff_diffusers.commands.models import load_pipeline
from zoomdiff_diffusers.data.operator_data.places import read_context
from zoomdiff_diffusers.data.simulated_city import simulate_context


LAYERS = simulate_context(height=16, width=8, seed=5)
TREE = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
numbers = st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 0.5, 1e30, -1e-30, 255.0])
names = st.sampled_from([*LAYERS, "altitude", "aoi/../surface", "x=cmd()", "层", "a b", "x"])


@pytest.fixture(scope="module", autouse=True)
def one_pipeline():
    """The bundled model is loaded once: its speed is not what is tested here."""
    pipe = load_pipeline("simulated-city")
    patch = pytest.MonkeyPatch()
    patch.setattr(import_module("zoomdiff_diffusers.commands.generate"), "load_pipeline", lambda model: pipe)
    yield
    patch.undo()


def check(words, output):
    """Run the command and hold it to its contract; returns the exit code."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (0, 1, 2)
    if done.exit_code == 1:
        assert done.stdout == "" and done.stderr.startswith("zoomdiff: error: "), done.output
    if done.exit_code:
        assert "Traceback" not in done.output and not output.exists()
    assert not list(output.parent.glob(f".{output.name}*")), "a temporary file is left"
    event(f"exit code {done.exit_code}")
    return done.exit_code


@st.composite
def contexts(draw):
    """A context file's content: true layers, some of them broken, under true or false names."""
    variables, coordinates = {}, {}
    for source in draw(st.lists(st.sampled_from(list(LAYERS)), max_size=3, unique=True)):
        values = LAYERS[source]
        if source == "population_over_time":
            values = values[..., :24, :, :]
        kind = draw(st.sampled_from(["as it is", "as it is", "value", "type", "cut", "swapped", "flat", "text"]))
        if kind == "value":
            values = values.astype(np.float64)
            values.flat[draw(st.integers(0, values.size - 1))] = draw(numbers)
        elif kind == "type":
            values = values.astype(draw(st.sampled_from(["f8", "f4", "i2", "u1", "i8"])))
        elif kind == "cut":
            values = values[..., : draw(st.integers(1, 16)), : draw(st.integers(1, 8))]
        elif kind == "flat":
            values = values.ravel()
        elif kind == "text":
            values = np.full(values.shape[-2:], "park")
        name = source if draw(st.integers(0, 3)) else draw(names)
        axes = {1: ("cell",), 2: ("y", "x"), 3: (f"{source}_channel", "y", "x")}.get(values.ndim)
        if source == "population_over_time" and values.ndim >= 3:
            axes = ("channel", "hour", "y", "x")[-values.ndim :]
        if kind == "swapped" and values.ndim >= 2:
            axes = (*axes[:-2], "x", "y")
        if kind == "cut":
            axes = tuple(f"{axis}_{source}" for axis in axes) if draw(st.booleans()) else axes
        variables[name.replace("/", "_")] = (axes, values)
    if draw(st.booleans()):
        coordinates["y"] = draw(st.sampled_from([np.arange(16.0), np.arange(16.0)[::-1] * 50, np.full(16, np.nan)]))
    return variables, coordinates


@TREE
@given(contexts())
@example(({}, {}))
@example(({"aoi": (("y", "x"), LAYERS["aoi"])}, {"y": 50.0 * np.arange(16)}))
def test_generate_reads_any_context_file(content):
    variables, coordinates = content
    folder = Path(tempfile.mkdtemp())
    try:
        try:
            dataset = xarray.Dataset(variables, coordinates)
        except ValueError:  # axes of different lengths: no such file can be
            return
        dataset.to_netcdf(folder / "context.nc", engine="netcdf4")
        words = ["generate", "--context", folder / "context.nc", "--output", folder / "out.nc"]
        if check([*words, "--hours", "24", "--steps", "4"], folder / "out.nc") == 0:
            with xarray.open_datatree(folder / "out.nc", engine="netcdf4") as tree:
                values = tree["grid_50m/traffic"].values
            assert np.isfinite(values).all() and (values >= 0).all()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Well-formed files of the evaluation, and a context that the bundled model knows."""
    folder = write_files(tmp_path_factory.mktemp("stored"))
    layers = {"aoi": (("y", "x"), simulate_context(height=16, width=24, seed=1)["aoi"])}
    xarray.Dataset(layers).to_netcdf(folder / "known.nc", engine="netcdf4")
    return folder


@TREE
@given(
    which=st.sampled_from(["generate", "refine", "evaluate"]),
    kind=st.sampled_from(["cut", "empty", "text", "zip", "other"]),
    share=st.floats(0.01, 0.99),
    content=st.binary(max_size=200),
)
def test_files_that_are_cut_or_of_another_kind_are_refused(stored, which, kind, share, content):
    folder = Path(tempfile.mkdtemp())
    try:
        source = (stored / {"generate": "known.nc"}.get(which, "out.nc")).read_bytes()
        broken = folder / "a file; rm -rf $HOME.nc"
        broken.write_bytes(
            {
                "cut": source[: int(share * len(source))],
                "empty": b"",
                "text": b"time,y,x,value\n0,0,0,1\n",
                "zip": b"PK\x03\x04" + content,
                "other": content,
            }[kind]
        )
        words = {
            "generate": ["--context", broken],
            "refine": ["--traffic", broken, "--context", stored / "known.nc"],
            "evaluate": ["--generated", broken, "--truth", stored / "truth.nc"],
        }[which]
        assert check([which, *words, "--output", folder / "out.nc"], folder / "out.nc") == 1
    finally:
        shutil.rmtree(folder)


def damage(source, target):
    """Copy a file with 200 bytes of its longest compressed chunk overwritten."""
    content, chunks = bytearray(source.read_bytes()), []
    for found in re.finditer(b"\x78[\x01\x5e]", content):
        packed = zlib.decompressobj()
        try:
            packed.decompress(content[found.start() :])
        except zlib.error:
            continue
        if packed.eof:
            chunks.append((len(content) - found.start() - len(packed.unused_data), found.start()))
    length, start = max(chunks)
    assert length > 400
    content[start + length // 2 : start + length // 2 + 200] = b"\xff" * 200
    target.write_bytes(content)
    return target


def write_context(path, **coordinates):
    """Residents, whom a plan may change, in one compressed chunk."""
    layers = {"population": (("y", "x"), np.random.default_rng(0).random((16, 24)))}
    place = {"y": 50.0 * np.arange(16) + 25, "x": 50.0 * np.arange(24) + 25}
    encoding = {"population": {"zlib": True, "complevel": 1}}
    xarray.Dataset(layers, place | coordinates).to_netcdf(path, engine="netcdf4", encoding=encoding)
    return path


def write_plan(path):
    ring = [[200, 200], [350, 200], [350, 350], [200, 350], [200, 200]]
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}
    feature["properties"] = {"population": 100}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def run(*words):
    """Run a command that must fail; returns what it says last, after what loading a model says."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
    last = done.stderr.splitlines()[-1]
    assert done.stdout == "" and last.startswith("zoomdiff: error: ")
    return last


def test_a_damaged_chunk_is_one_line(stored, tmp_path):
    context = damage(write_context(tmp_path / "context.nc"), tmp_path / "damaged.nc")
    out, truth = (damage(stored / name, tmp_path / name) for name in ("out.nc", "truth.nc"))
    plan, output = write_plan(tmp_path / "plan.geojson"), ["--output", tmp_path / "new.nc"]
    of_context = ["--context", context, *output]
    before = sorted(tmp_path.iterdir())
    for broken, words in (
        (context, ["generate", *of_context]),
        (context, ["whatif", "--edit", plan, *of_context]),
        (context, ["refine", "--traffic", stored / "truth.nc", "--level", "bs", *of_context]),
        (out, ["refine", "--traffic", out, "--context", stored / "known.nc", *output]),
        (out, ["evaluate", "--generated", out, "--truth", stored / "truth.nc", *output]),
        (truth, ["evaluate", "--generated", stored / "out.nc", "--truth", truth, *output]),
    ):
        assert f"{broken} is damaged (NetCDF: " in run(*words), words
    assert sorted(tmp_path.iterdir()) == before
    for words in (["generate"], ["whatif", "--edit", plan]):
        line = run(*words, "--context", context, "--output", tmp_path / "new.zarr", "--steps", "4")
        assert f"--context: {context} is damaged (NetCDF: " in line and not (tmp_path / "new.zarr").exists()
    with pytest.raises(ValueError, match="damaged.nc is not a readable NetCDF-4 file"):
        read_context(context)
    line = run("push", bundled_model("simulated-city"), "org/name", "--context", context)
    assert f"--context: {context} is not a readable NetCDF-4 file" in line


def test_hours_that_cannot_be_decoded_are_one_line(stored, tmp_path):
    hours = {"hour": ("hour", np.arange(72), {"units": "hours since yesterday"})}
    context, plan = write_context(tmp_path / "context.nc", **hours), write_plan(tmp_path / "plan.geojson")
    for words in (["generate"], ["whatif", "--edit", plan], ["refine", "--traffic", stored / "out.nc"]):
        line = run(*words, "--context", context, "--output", tmp_path / "new.nc")
        assert f"--context: {context} is not a readable NetCDF-4 file (" in line and "hours since yesterday" in line


@TREE
@given(
    options=st.dictionaries(
        st.sampled_from(["--start", "--hours", "--samples", "--seed", "--steps", "--units", "--device"]),
        st.one_of(
            st.sampled_from(
                ["0", "-1", "24", "23", "1e3", "nan", "mean", "2026-02-30", "2026-11-22", "", "cpu", "\0"]
            ),
            st.text(max_size=8),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_value_of_an_option_is_taken_or_refused(stored, options):
    folder = Path(tempfile.mkdtemp())
    try:
        words = [f"{option}={value}" for option, value in ({"--hours": "24", "--steps": "4"} | options).items()]
        if "--samples=1e3" in words:
            return
        output = folder / "out.nc"
        check(["generate", "--context", stored / "known.nc", "--output", output, *words], output)
    finally:
        shutil.rmtree(folder)
