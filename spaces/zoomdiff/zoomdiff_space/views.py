# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Results as pictures, tables and sentences."""

import base64
import json
from html import escape

import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from plotly.subplots import make_subplots

from zoomdiff_diffusers.data.differences import summarise_difference
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES, SURFACE_CLASSES

from .areas import Area
from .runs import Difference, Result, describe_level, runs_south


MEAN = "Mean of all samples"
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
COLOURS = "cividis"  # nearly the same for every kind of colour vision
DARKEST_SHARE = 1 / 150  # of the brightest value: below it the colour scale is linear, above it logarithmic
# Lines, grid and text of charts are seen on white and, in dark mode, on nearly black.
LINE, BAND, OTHER, GRID = "#2b7bba", "rgba(43, 123, 186, 0.3)", "#e69f00", "rgba(128, 128, 128, 0.35)"
FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#64748b"}
CHANGE, SPREAD = "What the plan adds", "Spread of that over the samples"
DIVERGING = "RdBu_r"  # blue is less, red is more; fit for the usual kinds of colour vision
LAND_USE = {
    "fields, woods": "#d7e8c4", "water": "#9ccbe6", "other built ground": "#d9d9d9", "housing": "#f6c99b",
    "offices": "#d1605e", "shops": "#8c2d5b", "industry": "#8f8f8f", "education": "#8e7cc3", "health": "#e39fd0",
    "leisure": "#d9c64a", "park": "#6fb36a", "station": "#7a5230", "main road": "#4d4d4d", "railway": "#111111",
}  # fmt: skip
OF_AOI = dict(zip(AOI_CLASSES[1:], list(LAND_USE)[3:12]))
OF_SURFACE = {"vegetation": "fields, woods", "water": "water", "arterial": "main road", "motorway": "main road",
              "railway": "railway"}  # fmt: skip
LEARNT = (
    "This is what the model has learnt from simulated cities about such places. It does not know where people move"
    " from, new base stations, or match days."
)


def error_text(error) -> str:
    """A message for the page's error box, which shows HTML."""
    return escape(str(error), quote=False)


def choices(result: Result) -> list[str]:
    """What the maps can show."""
    return [MEAN, *(f"Sample {index + 1}" for index in range(result.samples))]


def _shown(result: Result, name: str, choice: str) -> np.ndarray:
    """(time, y, x) of a level."""
    values = result.levels[name][:, 0]
    if choice not in choices(result)[1:]:
        return values.mean(axis=0)
    return values[choices(result).index(choice) - 1]


# The zoom: four maps that the browser draws


def zoom_data(result: Result, choice: str, place: tuple[int, int]) -> str:
    """All that `zoom.js` needs, as JSON: colours of every level and hour as bytes, names, labels and the legend."""
    brightest = float(np.quantile(result.finest[:, 0], 0.9995)) or 1.0
    knee = brightest * DARKEST_SHARE
    levels = []
    for level in result.hierarchy.levels:
        values = np.log1p(_shown(result, level.name, choice) / knee) / np.log1p(brightest / knee)
        colours = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
        levels.append(
            {
                "title": describe_level(result.hierarchy, level.name),
                "factor": level.spatial_factor,
                "hours": level.temporal_factor,
                "shape": colours.shape,
                "colours": base64.b64encode(colours.tobytes()).decode(),
            }
        )
    palette = (255 * colormaps[COLOURS](np.arange(256))[:, :3]).round().astype(int).tolist()
    ticks = [
        {"label": f"{value:g}", "position": float(np.log1p(value / knee) / np.log1p(brightest / knee))}
        for value in _ticks(knee, brightest)
    ]
    data = {
        "levels": levels,
        "labels": [hour_label(result.start, hour) for hour in range(len(result.finest[0, 0]))],
        "busiest": int(result.finest[:, 0].sum(axis=(0, 2, 3), dtype=np.float64).argmax()),
        "palette": palette,
        "ticks": ticks,
        "unit": f"{result.unit} per hour and 50 m cell",
        "meaning": "dark is little, bright is much",
        "north_up": bool(result.north_up),
        "place": place,
        "extent": _extent(result.finest.shape[-2:]),
    }
    return json.dumps(data)


# What if: the land use on which a visitor places a square, and what it changes


def land_use_codes(area: Area) -> np.ndarray:
    """(H, W) positions in `LAND_USE`: water, main roads and railways, then areas of interest, then the ground."""
    names = list(LAND_USE)
    layers = area.layers_in_metres(50)
    codes = np.full((area.height, area.width), names.index("other built ground"))
    surface, aoi = (None if name not in layers else layers[name].values for name in ("surface", "aoi"))
    surface, aoi = (
        layer.argmax(axis=0) if layer is not None and layer.ndim == 3 else layer for layer in (surface, aoi)
    )
    for layer, classes, words, kept in (
        (surface, SURFACE_CLASSES, OF_SURFACE, ["vegetation"]),
        (aoi, AOI_CLASSES, OF_AOI, AOI_CLASSES),
        (surface, SURFACE_CLASSES, OF_SURFACE, ["water", "arterial", "motorway", "railway"]),
    ):
        for name in kept if layer is not None else ():
            if name in words:
                codes[layer == classes.index(name)] = names.index(words[name])
    return codes


def green_place(area: Area, side: int) -> tuple[int, int]:
    """Where a square of so many cells covers most parks and fields: a place to build on. Row and column."""
    green = np.isin(land_use_codes(area), [list(LAND_USE).index(name) for name in ("park", "fields, woods")])
    side = min(side, *green.shape)
    windows = np.lib.stride_tricks.sliding_window_view(green, (side, side)).sum(axis=(2, 3))
    row, column = np.unravel_index(windows.argmax(), windows.shape)
    return int(row) + side // 2, int(column) + side // 2


def land_use_data(area: Area, place: tuple[int, int], side: int) -> str:
    """What `zoom.js` needs for the map of the land use, with a square of so many cells around a place."""
    codes = land_use_codes(area)
    data = {
        "levels": [
            {
                "title": f"Land use of {area.name}",
                "factor": 1,
                "hours": 1,
                "shape": (1, *codes.shape),
                "colours": base64.b64encode(codes.astype(np.uint8).tobytes()).decode(),
            }
        ],
        "labels": [""],
        "busiest": 0,
        "palette": [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in LAND_USE.values()],
        "classes": list(LAND_USE),
        "north_up": bool(runs_south(area.coordinates("y"))),
        "place": place,
        "side": side,
        "extent": _extent(codes.shape),
    }
    return json.dumps(data)


def difference_data(difference: Difference, choice: str, place: tuple[int, int]) -> str:
    """What `zoom.js` needs for the maps of what a plan changes over the whole period."""
    name = "period_spread" if choice == SPREAD else "period_difference"
    hours = difference.tree[difference.hierarchy.names[-1]].sizes["time"]
    maps = [  # per finest cell and hour, on one scale
        difference.tree[level.name][name].values[0] / (level.spatial_factor**2 * hours)
        for level in difference.hierarchy.levels
    ]
    largest = float(np.quantile(np.abs(maps[-1]), 0.9995)) or 1.0
    knee = largest / 30
    signed = choice != SPREAD
    levels = []
    for level, values in zip(difference.hierarchy.levels, maps):
        scaled = (np.sign(values) * np.log1p(np.abs(values) / knee) / np.log1p(largest / knee)).clip(-1, 1)
        colours = np.rint(127.5 + 127.5 * scaled if signed else 255 * scaled).astype(np.uint8)
        levels.append(
            {
                "title": describe_level(difference.hierarchy, level.name).rpartition(",")[0],
                "factor": level.spatial_factor,
                "hours": hours,
                "shape": (1, *values.shape),
                "colours": base64.b64encode(colours.tobytes()).decode(),
            }
        )
    colours = colormaps[DIVERGING if signed else COLOURS](np.arange(256))[:, :3]
    data = {
        "levels": levels,
        "labels": ["the whole period"],
        "busiest": 0,
        "palette": (255 * colours).round().astype(int).tolist(),
        "ticks": _signed_ticks(knee, largest) if signed else _plain_ticks(knee, largest),
        "unit": f"{difference.unit} per hour and 50 m cell, mean of the period",
        "meaning": "blue is less, red is more" if signed else "dark is little, bright is much",
        "north_up": bool(difference.north_up),
        "place": place,
        "square": difference.square,
        "extent": _extent(difference.size),
    }
    return json.dumps(data)


def _plain_ticks(knee: float, largest: float) -> list[dict]:
    values = [0.0, knee, _rounded(largest)]
    scale = np.log1p(largest / knee)
    return [{"label": f"{_rounded(value):g}", "position": float(np.log1p(value / knee) / scale)} for value in values]


def _signed_ticks(knee: float, largest: float) -> list[dict]:
    more = [{**tick, "position": 0.5 + tick["position"] / 2} for tick in _plain_ticks(knee, largest)[1:]]
    less = [{"label": f"−{tick['label']}", "position": 1 - tick["position"]} for tick in reversed(more)]
    return [*less, {"label": "0", "position": 0.5}, *more]


def difference_summary(difference: Difference) -> str:
    """What a plan changes, in a sentence and two tables."""
    summary = summarise_difference(difference.tree)
    unit, metres = f"G{difference.unit[1:]}", difference.square[2] * difference.hierarchy.config.cell_size
    totals, rows = summary["totals"], []
    for key, label in (("edited", f"The square, {metres:g} m"), ("total", "Whole area")):
        row = {name: value / 1000 for name, value in totals[key].items()}
        rows.append(
            [
                label,
                amount(row["before"]),
                amount(row["after"]),
                f"{_plus(row['difference'])} ± {amount(row['spread'])}",
            ]
        )
    change, days = totals["edited"]["difference"] / 1000, difference.tree["grid_50m"].sizes["time"] / 24
    text = (
        f"<b>{escape(difference.name)}</b>: in the square, traffic {'rises' if change > 0 else 'falls'} by"
        f" {amount(abs(change))} {unit} in {days:g} days, from {rows[0][1]} to {rows[0][2]}. Mean of"
        f" {difference.samples} pairs of samples with the same noise, made in {difference.seconds:.1f} s; ± is the"
        f" standard deviation over the pairs. <b>{LEARNT}</b>"
    )
    head = ["", f"Without, {unit}", f"With, {unit}", f"Difference, {unit}"]
    tables = table("Traffic of the whole period; every level adds up to it", head, rows)
    layers = {"population": "Residents", "building_volume": "Buildings, m³", "poi": "Points of interest"}
    changed = difference.report["features"][0]["totals"]
    rows = []
    for name, label in layers.items():
        if name in changed:
            before, after = (
                sum(values.values()) if isinstance(values, dict) else values
                for values in (changed[name]["before"], changed[name]["after"])
            )
            rows.append([label, amount(before), amount(after)])
    tables += table("What the square holds", ["", "Without", "With"], rows) if rows else ""
    source = f"<p>Data: {escape(difference.attribution)}</p>" if difference.attribution else ""
    return f"<p>{text}</p>{tables}{source}"


def _plus(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{amount(abs(value))}"


def difference_place_table(difference: Difference, place: tuple[int, int]) -> str:
    """What a plan changes at a place, level by level."""
    rows = []
    for level in difference.hierarchy.levels:
        here = tuple(index // level.spatial_factor for index in place)
        values = [
            float(difference.tree[level.name][f"period_{name}"].values[0][here]) / 1000
            for name in ("before", "after", "difference", "spread")
        ]
        title = describe_level(difference.hierarchy, level.name).rpartition(",")[0]
        rows.append([title, amount(values[0]), amount(values[1]), f"{_plus(values[2])} ± {amount(values[3])}"])
    unit = f"G{difference.unit[1:]}"
    caption = f"Row {place[0]}, column {place[1]}: traffic of the whole period, {unit}"
    return table(caption, ["Level", "Without", "With", "Difference"], rows)


def difference_figure(difference: Difference) -> go.Figure:
    """The square, hour by hour, without and with the plan: means over the samples."""
    row, column, side = difference.square
    finest = difference.tree[difference.hierarchy.names[-1]]
    figure = make_subplots(rows=1, subplot_titles=[f"<b>The square</b>: G{difference.unit[1:]} per hour"])
    for name, label, colour, dash in (("before", "without", LINE, "dot"), ("after", "with", OTHER, "solid")):
        values = finest[name].values[0, :, row : row + side, column : column + side].sum(axis=(1, 2)) / 1000
        times = difference.start + np.arange(len(values) + 1) * np.timedelta64(1, "h")
        line = {"color": colour, "width": 1.8, "dash": dash, "shape": "hv"}
        steps = np.append(values, values[-1]).round(4).tolist()
        figure.add_trace(go.Scatter(x=[str(time) for time in times], y=steps, line=line, name=label, mode="lines"))
    figure.update_yaxes(rangemode="tozero", gridcolor=GRID, zeroline=False)
    _style(figure, height=320)
    figure.update_layout(legend_traceorder="normal")
    figure.update_annotations(font_size=13, x=0, xanchor="left", xshift=-44)
    return figure


def _ticks(knee: float, brightest: float) -> list[float]:
    powers = 10.0 ** np.arange(np.floor(np.log10(knee)), np.log10(brightest) + 1)
    return [0.0, *(float(value) for value in powers if 2 * knee <= value <= 0.9 * brightest), _rounded(brightest)]


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _extent(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width * 0.05:g} km from west to east, {height * 0.05:g} km from south to north"


def hour_label(start: np.datetime64, hour: int) -> str:
    """For example `Tuesday 3 March 2026, 18:00`."""
    when = (start + np.timedelta64(int(hour), "h")).item()
    return f"{WEEKDAYS[when.weekday()]} {when.day} {when:%B %Y, %H:%M}"


# Series and tables


def busy_place(result: Result) -> tuple[int, int]:
    """Row and column of the finest cell with the most traffic."""
    total = result.finest[:, 0].mean(axis=(0, 1), dtype=np.float64)
    return tuple(int(index) for index in np.unravel_index(total.argmax(), total.shape))


def series_figure(result: Result, place: tuple[int, int]) -> go.Figure:
    """The series at a cell: a row per level, the median and the band from 10 to 90 % of the samples."""
    names = result.hierarchy.names
    figure = make_subplots(rows=len(names), shared_xaxes=True, vertical_spacing=0.07, subplot_titles=names)
    for row, level in enumerate(result.hierarchy.levels, start=1):
        here = tuple(index // level.spatial_factor for index in place)
        samples = result.levels[level.name][:, 0, :, *here] * result.volume(level.name)
        thousands = np.quantile(samples, 0.9, axis=0).max() >= 2000
        title = describe_level(result.hierarchy, level.name)
        unit = f"G{result.unit[1:]}" if thousands else result.unit
        figure.layout.annotations[row - 1].text = f"<b>{title}</b>: {unit} per {_interval(level, result.hierarchy)}"
        _add_band(figure, result, samples / (1000 if thousands else 1), level.temporal_factor, row=row)
    figure.update_yaxes(rangemode="tozero", gridcolor=GRID, zeroline=False, nticks=5)
    _style(figure, height=150 * len(names) + 90)
    figure.update_annotations(font_size=13, x=0, xanchor="left", xshift=-44)
    return figure


def _interval(level, hierarchy):
    hours = level.temporal_factor * hierarchy.config.time_step
    return {1: "hour", 24: "day"}.get(hours, f"{hours:g} h")


def total_figure(result: Result) -> go.Figure:
    """The whole area, hour by hour: the median and the band from 10 to 90 % of the samples."""
    figure = make_subplots(rows=1, subplot_titles=[f"<b>Whole area</b>: G{result.unit[1:]} per hour"])
    totals = result.finest[:, 0].sum(axis=(2, 3), dtype=np.float64) / 1000
    _add_band(figure, result, totals, result.hierarchy.temporal_factors[-1], row=1)
    figure.update_yaxes(rangemode="tozero", gridcolor=GRID, zeroline=False)
    _style(figure, height=320)
    figure.update_annotations(font_size=13, x=0, xanchor="left", xshift=-44)
    return figure


def _add_band(figure, result, samples, hours, row):
    """Steps of a (sample, time) series."""
    low, middle, high = np.quantile(samples, [0.1, 0.5, 0.9], axis=0)
    times = result.start + np.arange(len(middle) + 1) * np.timedelta64(hours, "h")
    # A step lasts until the next time, so the last value is drawn twice.
    low, middle, high = (np.append(line, line[-1]).round(4).tolist() for line in (low, middle, high))
    place = {"row": row, "col": 1}
    steps = {"x": [str(time) for time in times], "mode": "lines", "line_shape": "hv"}
    if len(samples) > 1:
        group = {"legendgroup": "band", **steps}
        lower = go.Scatter(y=low, line_width=0, name="10 % of the samples are below", showlegend=False, **group)
        name = "10 to 90 % of samples"
        upper = go.Scatter(
            y=high, line_width=0, name=name, fill="tonexty", fillcolor=BAND, showlegend=row == 1, **group
        )
        figure.add_traces([lower, upper], rows=row, cols=1)
    name = "median" if len(samples) > 1 else "the sample"
    line = {"color": LINE, "width": 1.8}
    figure.add_trace(
        go.Scatter(y=middle, line=line, name=name, legendgroup="median", showlegend=row == 1, **steps), **place
    )


def _style(figure, height):
    legend = {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top", "traceorder": "reversed"}
    figure.update_layout(
        height=height,
        autosize=True,
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font=FONT,
        hovermode="x unified",
        dragmode=False,
        margin={"l": 52, "r": 14, "t": 58, "b": 44},
        legend=legend,
    )
    figure.update_xaxes(tickformat="%a\n%d %b", hoverformat="%a %d %b, %H:%M", gridcolor=GRID)
    figure.update_xaxes(tickangle=0)


def place_table(result: Result, place: tuple[int, int]) -> str:
    """What the series of a place amount to, level by level."""
    rows = []
    for level in result.hierarchy.levels:
        here = tuple(index // level.spatial_factor for index in place)
        values = result.levels[level.name][:, 0, :, *here]
        total = values.sum(axis=1, dtype=np.float64) * result.volume(level.name) / 1000
        busiest = int(np.median(values, axis=0).argmax())
        low, middle, high = np.quantile(values[:, busiest] * result.volume(level.name), [0.1, 0.5, 0.9])
        when = hour_label(result.start, busiest * level.temporal_factor)
        rows.append(
            [
                describe_level(result.hierarchy, level.name),
                f"{amount(np.median(total))} ({amount(np.quantile(total, 0.1))} to {amount(np.quantile(total, 0.9))})",
                when if level.temporal_factor < 24 else when.rpartition(",")[0],
                f"{amount(middle)} ({amount(low)} to {amount(high)})",
            ]
        )
    unit = result.unit
    head = ["Level", f"Whole period, G{unit[1:]}", "Busiest interval", f"in it, {unit}"]
    height, width = result.finest.shape[-2:]
    side = result.hierarchy.config.cell_size
    from_south = height - 1 - place[0] if result.north_up else place[0]
    where = (
        f"Row {place[0]}, column {place[1]}: {(place[1] + 0.5) * side:g} m from the west edge,"
        f" {(from_south + 0.5) * side:g} m from the south edge. Median of the samples, 10 to 90 % in brackets."
    )
    return table(where, head, rows)


def summary(result: Result, note: str = "") -> str:
    """What a run gave, in a sentence and a table."""
    total = result.finest[:, 0].sum(axis=(1, 2, 3), dtype=np.float64) / 1000
    unit = f"G{result.unit[1:]}"
    rows = []
    for level in result.hierarchy.levels:
        steps, height, width = result.levels[level.name].shape[2:]
        values = result.levels[level.name][:, 0] * result.volume(level.name)
        low, middle, high = np.quantile(values[0], [0.1, 0.5, 0.9])
        rows.append(
            [
                describe_level(result.hierarchy, level.name),
                f"{height} × {width}",
                f"{steps}",
                f"{amount(middle)} ({amount(low)} to {amount(high)})",
            ]
        )
    busiest = int(result.finest[:, 0].sum(axis=(0, 2, 3), dtype=np.float64).argmax())
    days = len(result.finest[0, 0]) / 24
    spread = f" ({amount(total.min())} to {amount(total.max())} among the samples)" if len(total) > 1 else ""
    text = (
        f"<b>{escape(result.name)}</b>: {result.samples} sample{'s' * (result.samples > 1)} of {days:g} days, made in"
        f" {result.seconds:.1f} s. {_extent(result.finest.shape[-2:])}. In total {amount(np.median(total))} {unit}"
        f"{spread}. The busiest hour is {hour_label(result.start, busiest)}. Every level adds up to the one above it."
    )
    head = ["Level", "Units", "Intervals", f"Typical unit, {result.unit} per interval (10 to 90 % of units)"]
    source = f"Data: {result.attribution}; {'; '.join(result.notes)}." if result.attribution else ""
    paragraphs = "".join(f"<p>{escape(words, quote=False)}</p>" for words in (note, source) if words)
    return f"<p>{text}</p>{paragraphs}{table('The four levels of the first sample', head, rows)}"


def refinement_note(given: dict) -> str:
    """How the result keeps what was measured."""
    missing = (
        f" {given['missing']} were missing and have been filled in." if given["missing"] else " None was missing."
    )
    return (
        f"{given['values']} measured values were used.{missing} Summed up over its cells and hours, the finest grid"
        f" gives every measured value back, to within {max(given['deviation'] * 100, 1e-4):.4f} %."
    )


def comparison_table(scores: dict, hierarchy) -> str:
    """The scores in words and as a table."""
    unit = scores["unit"]
    rows = []
    for name, level in scores["levels"].items():
        model, law = level["model"], level["law"]
        rows.append(
            [
                describe_level(hierarchy, name),
                amount(model["crps"]), amount(law["crps"]),
                amount(model["mae"]), amount(law["mae"]),
                f"{model['spread_skill']:.2f}", f"{law['spread_skill']:.2f}",
            ]
        )  # fmt: skip
    head = [
        "Level", f"CRPS, {unit}", "best possible", f"MAE, {unit}", "samples of the law",
        "Spread/skill", "samples of the law",
    ]  # fmt: skip
    caption = f"{unit} per hour and 50 m cell. Lower CRPS and MAE are better; spread/skill should be near 1."
    return f"<p>{comparison_sentence(scores, hierarchy)}</p>{table(caption, head, rows)}"


def comparison_sentence(scores: dict, hierarchy) -> str:
    """The verdict."""
    ratios = {name: level["model"]["crps"] / level["law"]["crps"] for name, level in scores["levels"].items()}
    worst = max(ratios, key=ratios.get)
    excess = 100 * (ratios[worst] - 1)
    verdict = (
        f"the error (CRPS) is at most {excess:.0f} % above the best possible, the most at “"
        f"{describe_level(hierarchy, worst)}”"
        if excess >= 1
        else "the error (CRPS) is as low as the best possible at every level"
    )
    finest = scores["levels"][hierarchy.names[-1]]
    model, law = finest["model"]["spread_skill"], finest["law"]["spread_skill"]
    spread = "about as much as" if 0.85 <= model / law <= 1.15 else ("less than" if model < law else "more than")
    name = escape(scores["name"])
    return (
        f"<b>{name[0].upper()}{name[1:]}</b>: over {scores['weeks']} true weeks that the model has not seen,"
        f" {verdict}. The samples differ {spread} they should (spread/skill {model:.2f} at the finest level, samples"
        f" of the law {law:.2f}). “Best possible” is the CRPS of {scores['samples']} samples of the simulated city's"
        " own law. In a small area all these figures scatter by several percent, so a model can come out slightly"
        " better."
    )


def comparison_figure(scores: dict, hierarchy) -> go.Figure:
    """CRPS per level, the model next to the best possible."""
    figure = go.Figure()
    titles = [describe_level(hierarchy, name).replace(", ", "<br>") for name in scores["levels"]]
    for who, label, colour, pattern in (("model", "model", LINE, ""), ("law", "best possible", OTHER, "/")):
        values = [round(level[who]["crps"], 4) for level in scores["levels"].values()]
        marker = {"color": colour, "pattern": {"shape": pattern, "fgcolor": "white"}}
        figure.add_trace(go.Bar(x=titles, y=values, name=label, marker=marker))
    figure.update_yaxes(title_text=f"CRPS, {scores['unit']} per hour and cell", gridcolor=GRID)
    _style(figure, height=340)
    figure.update_layout(hovermode="closest", legend_traceorder="normal", margin_b=60, margin_t=36)
    figure.update_xaxes(tickformat=None, dtick=None, type="category")
    return figure


def amount(value: float) -> str:
    """A number with about three figures that matter."""
    value = float(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(caption: str, head: list[str], rows: list[list[str]]) -> str:
    """An HTML table; all text is escaped."""
    columns = "".join(f"<th scope='col'>{escape(title)}</th>" for title in head)
    body = "".join(
        f"<tr><th scope='row'>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class='zd-table' tabindex='0' role='region' aria-label='{escape(caption, quote=True)}'><table>"
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )
