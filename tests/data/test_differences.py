# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import shutil

import numpy as np
import pytest
import torch
import xarray as xr
from support.tiny import context_with_zones, interrupted, random_context, tiny_pipeline, zoned_pipeline

from zoomdiff_diffusers import Hierarchy, Level, ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.differences import (
    STATISTICS,
    compare_cities,
    compare_contexts,
    compare_stores,
    summarise_difference,
)
from zoomdiff_diffusers.data.simulated_city import mean_traffic, simulate_context


def as_dataset(layers, **coordinates):
    dims = {2: ("y", "x"), 3: ("kind", "y", "x")}
    return xr.Dataset({name: (dims[values.ndim], values) for name, values in layers.items()}, coordinates)


def tiny_pair(height, width, place):
    """A context, and one with more residents in a place; shops and surface as they were."""
    layers = random_context(1, 24, height, width)
    del layers["population_over_time"]
    before = as_dataset(layers, x=50.0 * np.arange(width) + 25, y=50.0 * np.arange(height) + 25)
    after = before.copy(deep=True)
    after["population"].values[place] += 200.0
    edited = np.zeros((height, width), np.float32)
    edited[place] = 1
    return before, after.assign_coords(edited=(("y", "x"), edited))


def samples_of(pipe, context, seed, count, **options):
    generator = torch.Generator().manual_seed(seed)
    options |= {"num_samples_per_context": count, "generator": generator, "output_type": "xarray"}
    return pipe(context, **options).levels


def assert_statistics(found, first, second, units):
    """Those of xarray, from the samples of both."""
    scale = float(first.mean())
    for prefix, over in (("", None), ("period_", "time")):
        before, after = (getattr(traffic.astype("f8"), units)("time") if over else traffic.astype("f8")
                         for traffic in (first, second))  # fmt: skip
        difference = after - before
        expected = {
            "before": before.mean("sample"),
            "after": after.mean("sample"),
            "difference": difference.mean("sample"),
            "spread": difference.std("sample", ddof=1),
            "rising": (difference > 1e-4 * before).mean("sample"),
        }
        for name in STATISTICS:
            xr.testing.assert_allclose(
                found[prefix + name].drop_attrs(), expected[name].drop_attrs(), rtol=1e-4, atol=1e-6 * scale
            )


def test_statistics_and_totals_are_those_of_the_samples():
    pipe = tiny_pipeline(channels=2)
    before, after = tiny_pair(8, 16, np.s_[1:4, 3:9])
    options = {"start": "2026-03-03", "num_hours": 48, "num_inference_steps": 8, "units": "sum"}
    found = compare_contexts(pipe, before, after, num_samples=5, seed=3, **options)
    first, second = (samples_of(pipe, context, 3, 5, **options) for context in (before, after))
    for name in pipe.hierarchy.names:
        assert_statistics(found[name], first[name]["traffic"], second[name]["traffic"], "sum")
        assert found[name]["difference"].attrs["units"] == first[name]["traffic"].attrs["units"]
        assert list(found[name]["unit"].values) == ["MB", "1"]
        # All levels add up, so they have one total.
        total = second[name]["traffic"].sum(("time", "y", "x"), dtype="f8")
        np.testing.assert_allclose(found["total_after"], total, rtol=1e-5)
    inside = first["grid_50m"]["traffic"][..., 1:4, 3:9].sum(("time", "y", "x"), dtype="f8")
    np.testing.assert_allclose(found["edited_before"], inside, rtol=1e-5)
    assert list(found.attrs["levels"]) == pipe.hierarchy.names
    assert summarise_difference(found)["unit"] == "MB"


def test_without_a_change_nothing_differs_at_all():
    before, _ = tiny_pair(8, 16, np.s_[0:1, 0:1])
    found = compare_contexts(tiny_pipeline(), before, before.copy(deep=True), num_hours=24, num_samples=2)
    for level in found.children.values():
        assert (level["before"] > 0).any()
        for name in ("difference", "spread", "rising", "period_difference", "period_spread"):
            assert not level[name].any()


def test_a_change_ends_where_the_network_cannot_reach():
    pipe = tiny_pipeline(regression=True)
    reach = sum(pipe.unet.reach(stage)[2] for stage in range(4))  # with one call per stage, in base stations
    before, after = tiny_pair(8, 8 * (reach + 3), np.s_[2:6, 0:8])
    found = compare_contexts(pipe, before, after, num_hours=24, num_samples=2, num_inference_steps=[1, 1, 1, 1])
    for name, level in zip(pipe.hierarchy.names, pipe.hierarchy.levels):
        difference = np.abs(found[name]["difference"].values)
        units = 8 // level.spatial_factor
        traffic = found[name]["before"].values[..., (reach + 1) * units :]
        assert traffic.max() > 0 and difference[..., (reach + 1) * units :].max() <= 1e-5 * traffic.max()
        assert difference[..., : 2 * units].max() > 1e-3 * traffic.max()


@pytest.fixture(scope="module")
def bundled():
    pipe = ZoomDiffPipeline.from_pretrained(bundled_model("simulated-city"))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_twice_the_homes_bring_what_the_law_says_and_pairs_differ_less_than_strangers(bundled):
    layers = simulate_context(16, 32, seed=2)
    del layers["population_over_time"]
    context = as_dataset(layers, y=50.0 * np.arange(16) + 25, x=50.0 * np.arange(32) + 25)
    place = np.s_[4:8, 4:8]
    plan = context.copy(deep=True)
    edited = np.zeros((16, 32), np.float32)
    edited[place] = 1
    plan = plan.assign_coords(edited=(("y", "x"), edited))
    for name in ("population", "building_volume"):
        plan[name].values[place] *= 2
    options = {"num_hours": 24, "num_inference_steps": 12}
    found = compare_contexts(bundled, context, plan, num_samples=5, **options)
    change = found["edited_after"] - found["edited_before"]
    before, after = (mean_traffic({name: layer.values for name, layer in context.items()}, hours=24)[:, *place].sum()
                     for context in (context, plan))  # fmt: skip
    assert (change > 0).all() and float(change.mean()) == pytest.approx(after - before, rel=0.2)
    assert found["grid_50m"]["period_rising"][0, *place].mean() > 0.9
    far = found["grid_50m"].to_dataset().isel(x=slice(24, None))
    near = found["grid_50m"].to_dataset().isel(y=slice(4, 8), x=slice(4, 8))
    share_far, share_near = (
        float(np.abs(level["period_difference"]).sum() / level["period_before"].sum()) for level in (far, near)
    )
    assert share_far < 0.05 * share_near
    strangers = samples_of(bundled, plan, 1, 5, **options)["grid_50m"]["traffic"].sum(("time", "y", "x"), dtype="f8")
    paired = (found["total_after"] - found["total_before"]).values.std(ddof=1)
    independent = (strangers.values - found["total_before"].values).std(ddof=1)
    assert paired < 0.5 * independent


def read(path):
    with xr.open_datatree(path, engine="zarr", consolidated=False) as tree:
        return tree.load()


CITY = {"num_hours": 48, "num_inference_steps": 4, "window": (1, 2, 2)}


def test_a_city_is_compared_chunk_by_chunk_and_after_an_interruption_only_what_is_left(tmp_path):
    pipe, kept = tiny_pipeline(), tmp_path / "kept"
    before, after = tiny_pair(16, 24, np.s_[3:9, 10:21])
    generate_city, calls = pipe.generate_city, []

    def interrupted(context, output, *arguments, **keywords):
        calls.append(output.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        generate_city(context, output, *arguments, **keywords)
        shutil.copytree(output, kept / output.name)
        return output

    object.__setattr__(pipe, "generate_city", interrupted)
    output = tmp_path / "difference.zarr"
    with pytest.raises(KeyboardInterrupt):
        compare_cities(pipe, before, after, output, num_samples=2, seed=5, units="mean", **CITY)
    assert not output.exists()
    with pytest.raises(ValueError, match="unfinished run with other contexts"):
        compare_cities(pipe, before, before, output, num_samples=2, seed=5, units="mean", **CITY)
    compare_cities(pipe, before, after, output, num_samples=2, seed=5, units="mean", **CITY)
    assert calls == ["before.zarr", "after.zarr", "after.zarr"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["difference.zarr", "kept"]
    found, first, second = read(output), read(kept / "before.zarr"), read(kept / "after.zarr")
    for name in pipe.hierarchy.names:
        assert_statistics(found[name], first[name]["traffic"], second[name]["traffic"], "mean")
        np.testing.assert_array_equal(found[name]["x"], first[name]["x"])
    totals = second["grid_50m"]["traffic"].sum(("time", "y", "x"), dtype="f8")
    np.testing.assert_allclose(found["total_after"], totals, rtol=1e-6)
    inside = second["grid_50m"]["traffic"][..., 3:9, 10:21].sum(("time", "y", "x"), dtype="f8")
    np.testing.assert_allclose(found["edited_after"], inside, rtol=1e-6)
    assert found["total_before"].dims == ("sample", "channel") and list(found.attrs["levels"]) == pipe.hierarchy.names


@pytest.mark.parametrize("units", ["mean", "sum"])
def test_totals_where_the_finest_level_has_zones(units, tmp_path):
    pipe = zoned_pipeline(levels=[Level("bs", 8, 24, "site"), Level("cell", 4, 1, "sector")])
    before, after = tiny_pair(16, 16, np.s_[3:9, 2:7])
    zones = context_with_zones(height=16, width=16)
    zones = {name: (("y", "x"), zones[name]) for name in ("site", "sector")}
    moved = zones["sector"][1].copy()
    moved[moved == moved[0, 0]] = moved[-1, -1]  # a plan that takes a sector away
    before, after = before.assign(zones), after.assign(zones | {"sector": (("y", "x"), moved)})
    options = {"num_hours": 48, "num_inference_steps": 4, "units": units}
    in_memory = compare_contexts(pipe, before, after, num_samples=2, **options)
    samples = [samples_of(pipe, context, 0, 2, **options) for context in (before, after)]
    stores = [tmp_path / "before.zarr", tmp_path / "after.zarr"]
    for context, store in zip((before, after), stores):
        pipe.generate_city(context, store, num_samples=2, window=(1, 1, 1), **options)
    on_disk = read(compare_stores(*stores, tmp_path / "difference.zarr", after["edited"].values))
    for difference, sources in ((in_memory, samples), (on_disk, map(read, stores))):
        for name, source, sector in zip(("before", "after"), sources, (zones["sector"][1], moved)):
            traffic = source["cell"]["traffic"].values.astype(np.float64).sum(axis=2)
            total, inside = 0.0, 0.0
            for unit in np.unique(sector):
                cells = sector == unit
                of_zone = traffic[..., cells][..., 0] * (cells.sum() if units == "mean" else 1)
                total, inside = total + of_zone, inside + of_zone * after["edited"].values[cells].mean()
            np.testing.assert_allclose(difference[f"total_{name}"], total, rtol=1e-5)
            np.testing.assert_allclose(difference[f"edited_{name}"], inside, rtol=1e-5)


@pytest.mark.parametrize("units", ["mean", "sum"])
def test_totals_where_the_finest_level_has_several_cells(units):
    pipe = tiny_pipeline(hierarchy=Hierarchy([Level("bs", 8, 24), Level("cell", 4, 4), Level("grid", 2, 1)]))
    before, after = (context.drop_vars(["y", "x"]) for context in tiny_pair(8, 16, np.s_[1:4, 3:9]))
    options = {"num_hours": 24, "num_inference_steps": 6, "units": units}
    found = compare_contexts(pipe, before, after, num_samples=2, **options)
    for name, context in (("before", before), ("after", after)):
        traffic = samples_of(pipe, context, 0, 2, **options)["grid"]["traffic"].values.astype(np.float64)
        # Every cell has the mean of its unit, or its part of the sum.
        cells = traffic.sum(axis=2).repeat(2, axis=-2).repeat(2, axis=-1) / (4 if units == "sum" else 1)
        np.testing.assert_allclose(found[f"total_{name}"], cells.sum(axis=(-2, -1)), rtol=1e-5)
        np.testing.assert_allclose(found[f"edited_{name}"], cells[..., 1:4, 3:9].sum(axis=(-2, -1)), rtol=1e-5)


def test_an_unfinished_run_of_the_same_name_is_kept(tmp_path):
    before, after = tiny_pair(8, 16, np.s_[1:4, 3:9])
    pipe, options = tiny_pipeline(), {"num_hours": 24, "num_inference_steps": 8}
    stores = [
        pipe.generate_city(context, tmp_path / f"{name}.zarr", **options)
        for name, context in (("before", before), ("after", after))
    ]
    with interrupted(pipe, calls=5):
        pipe.generate_city(before, tmp_path / "city.zarr", **options)
    (unfinished,) = set(tmp_path.iterdir()) - set(stores)
    files = sorted(unfinished.rglob("*"))
    compare_stores(*stores, tmp_path / "city.zarr")
    assert files and sorted(unfinished.rglob("*")) == files
    assert set(tmp_path.iterdir()) == {*stores, unfinished, tmp_path / "city.zarr"}


def test_what_is_no_pair_is_refused(tmp_path):
    pipe = tiny_pipeline()
    before, after = tiny_pair(8, 16, np.s_[1:4, 3:9])
    for other, message in (
        (after.drop_vars("population"), r"only one has \['population'\]"),
        (after.isel(x=slice(0, 8)), "must cover the same cells and hours"),
        (after.assign_coords(x=after["x"] + 50), "must have the same coordinate 'x'"),
        ({"population": 1}, "`after` must be an xarray.Dataset, but is a dict"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_contexts(pipe, before, other)
        with pytest.raises(ValueError, match=message):
            compare_cities(pipe, before, other, tmp_path / "d.zarr")
    with pytest.raises(ValueError, match="must end in .zarr and not exist yet"):
        compare_cities(pipe, before, after, tmp_path / "d.nc")
    options = {"num_hours": 24, "num_inference_steps": 4}
    one = pipe.generate_city(before, tmp_path / "one.zarr", seed=1, **options)
    two = pipe.generate_city(after, tmp_path / "two.zarr", seed=2, **options)
    long = pipe.generate_city(after, tmp_path / "long.zarr", seed=1, num_samples=2, **options)
    with pytest.raises(ValueError, match=r"must be of one seed.*\[1, 2\]"):
        compare_stores(one, two, tmp_path / "d.zarr")
    with pytest.raises(ValueError, match="must have the same samples, time, cells and units at level 'bs'"):
        compare_stores(one, long, tmp_path / "d.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.zarr", "one.zarr", "two.zarr"]


def test_one_pair_has_no_spread(tmp_path):
    before, after = tiny_pair(8, 8, np.s_[1:4, 3:6])
    found = compare_contexts(tiny_pipeline(), before, after, num_hours=24, num_samples=1, num_inference_steps=4)
    assert found["bs"]["spread"].isnull().all() and found["bs"]["difference"].notnull().all()
