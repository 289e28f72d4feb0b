# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Measured totals of base stations' areas, with gaps and for a part of the city, refined to every level."""

import numpy as np
import pytest
import torch
import xarray
from contracts.pipeline import assert_consistent
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import context_with_zones, random_context, tiny_pipeline, zoned_pipeline

from zoomdiff_diffusers import Hierarchy, Level
from zoomdiff_diffusers.data.simulated_context import SITES
from zoomdiff_diffusers.pipelines.zoomdiff.measurements import MeasuredZones


HOURS, HEIGHT, WIDTH = 48, 24, 40
FEW = {"num_inference_steps": 8, "seed": 3, "start": "2026-03-07"}


def city(with_zones=False):
    context = context_with_zones(6, HOURS, HEIGHT, WIDTH)
    axes = {"poi": ("poi_channel", "y", "x"), "population_over_time": ("hour", "y", "x")}
    layers = {
        name: (axes.get(name, ("y", "x")), values)
        for name, values in context.items()
        if with_zones or name not in ("site", "sector")
    }
    return xarray.Dataset(layers)


def measured(steps=HOURS):
    """Totals of the sites in the west, with gaps: a site without any, one without a day, and single hours."""
    labels = context_with_zones(6, HOURS, HEIGHT, WIDTH)[SITES].astype(np.int64)
    labels[:, WIDTH * 3 // 4 :] = -1
    labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) - 1
    random = np.random.default_rng(0)
    traffic = random.gamma(1.0, 4000.0, (1, steps, labels.max() + 1)) * (random.random((1, steps, 1)) > 0.1)
    traffic[..., 2] = np.nan
    traffic[:, : steps // 2, 4] = np.nan
    traffic[random.random(traffic.shape) < 0.05] = np.nan
    return traffic, labels


def read(path):
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        return {name: tree[name]["traffic"].values for name in tree.attrs["levels"]}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline(gain=0.2, regression=True, layers_per_block=[1, 0])


def assert_met(finest, traffic, labels, steps=1):
    """The known totals are those of the finest level, (T, H, W) sums."""
    found = np.stack([finest[:, labels == area].sum(axis=1) for area in range(labels.max() + 1)], axis=-1)
    found = found.reshape(-1, steps, found.shape[-1]).sum(axis=1)
    known = ~np.isnan(traffic[0])
    assert known.any() and not known.all()
    np.testing.assert_allclose(found[known], traffic[0][known], rtol=1e-4)


def test_known_totals_are_met_and_levels_agree(pipe, tmp_path):
    traffic, labels = measured()
    levels = read(pipe.refine_city(traffic, labels, city(), tmp_path / "city.zarr", units="sum", **FEW))
    assert levels["grid_50m"].shape == (1, 1, HOURS, HEIGHT, WIDTH)
    assert_consistent(levels, pipe.hierarchy, reduction="sum")
    assert_met(levels["grid_50m"][0, 0].astype(np.float64), traffic, labels)


def test_where_nothing_is_measured_it_is_what_would_be_generated(pipe, tmp_path):
    traffic, labels = measured()
    everything_unknown = np.full_like(traffic, np.nan)
    generated = read(pipe.generate_city(city(), tmp_path / "generated.zarr", **FEW))
    refined = read(pipe.refine_city(everything_unknown, labels, city(), tmp_path / "unknown.zarr", **FEW))
    for name, values in generated.items():
        np.testing.assert_allclose(refined[name], values, rtol=1e-4, atol=1e-5 * values.mean())


def test_what_is_measured_reaches_beyond_its_area_and_no_further(pipe, tmp_path):
    traffic, labels = measured()
    plain = read(pipe.refine_city(traffic, labels, city(), tmp_path / "plain.zarr", **FEW))["grid_50m"][0, 0]
    more = read(pipe.refine_city(traffic * 10, labels, city(), tmp_path / "more.zarr", **FEW))["grid_50m"][0, 0]
    west = labels >= 0
    known = labels == 3
    assert more[:, known].mean() > 9 * plain[:, known].mean()
    assert not np.allclose(more[:, ~west], plain[:, ~west], rtol=1e-3)  # the neighbours are the network's context


def test_windows_change_nothing(pipe, tmp_path):
    traffic, labels = measured()
    whole = read(pipe.refine_city(traffic, labels, city(), tmp_path / "whole.zarr", **FEW))
    parts = read(pipe.refine_city(traffic, labels, city(), tmp_path / "parts.zarr", window=(1, 1, 2), **FEW))
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-3, atol=2e-4 * values.mean())
        assert abs(parts[name] - values).mean() < 1e-5 * values.mean()


def test_values_of_six_hours_and_a_model_with_areas_of_its_own(tmp_path):
    pipe = zoned_pipeline(layers_per_block=[1, 0])

    traffic, labels = measured(HOURS // 4)
    options = {"hours_per_value": 4, "units": "sum", **FEW}
    levels = read(pipe.refine_city(traffic, labels, city(with_zones=True), tmp_path / "city.zarr", **options))
    finest = levels["grid_1"][0, 0].astype(np.float64)
    assert_met(finest, traffic, labels, steps=4)
    squares = finest.reshape(HOURS // 2, 2, HEIGHT // 2, 2, WIDTH // 2, 2).sum((1, 3, 5))
    np.testing.assert_allclose(levels["grid_2"][0, 0], squares, rtol=1e-4, atol=1e-4 * squares.mean())


def test_areas_across_the_borders_of_zones_change_nothing_with_windows(tmp_path):
    pipe = zoned_pipeline(levels=[Level("a", 8, 24, SITES), Level("cells", 1, 1)], layers_per_block=[1, 0])
    columns = np.arange(96)
    layers = random_context(6, 24, 8, len(columns)) | {SITES: np.tile(columns // 16, (8, 1))}
    axes = {"poi": ("poi_channel", "y", "x"), "population_over_time": ("hour", "y", "x")}
    context = xarray.Dataset({name: (axes.get(name, ("y", "x")), values) for name, values in layers.items()})
    labels = np.tile((columns + 8) // 16, (8, 1))
    traffic = np.random.default_rng(0).gamma(1.0, 4000.0, (1, 24, labels.max() + 1))
    traffic[:, 5, 2] = np.nan
    whole = read(pipe.refine_city(traffic, labels, context, tmp_path / "whole.zarr", **FEW))
    parts = read(pipe.refine_city(traffic, labels, context, tmp_path / "parts.zarr", window=(1, 1, 1), **FEW))
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-3, atol=2e-4 * values.mean())
    finest = parts["cells"][0, 0].astype(np.float64)
    assert_met(finest, traffic, labels)
    for unit in range(6):
        site = layers[SITES] == unit
        np.testing.assert_allclose(parts["a"][0, 0, 0, site], finest[:, site].mean(), rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), level=st.integers(0, 3), factor=st.sampled_from([1, 2, 4, 12, 24]))
def test_combining_keeps_what_is_generated_where_nothing_is_known(seed, level, factor):
    random = np.random.default_rng(seed)
    hierarchy = Hierarchy()
    labels = random.integers(-1, 3, (8, 16)).repeat(2, 0).repeat(2, 1)
    traffic = random.gamma(0.5, 10, (1, 48 // factor, 3))
    traffic[random.random(traffic.shape) < 0.4] = np.nan
    zones = MeasuredZones(traffic, labels, factor, hierarchy)
    shape = hierarchy.shapes(48, 16, 32)[level]
    field = torch.from_numpy(random.gamma(0.5, 10, (1, 1, *shape)) * (random.random((1, 1, *shape)) > 0.3))
    result = zones.combine(field, level, (slice(0, 48), slice(0, 16), slice(0, 32)))
    assert result.shape == field.shape and (result >= 0).all() and result.isfinite().all()
    if level == 3:
        for area in range(3):
            cells = labels == area
            for step in range(48 // factor):
                time = slice(step * factor, (step + 1) * factor)
                before, after = (values[0, 0, time].numpy()[:, cells].sum() for values in (field, result))
                value = traffic[0, step, area]
                assert after == pytest.approx(before if np.isnan(value) else value, rel=1e-6, abs=1e-9)
        outside = labels == -1
        assert np.array_equal(result.numpy()[..., outside], field.numpy()[..., outside])


def test_what_does_not_fit_is_refused(pipe, tmp_path):
    traffic, labels = measured()
    for changed, zones, options, message in (
        (traffic[..., 0], labels, {}, r"`traffic` must have the shape \(1, T, Z\)"),
        (-traffic, labels, {}, "not negative"),
        (traffic[..., :2], labels, {}, "`zones` must be whole numbers"),
        (traffic, labels.T, {}, "must have the shape .24, 40. of the context"),
        (traffic, labels, {"hours_per_value": 0.5}, "`hours_per_value`"),
        (traffic, labels, {"num_samples": 0}, "`num_samples` must be a positive integer, but is 0"),
        (traffic[:, :3], labels, {"hours_per_value": 16}, "must divide those of every level"),
        (traffic[:, :1], labels, {"hours_per_value": 48}, "not longer than those of the first"),
        (np.concatenate([traffic, traffic[..., :1] + 1], axis=-1), labels, {}, "1 areas have traffic but no cell"),
        (traffic[:, :25], labels, {}, "`time` must be a multiple of 24"),
    ):
        with pytest.raises(ValueError, match=message):
            pipe.refine_city(changed, zones, city(), tmp_path / "refused.zarr", **options)
    assert not list(tmp_path.iterdir())
