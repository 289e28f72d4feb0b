# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Whole cities: the same values whatever the windows, the processes and the interruptions."""

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from contracts.pipeline import assert_consistent
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from support.tiny import context_with_zones, random_context, tiny_pipeline, zoned_pipeline

from zoomdiff_diffusers import DRDMScheduler, Hierarchy, Level
from zoomdiff_diffusers.pipelines.zoomdiff.city import CityGenerator, noise_of_place
from zoomdiff_diffusers.pipelines.zoomdiff.city_windows import (
    extent_of_chains,
    extent_of_zones,
    make_windows,
    share_out,
    within,
)


HOURS, HEIGHT, WIDTH = 4 * 24, 40, 56
FEW = {"num_inference_steps": 8, "seed": 7, "start": "2026-03-07"}
ROOT = Path(__file__).parents[2]


def city(hours=HOURS):
    layers = random_context(4, hours, HEIGHT, WIDTH)
    axes = {2: ("y", "x"), 3: ("poi_channel", "y", "x")}
    variables = {name: (axes[values.ndim], values) for name, values in layers.items() if "over_time" not in name}
    variables["population_over_time"] = (("hour", "y", "x"), layers["population_over_time"])
    return xarray.Dataset(variables, {"y": 50.0 * np.arange(HEIGHT), "x": 1000 + 50.0 * np.arange(WIDTH)})


@pytest.fixture(scope="module")
def pipe():
    """A network whose reach is smaller than the city, so that windows have margins on all sides."""
    pipe = tiny_pipeline(channels=2, gain=0.2, regression=True, layers_per_block=[1, 0])
    assert max(max(pipe.unet.reach(stage)) for stage in range(4)) <= 4
    return pipe


def read(path):
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        return tree.load()


def levels_of(path, pipe):
    tree = read(path)
    return {name: tree[name]["traffic"].values for name in pipe.hierarchy.names}


def assert_same(first, second):
    """The same but for rounding, which sharing out a sum can enlarge where a value is near zero."""
    for name, values in first.items():
        np.testing.assert_allclose(second[name], values, rtol=1e-4, atol=2e-4 * values.mean())
        assert abs(second[name] - values).mean() < 1e-6 * values.mean()


@pytest.fixture(scope="module")
def whole(pipe, tmp_path_factory):
    """The city in one window."""
    return pipe.generate_city(city(), tmp_path_factory.mktemp("whole") / "city.zarr", **FEW)


def test_windows_change_nothing_and_levels_sum_up(pipe, whole, tmp_path):
    expected = levels_of(whole, pipe)
    assert expected["grid_50m"].shape == (1, 2, HOURS, HEIGHT, WIDTH)
    assert_consistent(expected, pipe.hierarchy)
    for number, window in enumerate([(1, 5, 7), (3, 2, 1)]):
        path = pipe.generate_city(city(), tmp_path / f"{number}.zarr", window=window, **FEW)
        assert_same(expected, levels_of(path, pipe))


@pytest.mark.parametrize(
    "hierarchy, start",
    [
        (Hierarchy(time_step=0.5), "2026-03-06T12:00"),
        (Hierarchy([Level("block", 2, 8), Level("cell", 1, 1)]), "2026-03-07T08:00"),
        (Hierarchy([Level("block", 2, 1), Level("cell", 1, 1)], time_step=0.5), "2026-03-07T08:30"),
    ],
)
def test_windows_change_nothing_in_other_time_steps_and_at_other_hours(hierarchy, start, tmp_path):
    pipe = tiny_pipeline(regression=True, hierarchy=hierarchy, layers_per_block=[1, 0])
    context = city(96).isel(y=slice(0, 16), x=slice(0, 24))
    options = FEW | {"start": start, "num_inference_steps": 2 * len(hierarchy)}
    whole = pipe.generate_city(context, tmp_path / "whole.zarr", **options)
    parts = pipe.generate_city(context, tmp_path / "parts.zarr", window=(1, 5, 7), **options)
    assert_same(levels_of(whole, pipe), levels_of(parts, pipe))


def zoned_city():
    context = context_with_zones(6, 48, HEIGHT, WIDTH)
    axes = {"site": ("y", "x"), "sector": ("y", "x"), "surface": ("y", "x"), "population": ("y", "x")}
    axes |= {"poi": ("poi_channel", "y", "x"), "population_over_time": ("hour", "y", "x")}
    return xarray.Dataset({name: (axes[name], values) for name, values in context.items()})


@pytest.mark.parametrize("regression", [True, False])
def test_zones_that_lie_in_several_windows_are_whole(regression, tmp_path):
    pipe, context = zoned_pipeline(regression, layers_per_block=[1, 0]), zoned_city()
    whole = pipe.generate_city(context, tmp_path / "whole.zarr", units="sum", **FEW)
    parts = pipe.generate_city(context, tmp_path / "parts.zarr", units="sum", window=(1, 2, 1), **FEW)
    expected, found = levels_of(whole, pipe), levels_of(parts, pipe)
    assert_same(expected, found)
    finest = found["grid_1"][0, 0].astype(np.float64)
    for name, layer, steps in (("bs", "site", 24), ("cell", "sector", 4)):
        for unit in range(int(context[layer].max()) + 1):
            cells = context[layer].values == unit
            totals = finest[:, cells].reshape(48 // steps, -1).sum(axis=1)
            values = found[name][0, 0][:, cells]
            assert np.allclose(values, totals[:, None], rtol=1e-4, atol=1e-5 * found[name].mean())
    squares = finest.reshape(24, 2, HEIGHT // 2, 2, WIDTH // 2, 2).sum((1, 3, 5))
    assert np.allclose(squares, found["grid_2"][0, 0], rtol=1e-4, atol=1e-5 * squares.mean())


def city_of_strips(shifts, height=8, width=96):
    """A day, with zones that are 16 columns wide; `shifts` says by layer how far they are moved."""
    layers = random_context(6, 24, height, width)
    strips = {name: np.tile((np.arange(width) + shift) // 16, (height, 1)) for name, shift in shifts.items()}
    axes = {"poi": ("poi_channel", "y", "x"), "population_over_time": ("hour", "y", "x")}
    return xarray.Dataset({name: (axes.get(name, ("y", "x")), values) for name, values in (layers | strips).items()})


@pytest.mark.parametrize(
    ("coarsest", "shifts"), [(Level("a", 8, 24, "a"), {"a": 0, "b": 8}), (Level("a", 8, 24), {"b": 12})]
)
def test_zones_that_are_not_nested_lead_on_to_others(coarsest, shifts, tmp_path):
    levels = [coarsest, Level("b", 4, 4, "b"), Level("cells", 1, 1)]
    pipe, context = zoned_pipeline(levels=levels, layers_per_block=[1, 0]), city_of_strips(shifts)
    whole = pipe.generate_city(context, tmp_path / "whole.zarr", **FEW)
    parts = pipe.generate_city(context, tmp_path / "parts.zarr", window=(1, 1, 1), **FEW)
    found = levels_of(parts, pipe)
    assert_same(levels_of(whole, pipe), found)
    labels = context["b"].values
    finest = found["cells"][0, 0].astype(np.float64).reshape(6, 4, *labels.shape).mean(axis=1)
    for unit in range(labels.max() + 1):
        of_unit = labels == unit
        difference = found["b"][0, 0][:, of_unit].T - finest[:, of_unit].mean(axis=1)
        assert abs(difference).max() < 1e-5 * finest.mean()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), chain=st.lists(st.sampled_from(["a", "b", "nested", "gaps", 2, 4]), max_size=4))
def test_extents_hold_all_cells_to_which_a_chain_leads(seed, chain):
    random = np.random.default_rng(seed)
    rows, columns = np.indices((12, 24))

    def zones(count):
        y, x = random.uniform(0, 12, count), random.uniform(0, 24, count)
        return ((rows[..., None] - y) ** 2 + (columns[..., None] - x) ** 2).argmin(axis=-1)

    rasters = {"a": zones(12), "b": zones(20)}
    rasters["nested"] = 20 * rasters["a"] + rasters["b"]
    rasters["gaps"] = np.where(rasters["b"] % 3 == 0, -1, rasters["b"])
    extent = extent_of_chains([chain], rasters, side=4)
    for top, left in product(range(3), range(6)):
        cells = (rows // 4 == top) & (columns // 4 == left)
        for unit in chain:
            labels = rasters[unit] if isinstance(unit, str) else rows // unit * 24 + columns // unit
            cells = cells | np.isin(labels, labels[cells & (labels >= 0)])
        assert (abs(rows[cells] // 4 - top) <= extent).all() and (abs(columns[cells] // 4 - left) <= extent).all()


def test_nested_zones_reach_as_far_as_the_widest_and_others_add_up():
    site = np.tile(np.arange(48) // 12, (8, 1))
    rasters = {"site": site, "sector": 2 * site + (np.arange(8) > 3)[:, None]}
    rasters["other"] = np.tile((np.arange(48) + 8) // 12, (8, 1))
    for chain, expected in (
        ([], 0),
        ([8], 0),
        (["site"], 1),
        ([8, "site", 8], 1),
        (["sector", "site", "sector"], 1),
        (["sector", 2, "site"], 1),
        (["site", 8, "site"], 2),
        (["site", "other", "site"], 3),
    ):
        assert extent_of_chains([[], chain], rasters, side=8) == expected


@pytest.mark.parametrize(
    ("columns", "side", "expected"),
    [([0, 0, 0, 1, 1, 1], 2, 1), ([0, 0, 1, 1, 2, 2], 2, 0), ([3, 0, 0, 0, 0, 3], 2, 2), ([7, 7, 7, 7, 7, 7], 6, 0)],
)
def test_extent_of_zones(columns, side, expected):
    assert extent_of_zones(np.array([columns]), side) == expected == extent_of_zones(np.array([columns]).T, side)


def test_a_city_without_its_zones_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`context` has no layer 'site'"):
        zoned_pipeline().generate_city(zoned_city().drop_vars("site"), tmp_path / "city.zarr")


def test_one_window_is_what_the_pipeline_makes_of_the_same_noise(pipe, whole, monkeypatch):
    begin = DRDMScheduler.begin_stage

    def with_noise_of_place(self, stage, shape, prior=None, generator=None, **options):
        begin(self, stage, shape, prior, generator, **options)
        units = [size // count for size, count in zip(shape[2:], (4, 5, 7))]
        noise = noise_of_place(FEW["seed"], 0, stage, (slice(0, 4), slice(0, 5), slice(0, 7)), 2, tuple(units))
        return torch.from_numpy(noise[None])

    monkeypatch.setattr(DRDMScheduler, "begin_stage", with_noise_of_place)
    expected = pipe(city(), start=FEW["start"], num_inference_steps=FEW["num_inference_steps"]).levels
    assert_same(expected, levels_of(whole, pipe))


def test_the_store_says_where_when_and_what(pipe, whole):
    tree = read(whole)
    grid, stations = tree["grid_50m"], tree["bs"]
    assert str(grid["time"].values[0]).startswith("2026-03-07T00:00") and grid["x"].values[0] == 1000
    assert stations["x"].values[0] == 1000 + 50 * 3.5 and tree.attrs["seed"] == 7
    assert tree.attrs["levels"] == pipe.hierarchy.names
    assert list(grid["channel"].values) == ["traffic", "users"] and "states" not in tree.children
    assert list(grid["unit"].values) == ["MB", "1"]
    assert sorted(path.name for path in whole.parent.iterdir()) == [whole.name]


def test_samples_differ_and_sums_are_sums(pipe, whole, tmp_path):
    path = pipe.generate_city(city(), tmp_path / "out.zarr", num_samples=2, units="sum", window=(4, 3, 7), **FEW)
    found = levels_of(path, pipe)
    assert_consistent(found, pipe.hierarchy, reduction="sum")
    expected = levels_of(whole, pipe)
    volumes = [level.spatial_factor**2 * level.temporal_factor for level in pipe.hierarchy.levels]
    first = {name: values[:1] / volume for (name, values), volume in zip(found.items(), volumes)}
    assert_same(expected, first)
    assert not np.allclose(found["cell"][0], found["cell"][1], rtol=0.01)


def test_a_context_on_disk_is_read_as_one_in_memory(pipe, whole, tmp_path):
    city().to_netcdf(tmp_path / "context.nc", engine="netcdf4")
    with xarray.open_dataset(tmp_path / "context.nc", engine="netcdf4") as context:
        path = pipe.generate_city(context, tmp_path / "out.zarr", window=(4, 2, 7), **FEW)
    assert_same(levels_of(whole, pipe), levels_of(path, pipe))


def test_the_network_sees_as_far_as_it_says():
    unet = tiny_pipeline(gain=0.3, layers_per_block=[1, 1]).unet
    for stage, (steps, cells) in enumerate(unit for unit in unet.units):
        days, units, _ = unet.reach(stage)
        size = steps * (2 * days + 1), cells * (2 * units + 1), cells * (2 * units + 1)
        sample = torch.randn(1, 1, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        middle = tuple(slice(part // 2 // unit * unit, None) for part, unit in zip(size, (steps, cells, cells)))
        middle = tuple(slice(s.start, s.start + unit) for s, unit in zip(middle, (steps, cells, cells)))
        changed = sample.clone()
        changed[(slice(None), slice(None), *middle)] += 1
        network = unet.double()
        with torch.no_grad():
            outputs = [network(values, 3.0, stage, torch.zeros_like(values)).sample for values in (sample, changed)]
        moved = (outputs[0] != outputs[1])[0, 0].nonzero()
        low, high = moved.min(0).values, moved.max(0).values
        for axis, (part, unit, reach) in enumerate(zip(middle, (steps, cells, cells), (days, units, units))):
            nearest = max(part.start - low[axis].item(), high[axis].item() + 1 - part.stop)
            assert (reach - 2) * unit < nearest <= reach * unit


KILLED = """
import sys, os, signal
sys.path[:0] = [{tests!r}]
import pipelines.test_city as test
from zoomdiff_diffusers.pipelines.zoomdiff.city import CityGenerator
step, count = CityGenerator._step, [0]
def killed_at(self, *arguments):
    count[0] += 1
    if count[0] == {calls}:
        os.kill(os.getpid(), signal.SIGKILL)
    step(self, *arguments)
CityGenerator._step = killed_at
pipe = test.tiny_pipeline(channels=2, gain=0.2, regression=True, layers_per_block=[1, 0])
pipe.generate_city(test.city(), {output!r}, window=(4, 2, 3), **test.FEW)
"""


def test_a_killed_run_goes_on_to_the_same_result(pipe, whole, tmp_path):
    output = tmp_path / "city.zarr"
    program = KILLED.format(tests=str(ROOT / "tests"), output=str(output), calls=40)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    unfinished = tmp_path / ".city.zarr.partial"
    progress = json.loads((unfinished / "progress.json").read_text(encoding="utf-8"))["done"]
    assert not output.exists() and progress > 0
    with pytest.raises(ValueError, match="unfinished run with another context, model or settings"):
        pipe.generate_city(city(), output, window=(4, 2, 3), **FEW | {"seed": 8})
    steps, step = [], CityGenerator._step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CityGenerator, "_step", lambda self, *words: (steps.append(words), step(self, *words)))
        pipe.generate_city(city(), output, window=(4, 2, 3), **FEW)
    assert 0 < len(steps) < 8 * 9 and not unfinished.exists()
    assert_same(levels_of(whole, pipe), levels_of(output, pipe))


TWO = """
import sys
sys.path[:0] = [{tests!r}]
import torch.distributed as distributed
import pipelines.test_city as test
distributed.init_process_group("gloo")
pipe = test.tiny_pipeline(channels=2, gain=0.2, regression=True, layers_per_block=[1, 0])
pipe.generate_city(test.city(), {output!r}, window=(4, 2, 3), **test.FEW)
distributed.destroy_process_group()
"""


@pytest.mark.parametrize("place", ["clean-up", "rename", "last file"])
def test_a_run_that_is_killed_at_its_end_is_complete_or_is_completed(place, pipe, whole, tmp_path, monkeypatch):
    output, options = tmp_path / "city.zarr", FEW | {"num_samples": 1}

    def killed(*words, **keywords):
        raise Killed

    owner, name, victim = {
        "clean-up": (shutil, "rmtree", "states"),
        "rename": (os, "replace", ".city.zarr.partial"),
        "last file": (Path, "unlink", "progress.json"),
    }[place]
    function = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(
            owner,
            name,
            lambda path, *words, **keywords: (
                killed() if Path(path).name == victim else function(path, *words, **keywords)
            ),
        )
        with pytest.raises(Killed):
            pipe.generate_city(city(), output, **options)
    if place == "last file":
        assert output.exists()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(CityGenerator, "_step", killed)  # nothing is computed again
            pipe.generate_city(city(), output, **options)
    assert_same(levels_of(whole, pipe), levels_of(output, pipe))


class Killed(BaseException):
    """The end of a process, which no `except Exception` sees."""


def test_a_run_that_has_done_nothing_gives_way(pipe, whole, tmp_path, monkeypatch):
    def full(*words):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(CityGenerator, "_begin", full)
        with pytest.raises(OSError, match="no space left"):
            pipe.generate_city(city(), tmp_path / "city.zarr", **FEW | {"seed": 8})
    assert (tmp_path / ".city.zarr.partial").exists()
    pipe.generate_city(city(), tmp_path / "city.zarr", **FEW)
    assert_same(levels_of(whole, pipe), levels_of(tmp_path / "city.zarr", pipe))


def test_two_processes_make_the_same_store(pipe, whole, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(TWO.format(tests=str(ROOT / "tests"), output=str(tmp_path / "city.zarr")), encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    done = subprocess.run(launch, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(levels_of(whole, pipe), levels_of(tmp_path / "city.zarr", pipe))


def test_what_cannot_be_is_refused_before_work_starts(pipe, whole, tmp_path):
    def refused(message, error=ValueError, pipeline=pipe, context=city(), output=tmp_path / "no.zarr", **options):
        with pytest.raises(error, match=message):
            pipeline.generate_city(context, output, **FEW | options)

    refused("`output` must end in .zarr", output=tmp_path / "no.nc")
    refused("`output` must not exist yet", output=whole)
    refused("`num_samples` must be a positive integer, but is 0", num_samples=0)
    refused("the folder .* is missing", FileNotFoundError, output=tmp_path / "no" / "no.zarr")
    refused("must be an xarray.Dataset", context=random_context())
    refused("extra", context=city().assign(extra=city()["population"]))
    refused("population_over_time", context=city(hours=72), num_hours=96)
    constant = city().assign(population_over_time=city()["population_over_time"].isel(hour=0))
    refused("'population_over_time' must have the dimension `hour`", context=constant)
    refused("`height` must be a multiple of 8, but is 39", context=city().isel(y=slice(1, None)))
    refused("`num_hours` must be a positive multiple", num_hours=0.5)
    refused("`time` must be a multiple of 24", num_hours=30)
    refused("`start` must lie a multiple of 24 h", start="2026-03-07T05:00")
    refused("`seed` must be an integer that is not negative", seed=-1)
    refused("`units` must be one of", units="MB")
    refused("`window` must be three positive integers", window=(1, 0, 3))
    ancestral = tiny_pipeline(channels=2, scheduler=DRDMScheduler(solver="ddpm"))
    refused("whose solver draws no noise", pipeline=ancestral)
    coarse = tiny_pipeline(channels=2, hierarchy=Hierarchy([Level("a", 2, 24), Level("b", 1, 4)]))
    refused(r"last level has the spatial and the temporal factor 1, but has \(1, 4\)", pipeline=coarse)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------- windows and noise

sizes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=60, deadline=None)
@given(area=sizes, size=sizes, margin=st.tuples(*[st.integers(0, 4)] * 3), extent=st.integers(0, 3))
def test_cores_tile_the_area_and_margins_stay_inside(area, size, margin, extent):
    covered = np.zeros(area, int)
    for window in make_windows(area, size, margin, extent):
        covered[window.core] += 1
        parts = zip(window.core, window.whole, window.outer, within(window.core, window.outer), strict=True)
        for axis, (core, whole, outer, inner) in enumerate(parts):
            for part, around in ((whole, extent if axis else 0), (outer, margin[axis] + (extent if axis else 0))):
                first, last = max(0, core.start - around), min(area[axis], core.stop + around)
                assert (part.start, part.stop) == (first, last)
            assert range(area[axis])[outer][inner] == range(area[axis])[core]
    assert (covered == 1).all()


@settings(max_examples=30, deadline=None)
@given(area=sizes, size=sizes, count=st.integers(1, 4))
def test_processes_share_out_all_windows_about_evenly(area, size, count):
    windows = make_windows(area, size, (0, 1, 1))
    shares = share_out(windows, count)
    assert len(shares) == count and sorted(map(repr, sum(shares, []))) == sorted(map(repr, windows))

    def work(share):
        return sum(np.prod([part.stop - part.start for part in window.outer]) for window in share)

    assert max(map(work, shares)) <= np.mean(list(map(work, shares))) + max(work([window]) for window in windows)


@settings(max_examples=30, deadline=None)
@given(start=st.tuples(*[st.integers(0, 5)] * 3), size=st.tuples(*[st.integers(1, 4)] * 3), seed=st.integers(0, 2**70))
def test_the_noise_of_a_part_is_the_part_of_the_noise(start, size, seed):
    part = tuple(slice(first, first + count) for first, count in zip(start, size))
    whole = tuple(slice(0, part.stop + 1) for part in part)
    unit = (3, 2, 2)
    inside = tuple(slice(part.start * side, part.stop * side) for part, side in zip(part, unit))
    everything = noise_of_place(seed, 1, 2, whole, 2, unit)
    np.testing.assert_array_equal(everything[(slice(None), *inside)], noise_of_place(seed, 1, 2, part, 2, unit))


def test_the_noise_is_normal_and_independent():
    part = (slice(0, 7), slice(0, 8), slice(0, 8))
    draws = {key: noise_of_place(*key, part, 1, (4, 2, 2)) for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    for values in draws.values():
        assert kstest(values.ravel(), "norm").pvalue > 0.001
    correlations = np.corrcoef([values.ravel() for values in draws.values()])
    assert abs(correlations - np.eye(4)).max() < 0.05
    units = draws[(0, 0, 0)].reshape(7, 4, 8, 2, 8, 2).transpose(0, 2, 4, 1, 3, 5).reshape(7 * 64, -1)
    assert abs(np.corrcoef(units) - np.eye(len(units))).max() < 0.99  # no two units share a stream
