# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Results as pictures, tables and sentences."""

import base64
import json
from html import escape

import numpy as np
import plotly.graph_objects as go
from matplotlib import colormaps
from plotly.subplots import make_subplots

from .runs import Result, describe_level


MEAN = "Mean of all samples"
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
COLOURS = "cividis"  # nearly the same for every kind of colour vision
DARKEST_SHARE = 1 / 150  # of the brightest value: below it the colour scale is linear, above it logarithmic
LINE, BAND, OTHER = "#0b5394", "rgba(11, 83, 148, 0.25)", "#e69f00"
FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#1f2937"}


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
        "north_up": bool(result.north_up),
        "place": place,
        "extent": _extent(result),
    }
    return json.dumps(data)


def _ticks(knee: float, brightest: float) -> list[float]:
    powers = 10.0 ** np.arange(np.floor(np.log10(knee)), np.log10(brightest) + 1)
    return [0.0, *(float(value) for value in powers if 2 * knee <= value <= 0.9 * brightest), _rounded(brightest)]


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _extent(result: Result) -> str:
    height, width = result.finest.shape[-2:]
    side = result.hierarchy.config.cell_size / 1000
    return f"{width * side:g} km from west to east, {height * side:g} km from south to north"


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
    figure.update_yaxes(rangemode="tozero", gridcolor="#d1d5db", zeroline=False, nticks=5)
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
    figure.update_yaxes(rangemode="tozero", gridcolor="#d1d5db", zeroline=False)
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
        paper_bgcolor="white",
        plot_bgcolor="white",
        font=FONT,
        hovermode="x unified",
        dragmode=False,
        margin={"l": 52, "r": 14, "t": 58, "b": 44},
        legend=legend,
    )
    figure.update_xaxes(tickformat="%a\n%d %b", hoverformat="%a %d %b, %H:%M", gridcolor="#d1d5db")
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
        f" {result.seconds:.1f} s. {_extent(result)}. In total {amount(np.median(total))} {unit}{spread}. The busiest"
        f" hour is {hour_label(result.start, busiest)}. Every level adds up to the one above it."
    )
    head = ["Level", "Units", "Intervals", f"Typical unit, {result.unit} per interval (10 to 90 % of units)"]
    return f"<p>{text}</p>{f'<p>{note}</p>' if note else ''}{table('The four levels of the first sample', head, rows)}"


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
        "Level", f"CRPS, {unit}", "best possible", f"MAE, {unit}", "best possible", "Spread/skill", "best possible",
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
        f" {verdict}. The samples differ {spread} they should (spread/skill {model:.2f} at the finest level, best"
        f" possible {law:.2f}). “Best possible” are {scores['samples']} samples from the simulated city's own law."
        " In a small area all these figures scatter by several percent, so a model can come out slightly better."
    )


def comparison_figure(scores: dict, hierarchy) -> go.Figure:
    """CRPS per level, the model next to the best possible."""
    figure = go.Figure()
    titles = [describe_level(hierarchy, name).replace(", ", "<br>") for name in scores["levels"]]
    for who, label, colour, pattern in (("model", "model", LINE, ""), ("law", "best possible", OTHER, "/")):
        values = [round(level[who]["crps"], 4) for level in scores["levels"].values()]
        marker = {"color": colour, "pattern": {"shape": pattern, "fgcolor": "white"}}
        figure.add_trace(go.Bar(x=titles, y=values, name=label, marker=marker))
    figure.update_yaxes(title_text=f"CRPS, {scores['unit']} per hour and cell", gridcolor="#e5e7eb")
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
