# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The figures of the results page, drawn from numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from zoomdiff_diffusers.evaluation.plots import plot_decomposition, plot_similarity, save_figure


IMAGES = Path("images/results")  # beside the page
COLOURS = ["#1f3b63", "#d1495b", "#edae49", "#66a182"]
DPI = 70  # below 200 kB each


@dataclass(frozen=True)
class Drawing:
    """
    A figure of the page.

    Args:
        figure (`matplotlib.figure.Figure`): What is drawn.
        name (`str`): Of its file, without the ending.
        caption (`str`): What it shows.
    """

    figure: Figure
    name: str
    caption: str

    def markdown(self) -> str:
        """What shows the figure on the page."""
        return f"![{self.caption}]({(IMAGES / self.name).as_posix()}.png)\n\n{self.caption}.\n"

    def save(self, folder: Path) -> None:
        """Write the figure for a page in a folder."""
        (folder / IMAGES).mkdir(parents=True, exist_ok=True)
        save_figure(self.figure, folder / IMAGES / f"{self.name}.png", dpi=DPI)


def draw_city(city: Mapping) -> list[Drawing]:
    """Figures 3 and 4 from what `figures` keeps of a city."""
    similarity = plot_similarity(city["rv"], city["names"])
    decomposition = plot_decomposition(city["decomposition"], time_step=1.0, unit="MB", per=" per cell and hour")
    return [
        Drawing(similarity, "figure-03", "Figure 3: RV coefficients between the levels by type of area"),
        Drawing(decomposition, "figure-04", "Figure 4: trend and season by type of area"),
    ]


def draw_settings(settings: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Drawing:
    """Figure 10 from the error by setting, system and level."""
    figure = Figure(figsize=(3.6 * len(settings), 3.6), layout="constrained")
    for axes, (setting, systems) in zip(
        figure.subplots(1, len(settings), sharey=True, squeeze=False)[0], settings.items()
    ):
        _bars(axes, systems)
        axes.set_title(setting)
    figure.axes[0].set_ylabel("MAE of one sample")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return Drawing(figure, "figure-10", "Figure 10: states at the ends of the stages, by hierarchy setting")


def draw_states(series: Mapping[str, Mapping[str, Mapping]]) -> Drawing:
    """Figure 11 from the series of truth and sample by system and level."""
    levels = list(next(iter(series.values())))
    figure = Figure(figsize=(3.6 * len(levels), 2.4 * len(series)), layout="constrained")
    grid = figure.subplots(len(series), len(levels), squeeze=False)
    for line, (system, by_level) in zip(grid, series.items()):
        for axes, (level, pair) in zip(line, by_level.items()):
            edges = np.linspace(0, 7, len(pair["truth"]) + 1)
            for part, colour in zip(("truth", "generated"), COLOURS):
                axes.stairs(pair[part], edges, baseline=None, color=colour, label=part)
            axes.set_title(f"{system}: {level}", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    for axes in grid[-1]:
        axes.set_xlabel("day")
    figure.supylabel("traffic / mean")
    return Drawing(figure, "figure-11", "Figure 11: intermediate states of one sample at one place")


def draw_prior(fusion: Mapping[str, float], priors: Mapping[str, float]) -> Drawing:
    """Figure 12 from the CRPS of the finest level by fusion size and by type of prior."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = sorted((int(name.removeprefix("D = ")), value) for name, value in fusion.items())
    left.plot(*zip(*sizes), marker="o", color=COLOURS[0])
    left.set_xscale("log", base=2)
    left.set_xticks([size for size, _ in sizes], [str(size) for size, _ in sizes])
    left.set_ylim(0, 1.15 * max(fusion.values()))
    left.set_xlabel("D")
    left.set_ylabel("CRPS, finest level")
    right.bar([name.removeprefix("prior: ") for name in priors], list(priors.values()), color=COLOURS[0])
    right.set_xlabel("prior")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return Drawing(figure, "figure-12", "Figure 12: size of the prior fusion, and type of the prior")


def draw_encodings(encodings: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Figure 13 from the CRPS by positional encoding and level."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    _bars(axes, encodings)
    axes.set_ylabel("CRPS")
    axes.legend(frameon=False)
    return Drawing(figure, "figure-13", "Figure 13: temporal and spatial positional encodings")


def _bars(axes, systems: Mapping[str, Mapping[str, float]]) -> None:
    """Grouped bars: a group per level, a colour per system."""
    levels = list(dict.fromkeys(level for values in systems.values() for level in values))
    width = 0.8 / len(systems)
    for index, (system, values) in enumerate(systems.items()):
        places = np.arange(len(levels)) + (index - (len(systems) - 1) / 2) * width
        axes.bar(places, [values[level] for level in levels], width, color=COLOURS[index], label=system)
    axes.set_xticks(range(len(levels)), [level.replace(", ", "\n") for level in levels], fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
