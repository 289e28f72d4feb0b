# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Figures of generated traffic. Needs matplotlib; draws without a screen and changes no global state."""

import os
import uuid
from pathlib import Path

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.dates import DateFormatter, DayLocator, HourLocator
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator


COLOURS = "viridis"  # perceptually uniform, and readable with any colour vision
LINE, BAND, MARK = "#1f3b63", "#7fa6d6", "#d1495b"


def plot_zoom(
    levels, hierarchy, start=None, unit="", units="mean", channel="traffic", sample=0, place=None, title=None
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

    Returns:
        `matplotlib.figure.Figure`: not yet saved, see [`save_figure`].

    Raises:
        ValueError: If a level is not four-dimensional.
    """
    means = _as_means(levels, hierarchy, units)
    names = list(means)
    finest, finest_level = means[names[-1]], hierarchy.levels[hierarchy.index(names[-1])]
    hour = int(finest[sample].sum(axis=(1, 2)).argmax()) * finest_level.temporal_factor
    if place is None:
        place = _busy_place(means[names[0]], hierarchy.levels[hierarchy.index(names[0])], finest, finest_level)

    height, width = finest.shape[-2:]
    map_height = 3.7 * min(height / width, 1.5)  # inches, at a column width of about 3.7
    figure = Figure(figsize=(4.1 * len(names) + 1.0, map_height + 4.4), layout="constrained", facecolor="white")
    maps, series = figure.subplots(2, len(names), height_ratios=[map_height, 2.3], squeeze=False)
    norm = PowerNorm(0.5, vmin=0.0, vmax=float(np.quantile(finest[sample], 0.999)) or 1.0)
    for column, name in enumerate(names):
        level = hierarchy.levels[hierarchy.index(name)]
        image = _draw_map(maps[column], means[name][sample], level, hierarchy, hour, place, norm)
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


def save_figure(figure, path, dpi=110):
    """Write a figure as PNG, all or nothing: under a temporary name first, then renamed to `path`."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        figure.savefig(temporary, format="png", dpi=dpi)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _as_means(levels, hierarchy, units):
    if units not in ("mean", "sum"):
        raise ValueError(f'`units` must be "mean" or "sum", got {units!r}.')
    means = {}
    for name, values in levels.items():
        values = np.asarray(values)
        if values.ndim != 4:
            raise ValueError(f"Level {name!r} must be (sample, time, y, x), found shape {values.shape}.")
        level = hierarchy.levels[hierarchy.index(name)]
        per_unit = 1 if units == "mean" else level.spatial_factor**2 * level.temporal_factor
        means[name] = values / per_unit
    return means


def _busy_place(coarse, coarse_level, finest, finest_level):
    """The finest cell with the highest peaks inside the busiest coarse unit."""
    row, column = np.unravel_index(coarse.sum(axis=(0, 1)).argmax(), coarse.shape[-2:])
    factor = coarse_level.spatial_factor // finest_level.spatial_factor
    rows, columns = slice(row * factor, (row + 1) * factor), slice(column * factor, (column + 1) * factor)
    peaks = np.quantile(finest[:, :, rows, columns], 0.95, axis=(0, 1))
    inner_row, inner_column = np.unravel_index(peaks.argmax(), peaks.shape)
    factor = finest_level.spatial_factor
    return (int(row * coarse_level.spatial_factor + inner_row * factor),
            int(column * coarse_level.spatial_factor + inner_column * factor))  # fmt: skip


def _draw_map(axes, values, level, hierarchy, hour, place, norm):
    height, width = (size * level.spatial_factor * hierarchy.config.cell_size / 1000 for size in values.shape[-2:])
    image = axes.imshow(
        values[hour // level.temporal_factor],
        norm=norm,
        cmap=COLOURS,
        origin="lower",
        extent=(0, width, 0, height),
        interpolation="nearest",
    )
    size = level.spatial_factor * hierarchy.config.cell_size / 1000
    corner = [index // level.spatial_factor * size for index in place]
    axes.add_patch(Rectangle(corner[::-1], size, size, fill=False, edgecolor="white", linewidth=3.0))
    axes.add_patch(Rectangle(corner[::-1], size, size, fill=False, edgecolor=MARK, linewidth=1.6))
    axes.set_xlabel("km")
    return image


def _draw_series(axes, values, level, hierarchy, hour, place, sample, start):
    unit_series = values[:, :, place[0] // level.spatial_factor, place[1] // level.spatial_factor]
    edges = _edges(unit_series.shape[1], level.temporal_factor * hierarchy.config.time_step, start)
    low, high = np.quantile(unit_series, [0.1, 0.9], axis=0)
    # A step outline needs the last value twice.
    closed = [np.append(line, line[-1]) for line in (low, high, unit_series.mean(axis=0), unit_series[sample])]
    axes.fill_between(edges, *closed[:2], step="post", color=BAND, alpha=0.5, linewidth=0, label="80 % of the samples")
    axes.plot(edges, closed[3], drawstyle="steps-post", color=MARK, linewidth=0.8, label="the sample on the maps")
    axes.plot(edges, closed[2], drawstyle="steps-post", color=LINE, linewidth=1.4, label="mean of the samples")
    moment = _edges(1, hour * hierarchy.config.time_step, start)[1] if hour else edges[0]
    axes.axvline(moment, color="0.35", linewidth=1.0, linestyle=":", label="hour of the maps")
    axes.set_xlim(edges[0], edges[-1])
    if start is None:
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        axes.set_xlabel("day")
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
        series_axes.spines[["top", "right"]].set_visible(False)
        series_axes.grid(axis="y", color="0.9")
        if column:
            map_axes.tick_params(labelleft=False)
            series_axes.tick_params(labelleft=False)
    maps[0].set_ylabel("km")
    series[0].set_ylabel(_quantity(unit, channel, hierarchy).replace(" per", "\nper", 1))


def _describe(level, hierarchy, hour, start):
    """For example "cell: 200 m, 4 h" and below it the interval on the map, "Thu 12:00 to 16:00"."""
    metres = level.spatial_factor * hierarchy.config.cell_size
    hours = level.temporal_factor * hierarchy.config.time_step
    first = hour // level.temporal_factor * hours
    if start is None:
        day, clock = f"day {int(first // 24) + 1}", first % 24
    else:
        moment = (np.datetime64(start, "s") + np.timedelta64(round(first * 3600), "s")).item()
        day, clock = f"{moment:%a}", moment.hour + moment.minute / 60
    if hours >= 24:
        return f"{level.name}: {metres:g} m, {hours / 24:g} day{'s' if hours > 24 else ''}\nfrom {day} {_clock(clock)}"
    return f"{level.name}: {metres:g} m, {hours:g} h\n{day} {_clock(clock)} to {_clock(clock + hours)}"


def _clock(hours):
    return f"{int(hours):02d}:{round(hours % 1 * 60):02d}"


def _quantity(unit, channel, hierarchy):
    amount = f"{channel} ({unit})" if unit else channel
    return f"{amount} per {hierarchy.config.cell_size:g} m cell and {hierarchy.config.time_step:g} h"
