# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Figures of generated traffic. Needs matplotlib; draws without a screen and changes no global state."""

import os
import uuid
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap, Normalize, PowerNorm
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, DateFormatter, DayLocator, HourLocator
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from .aoi_types import name_of_scale
from .zones import as_batch


COLOURS = "viridis"  # perceptually uniform, and readable with any colour vision
LINE, BAND, MARK = "#1f3b63", "#7fa6d6", "#d1495b"
TRUTH, UNKNOWN = "black", "0.85"
# Okabe & Ito: distinct with any colour vision. The line styles say the same to those who print in black and white.
LEVEL_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"]
LEVEL_MARKS = ["o", "s", "^", "D", "v", "P"]
CLASS_COLOURS = {
    "vegetation": "#b7d79a", "water": "#7fb2e5", "built": "#c9bfb5", "street": "#f5f0e6", "arterial": "#f2c14e",
    "motorway": "#e07a3f", "railway": "#555555", "none": "#f2f2f2", "residential": "#e8b7a5", "office": "#6f86c9",
    "retail": "#d1495b", "industrial": "#a58bb5", "education": "#f2d16b", "health": "#ef8fb0", "leisure": "#58b5a8",
    "park": "#8cc06d", "transport": "#8a8a8a",
}  # fmt: skip


def plot_zoom(
    levels,
    hierarchy,
    start=None,
    unit="",
    units="mean",
    channel="traffic",
    sample=0,
    place=None,
    title=None,
    zones=None,
    y=None,
):
    """
    The zoom in one picture: a column per level, above its map at the busiest hour, below its series at one place.

    All maps share one colour scale, and all series one axis: values are means per finest cell and time step, so that
    a coarse unit has the mean colour of the cells it covers.

    Args:
        levels (`Mapping[str, np.ndarray]`): Levels by name, coarse to fine, each `(sample, time, y, x)`: one channel.
        hierarchy (`Hierarchy`): Gives each level its factors, cell size (m) and time step (h).
        start (`str`, `datetime.datetime` or `np.datetime64`, *optional*):
            First hour, for the weekdays on the time axis. `None`: days are counted.
        unit (`str`, defaults to `""`): Physical unit of the values, for example `"MB"`.
        units (`str`, defaults to `"mean"`):
            What the values are: `"mean"` per finest cell and time step, or `"sum"` over the unit and its interval.
        channel (`str`, defaults to `"traffic"`): What is shown, for the labels.
        sample (`int`, defaults to 0): The member of the ensemble that the maps and the thin lines show.
        place (`tuple[int, int]`, *optional*):
            Row and column of the finest cell whose series are shown. Default: the cell with the highest 95th
            percentile among those whose base-station area is the busiest.
        title (`str`, *optional*): Title of the figure.
        zones (`Mapping[str, np.ndarray]`, *optional*): Layers (Y, X) of levels with zones, for the units `"sum"`.
        y (`np.ndarray`, *optional*):
            Centres of the rows (m), by which north is up. Default: the first row is the southern one.

    Returns:
        `matplotlib.figure.Figure`: not yet saved, see [`save_figure`].

    Raises:
        ValueError: If a level is not four-dimensional, or zones are missing.
    """
    means = {name: _south_first(values, y) for name, values in _as_means(levels, hierarchy, units, zones).items()}
    names = list(means)
    finest, finest_level = means[names[-1]], hierarchy.levels[hierarchy.index(names[-1])]
    hour = int(finest[sample].sum(axis=(1, 2)).argmax()) * finest_level.temporal_factor
    if place is None:
        place = _busy_place(means[names[0]], hierarchy.levels[hierarchy.index(names[0])], finest, finest_level)
    elif _runs_south(y):
        place = finest.shape[-2] * finest_level.raster_factor - 1 - place[0], place[1]

    height, width = finest.shape[-2:]
    map_height = 3.7 * min(height / width, 1.5)  # inches, at a column width of about 3.7
    figure = Figure(figsize=(4.1 * len(names) + 1.0, map_height + 4.4), layout="constrained", facecolor="white")
    maps, series = figure.subplots(2, len(names), height_ratios=[map_height, 2.3], squeeze=False)
    norm = PowerNorm(0.5, vmin=0.0, vmax=float(np.quantile(finest[sample], 0.999)) or 1.0)
    for column, name in enumerate(names):
        level = hierarchy.levels[hierarchy.index(name)]
        image = _draw_map(maps[column], means[name][sample, hour // level.temporal_factor], level, hierarchy, norm)
        _mark_place(maps[column], level, hierarchy, place)
        _draw_series(series[column], means[name], level, hierarchy, hour, place, sample, start)
        maps[column].set_title(_describe(level, hierarchy, hour, start), fontsize=12)
    _share_axes(maps, series, unit, channel, hierarchy)
    bar = figure.colorbar(image, ax=list(maps), extend="max", pad=0.01, aspect=30)
    bar.set_label(_quantity(unit, channel, hierarchy))
    handles, labels = series[0].get_legend_handles_labels()
    handles.append(Rectangle((0, 0), 1, 1, fill=False, edgecolor=MARK, linewidth=1.6))
    labels.append("the place of the series")
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
    if title:
        figure.suptitle(title, fontsize=15)
    return figure


def plot_context(context, layers, hierarchy, title=None):
    """
    The layers of a context in one picture, a map each: classes, sums over the channels, means over the hours.

    Args:
        context (`Mapping` or `xarray.Dataset`): Raw layers by name, on one grid; some may be absent.
        layers (`list[dict]`): Their schema, as of [`ContextProcessor`].
        hierarchy (`Hierarchy`): Gives the side of a cell.
        title (`str`, *optional*): Title of the figure.

    Returns:
        `matplotlib.figure.Figure`: not yet saved, see [`save_figure`].

    Raises:
        ValueError: If the context has none of the layers.
    """
    present = [layer for layer in layers if layer["name"] in context]
    if not present:
        raise ValueError(f"`context` has none of the layers {[layer['name'] for layer in layers]}.")
    height, width = np.shape(context[present[0]["name"]])[-2:]
    side = hierarchy.config.cell_size / 1000
    map_height, legend = 2.9 * min(height / width, 1.6), 1.1  # inches, at a column width of about 2.9
    size = 3.6 * len(present), map_height + 1.2 + legend
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(rect=(0.0, legend / size[1], 1.0, 1.0 - legend / size[1]))
    grid = figure.subplots(1, len(present), squeeze=False)[0]
    for axes, layer in zip(grid, present):
        values = np.asarray(context[layer["name"]])
        values = _south_first(values, getattr(context, "coords", {}).get("y"))
        options = {"origin": "lower", "extent": (0, width * side, 0, height * side), "interpolation": "nearest"}
        name = layer["name"].replace("_", " ")
        if layer["kind"] == "categorical":
            _draw_classes(axes, values, layer["classes"], options)
        else:
            if layer["kind"] == "temporal":
                values, name = values.mean(axis=-3), f"{name}, mean"
            values = values.reshape(-1, height, width).sum(axis=0)
            top = float(np.quantile(values, 0.995)) or float(values.max()) or 1.0
            image = axes.imshow(values, cmap=COLOURS, norm=PowerNorm(0.5, vmin=0.0, vmax=top), **options)
            bar = figure.colorbar(image, cax=axes.inset_axes([1.03, 0.0, 0.05, 1.0]), extend="max")
            bar.locator = MaxNLocator(5)
            bar.update_ticks()
            unit = getattr(context[layer["name"]], "attrs", {}).get("units", "1")
            name += "" if unit == "1" else f" ({unit})"
        axes.set_title(name, fontsize=12)
        axes.set_xlabel("km")
    grid[0].set_ylabel("km")
    if title:
        figure.suptitle(title, fontsize=14)
    return figure


def plot_levels(generated, truth, hierarchy, start=None, unit="", channel="traffic", y=None):
    """
    Maps of the truth's busiest hour, a column per level: truth, one sample, and the mean and spread of the samples.

    The first three rows share one colour scale; the spread has its own. Where the truth is unknown the map is grey.

    Args:
        generated (`Mapping[str, np.ndarray]`):
            Levels by name, coarse to fine, each (sample, time, y, x): means per finest cell and time step.
        truth (`Mapping[str, np.ndarray]`): (time, y, x), NaN where unknown.
        hierarchy (`Hierarchy`): These levels.
        start, unit, channel, y: As of [`plot_zoom`].

    Returns:
        `matplotlib.figure.Figure`.
    """
    generated, truth = (
        {name: _south_first(values, y) for name, values in levels.items()} for levels in (generated, truth)
    )
    finest, finest_level = truth[hierarchy.names[-1]], hierarchy.levels[-1]
    hour = int(np.nansum(finest, axis=(1, 2)).argmax()) * finest_level.temporal_factor
    rows = {"truth": lambda name: truth[name], "one sample": lambda name: generated[name][0]}
    if len(generated[hierarchy.names[-1]]) > 1:
        rows["mean of the samples"] = lambda name: generated[name].mean(axis=0)
        rows["spread: standard\ndeviation of the samples"] = lambda name: generated[name].std(axis=0, ddof=1)
    height, width = finest.shape[-2:]
    map_height = 2.9 * min(height / width, 1.5)
    figure = Figure(figsize=(3.1 * len(hierarchy) + 1.3, (map_height + 0.25) * len(rows) + 0.8), layout="constrained")
    grid = figure.subplots(len(rows), len(hierarchy), squeeze=False)
    brightest = float(np.nanquantile(finest[hour // finest_level.temporal_factor], 0.995)) or 1.0
    images = {}
    for row, (label, values_of) in enumerate(rows.items()):
        fields = {name: values_of(name) for name in hierarchy.names}
        shown = [fields[level.name][hour // level.temporal_factor] for level in hierarchy.levels]
        top = brightest if not label.startswith("spread") else float(np.quantile(shown[-1], 0.995)) or 1.0
        for axes, values, level in zip(grid[row], shown, hierarchy.levels):
            images[label] = _draw_map(axes, values, level, hierarchy, PowerNorm(0.5, vmin=0.0, vmax=top))
            axes.label_outer()
            if row == 0:
                axes.set_title(_describe(level, hierarchy, hour, start), fontsize=11)
        grid[row][0].set_ylabel(f"{label}\nkm")
    quantity = _quantity(unit, channel, hierarchy).replace(" per", "\nper", 1)
    traffic_rows = [row for row, label in enumerate(rows) if not label.startswith("spread")]
    bar = figure.colorbar(images["truth"], ax=list(grid[traffic_rows].flat), extend="max", pad=0.01, aspect=40)
    bar.set_label(quantity)
    if len(rows) > len(traffic_rows):
        label = list(rows)[-1]
        bar = figure.colorbar(images[label], ax=list(grid[-1]), extend="max", pad=0.01, aspect=13)
        bar.set_label("spread of the\n" + quantity)
    return figure


def plot_series(generated, truth, hierarchy, places, start=None, unit="", channel="traffic"):
    """
    The series at some places, a row per level: truth, mean of the samples, and the band of 80 % of the samples.

    Args:
        generated, truth, hierarchy, start, unit, channel: As of [`plot_levels`].
        places (`Mapping[str, tuple[int, int]]`): Row and column of finest cells by title, a column each.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(6.6 * len(places) + 0.6, 1.9 * len(hierarchy) + 0.8), layout="constrained")
    grid = figure.subplots(len(hierarchy), len(places), squeeze=False)
    for row, level in zip(grid, hierarchy.levels):
        for axes, place in zip(row, places.values()):
            here = tuple(index // level.raster_factor for index in place)
            samples, observed = generated[level.name][:, :, *here], truth[level.name][:, *here]
            edges = _edges(len(observed), level.temporal_factor * hierarchy.config.time_step, start)
            low, high = np.quantile(samples, [0.1, 0.9], axis=0)
            low, high, mean, observed = (np.append(line, line[-1]) for line in (low, high, samples.mean(0), observed))
            steps = {"drawstyle": "steps-post"}
            if len(samples) > 1:
                axes.fill_between(
                    edges, low, high, step="post", color=BAND, alpha=0.6, linewidth=0, label="80 % of the samples"
                )
            axes.plot(edges, mean, color=LEVEL_COLOURS[0], linewidth=1.2, label="mean of the samples", **steps)
            axes.plot(edges, observed, color=TRUTH, linewidth=0.9, label="truth", **steps)
            axes.set_ylim(bottom=0)
            _style(axes)
            _label_time(axes, edges, start)
            if level is not hierarchy.levels[-1]:
                axes.tick_params(axis="x", which="both", labelbottom=False)
                axes.set_xlabel("")
        hours = level.temporal_factor * hierarchy.config.time_step
        row[0].set_ylabel(f"{level.name}\n{name_of_scale(level, hierarchy)}, {hours:g} h")
    for axes, title in zip(grid[0], places):
        axes.set_title(title, fontsize=11)
    figure.supylabel(_quantity(unit, channel, hierarchy), fontsize=11)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def plot_calibration(scores):
    """
    Rank histogram of every level, and how reliable the quantiles of the ensemble are.

    The i-th of n ordered samples is its quantile i / (n + 1), so the share of the truth below it is the cumulative
    rank histogram; no interpolation between the samples is needed.

    Args:
        scores (`Mapping[str, dict]`): By level, with `rank_histogram` and `spread_skill` (`None` where undefined).

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(2.3 * len(scores) + 4.2, 3.6), layout="constrained")
    *bars, reliability = figure.subplots(1, len(scores) + 1, width_ratios=[2.2] * len(scores) + [3.6])
    top = max(max(level["rank_histogram"]) for level in scores.values())
    reliability.plot([0, 1], [0, 1], color="0.5", linewidth=1.0, linestyle="--", label="ideal")
    for index, (axes, (name, level)) in enumerate(zip(bars, scores.items())):
        colour, mark = LEVEL_COLOURS[index % len(LEVEL_COLOURS)], LEVEL_MARKS[index % len(LEVEL_MARKS)]
        frequencies = np.asarray(level["rank_histogram"])
        axes.bar(np.arange(1, len(frequencies) + 1), frequencies, width=0.9, color=colour)
        axes.axhline(1 / len(frequencies), color="0.35", linewidth=1.0, linestyle="--")
        axes.set_ylim(0, 1.08 * top)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ratio = "–" if level["spread_skill"] is None else f"{level['spread_skill']:.2f}"
        axes.set_title(f"{name}\nspread/skill {ratio}", fontsize=11)
        axes.set_xlabel("rank of the truth")
        _style(axes)
        axes.label_outer()
        nominal = np.arange(1, len(frequencies)) / len(frequencies)
        reliability.plot(nominal, frequencies.cumsum()[:-1], color=colour, marker=mark, linewidth=1.3, label=name)
    bars[0].set_ylabel("share of the hours and places")
    reliability.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title="reliability of the quantiles")
    reliability.set(xlabel="quantile of the samples", ylabel="share of the truth below it")
    reliability.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def plot_similarity(matrices, names):
    """
    RV coefficients between levels as heat maps, a column per type of area, truth above what was generated.

    Args:
        matrices (`Mapping[str, dict]`): By type, `{"truth": (K, K), "generated": (K, K)}`; `None` where undefined.
        names (`list[str]`): Names of the K levels.

    Returns:
        `matplotlib.figure.Figure`.
    """
    matrices = {
        title: {kind: np.array(matrix, dtype=float) for kind, matrix in pair.items()}
        for title, pair in matrices.items()
    }
    lowest = min(np.nanmin(matrix, initial=0.95) for pair in matrices.values() for matrix in pair.values())
    norm = Normalize(np.floor(lowest * 20) / 20, 1.0)
    figure = Figure(figsize=(2.5 * len(matrices) + 2.0, 5.6), layout="constrained")
    grid = figure.subplots(2, len(matrices), squeeze=False)
    for column, (title, pair) in zip(grid.T, matrices.items()):
        for axes, matrix in zip(column, (pair["truth"], pair["generated"])):
            image = axes.imshow(matrix, cmap=COLOURS, norm=norm)
            axes.set_facecolor(UNKNOWN)
            for (row, other), value in np.ndenumerate(matrix):
                colour = "white" if norm(value) < 0.6 else "black"
                text = f"{value:.2f}" if np.isfinite(value) else "–"
                axes.text(other, row, text, ha="center", va="center", color=colour, fontsize=9)
            axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
            axes.set_yticks(range(len(names)), names)
            axes.label_outer()
        column[0].set_title(title, fontsize=11)
    for axes, label in zip(grid[:, 0], ("truth", "generated")):
        axes.set_ylabel(label, fontsize=11)
    figure.colorbar(image, ax=list(grid.flat), label="RV coefficient", pad=0.01, aspect=30)
    return figure


def plot_decomposition(decomposition, time_step, start=None, unit="", channel="traffic", per=""):
    """
    Trend and season of the mean traffic by type of area, a column per type and a line per spatial scale.

    Args:
        decomposition (`Mapping[str, dict]`): By type and scale, as [`decomposition_by_type`] gives it.
        time_step (`float`): Hours between two values.
        start, unit, channel: As of [`plot_zoom`].
        per (`str`): What the traffic is counted per, for the label.

    Returns:
        `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(max(4.3 * len(decomposition) + 0.8, 8.0), 5.8), layout="constrained")
    grid = figure.subplots(2, len(decomposition), squeeze=False)
    scales = list(dict.fromkeys(scale for lines in decomposition.values() for scale in lines))
    colours = dict(zip(scales, LEVEL_COLOURS))
    for column, (title, lines) in zip(grid.T, decomposition.items()):
        for axes, part in zip(column, ("trend", "season")):
            for scale, pair in lines.items():
                edges = _edges(len(pair["truth"][part]), time_step, start)
                axes.plot(edges[:-1], pair["truth"][part], color=colours[scale], linewidth=1.6)
                axes.plot(
                    edges[:-1], pair["generated"][part], color=colours[scale], linewidth=1.2, linestyle=(0, (3, 1.5))
                )
            _style(axes)
            _label_time(axes, edges, start)
        column[0].tick_params(axis="x", which="both", labelbottom=False)
        column[0].set_xlabel("")
        column[0].set_title(title, fontsize=11)
    for axes, part in zip(grid[:, 0], ("trend", "season")):
        axes.set_ylabel(part, fontsize=11)
    handles = [Line2D([], [], color=colours[scale], linewidth=2, label=scale) for scale in scales]
    handles += [
        Line2D([], [], color="0.3", label="truth"),
        Line2D([], [], color="0.3", linestyle=(0, (3, 1.5)), label="mean of the samples"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.supylabel(f"{channel} ({unit}){per}" if unit else channel + per, fontsize=11)
    return figure


def save_figure(figure, path, dpi=110):
    """Write a figure as PNG, all or nothing: under a temporary name first, then renamed to `path`."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        figure.savefig(temporary, format="png", dpi=dpi)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_means(levels, hierarchy, units, zones):
    if units not in ("mean", "sum"):
        raise ValueError(f'`units` must be "mean" or "sum", got {units!r}.')
    means = {}
    for name, values in levels.items():
        values = np.asarray(values)
        if values.ndim != 4:
            raise ValueError(f"Level {name!r} must be (sample, time, y, x), found shape {values.shape}.")
        means[name] = values
        if units == "sum":
            level = hierarchy.levels[hierarchy.index(name)]
            volume = np.asarray(hierarchy.volume(name, as_batch(zones, [level])))
            means[name] = values / (volume[0] if level.zones else volume)
    return means


def _busy_place(coarse, coarse_level, finest, finest_level):
    """The finest cell with the highest peaks inside the busiest coarse unit."""
    totals, side = coarse.sum(axis=(0, 1)), coarse_level.raster_factor
    busiest = (totals == totals.max()).repeat(side, axis=0).repeat(side, axis=1)  # all cells of a unit with zones
    rows, columns = np.unique(np.argwhere(busiest) // finest_level.raster_factor, axis=0).T
    place = np.quantile(finest[:, :, rows, columns], 0.95, axis=(0, 1)).argmax()
    return int(rows[place] * finest_level.raster_factor), int(columns[place] * finest_level.raster_factor)


def _runs_south(y):
    """Whether the first row is the northern one, as in many raster files."""
    return y is not None and bool(y[-1] < y[0])


def _south_first(values, y):
    """The rows of a raster (..., y, x) in the order in which maps draw them."""
    return values[..., ::-1, :] if _runs_south(y) else values


def _draw_map(axes, values, level, hierarchy, norm):
    height, width = (size * level.raster_factor * hierarchy.config.cell_size / 1000 for size in values.shape)
    axes.set_facecolor(UNKNOWN)
    axes.set_xlabel("km")
    extent = (0, width, 0, height)
    return axes.imshow(values, norm=norm, cmap=COLOURS, origin="lower", extent=extent, interpolation="nearest")


def _draw_classes(axes, values, classes, options):
    """Codes (H, W), or the shares of the classes (n, H, W), of which the largest counts; a legend of those there."""
    codes = values if values.ndim == 2 else values.argmax(axis=0)
    spare = {name: LEVEL_COLOURS[code % len(LEVEL_COLOURS)] for code, name in enumerate(classes)}
    colours = [CLASS_COLOURS.get(name, spare[name]) for name in classes]
    axes.imshow(codes, cmap=ListedColormap(colours), vmin=-0.5, vmax=len(classes) - 0.5, **options)
    found = [Rectangle((0, 0), 1, 1, facecolor=colours[code], edgecolor="0.6") for code in np.unique(codes)]
    names = [classes[code] for code in np.unique(codes)]
    below = axes.transAxes + ScaledTranslation(0.0, -0.42, axes.figure.dpi_scale_trans)  # inches: under the label
    legend = axes.legend(found, names, ncols=2, frameon=False, fontsize=9, loc="upper center",
                         bbox_to_anchor=(0.5, 0.0), bbox_transform=below)  # fmt: skip
    legend.set_in_layout(False)


def _mark_place(axes, level, hierarchy, place):
    size = level.raster_factor * hierarchy.config.cell_size / 1000
    corner = [index // level.raster_factor * size for index in place]
    axes.add_patch(Rectangle(corner[::-1], size, size, fill=False, edgecolor="white", linewidth=3.0))
    axes.add_patch(Rectangle(corner[::-1], size, size, fill=False, edgecolor=MARK, linewidth=1.6))


def _draw_series(axes, values, level, hierarchy, hour, place, sample, start):
    unit_series = values[:, :, place[0] // level.raster_factor, place[1] // level.raster_factor]
    edges = _edges(unit_series.shape[1], level.temporal_factor * hierarchy.config.time_step, start)
    low, high = np.quantile(unit_series, [0.1, 0.9], axis=0)
    # A step outline needs the last value twice.
    closed = [np.append(line, line[-1]) for line in (low, high, unit_series.mean(axis=0), unit_series[sample])]
    axes.fill_between(edges, *closed[:2], step="post", color=BAND, alpha=0.5, linewidth=0, label="80 % of the samples")
    axes.plot(edges, closed[3], drawstyle="steps-post", color=MARK, linewidth=0.8, label="the sample on the maps")
    axes.plot(edges, closed[2], drawstyle="steps-post", color=LINE, linewidth=1.4, label="mean of the samples")
    moment = _edges(1, hour * hierarchy.config.time_step, start)[1] if hour else edges[0]
    axes.axvline(moment, color="0.35", linewidth=1.0, linestyle=":", label="hour of the maps")
    _label_time(axes, edges, start)


def _style(axes):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def _label_time(axes, edges, start):
    axes.set_xlim(edges[0], edges[-1])
    if start is None:
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.set_xlabel("day")
    elif edges[-1] - edges[0] > np.timedelta64(10, "D"):
        locator = AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    else:
        axes.xaxis.set_major_locator(DayLocator())
        axes.xaxis.set_minor_locator(HourLocator(byhour=[12]))
        axes.xaxis.set_major_formatter("")
        axes.xaxis.set_minor_formatter(DateFormatter("%a"))
        axes.tick_params(axis="x", which="minor", length=0)


def _edges(count, hours, start):
    hours = np.arange(count + 1) * hours
    if start is None:
        return hours / 24.0
    return np.datetime64(start, "s") + np.round(hours * 3600).astype("timedelta64[s]")


def _share_axes(maps, series, unit, channel, hierarchy):
    top = max(axes.get_ylim()[1] for axes in series)
    for column, (map_axes, series_axes) in enumerate(zip(maps, series)):
        series_axes.set_ylim(0, top)
        _style(series_axes)
        if column:
            map_axes.tick_params(labelleft=False)
            series_axes.tick_params(labelleft=False)
    maps[0].set_ylabel("km")
    series[0].set_ylabel(_quantity(unit, channel, hierarchy).replace(" per", "\nper", 1))


def _describe(level, hierarchy, hour, start):
    """For example "cell: 200 m, 4 h" and below it the interval on the map, "Thu 12:00 to 16:00"."""
    unit = name_of_scale(level, hierarchy)
    hours = level.temporal_factor * hierarchy.config.time_step
    first = hour // level.temporal_factor * hours
    if start is None:
        day, clock = f"day {int(first // 24) + 1}", first % 24
    else:
        moment = (np.datetime64(start, "s") + np.timedelta64(round(first * 3600), "s")).item()
        day, clock = f"{moment:%a}", moment.hour + moment.minute / 60
    if hours >= 24:
        return f"{level.name}: {unit}, {hours / 24:g} day{'s' if hours > 24 else ''}\nfrom {day} {_clock(clock)}"
    return f"{level.name}: {unit}, {hours:g} h\n{day} {_clock(clock)} to {_clock(clock + hours)}"


def _clock(hours):
    return f"{int(hours):02d}:{round(hours % 1 * 60):02d}"


def _quantity(unit, channel, hierarchy):
    amount = f"{channel} ({unit})" if unit else channel
    return f"{amount} per {hierarchy.config.cell_size:g} m cell and {hierarchy.config.time_step:g} h"
