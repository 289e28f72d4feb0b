# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels of real coverage areas through the pipeline: sites and sectors of a simulated city, then squares."""

import numpy as np
import pytest
from support.tiny import HOURS, LAYERS, context_with_zones, seeded, zoned_pipeline

from zoomdiff_diffusers import ContextProcessor, ZoomDiffPipeline
from zoomdiff_diffusers.data.simulated_context import SECTORS, SITES, simulate_context, simulate_zones


@pytest.fixture(scope="module")
def pipe():
    return zoned_pipeline()


def means_per_unit(values: np.ndarray, labels: np.ndarray, steps: int) -> np.ndarray:
    """(T, H, W) -> (units, T / steps)."""
    blocks = values.astype(np.float64).reshape(-1, steps, *labels.shape).mean(axis=1)
    return np.stack([blocks[:, labels == unit].mean(axis=1) for unit in range(labels.max() + 1)])


@pytest.mark.parametrize("regression", [True, False])
def test_sums_of_sites_sectors_and_squares_are_those_of_the_finest_level(regression):
    pipe = zoned_pipeline(regression)
    contexts = [context_with_zones(seed) for seed in range(2)]  # two areas, each with sites of its own
    levels = pipe(contexts, num_samples_per_context=2, generator=seeded()).levels
    assert [values.shape[2:] for values in levels.values()] == [(2, 16, 24), (12, 16, 24), (24, 8, 12), (48, 16, 24)]
    for place, context in enumerate(contexts):
        for sample in (2 * place, 2 * place + 1):
            finest = levels["grid_1"][sample, 0]
            scale = finest.mean()
            for name, layer, steps in (("bs", SITES, 24), ("cell", SECTORS, 4)):
                labels = context[layer]
                first = [np.argwhere(labels == unit)[0] for unit in range(labels.max() + 1)]
                given = np.stack([levels[name][sample, 0, :, y, x] for y, x in first])
                assert np.allclose(means_per_unit(finest, labels, steps), given, rtol=1e-4, atol=1e-4 * scale)
                assert given.std() > 0.01 * scale  # the units differ
            squares = finest.reshape(24, 2, 8, 2, 12, 2).mean((1, 3, 5))
            assert np.allclose(squares, levels["grid_2"][sample, 0], rtol=1e-4, atol=1e-4 * scale)


def test_totals_of_areas(pipe):
    context = context_with_zones()
    sums = pipe(context, generator=seeded(), units="sum").levels
    site = context[SITES] == context[SITES][3, 5]
    assert sums["bs"][0, 0, 1, 3, 5] == pytest.approx(sums["grid_1"][0, 0, 24:, site].sum(), rel=1e-4)
    assert np.unique(sums["bs"][0, 0, 1][site]).size == 1


def test_a_day_of_every_site_is_refined_and_kept(pipe):
    context = context_with_zones()
    given = pipe(context, generator=seeded(1), units="sum").levels["bs"]
    levels = pipe.refine(given, "bs", context, generator=seeded(2), units="sum").levels
    assert np.array_equal(levels["bs"], given)
    for unit in range(context[SITES].max() + 1):
        site = context[SITES] == unit
        daily = levels["grid_1"][0, 0][:, site].reshape(HOURS // 24, -1).sum(axis=1)
        assert np.allclose(daily, given[0, 0][:, site][:, 0], rtol=1e-4)


def test_a_missing_site_is_filled_in(pipe):
    context = context_with_zones()
    given = pipe(context, generator=seeded(1)).levels["bs"].copy()
    lost = context[SITES] == 2
    given[..., lost] = np.nan
    levels = pipe.refine(given, "bs", context, generator=seeded(2)).levels
    assert np.array_equal(levels["bs"][..., ~lost], given[..., ~lost])
    assert np.isfinite(levels["bs"]).all()
    assert np.ptp(levels["bs"][0, 0][:, lost], axis=-1).max() < 1e-4 * levels["bs"].mean()


def test_traffic_that_differs_within_a_site_is_refused(pipe):
    context = context_with_zones()
    given = pipe(context, generator=seeded(1), num_inference_steps=4).levels["bs"]
    row, column = np.argwhere(context[SITES] == 2)[0]
    for value in (1.01 * given[..., row, column] + 1e-6, np.nan):
        changed = given.copy()
        changed[..., row, column] = value
        with pytest.raises(ValueError, match="must have one value in all cells of a unit of 'site'.* 1 of 1"):
            pipe.refine(changed, "bs", context, generator=seeded(2))


def test_named_axes_say_which_unit_serves_a_cell(pipe):
    context = context_with_zones()
    tree = pipe(context, generator=seeded(), num_inference_steps=4, units="sum", output_type="xarray").levels
    stations = tree["bs"]
    assert stations.attrs["zones"] == SITES and "per site and 24 h" in stations["traffic"].attrs["long_name"]
    assert np.array_equal(stations["zone"], context[SITES]) and "zone" not in tree["grid_2"].coords
    totals = stations["traffic"].isel(sample=0, channel=0).groupby("zone").mean()  # xarray's own grouping
    finest = tree["grid_1"]["traffic"].isel(sample=0, channel=0)
    expected = finest.assign_coords(zone=(("y", "x"), context[SITES])).groupby("zone").sum().resample(time="D").sum()
    np.testing.assert_allclose(totals.transpose("time", "zone"), expected.transpose("time", "zone"), rtol=1e-4)
    assert stations["y"].size == 16 and stations["x"].values[1] - stations["x"].values[0] == 50


def test_it_can_be_saved_and_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = ZoomDiffPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    context = context_with_zones()
    first, second = (model(context, generator=seeded(), num_inference_steps=4).levels for model in (pipe, loaded))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_wrong_zones_are_refused(pipe):
    context = context_with_zones()
    with pytest.raises(ValueError, match="Context 0 has no layer 'sector'"):
        pipe({name: values for name, values in context.items() if name != SECTORS})
    with pytest.raises(ValueError, match="Layer 'site' must be whole numbers from 0 on"):
        pipe(context | {SITES: context[SITES] - 1})
    with pytest.raises(ValueError, match="settings that levels with zones need"):
        zoned_pipeline(regression=False, scheduler={"intensity": "continuous"})
    with pytest.raises(ValueError, match="solver 'ddpm'"):
        zoned_pipeline(scheduler={"solver": "ddpm"})
    with pytest.raises(ValueError, match="layers of zones"):
        parts = {**pipe.components, "context_processor": ContextProcessor(LAYERS)}
        ZoomDiffPipeline(**parts)


def test_simulated_sites_stand_where_people_are_and_have_nested_sectors():
    context = simulate_context(64, 96, seed=5)
    zones = simulate_zones(context, 5)
    assert zones[SITES].shape == (64, 96) and zones[SITES].dtype == np.int32
    count = zones[SITES].max() + 1
    assert 80 <= count <= 96  # one per 64 cells, except those that serve no cell
    for unit in range(zones[SECTORS].max() + 1):
        assert np.unique(zones[SITES][zones[SECTORS] == unit]).size == 1
    people = context["population_over_time"].mean(axis=0)
    sizes = np.bincount(zones[SITES].ravel())
    density = np.bincount(zones[SITES].ravel(), people.ravel()) / sizes
    busy = density > np.median(density)
    assert sizes[busy].mean() < 0.8 * sizes[~busy].mean()
    assert all(np.array_equal(again, zones[name]) for name, again in simulate_zones(context, 5).items())
