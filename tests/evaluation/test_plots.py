# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from matplotlib.image import imread

from zoomdiff_diffusers.evaluation.plots import plot_zoom, save_figure
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


def test_levels_need_their_four_axes(levels):
    with pytest.raises(ValueError, match=r"'bs' must be \(sample, time, y, x\)"):
        plot_zoom({"bs": levels["bs"][0]}, Hierarchy())
    with pytest.raises(ValueError, match="`units`"):
        plot_zoom(levels, Hierarchy(), units="total")
