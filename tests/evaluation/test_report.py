# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread
from support.traffic_files import HEIGHT, finest_traffic, pyramid, write_files, write_traffic

from zoomdiff_diffusers.evaluation.evaluate import evaluate
from zoomdiff_diffusers.evaluation.inputs import match_truth, read_area_types, read_traffic
from zoomdiff_diffusers.evaluation.report import findings, score_table, write_report
from zoomdiff_diffusers.hierarchy import Hierarchy


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def make_report(folder, samples, with_types, truth_levels=None):
    write_files(folder, samples, truth_levels)
    truth, generated = match_truth(read_traffic(folder / "truth.nc"), read_traffic(folder / "out.nc"))
    types = read_area_types(folder / "context.nc", (16, 24)) if with_types else (None, None)
    of_truth = {name: values[0] for name, values in truth.levels.items()}
    result = evaluate(generated.levels, of_truth, generated.hierarchy, generated.channels, *types)
    return result, write_report(folder / "new" / "report", result, generated, truth)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report"), samples=3, with_types=True)


def test_the_page_needs_nothing_from_elsewhere(report):
    _, (_, page) = report
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]+", "", html))
    tags = Tags(html)
    assert tags.open == []
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.found}
    sources = [attributes["src"] for tag, attributes in tags.found if tag == "img"]
    assert len(sources) == 5
    for source in sources:
        prefix, data = source.split(",")
        assert prefix == "data:image/png;base64"
        assert imread(io.BytesIO(base64.b64decode(data, validate=True))).std() > 0.05
    assert all(attributes["alt"] for tag, attributes in tags.found if tag == "img")


def test_the_page_says_what_was_compared_and_escapes_it(report):
    _, (_, page) = report
    html = page.read_text(encoding="utf-8")
    for text in ("out.nc", "truth.nc", "1.2 x 0.8 km", "3 days from 2026-03-04T00:00", "cell: 200 m, 4 h"):
        assert text in html
    assert "a &lt;b&gt;made-up&lt;/b&gt; model" in html


def test_both_files_are_written_with_all_numbers(report):
    result, (numbers, page) = report
    assert sorted(path.name for path in page.parent.iterdir()) == ["evaluation.json", "report.html"]
    content = json.loads(numbers.read_text(encoding="utf-8"))
    assert content["channels"] == result["channels"]
    assert content["generated"]["seed"] == 1 and content["truth"]["file"].endswith("truth.nc")
    html = page.read_text(encoding="utf-8")
    for row in score_table(result, "traffic"):
        assert (
            f"<th>{row['name']}</th><td>{row['unit']}</td>" + "".join(f"<td>{value}</td>" for value in row["values"])
            in html
        )


def test_figures_do_not_depend_on_the_order_of_the_rows(tmp_path):
    pages = []
    for name, rows in (("south_first", slice(None)), ("north_first", slice(None, None, -1))):
        for file, samples, seed in (("out.nc", 2, 1), ("truth.nc", 1, 2)):
            levels = {level: values[..., rows, :] for level, values in pyramid(finest_traffic(samples, seed)).items()}
            write_traffic(tmp_path / file, levels, y=(25.0 + 50 * np.arange(HEIGHT))[rows])
        truth, generated = match_truth(read_traffic(tmp_path / "truth.nc"), read_traffic(tmp_path / "out.nc"))
        of_truth = {level: values[0] for level, values in truth.levels.items()}
        result = evaluate(generated.levels, of_truth, generated.hierarchy, generated.channels)
        pages.append(write_report(tmp_path / name, result, generated, truth)[1].read_text(encoding="utf-8"))
    south_first, north_first = (
        dict(re.findall(r'<img alt="([^"]+)" src="data:image/png;base64,([^"]+)"', page)) for page in pages
    )
    for title in ("Maps per level: traffic", "Series with the spread of the samples: traffic"):
        assert north_first[title] == south_first[title], title


def test_a_single_sample_without_types_has_no_calibration(tmp_path):
    result, (_, page) = make_report(tmp_path, samples=1, with_types=False, truth_levels=["bs", "cell"])
    html = page.read_text(encoding="utf-8")
    assert "Calibration" not in html and "Trend and season" in html and "Maps per level" in html
    assert "cell: 200 m, 4 h" in html and "grid_50m" not in html  # finer levels than the truth's cannot be judged
    assert findings(result, "traffic")[0].startswith("Mean absolute error")
    assert "spread/skill" not in {row["name"] for row in score_table(result, "traffic")}


@pytest.mark.parametrize("units", ["mean", "sum"])
def test_a_refinement_of_the_truth_is_not_judged_at_the_level_that_was_given(units, tmp_path):
    levels, truth = pyramid(finest_traffic(3, seed=1)), pyramid(finest_traffic(1, seed=2))
    given, volume = truth["bs"], Hierarchy().volume("bs") if units == "sum" else 1
    levels = {name: values * Hierarchy().volume(name) if units == "sum" else values for name, values in levels.items()}
    levels["bs"] = np.repeat(given * np.float32(volume), 3, axis=0)
    write_traffic(tmp_path / "out.nc", levels, units=units)
    write_traffic(tmp_path / "truth.nc", truth)
    measured, generated = match_truth(read_traffic(tmp_path / "truth.nc"), read_traffic(tmp_path / "out.nc"))
    of_truth = {name: values[0] for name, values in measured.levels.items()}
    result = evaluate(generated.levels, of_truth, generated.hierarchy, generated.channels)
    lines = findings(result, "traffic")
    assert lines[0].startswith("CRPS, as a share of the mean traffic: 0 % at bs, ")
    spread = [line for line in lines if line.startswith("The spread")]
    assert spread and not any("bs (" in line for line in spread)
    assert "Calibration" in write_report(tmp_path, result, generated, measured)[1].read_text(encoding="utf-8")


def scores(**changes):
    level = {"crps": 0.2, "mean_ratio": 1.0, "spread_skill": 1.0, **changes}
    levels = {"bs": None, "cell": level, "grid": {**level, "cross_level_error": 2e-7, **changes}}
    resolutions = {name: {"metres": 50.0, "hours": 1.0} for name in levels}
    return {"samples": 4, "resolutions": resolutions, "channels": {"traffic": {"levels": levels}}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "CRPS, as a share of the mean traffic: 20 % at cell, 20 % at grid."),
        ({}, "In all, there is as much traffic as the truth, within 1 %."),
        ({"mean_ratio": 0.9}, "In all, there is 10 % less traffic than the truth."),
        ({"mean_ratio": 1.25}, "In all, there is 25 % more traffic than the truth."),
        ({"spread_skill": 0.5}, "is too narrow (overconfident) at cell (0.50), grid (0.50)."),
        ({"spread_skill": 1.5}, "is too wide (too cautious) at cell (1.50), grid (1.50)."),
        ({}, "is calibrated at cell (1.00), grid (1.00)."),
        ({}, "Every level adds up to the level above, to within 2e-07."),
        (
            {"cross_level_error": 0.3},
            "do not add up to the level above: cell (by up to 30.0 %), grid (by up to 30.0 %).",
        ),
    ],
)
def test_findings_say_what_the_scores_mean(changes, sentence):
    lines = findings(scores(**changes), "traffic")
    assert sum(sentence in line for line in lines) == 1, lines
