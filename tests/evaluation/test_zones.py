# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels whose units are coverage areas: every score by independent sums over the areas, and a report end to end."""

import base64
import io
import json
import re

import numpy as np
import pytest
import scoringrules
import xarray as xr
from matplotlib.image import imread
from support.tiny import context_with_zones, seeded, zoned_pipeline
from support.traffic_files import write_mask
from typer.testing import CliRunner

from zoomdiff_diffusers.commands import app
from zoomdiff_diffusers.data.stores import levels_to_datatree, write_netcdf
from zoomdiff_diffusers.evaluation import StreamingScores, cross_level_error, rv_coefficient
from zoomdiff_diffusers.evaluation.aoi_types import decompose
from zoomdiff_diffusers.evaluation.evaluate import evaluate
from zoomdiff_diffusers.evaluation.inputs import match_truth, read_traffic
from zoomdiff_diffusers.evaluation.plots import plot_zoom
from zoomdiff_diffusers.hierarchy import Hierarchy, Level


HOURS, HEIGHT, WIDTH = 72, 10, 14
HIERARCHY = Hierarchy(
    [Level("bs", 4, 24, "site"), Level("cell", 2, 4, "sector"), Level("square", 2, 2), Level("grid", 1, 1)]
)
ACROSS = Hierarchy([Level("bs", 4, 24, "other"), Level("cell", 2, 4, "sector")])


def some_zones(seed=0):
    """Twelve sectors nested in four sites, and other areas across them, of any form."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    places = random.uniform(0, [HEIGHT, WIDTH], (12, 2))
    sector = np.hypot(rows[..., None] - places[:, 0], columns[..., None] - places[:, 1]).argmin(axis=-1)
    return {"sector": sector, "site": sector // 3, "other": random.integers(3, size=(HEIGHT, WIDTH))}


ZONES = some_zones()


def finest(samples, seed):
    random = np.random.default_rng(seed)
    rhythm = 1.5 + np.cos(2 * np.pi * np.arange(HOURS) / 24)[:, None, None]
    busy = 1 + 9 * random.random((HEIGHT, WIDTH))
    return (rhythm * busy * random.gamma(2.0, 1.0, (samples, 1, HOURS, HEIGHT, WIDTH))).astype(np.float32)


def by_unit(values, level, reduction):
    """(..., T, H, W) -> the level's array, a unit at a time."""
    steps = level.temporal_factor
    days = values.astype(np.float64).reshape(*values.shape[:-3], -1, steps, HEIGHT, WIDTH)
    if not level.zones:
        side = level.spatial_factor
        blocks = days.reshape(*days.shape[:-2], HEIGHT // side, side, WIDTH // side, side)
        return getattr(blocks, reduction)(axis=(-5, -3, -1))
    result = np.empty(days.shape[:-3] + (HEIGHT, WIDTH))
    for unit in np.unique(ZONES[level.zones]):
        here = ZONES[level.zones] == unit
        result[..., here] = getattr(days[..., here], reduction)(axis=(-2, -1))[..., None]
    return result


def levels_of(values, hierarchy=HIERARCHY, reduction="mean"):
    return {level.name: by_unit(values, level, reduction) for level in hierarchy.levels}


def write(path, levels, hierarchy=HIERARCHY, units="mean", zones=ZONES):
    arguments = {"start": "2026-03-04", "channels": ["traffic"], "unit": "MB", "units": units, "zones": zones}
    levels = {name: values.astype(np.float32) for name, values in levels.items()}
    write_netcdf(levels_to_datatree(levels, hierarchy, **arguments), path)
    return path


# --------------------------------------------------------------------------------------------------- cross-level error


@pytest.mark.parametrize("units, reduction", [("mean", "mean"), ("sum", "sum")])
def test_sums_of_areas_are_met_by_the_finest_level(units, reduction):
    levels = levels_of(finest(2, seed=1).astype(np.float64), reduction=reduction)
    errors = cross_level_error(levels, HIERARCHY, units, ZONES)
    assert list(errors) == ["bs", "cell", "square"] and max(errors.values()) < 1e-12
    levels["grid"] = levels["grid"].copy()
    levels["grid"][1, 0, 9, 7, 3] += 0.5
    for name, (step, row, column) in {"bs": (0, 7, 3), "cell": (2, 7, 3), "square": (4, 3, 1)}.items():
        level = HIERARCHY.levels[HIERARCHY.index(name)]
        cells = (ZONES[level.zones] == ZONES[level.zones][7, 3]).sum() if level.zones else 4
        share = 0.5 / (1 if units == "sum" else cells * level.temporal_factor)
        expected = share / levels[name][1, 0, step, row, column]
        error = cross_level_error(levels, HIERARCHY, units, ZONES)[name]
        assert error == pytest.approx(expected, rel=1e-9)
    one_channel = {name: values[:, 0] for name, values in levels.items()}  # as an evaluation has it
    assert cross_level_error(one_channel, HIERARCHY, units, ZONES) == cross_level_error(
        levels, HIERARCHY, units, ZONES
    )


def test_areas_of_several_places():
    mirrored = {name: labels[::-1] for name, labels in ZONES.items()}
    values = finest(2, seed=1).astype(np.float64)
    places = [levels_of(values[:1]), levels_of(values[1:, ..., ::-1, :])]
    levels = {
        "bs": np.concatenate([places[0]["bs"], places[1]["bs"][..., ::-1, :]]),
        "grid": values,
    }
    zones = {name: np.stack([ZONES[name], mirrored[name]]) for name in ZONES}
    assert cross_level_error(levels, HIERARCHY, zones=zones)["bs"] < 1e-12
    assert cross_level_error(levels, HIERARCHY, zones=ZONES)["bs"] > 0.01


def test_levels_that_the_finest_does_not_tell_are_left_out():
    values = finest(2, seed=1)
    levels = levels_of(values)
    assert cross_level_error({"cell": levels["cell"], "square": levels["square"]}, HIERARCHY, zones=ZONES) == {}
    nested = {"bs": levels["bs"], "cell": levels["cell"]}
    assert cross_level_error(nested, HIERARCHY, zones=ZONES)["bs"] < 1e-12
    assert cross_level_error(levels_of(values, ACROSS), ACROSS, zones=ZONES) == {}
    hierarchy = Hierarchy([*ACROSS.levels, Level("grid", 1, 1)])
    assert max(cross_level_error(levels_of(values, hierarchy), hierarchy, zones=ZONES).values()) < 1e-12
    squares = {name: levels[name] for name in ("square", "grid")}
    assert list(cross_level_error(squares, HIERARCHY)) == ["grid"]  # among squares, the level above
    with pytest.raises(ValueError, match="`zones` must have the layer 'site', which says where the units of 'bs'"):
        cross_level_error(nested, HIERARCHY, zones={"sector": ZONES["sector"]})


# --------------------------------------------------------------------------------------------------------------- files


def test_files_of_sums_become_means(tmp_path):
    sums = levels_of(finest(2, seed=1), reduction="sum")
    stored = read_traffic(write(tmp_path / "a.nc", sums, units="sum"))
    assert stored.hierarchy.levels == HIERARCHY.levels
    assert set(stored.zones) == {"site", "sector"} and np.array_equal(stored.zones["site"], ZONES["site"])
    for name, values in levels_of(finest(2, seed=1)).items():
        np.testing.assert_allclose(stored.levels[name], values, rtol=1e-5)


def test_truth_of_cells_becomes_that_of_areas_as_xarray_has_it(tmp_path):
    numbers = {name: 7 * labels + 3 for name, labels in ZONES.items()}  # gaps do not matter
    generated = read_traffic(write(tmp_path / "a.nc", levels_of(finest(2, seed=1)), zones=numbers))
    measured = {"grid": finest(1, seed=2)}
    valid = np.ones((HOURS, HEIGHT, WIDTH), dtype=bool)
    valid[30, 7, 3] = False
    only = read_traffic(write(tmp_path / "b.nc", measured))
    truth, matched = match_truth(only, generated, valid)
    assert list(truth.levels) == list(matched.levels) == HIERARCHY.names
    assert truth.zones.keys() == matched.zones.keys() == {"site", "sector"}
    cells = xr.DataArray(measured["grid"][0, 0], dims=("time", "y", "x"))
    cells = cells.assign_coords(zone=(("y", "x"), ZONES["site"]))
    expected = cells.coarsen(time=24).mean().groupby("zone").mean()
    for unit in range(4):
        here = ZONES["site"] == unit
        found = truth.levels["bs"][0, 0][:, here]
        lost = unit == ZONES["site"][7, 3]
        assert np.isnan(found[1]).all() == lost == np.isnan(found).any()
        np.testing.assert_allclose(found[0], expected.sel(zone=unit)[0], rtol=1e-5)
    sector = ZONES["sector"] == ZONES["sector"][7, 3]
    assert np.array_equal(np.isnan(truth.levels["cell"][0, 0, 7]), sector)
    assert np.isnan(truth.levels["square"]).sum() == np.isnan(truth.levels["grid"]).sum() == 1


def test_truth_of_sectors_tells_sites_but_not_areas_across(tmp_path):
    truth = levels_of(finest(1, seed=2))
    only = read_traffic(write(tmp_path / "truth.nc", {"cell": truth["cell"]}))
    generated = read_traffic(write(tmp_path / "a.nc", levels_of(finest(2, seed=1))))
    matched, _ = match_truth(only, generated)
    np.testing.assert_allclose(matched.levels["bs"], truth["bs"], rtol=1e-5)
    across = read_traffic(write(tmp_path / "b.nc", levels_of(finest(2, seed=1), ACROSS), ACROSS))
    matched, generated = match_truth(only, across)
    assert np.isnan(matched.levels["bs"]).all() and np.isfinite(matched.levels["cell"]).all()
    result = evaluate(generated.levels, {"bs": matched.levels["bs"][0], "cell": matched.levels["cell"][0]}, ACROSS,
                      zones=generated.zones)["channels"]["traffic"]  # fmt: skip
    assert result["levels"]["bs"] is None and "cross_level_error" not in result["levels"]["cell"]
    assert list(result["decomposition"]["all"]) == ["by sector"]  # which do not tell the other areas


def test_other_zones_are_refused(tmp_path):
    levels = levels_of(finest(1, seed=1))
    generated = read_traffic(write(tmp_path / "a.nc", levels))
    moved = {**ZONES, "site": np.where(ZONES["site"] == 2, 1, ZONES["site"])}
    moved["site"][0, 0] = 2
    truth = read_traffic(write(tmp_path / "b.nc", levels, zones=moved))
    with pytest.raises(
        ValueError, match=rf"The zones 'site' .* must be the same, but differ at \d+ of {10 * 14} cells"
    ):
        match_truth(truth, generated)
    squares = Hierarchy([Level("cell", 2, 4), Level("grid", 1, 1)])
    truth = read_traffic(write(tmp_path / "c.nc", levels_of(finest(1, seed=1), squares), squares))
    with pytest.raises(ValueError, match="Level 'cell': the units of .*c.nc are squares, those of .*a.nc by sector"):
        match_truth(truth, generated)
    small = {"grid": levels["grid"][..., :8, :]}
    with pytest.raises(ValueError, match=r"\(8, 14\) finest cells \(y, x\), but .* has \(10, 14\)"):
        match_truth(read_traffic(write(tmp_path / "d.nc", small)), generated)
    with pytest.raises(ValueError, match="'bs' in .* has the units 'site', but lacks the coordinate `zone`"):
        read_traffic(write(tmp_path / "e.nc", levels, zones=None))
    with pytest.raises(ValueError, match="must cover the same finest cells"):
        read_traffic(write(tmp_path / "g.nc", {"square": levels["square"][..., :3, :], "grid": levels["grid"]}))


# -------------------------------------------------------------------------------------------------------------- scores


@pytest.fixture(scope="module")
def types():
    return (np.arange(WIDTH) >= 9) * np.ones((HEIGHT, 1), dtype=int)


@pytest.fixture(scope="module")
def result(types):
    truth = {name: values[0] for name, values in levels_of(finest(1, seed=2)).items()}
    return evaluate(levels_of(finest(3, seed=1)), truth, HIERARCHY, area_types=types, zones=ZONES)


def first_cells(layer):
    return np.array([np.argwhere(ZONES[layer] == unit)[0] for unit in np.unique(ZONES[layer])]).T


@pytest.mark.parametrize("name", ["bs", "cell"])
def test_an_area_counts_by_its_size(result, name):
    layer = HIERARCHY.levels[HIERARCHY.index(name)].zones
    cells, sizes = first_cells(layer), np.bincount(ZONES[layer].ravel())
    samples, truth = (levels_of(finest(count, seed))[name][..., *cells] for count, seed in ((3, 1), (1, 2)))
    unit = finest(1, seed=2).mean(dtype=np.float64)
    crps = scoringrules.crps_ensemble(truth[0, 0], np.moveaxis(samples[:, 0], 0, -1), estimator="fair")
    scores = result["channels"]["traffic"]["levels"][name]
    assert scores["crps"] == pytest.approx(np.average(crps.mean(axis=0), weights=sizes) / unit, rel=1e-6)
    error = np.abs(samples.mean(axis=0) - truth[0])[0].mean(axis=0)
    assert scores["mae_of_mean"] == pytest.approx(np.average(error, weights=sizes) / unit, rel=1e-6)
    # So the ratio of the means stays that of all traffic, at every level.
    total = finest(3, seed=1).mean(dtype=np.float64) / unit
    assert scores["mean_ratio"] == pytest.approx(total, rel=1e-5)
    assert scores["cross_level_error"] < 1e-5
    assert result["resolutions"][name]["zones"] == layer and "zones" not in result["resolutions"]["square"]
    assert "cross_level_error" not in result["channels"]["traffic"]["levels"]["grid"]


def test_near_areas_are_as_far_apart_as_a_typical_one_is_wide(result):
    samples, truth = levels_of(finest(3, seed=1))["bs"], levels_of(finest(1, seed=2))["bs"]
    scores = StreamingScores(24.0, finest(1, seed=2).mean(dtype=np.float64), unit_side=4)
    scores.update(samples[:, :, None], truth)
    expected = scores.compute()["spatial_correlation_error"]
    found = result["channels"]["traffic"]["levels"]["bs"]["spatial_correlation_error"]
    assert found == pytest.approx(expected, rel=1e-6)

    def correlation(field):  # Moran's I at the distances 4, 8 and 12 cells; there is no pair at 16
        centred, curve = field - field.mean(), []
        for distance in (4, 8, 12):
            pairs = [
                (centred[row, column], centred[other])
                for row, column in np.ndindex(HEIGHT, WIDTH)
                for other in ((row + distance, column), (row, column + distance))
                if other[0] < HEIGHT and other[1] < WIDTH
            ]
            products = np.prod(pairs, axis=1)
            curve.append(products.mean() / (centred**2).mean())
        return np.array(curve)

    curves = [
        np.mean([correlation(field) for field in of], axis=0) for of in (samples.reshape(-1, 10, 14), truth[0, 0])
    ]
    assert found == pytest.approx(np.abs(curves[0] - curves[1]).mean(), rel=1e-6)


def test_rv_weights_areas_by_their_size(result, types):
    truth = levels_of(finest(1, seed=2))
    rv = result["channels"]["traffic"]["rv"]
    sites, sectors = first_cells("site"), first_cells("sector")
    root = [np.sqrt(np.bincount(ZONES[layer].ravel())) for layer in ("site", "sector")]
    daily = truth["bs"][0, 0][:, *sites] * root[0]
    every_4_h = truth["cell"][0, 0][:, *sectors] * root[1]
    expected = rv_coefficient(daily, every_4_h.reshape(3, 6, -1).mean(axis=1))
    assert rv["all"]["truth"][0][1] == pytest.approx(expected, rel=1e-6)
    east = [np.sqrt(np.bincount(ZONES[layer].ravel(), types.ravel())) for layer in ("site", "sector")]
    daily, every_4_h = daily / root[0] * east[0], every_4_h / root[1] * east[1]
    expected = rv_coefficient(daily, every_4_h.reshape(3, 6, -1).mean(axis=1))
    assert rv["type 1"]["truth"][0][1] == pytest.approx(expected, rel=1e-6)


def test_decomposition_by_area(result, types):
    of_east = result["channels"]["traffic"]["decomposition"]["type 1"]
    assert list(of_east) == ["by site", "by sector", "100 m", "50 m"]
    series = finest(1, seed=2)[0, 0].astype(np.float64)
    east = np.bincount(ZONES["site"].ravel(), types.ravel())
    sites = np.stack([series[:, ZONES["site"] == unit].mean(axis=1) for unit in range(4)], axis=1)
    trend, season = decompose(sites @ east / east.sum(), 1.0)
    np.testing.assert_allclose(of_east["by site"]["truth"]["trend"], trend, rtol=1e-5)
    np.testing.assert_allclose(of_east["by site"]["truth"]["season"], season, rtol=1e-3, atol=1e-4)


def test_zones_are_needed():
    levels = levels_of(finest(1, seed=1))
    with pytest.raises(ValueError, match="`zones` must have the layer 'site'"):
        evaluate(levels, {name: values[0] for name, values in levels.items()}, HIERARCHY)


def test_a_zoom_of_sums_is_that_of_means():
    means, sums = (levels_of(finest(2, seed=1)[:, 0], reduction=reduction) for reduction in ("mean", "sum"))
    of_means = plot_zoom(means, HIERARCHY, start="2026-03-04")
    of_sums = plot_zoom(sums, HIERARCHY, start="2026-03-04", units="sum", zones=ZONES)
    maps = [[axes.images[0].get_array() for axes in figure.axes if axes.images] for figure in (of_means, of_sums)]
    assert len(maps[0]) == 4
    for left, right in zip(*maps):
        np.testing.assert_allclose(left, right, rtol=1e-6)
    assert "bs: by site, 1 day" in of_means.axes[0].get_title()
    # The place of the series: the highest peak in the busiest site, wherever in it.
    site = ZONES["site"] == ZONES["site"].ravel()[means["bs"].sum(axis=(0, 1)).argmax()]
    peaks = np.where(site, np.quantile(means["grid"], 0.95, axis=(0, 1)), -1)
    row, column = np.unravel_index(peaks.argmax(), peaks.shape)
    assert of_means.axes[3].patches[0].get_xy() == pytest.approx((column * 0.05, row * 0.05))


# ---------------------------------------------------------------------------------------------------------- end to end


@pytest.mark.parametrize("units", ["mean", "sum"])
def test_from_a_pipeline_to_the_report(tmp_path, units):
    pipe, context = zoned_pipeline(), context_with_zones()
    options = {"start": "2026-03-02", "num_inference_steps": 4, "output_type": "xarray", "units": units}
    generated = pipe(context, num_samples_per_context=3, generator=seeded(), **options).levels
    truth = pipe(context, generator=seeded(1), **options).levels
    write_netcdf(generated, tmp_path / "out.nc")
    write_netcdf(truth, tmp_path / "truth.nc")
    valid = np.ones((48, 16, 24), dtype=bool)
    valid[30, 3, 21] = False
    words = ["--generated", "out.nc", "--truth", "truth.nc", "--mask", "mask.nc", "--output", "report"]
    write_mask(tmp_path / "mask.nc", valid)
    words = [word if word.startswith("--") else str(tmp_path / word) for word in words]
    done = CliRunner().invoke(app, ["evaluate", *words])
    assert done.exit_code == 0, done.output
    assert re.search(r"The finest level adds up to bs, cell, grid_2, to within \d+e-\d+\.", done.output)
    content = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert content["resolutions"]["bs"] == {"metres": 400.0, "hours": 24.0, "zones": "site"}
    scores = content["channels"]["traffic"]["levels"]
    assert all(scores[name]["cross_level_error"] < 1e-4 for name in ("bs", "cell", "grid_2"))
    site = context["site"] == context["site"][3, 21]
    assert scores["bs"]["count"] == 2 * 16 * 24 - site.sum() and scores["grid_1"]["count"] == 48 * 16 * 24 - 1
    area = np.bincount(context["site"].ravel())[context["site"]] * 24 if units == "sum" else 1
    samples, observed = (tree["bs"]["traffic"].values[:, 0] / area for tree in (generated, truth))
    known = np.ones((2, 16, 24), dtype=bool)
    known[1, site] = False
    crps = scoringrules.crps_ensemble(observed[0], np.moveaxis(samples, 0, -1), estimator="fair")[known].mean()
    assert scores["bs"]["crps"] == pytest.approx(crps / content["channels"]["traffic"]["mean"], rel=1e-4)
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "bs: by site, 24 h; cell: by sector, 4 h; grid_2: 100 m, 2 h; grid_1: 50 m, 1 h" in html
    assert "1.2 x 0.8 km" in html and "an area counts by its size" in html and "400 m" not in html
    figures = re.findall(r'base64,([^"]+)"', html)
    assert len(figures) == 4  # two days have no season
    assert all(imread(io.BytesIO(base64.b64decode(figure))).std() > 0.05 for figure in figures)
