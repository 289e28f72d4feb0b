# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import xarray
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from zoomdiff_diffusers.evaluation.plots import (
    plot_calibration,
    plot_context,
    plot_decomposition,
    plot_levels,
    plot_series,
    plot_similarity,
    plot_zoom,
    save_figure,
)
from zoomdiff_diffusers.hierarchy import Hierarchy


@pytest.fixture
def levels():
    finest = np.random.default_rng(0).gamma(0.5, size=(3, 48, 16, 24))
    finest[:, 30] *= 9.0
    return dict(zip(Hierarchy().names, Hierarchy().pyramid(finest)))


def images(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


@pytest.mark.parametrize("start", ["2026-03-04", None])
def test_all_maps_show_the_busiest_hour_on_one_scale(levels, start, tmp_path):
    figure = plot_zoom(levels, Hierarchy(), start=start, unit="MB")
    save_figure(figure, tmp_path / "zoom.png", dpi=30)
    shown = images(figure)
    assert len(shown) == 4
    assert len({image.norm.vmax for image in shown}) == 1
    for image, (name, hour) in zip(shown, {"bs": 1, "cell": 7, "grid_100m": 15, "grid_50m": 30}.items()):
        np.testing.assert_array_equal(image.get_array(), levels[name][0, hour])
        assert image.get_extent() == pytest.approx([0, 1.2, 0, 0.8])
    assert [file.name for file in tmp_path.iterdir()] == ["zoom.png"]
    assert imread(tmp_path / "zoom.png").std() > 0.05


def test_sums_are_shown_as_the_means_they_are(levels):
    factors = {level.name: level.spatial_factor**2 * level.temporal_factor for level in Hierarchy().levels}
    sums = {name: values * factors[name] for name, values in levels.items()}
    of_means, of_sums = plot_zoom(levels, Hierarchy()), plot_zoom(sums, Hierarchy(), units="sum")
    for left, right in zip(images(of_means), images(of_sums)):
        np.testing.assert_allclose(left.get_array(), right.get_array(), rtol=1e-12)


def test_the_series_are_those_of_the_chosen_place(levels):
    figure = plot_zoom(levels, Hierarchy(), place=(9, 20), sample=2)
    lines = [line for axes in figure.axes for line in axes.lines if line.get_label() == "the sample on the maps"]
    assert len(lines) == 4
    expected = levels["cell"][2, :, 2, 5]
    np.testing.assert_array_equal(lines[1].get_ydata()[:-1], expected)


def test_a_context_is_shown_with_its_north_up_and_its_classes_named(tmp_path):
    random = np.random.default_rng(0)
    layers = [
        {"name": "ground", "kind": "categorical", "classes": ["water", "meadow", "street"]},
        {"name": "shares", "kind": "categorical", "classes": ["park", "office"]},
        {"name": "poi", "kind": "count", "channels": ["food", "shop"]},
        {"name": "absent", "kind": "continuous", "channels": ["x"]},
        {"name": "people", "kind": "temporal", "channels": ["people"]},
    ]
    office = random.random((8, 16))
    context = xarray.Dataset(
        {
            "ground": (("y", "x"), random.choice([0, 2], (8, 16))),
            "shares": (("class", "y", "x"), np.stack([1 - office, office])),
            "poi": (("category", "y", "x"), random.poisson(2.0, (2, 8, 16)), {"units": "1"}),
            "people": (("hour", "y", "x"), random.random((24, 8, 16)), {"units": "persons"}),
        },
        coords={"y": 25.0 + 50 * np.arange(8)},
    )
    figure = plot_context(context, layers, Hierarchy(), title="A place")
    axes = [axes for axes in figure.axes if axes.get_title()]
    assert [each.get_title() for each in axes] == ["ground", "shares", "poi", "people, mean (persons)"]
    expected = [context["ground"], office > 0.5, context["poi"].sum("category"), context["people"].mean("hour")]
    for each, values in zip(axes, expected):
        np.testing.assert_allclose(each.images[0].get_array(), values)
        assert each.images[0].get_extent() == pytest.approx([0, 0.8, 0, 0.4])
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["water", "street"]
    turned = plot_context(context.isel(y=slice(None, None, -1)), layers, Hierarchy())
    for each, other in zip(images(figure), images(turned)):
        np.testing.assert_array_equal(each.get_array(), other.get_array())
    save_figure(figure, tmp_path / "context.png", dpi=30)
    assert imread(tmp_path / "context.png").std() > 0.05
    with pytest.raises(ValueError, match="`context` has none of the layers"):
        plot_context({"traffic": office}, layers, Hierarchy())


def test_maps_of_rows_from_the_north_have_north_up(levels, truth):
    north_first, y = {name: values[..., ::-1, :] for name, values in levels.items()}, 800.0 - 50 * np.arange(16)
    for place, from_north in ((None, None), ((9, 20), (6, 20))):
        expected = plot_zoom(levels, Hierarchy(), place=place)
        found = plot_zoom(north_first, Hierarchy(), place=from_north, y=y)
        for one, other in zip(images(expected), images(found)):
            np.testing.assert_array_equal(one.get_array(), other.get_array())
        for one, other in zip(expected.axes, found.axes):
            marks = [[mark.get_xy() for mark in axes.patches if isinstance(mark, Rectangle)] for axes in (one, other)]
            assert marks[0] == marks[1]
            for line, other_line in zip(one.lines, other.lines):
                np.testing.assert_allclose(line.get_ydata(), other_line.get_ydata())
    turned = {name: values[:, ::-1] for name, values in truth.items()}
    expected, found = plot_levels(levels, truth, Hierarchy()), plot_levels(north_first, turned, Hierarchy(), y=y)
    for one, other in zip(images(expected), images(found)):
        np.testing.assert_array_equal(one.get_array(), other.get_array())


def test_levels_need_their_four_axes(levels):
    with pytest.raises(ValueError, match=r"'bs' must be \(sample, time, y, x\)"):
        plot_zoom({"bs": levels["bs"][0]}, Hierarchy())
    with pytest.raises(ValueError, match="`units`"):
        plot_zoom(levels, Hierarchy(), units="total")


@pytest.fixture
def truth(levels):
    return {name: values[0].copy() for name, values in levels.items()}


def test_rows_of_maps_are_truth_sample_mean_and_spread(levels, truth, tmp_path):
    truth["grid_50m"][:, 0, 0] = np.nan
    generated = {name: values[1:] for name, values in levels.items()}
    figure = plot_levels(generated, truth, Hierarchy(), start="2026-03-04", unit="MB")
    save_figure(figure, tmp_path / "maps.png", dpi=30)
    shown = images(figure)
    assert len(shown) == 16
    hours = {"bs": 1, "cell": 7, "grid_100m": 15, "grid_50m": 30}
    for column, (name, hour) in enumerate(hours.items()):
        members = generated[name][:, hour]
        rows = (truth[name][hour], members[0], members.mean(axis=0), members.std(axis=0, ddof=1))
        for row, expected in enumerate(rows):
            found = np.ma.filled(shown[4 * row + column].get_array(), np.nan)
            np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert len({image.norm.vmax for image in shown[:12]}) == 1
    assert images(plot_levels({n: v[:1] for n, v in generated.items()}, truth, Hierarchy()))[8:] == []


@pytest.mark.parametrize("start", ["2026-03-04", None])
def test_series_show_the_unit_around_a_place_at_every_level(levels, truth, start, tmp_path):
    generated = {name: values[1:] for name, values in levels.items()}
    figure = plot_series(generated, truth, Hierarchy(), {"here": (9, 20), "there": (0, 0)}, start=start)
    save_figure(figure, tmp_path / "series.png", dpi=30)
    lines = [line for axes in figure.axes for line in axes.lines if line.get_label() == "truth"]
    assert len(lines) == 8
    np.testing.assert_array_equal(lines[2].get_ydata()[:-1], truth["cell"][:, 2, 5])
    means = [line for axes in figure.axes for line in axes.lines if line.get_label() == "mean of the samples"]
    np.testing.assert_allclose(means[7].get_ydata()[:-1], generated["grid_50m"][:, :, 0, 0].mean(axis=0))


def test_calibration_shows_ranks_and_the_share_below_each_quantile(tmp_path):
    scores = {"bs": {"rank_histogram": [0.1, 0.2, 0.3, 0.4], "spread_skill": 1.0}}
    figure = plot_calibration({**scores, "cell": {"rank_histogram": [0.25] * 4, "spread_skill": 0.7}})
    save_figure(figure, tmp_path / "calibration.png", dpi=30)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.1, 0.2, 0.3, 0.4]
    ideal, base_stations, cells = figure.axes[-1].lines
    np.testing.assert_allclose(base_stations.get_xydata(), [[0.25, 0.1], [0.5, 0.3], [0.75, 0.6]])
    np.testing.assert_allclose(cells.get_xdata(), cells.get_ydata())


def test_a_level_that_was_given_has_no_ratio_of_spread_and_error(tmp_path):
    scores = {
        name: {"rank_histogram": [0.25] * 4, "spread_skill": ratio} for name, ratio in (("bs", None), ("a", 0.7))
    }
    figure = plot_calibration(scores)
    save_figure(figure, tmp_path / "calibration.png", dpi=30)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["bs\nspread/skill –", "a\nspread/skill 0.70"]


def test_similarity_writes_every_coefficient_but_the_undefined(tmp_path):
    pair = {"truth": [[1.0, 0.9], [0.9, 1.0]], "generated": [[1.0, None], [None, 1.0]]}
    figure = plot_similarity({"all": pair, "park": pair}, ["bs", "cell"])
    save_figure(figure, tmp_path / "similarity.png", dpi=30)
    assert len(images(figure)) == 4
    texts = [text.get_text() for text in figure.axes[0].texts + figure.axes[2].texts]
    assert texts == ["1.00", "0.90", "0.90", "1.00", "1.00", "–", "–", "1.00"]


@pytest.mark.parametrize("start", ["2026-03-04", None])
def test_decomposition_has_a_truth_and_a_generated_line_per_scale(start, tmp_path):
    lines = {"trend": [1.0, 2.0, 3.0], "season": [0.0, 1.0, 0.0]}
    scales = {"400 m": {"truth": lines, "generated": lines}, "50 m": {"truth": lines, "generated": lines}}
    figure = plot_decomposition({"office": scales, "park": scales}, 1.0, start=start, unit="MB")
    save_figure(figure, tmp_path / "decomposition.png", dpi=30)
    assert [len(axes.lines) for axes in figure.axes] == [4] * 4
    assert [axes.get_title() for axes in figure.axes[:2]] == ["office", "park"]
    np.testing.assert_array_equal(figure.axes[2].lines[1].get_ydata(), lines["season"])


def test_four_weeks_are_labelled_by_date(tmp_path):
    finest = np.random.default_rng(0).gamma(0.5, size=(2, 28 * 24, 8, 8))
    levels = dict(zip(Hierarchy().names, Hierarchy().pyramid(finest)))
    figure = plot_zoom(levels, Hierarchy(), start="2026-03-02")
    save_figure(figure, tmp_path / "zoom.png", dpi=30)
    labels = [text.get_text() for text in figure.axes[4].get_xticklabels()]
    assert len(labels) < 16 and "Mar" in figure.axes[4].xaxis.get_offset_text().get_text() + "".join(labels)
