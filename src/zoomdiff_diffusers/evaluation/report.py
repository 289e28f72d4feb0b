# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The report of an evaluation: one JSON file with every number, and one HTML file that needs nothing else."""

import base64
import io
import json
import os
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .aoi_types import name_of_scale


CALIBRATED = (0.8, 1.2)  # spread/skill within these bounds is called calibrated
EXACT = 1e-4  # relative cross-level error that is float32 rounding and not a missing sum
SHOWN_TYPES = 3  # types of area in the figures, those with most traffic; the JSON file has all

# Score, name, unit, explanation. The unit "mean" stands for multiples of the mean of the truth.
SCORES = [
    ("crps", "CRPS", "mean", "error of the whole ensemble: accuracy and spread in one number"),
    ("mae_of_mean", "MAE of the mean", "mean", "mean absolute error of the ensemble mean"),
    ("mae_of_sample", "MAE of a sample", "mean", "of one sample: larger by the spread of the samples"),
    ("rmse_of_mean", "RMSE of the mean", "mean", "root mean squared error of the ensemble mean"),
    ("rmse_of_sample", "RMSE of a sample", "mean", "of one sample"),
    ("sprmse_of_mean", "spRMSE of the mean", "mean", "RMSE over the places of the averages over time"),
    ("sprmse_of_sample", "spRMSE of a sample", "mean", "of one sample"),
    ("psnr_of_mean", "PSNR of the mean", "dB", "peak of the truth over the RMSE; higher is better"),
    ("psnr_of_sample", "PSNR of a sample", "dB", "of one sample; higher is better"),
    (
        "energy_score",
        "energy score",
        "mean",
        "CRPS of the area as a whole: also judges how hours and places go together",
    ),
    ("spread_skill", "spread/skill", "", "1 is calibrated, less is overconfident, more is too cautious"),
    ("mean_ratio", "mean generated / true", "", "1 is right; total traffic has the same ratio"),
    ("wasserstein", "Wasserstein distance", "mean", "between the distributions of the values"),
    ("jsd", "JSD", "bit", "divergence of the distributions of the values, 0 to 1"),
    ("wasserstein_differences", "Wasserstein, changes", "mean", "the same for the changes from step to step"),
    ("jsd_differences", "JSD, changes", "bit", "the same for the changes from step to step"),
    ("autocorrelation_error", "autocorrelation error", "", "difference of the mean autocorrelation, lags up to 48 h"),
    ("spatial_correlation_error", "spatial correlation error", "", "difference of the correlation with near units"),
    ("peak_hour_error", "peak hour error", "h", "between the peaks of the mean day, averaged over the places"),
    ("peak_value_error", "peak value error", "", "of the highest value of a place, relative to its mean"),
    ("cross_level_error", "cross-level error", "", "largest relative difference from the sum of the level above"),
]

CAPTIONS = {
    "Maps per level": "The hour with most traffic in the truth, and the interval of every level that contains it. A "
    "sample should look like the truth, though not in every detail; the mean of the samples is smoother than either.",
    "Series with the spread of the samples": "A cell with more traffic than 99 % of the cells, and one in the middle; "
    "at coarser levels, the unit around it. The busy one was chosen by the truth, so that there the truth tends to "
    "lie above the samples. Every panel has its own axis.",
    "Calibration": "Where the truth ranks among the samples: flat when they are calibrated, high at both ends when "
    "they are overconfident, high on the right when there is too little traffic. Right: the share of the truth below "
    "each quantile of the samples. Near hours and places err together: one area and period is far fewer independent "
    "cases than it has values, above all at coarse levels.",
    "Similarity between levels": "RV coefficients: how alike the traffic of two levels varies over time, from 0 to 1, "
    "for the whole area and for the types of area with most traffic. A unit counts by its share of cells of the type. "
    "What was generated should have the matrices of the truth. Two levels are compared at the time step of the "
    "coarser one: with few such steps, as with the days of one week, a coefficient is high and uncertain.",
    "Trend and season by type of area": "Mean traffic of the units of each scale, weighted by their share of cells of "
    "the type, split by seasonal-trend decomposition with LOESS (MSTL). All scales have the finest time step.",
}

ZONES = (
    "A level with areas of any form counts every cell, with the value of the area that serves it: an area counts by "
    "its size. The cross-level error of a level is that of the sums of the finest one. Near areas are as far apart as "
    "a typical one is wide."
)

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of generated traffic</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 2.2rem; } h3 { font-size: 1.05rem; }
table { border-collapse: collapse; font-size: .92rem; } th, td { padding: .25rem .7rem; vertical-align: top; }
thead th { border-bottom: 2px solid #1b1b1b; text-align: right; } tbody tr { border-bottom: 1px solid #ddd; }
th:first-child, td:last-child, thead th:last-child, .facts td { text-align: left; }
tbody th { text-align: left; font-weight: 600; white-space: nowrap; }
td { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:last-child { color: #555; white-space: normal; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
figcaption, .note { color: #444; font-size: .92rem; max-width: 60rem; }
</style>
</head>
<body>
<h1>Evaluation of generated traffic</h1>
<table class="facts"><tbody>
{% for name, value in facts %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</tbody></table>
{% for channel in channels %}
<h2>{{ channel.name }}</h2>
<ul>
{% for finding in channel.findings %}<li>{{ finding }}</li>
{% endfor %}</ul>
<h3>Scores</h3>
<p class="note">{{ channel.note }}</p>
<div class="wide"><table>
<thead><tr><th>score</th><th>unit</th>
{%- for level in channel.heads %}<th>{{ level }}</th>{% endfor %}<th>meaning</th></tr></thead>
<tbody>
{% for row in channel.rows %}<tr><th>{{ row.name }}</th><td>{{ row.unit }}</td>
{%- for value in row["values"] %}<td>{{ value }}</td>{% endfor %}<td>{{ row.meaning }}</td></tr>
{% endfor %}</tbody>
</table></div>
{% for figure in channel.figures %}
<h3>{{ figure.title }}</h3>
<figure><img alt="{{ figure.title }}: {{ channel.name }}" src="data:image/png;base64,{{ figure.png }}">
<figcaption>{{ figure.caption }}</figcaption></figure>
{% endfor %}
{% endfor %}
<p class="note">Written by zoomdiff_diffusers {{ version }}. All numbers, also those of the types of area that are not
shown, are in evaluation.json beside this file.</p>
</body>
</html>
"""


def write_report(folder, result, generated, truth):
    """
    Write `evaluation.json` and the self-contained `report.html`, all or nothing each.

    Args:
        folder (`str` or `os.PathLike`): Created if need be.
        result (`dict`): From [`~evaluation.evaluate.evaluate`].
        generated ([`StoredTraffic`]), truth ([`StoredTraffic`]): What was compared, from [`match_truth`].

    Returns:
        `tuple[Path, Path]`: the JSON and the HTML file.
    """
    from jinja2 import Environment

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"generated": generated, "truth": truth}
    provenance = {name: {"file": str(source.path), **source.attrs} for name, source in sources.items()}
    release = version("zoomdiff_diffusers")
    content = {"zoomdiff_diffusers": release, **provenance, **result}
    channels = [
        _describe_channel(index, name, result, generated, truth) for index, name in enumerate(result["channels"])
    ]
    page = Environment(autoescape=True).from_string(PAGE)
    html = page.render(facts=_facts(result, generated, truth), channels=channels, version=release)
    paths = folder / "evaluation.json", folder / "report.html"
    _write(paths[0], json.dumps(content, allow_nan=False) + "\n")
    _write(paths[1], html)
    return paths


def findings(result, channel):
    """
    What the scores of a channel say, in sentences.

    Args:
        result (`dict`): From [`~evaluation.evaluate.evaluate`].
        channel (`str`): One of its channels.

    Returns:
        `list[str]`.
    """
    levels = {name: scores for name, scores in result["channels"][channel]["levels"].items() if scores is not None}
    score = "CRPS" if result["samples"] > 1 else "Mean absolute error"
    of_all = ", ".join(f"{_percent(scores['crps'])} at {name}" for name, scores in levels.items())
    lines = [f"{score}, as a share of the mean traffic: {of_all}."]
    ratio = list(levels.values())[-1]["mean_ratio"]
    if ratio is not None and abs(ratio - 1) < 0.01:
        lines.append("In all, there is as much traffic as the truth, within 1 %.")
    elif ratio is not None:
        more = "more" if ratio > 1 else "less"
        lines.append(f"In all, there is {_percent(abs(ratio - 1))} {more} traffic than the truth.")
    return lines + _spread_findings(levels) + _sum_findings(levels, _has_zones(result))


def _spread_findings(levels):
    words = ["too narrow (overconfident)", "calibrated", "too wide (too cautious)"]
    lists = {word: [] for word in words}
    for name, scores in levels.items():
        if scores["spread_skill"] is not None:
            word = words[int(np.searchsorted(CALIBRATED, scores["spread_skill"]))]
            lists[word].append(f"{name} ({scores['spread_skill']:.2f})")
    return [
        f"The spread of the samples, over the error of their mean, is {word} at {', '.join(listed)}."
        for word, listed in lists.items()
        if listed
    ]


def _has_zones(result):
    return any("zones" in resolution for resolution in result["resolutions"].values())


def _sum_findings(levels, against_finest):
    errors = {name: scores["cross_level_error"] for name, scores in levels.items() if "cross_level_error" in scores}
    broken = [f"{name} (by up to {_percent(error, 1)})" for name, error in errors.items() if error > EXACT]
    if broken and against_finest:
        return [f"The finest level does not add up to these levels: {', '.join(broken)}."]
    if broken:
        return [f"These levels do not add up to the level above: {', '.join(broken)}."]
    if errors and against_finest:
        return [f"The finest level adds up to {', '.join(errors)}, to within {max(errors.values()):.0e}."]
    if errors:
        return [f"Every level adds up to the level above, to within {max(errors.values()):.0e}."]
    return []


def score_table(result, channel):
    """
    The scores of a channel as text.

    Returns:
        `list[dict]`: per score `name`, `unit`, `meaning` and `values`, one string per level.
    """
    levels = result["channels"][channel]["levels"]
    rows = []
    for key, name, unit, meaning in SCORES:
        if key == "cross_level_error" and _has_zones(result):
            meaning = "largest relative difference from the sum of the finest level"
        values = [None if scores is None else scores.get(key) for scores in levels.values()]
        if any(value is not None for value in values):
            unit = "of mean" if unit == "mean" else unit
            texts = ["–" if value is None else _number(value) for value in values]
            rows.append({"name": name, "unit": unit, "meaning": meaning, "values": texts})
    return rows


def _number(value):
    if value != 0 and abs(value) < 5e-4:
        return f"{value:.0e}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _percent(share, digits=0):
    return f"{100 * share:.{digits}f} %"


def _facts(result, generated, truth):
    hierarchy = generated.hierarchy
    finest = result["levels"][-1]
    steps, height, width = truth.levels[finest].shape[-3:]
    level = result["resolutions"][finest]
    side = hierarchy.raster_factors[-1] * hierarchy.config.cell_size / 1000
    known = float(np.isfinite(truth.levels[finest]).mean())
    days = f"{steps * level['hours'] / 24:g} days"
    facts = [
        ("Generated", generated.path.name),
        *((f"– {name}", value) for name, value in generated.attrs.items() if name != "Conventions"),
        ("Truth", truth.path.name),
        *((f"– {name}", value) for name, value in truth.attrs.items() if name != "Conventions"),
        ("Samples", result["samples"]),
        ("Area", f"{width * side:g} x {height * side:g} km"),
        ("Time", days if truth.start is None else f"{days} from {str(truth.start)[:16]}"),
        ("Levels", "; ".join(_resolution(level, hierarchy) for level in hierarchy.levels)),
    ]
    if known < 1:
        facts.append(("Truth known", f"{_percent(known, 1)} of the hours and places at the finest level"))
    return [(name, str(value)) for name, value in facts]


def _resolution(level, hierarchy):
    hours = level.temporal_factor * hierarchy.config.time_step
    return f"{level.name}: {name_of_scale(level, hierarchy)}, {hours:g} h"


def _describe_channel(index, name, result, generated, truth):
    of_channel = result["channels"][name]
    hierarchy, unit = generated.hierarchy, generated.units[index]
    per = f" per {hierarchy.config.cell_size:g} m cell and {hierarchy.config.time_step:g} h"
    levels = {level: values[:, index].astype(np.float64) for level, values in generated.levels.items()}
    measured = {level: values[0, index].astype(np.float64) for level, values in truth.levels.items()}
    return {
        "name": name,
        "findings": findings(result, name),
        "heads": result["levels"],
        "rows": score_table(result, name),
        "note": f"“of mean” is in multiples of the mean of the truth, {of_channel['mean']:.4g} {unit}{per}. Lower is "
        "better unless stated. Values of all levels are means per finest cell and time step."
        + (f" {ZONES}" if hierarchy.zone_layers else ""),
        "figures": _figures(of_channel, levels, measured, generated, unit, name, per),
    }


def _figures(of_channel, generated, truth, stored, unit, channel, per):
    from . import plots

    hierarchy = stored.hierarchy
    labels = {"start": stored.start, "unit": unit, "channel": channel}
    figures = {
        "Maps per level": plots.plot_levels(generated, truth, hierarchy, **labels, y=stored.y),
        "Series with the spread of the samples": plots.plot_series(
            generated, truth, hierarchy, _places(truth, hierarchy, stored.y), **labels
        ),
    }
    scores = {name: level for name, level in of_channel["levels"].items() if level and level["rank_histogram"]}
    if scores:
        figures["Calibration"] = plots.plot_calibration(scores)
    if of_channel["rv"]:
        shown = _first(of_channel["rv"], SHOWN_TYPES + 1)  # with that of the whole area
        figures["Similarity between levels"] = plots.plot_similarity(shown, hierarchy.names)
    if of_channel["decomposition"]:
        time_step = hierarchy.config.time_step * hierarchy.temporal_factors[-1]
        shown = _first(of_channel["decomposition"], SHOWN_TYPES)
        figures["Trend and season by type of area"] = plots.plot_decomposition(shown, time_step, per=per, **labels)
    return [{"title": title, "png": _png(figure), "caption": CAPTIONS[title]} for title, figure in figures.items()]


def _places(truth, hierarchy, y):
    """A busy and a typical cell, as (row, column) of the finest cells; named by their south-western corner."""
    finest, factor = truth[hierarchy.names[-1]], hierarchy.raster_factors[-1]
    mean = np.where(np.isfinite(finest), finest, 0.0).sum(axis=0) / np.maximum(np.isfinite(finest).sum(axis=0), 1)
    order = np.flatnonzero(np.isfinite(finest).any(axis=0))
    order = order[np.argsort(mean.ravel()[order], kind="stable")]
    places = {}
    for title, quantile in (("a busy cell", 0.99), ("a typical cell", 0.5)):
        row, column = (int(i) * factor for i in np.unravel_index(order[int(quantile * len(order))], mean.shape))
        side = hierarchy.config.cell_size / 1000
        from_south = (len(mean) - 1) * factor - row if y[-1] < y[0] else row
        if (row, column) not in places.values():
            places[f"{title} (x {column * side:g} km, y {from_south * side:g} km)"] = (row, column)
    return places


def _first(mapping, count):
    return dict(list(mapping.items())[:count])


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _write(path, text):
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
