# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the buttons do, without a browser: the bundled model on small areas."""

import base64
import csv
import dataclasses
import importlib.util
import json
import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from zoomdiff_space import areas, limits, runs, views
from zoomdiff_space.tabs import refine

from zoomdiff_diffusers.data.simulated_city import SimulatedCity
from zoomdiff_diffusers.evaluation.inputs import read_traffic


SPACE = areas.EXAMPLES.parent
HEIGHT, WIDTH = 8, 16


@pytest.fixture(scope="module")
def engine():
    return runs.Engine()


def small_area(hours=None, **coordinates):
    """A corner of the example; with `hours` as if it had been uploaded."""
    context = areas.example_area().context.isel(y=slice(HEIGHT), x=slice(8, 8 + WIDTH))
    if hours is not None:
        context = context.isel(hour=slice(hours))
    context = context.drop_vars(["y", "x"]).assign_coords(coordinates)
    return areas.Area("a corner", context, HEIGHT, WIDTH, whole_week=hours is None)


def quiet(done, total, text):
    pass


@pytest.fixture(scope="module")
def result(engine):
    north_first = {"y": 5.6e6 - 50.0 * np.arange(HEIGHT), "x": 50.0 * np.arange(WIDTH)}
    return engine.generate(small_area(hours=48, **north_first), "2026-03-03", 3, 1, 8, quiet)


def test_progress_names_every_level_in_order_and_ends_at_the_end(engine):
    seen = []
    engine.generate(small_area(hours=24), "2026-03-03", 1, 0, 8, lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == list(range(1, 9)) and {total for _, total, _ in seen} == {8}
    assert list(dict.fromkeys(text for _, _, text in seen)) == [
        "Level 1 of 4: Base station, 400 m, 1 day",
        "Level 2 of 4: Cell, 200 m, 4 h",
        "Level 3 of 4: Grid, 100 m, 2 h",
        "Level 4 of 4: Grid, 50 m, 1 h",
    ]


def test_the_same_seed_gives_the_same_traffic_and_another_another(engine, result):
    area = small_area(hours=48)
    again, other = (engine.generate(area, "2026-03-03", 3, seed, 8, quiet).finest for seed in (1, 2))
    np.testing.assert_array_equal(again, result.finest)
    assert np.abs(other - again).mean() > 0.03 * again.mean()


def test_both_downloads_hold_the_same_totals(result, tmp_path):
    stored = read_traffic(result.write_netcdf(tmp_path))
    assert stored.start == np.datetime64("2026-03-03") and stored.units == ["MB"] and stored.attrs["seed"] == 1
    for name, values in result.levels.items():
        np.testing.assert_allclose(stored.levels[name], values, rtol=1e-6)
        table = pd.read_csv(result.write_csv(tmp_path, name))
        totals = table[[f"sample_{sample}" for sample in range(3)]].sum()
        np.testing.assert_allclose(totals, values.sum(axis=(1, 2, 3, 4)) * result.volume(name), rtol=1e-5)
    assert table["y"].iloc[0] == 5.6e6 and set(table["unit"]) == {"MB"}


def test_refining_keeps_what_was_measured_and_fills_the_rest(engine, tmp_path):
    rows = [("2026-03-06", 100, 100, 5000), ("2026-03-06", 100, 500, 0), ("2026-03-07", 399, 799, 1234.5)]
    path = tmp_path / "measured.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([("date", "y", "x", "value"), *rows])
    result, given = engine.refine(small_area(), str(path), 2, 0, 8, quiet)
    assert given["values"] == 3 and given["missing"] == 1 and given["deviation"] < 1e-5
    days = result.finest.reshape(2, 2, 24, 8, 2, 8).astype(np.float64).sum(axis=(2, 3, 5))
    np.testing.assert_allclose(days[:, 0], [[5000, 0]] * 2, rtol=1e-6)
    np.testing.assert_allclose(days[:, 1, 1], 1234.5, rtol=1e-6)
    assert (days[:, 1, 0] > 0).all() and result.start == np.datetime64("2026-03-06")
    note = views.refinement_note(given)
    assert "3 measured values" in note and "1 were missing" in note and "0.0001 %" in note


def test_refined_base_stations_can_be_refined_again(engine, tmp_path):
    stations = str(areas.EXAMPLES / "stations.csv")
    result, given = engine.refine(areas.example_area(), stations, 1, 0, 8, quiet)
    assert given["values"] + given["missing"] == 84 and given["missing"] == 5
    again, given = engine.refine(areas.example_area(), str(result.write_csv(tmp_path, "bs")), 1, 0, 8, quiet)
    assert given["missing"] == 0 and given["deviation"] < 1e-5
    np.testing.assert_allclose(again.levels["bs"], result.levels["bs"], rtol=1e-6)


def test_the_examples_are_what_their_script_writes(tmp_path):
    specification = importlib.util.spec_from_file_location("make_examples", SPACE / "make_examples.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    script.main(tmp_path)
    assert (tmp_path / "stations.csv").read_bytes() == (areas.EXAMPLES / "stations.csv").read_bytes()
    with xr.open_dataset(tmp_path / "area.nc") as written:
        xr.testing.assert_identical(written, xr.load_dataset(areas.EXAMPLES / "area.nc"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "2026-03-03", 17, 0, 8), "Samples must be between 1 and 16"),
        ((None, "2026-03-03", 2, -1, 8), "Seed must be between"),
        ((None, "2026-03-03", 2, 0, 4), "Steps must be between 8 and 60"),
        ((None, "2026-03-03", 2, 0.5, 8), "Seed must be a whole number"),
        ((None, "03/03/2026", 2, 0, 8), "written as 2026-03-02"),
        ((None, "9999-12-31", 2, 0, 8), "between the years"),
        ((30, "2026-03-03", 2, 0, 8), "covers 30 hours; it must cover whole days"),
    ],
)
def test_bad_numbers_are_refused_before_any_work(engine, arguments, message):
    hours, *rest = arguments
    with pytest.raises(ValueError, match=message):
        engine.generate(small_area(hours), *rest, lambda *step: pytest.fail("work began"))


def test_areas_that_do_not_fit_are_refused_before_any_work(engine):
    context = {"surface": np.zeros((12, 16), dtype=int)}
    fail = lambda *step: pytest.fail("work began")  # noqa: E731
    with pytest.raises(ValueError, match="12 × 16 cells; both numbers must be multiples of 8"):
        engine.generate(areas.Area("a", context, 12, 16, whole_week=False), "2026-03-03", 2, 0, 8, fail)
    with pytest.raises(ValueError, match="times what this page allows"):
        engine.compare(list(areas.SIZES)[-1], 1, 16, 0, 60, fail)
    with pytest.raises(ValueError, match="No file yet"):
        engine.refine(small_area(), None, 2, 0, 8, fail)
    with pytest.raises(ValueError, match="No file yet"):
        areas.choose_area(areas.OWN, "", 1, None)
    stations = str(areas.EXAMPLES / "stations.csv")
    with pytest.raises(ValueError, match="Line 4: x is 1000 m, outside of the area"):
        engine.refine(small_area(), stations, 2, 0, 8, fail)
    whole = areas.example_area()
    short = areas.Area("short", whole.context.isel(hour=slice(24)), 24, 32, whole_week=False)
    with pytest.raises(ValueError, match="covers 168 hours, but the context file 24"):
        engine.refine(short, stations, 2, 0, 8, fail)


@pytest.mark.parametrize("area, corner", [(areas.helsinki_area(), (6671500, 385550)), (small_area(), (0, 0))])
def test_positions_are_those_of_the_area_as_the_page_says(engine, tmp_path, area, corner):
    generated = engine.generate(area, "2026-03-02", 1, 0, 8, quiet).write_csv(tmp_path, "bs")
    shown = pd.read_csv(generated)
    assert (shown["y"].min(), shown["x"].min()) == (corner[0] + 200, corner[1] + 200)
    shown[shown["time"] == "2026-03-02 00:00"].to_csv(tmp_path / "stations.csv", index=False)
    assert engine.refine(area, str(tmp_path / "stations.csv"), 1, 0, 8, quiet)[1]["missing"] == 0
    assert "in UTM coordinates in central Helsinki" in refine.INTRODUCTION
    assert "from the south-west corner in a simulated city" in refine.INTRODUCTION


def test_a_file_with_dates_must_be_asked_for_these(engine):
    area = dataclasses.replace(small_area(hours=24), begins=np.datetime64("2026-03-05T00:00:00"))
    with pytest.raises(ValueError, match="begins at 2026-03-05 00:00. Enter its date as the first day"):
        engine.generate(area, "2026-03-04", 1, 0, 8, quiet)
    assert engine.generate(area, "2026-03-05", 1, 0, 8, quiet).start == area.begins


def test_a_run_that_takes_too_long_is_stopped(engine, monkeypatch):
    monkeypatch.setattr(limits, "RUN_SECONDS", 0)
    with pytest.raises(ValueError, match="longer than 0 s and was stopped"):
        engine.generate(small_area(hours=24), "2026-03-03", 1, 0, 8, quiet)


def test_scores_of_the_law_itself_are_those_of_another_library(engine):
    import scoringrules

    size = next(iter(areas.SIZES))
    scores = engine.compare(size, 5, 4, 0, 8, quiet)
    city = SimulatedCity(*areas.SIZES[size], areas.city_seed(5))
    truth = city.sample_traffic(runs.TRUE_WEEKS, seed=1)
    law = city.sample_traffic(4, seed=2)
    expected = scoringrules.crps_ensemble(
        truth, np.broadcast_to(law[:, None], (4, *truth.shape)), m_axis=0, estimator="fair"
    )
    assert scores["levels"]["grid_50m"]["law"]["crps"] == pytest.approx(expected.mean(), rel=1e-5)
    assert scores["levels"]["grid_50m"]["law"]["mae"] == pytest.approx(
        np.abs(law.mean(axis=0) - truth).mean(), rel=1e-5
    )
    spread = law.var(axis=0, ddof=1, dtype=np.float64).mean() * 5 / 4
    error = np.square(law.mean(axis=0, dtype=np.float64) - truth).mean()
    assert scores["levels"]["grid_50m"]["law"]["spread_skill"] == pytest.approx(np.sqrt(spread / error), rel=1e-5)
    text = views.comparison_table(scores, engine.hierarchy)
    assert text.count("<tr>") == 5 and "Simulated city 5" in text
    heads = re.findall(r"<th scope='col'>(.*?)</th>", text)
    assert heads[1:3] == ["CRPS, MB", "best possible"]  # the mean of a few samples of the law can be beaten
    assert heads[3:] == ["MAE, MB", "samples of the law", "Spread/skill", "samples of the law"]


def test_the_sentence_follows_the_scores(engine):
    def scores(crps, spread):
        level = {
            "model": {"crps": crps, "mae": 1, "spread_skill": spread},
            "law": dict.fromkeys(("crps", "mae", "spread_skill"), 1.0),
        }
        return {
            "name": "city 1",
            "unit": "MB",
            "samples": 4,
            "weeks": 8,
            "levels": dict.fromkeys(engine.hierarchy.names, level),
        }

    said = views.comparison_sentence(scores(1.2, 0.5), engine.hierarchy)
    assert "at most 20 % above" in said and "less than they should" in said
    said = views.comparison_sentence(scores(0.9, 1.0), engine.hierarchy)
    assert "as low as the best possible" in said and "about as much as they should" in said


def test_the_maps_show_the_values_on_one_scale(result):
    data = json.loads(views.zoom_data(result, "Sample 2", (3, 5)))
    assert data["north_up"] and data["place"] == [3, 5] and len(data["labels"]) == 48
    assert data["labels"][18] == "Tuesday 3 March 2026, 18:00"
    assert [level["title"] for level in data["levels"]][0] == "Base station, 400 m, 1 day"
    ticks = {float(tick["label"]): tick["position"] for tick in data["ticks"]}
    assert ticks[0.0] == 0 and max(ticks.values()) == pytest.approx(1, abs=0.01)
    everything, colours = [], []
    for level, name in zip(data["levels"], result.levels):
        bytes_ = np.frombuffer(base64.b64decode(level["colours"]), np.uint8).reshape(level["shape"])
        values = result.levels[name][1, 0]
        assert bytes_.shape == values.shape
        everything.append(values.ravel()), colours.append(bytes_.ravel())
    values, colours = np.concatenate(everything), np.concatenate(colours).astype(int)
    assert (np.diff(colours[np.argsort(values, kind="stable")]) >= 0).all()  # one scale: more is never darker
    assert colours.max() == 255 and len(set(colours)) > 100
    mean = json.loads(views.zoom_data(result, views.MEAN, (3, 5)))
    assert mean["levels"][3]["colours"] != data["levels"][3]["colours"]


def test_series_of_a_place_are_those_of_its_units(result):
    figure = views.series_figure(result, (7, 9))
    medians = [trace for trace in figure.data if trace.name == "median"]
    bands = [trace for trace in figure.data if trace.name == "10 to 90 % of samples"]
    assert len(medians) == len(bands) == 4
    for trace, band, level in zip(medians, bands, result.hierarchy.levels):
        values = result.levels[level.name][:, 0, :, 7 // level.spatial_factor, 9 // level.spatial_factor]
        totals = values * result.volume(level.name)
        scale = 1000 if np.quantile(totals, 0.9, axis=0).max() >= 2000 else 1
        np.testing.assert_allclose(trace.y[:-1], np.median(totals, axis=0) / scale, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(band.y[:-1], np.quantile(totals, 0.9, axis=0) / scale, rtol=1e-3, atol=1e-3)
        assert len(trace.x) == 48 // level.temporal_factor + 1 and trace.x[0] == "2026-03-03T00:00:00"
    assert "Row 7, column 9: 475 m from the west edge, 25 m from the south edge" in views.place_table(result, (7, 9))


def test_text_of_strangers_cannot_become_part_of_the_page(result):
    assert views.error_text(ValueError("<img src=x onerror=alert(1)>")) == "&lt;img src=x onerror=alert(1)&gt;"
    made = views.table("<i>", ["<b>"], [["<script>", "<a>"]])
    assert not re.search(r"<(i|b|script|a)>", made)


def test_nothing_to_fetch_and_no_pickle():
    for path in SPACE.rglob("*"):
        if path.suffix in (".py", ".js", ".css"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"https?://|@import|url\(", text), path
            assert not re.search(
                r"torch\.(load|save)\(|allow_pickle=True|^\s*(import|from) pickle|\beval\(", text, re.M
            ), path


def test_a_space_can_install_it_as_it_stands():
    import tomllib

    import yaml
    from packaging.requirements import Requirement

    root = SPACE.parents[1]
    lines = (SPACE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith(("#", "--extra-index-url https://"))]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {requirement.name for requirement in requirements} == {"torch", project["name"]}
    assert not any(requirement.url for requirement in requirements)  # neither a folder nor a repository
    for requirement in requirements:
        assert requirement.extras <= set(project["optional-dependencies"])
        assert requirement.name != project["name"] or requirement.specifier.contains(project["version"])
    front = yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---")[1])
    pins = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert front["sdk"] == "gradio" and f"gradio=={front['sdk_version']}" in pins
    assert (SPACE / front["app_file"]).is_file() and len(front["short_description"]) <= 60
    assert Requirement(f"python{project['requires-python']}").specifier.contains(front["python_version"])


def with_stadium(engine, **options):
    defaults = {"preset": "stadium", "row": 4, "column": 11, "metres": 150, "first_day": "2026-03-03", "samples": 3}
    return engine.what_if(small_area(hours=24), **defaults | options, seed=1, steps=8, progress=quiet)


def test_a_plan_is_placed_inside_the_area_and_its_difference_shown_on_one_scale(engine, tmp_path):
    difference = with_stadium(engine, row=7, column=15)
    assert difference.square == (5, 13, 3)  # moved to stay inside
    totals = difference.report["totals"]
    assert totals["population"]["after"] < totals["population"]["before"]
    data = json.loads(views.difference_data(difference, views.CHANGE, (6, 14)))
    assert data["square"] == [5, 13, 3] and len(data["palette"]) == 256 and len(data["labels"]) == 1
    values, colours = [], []
    for level, shown in zip(difference.hierarchy.levels, data["levels"]):
        bytes_ = np.frombuffer(base64.b64decode(shown["colours"]), np.uint8).reshape(shown["shape"])[0]
        found = difference.tree[level.name]["period_difference"].values[0] / level.spatial_factor**2
        assert bytes_.shape == found.shape
        assert (bytes_[found > 1] >= 128).all() and (bytes_[found < -1] <= 127).all()
        values.append(found.ravel()), colours.append(bytes_.ravel())
    values, colours = np.concatenate(values), np.concatenate(colours).astype(int)
    assert (np.diff(colours[np.argsort(values, kind="stable")]) >= 0).all()  # one scale
    assert [tick["position"] for tick in data["ticks"]] == sorted(tick["position"] for tick in data["ticks"])
    spread = json.loads(views.difference_data(difference, views.SPREAD, (6, 14)))
    assert spread["ticks"][0] == {"label": "0", "position": 0.0}
    text = views.difference_summary(difference)
    change = float((difference.tree["edited_after"] - difference.tree["edited_before"]).mean()) / 1000
    assert f"{'rises' if change > 0 else 'falls'} by {views.amount(abs(change))} GB in 1 days" in text
    assert "learnt from simulated cities" in text
    figure = views.difference_figure(difference)
    drawn = sum(figure.data[1].y[:-1]) - sum(figure.data[0].y[:-1])
    assert drawn == pytest.approx(change, abs=0.01)
    with xr.open_datatree(difference.write_netcdf(tmp_path)) as tree:
        xr.testing.assert_equal(tree["cell"].to_dataset(), difference.tree["cell"].to_dataset())


def test_what_a_plan_changes_is_written_where_the_area_lies(engine, tmp_path):
    north_first = {"y": 5.6e6 - 50.0 * np.arange(HEIGHT), "x": 3.6e5 + 50.0 * np.arange(WIDTH)}
    arguments = {"row": 4, "column": 11, "metres": 150, "first_day": "2026-03-03", "samples": 2, "seed": 1, "steps": 8}
    areas_ = small_area(hours=24, **north_first), small_area(hours=24)
    located, bare = (engine.what_if(area, "stadium", **arguments, progress=quiet) for area in areas_)
    assert located.north_up and not bare.north_up and located.square == bare.square
    with xr.open_datatree(located.write_netcdf(tmp_path)) as tree:
        for axis, centres in north_first.items():
            np.testing.assert_array_equal(tree["grid_50m"][axis], centres)
        np.testing.assert_array_equal(tree["bs"]["y"], [5.6e6 - 175])
        for name in engine.hierarchy.names:  # row by row as on the page
            np.testing.assert_array_equal(tree[name]["difference"], bare.tree[name]["difference"])
    np.testing.assert_array_equal(bare.tree["grid_50m"]["y"], 50.0 * np.arange(HEIGHT) + 25)


def test_progress_of_a_plan_counts_both_runs(engine):
    seen = []
    with_stadium_options = {"progress": lambda *step: seen.append(step)}
    engine.what_if(small_area(hours=24), "park", 1, 1, 100, "2026-03-03", 2, 0, 8, **with_stadium_options)
    assert [done for done, _, _ in seen] == list(range(1, 17)) and {total for _, total, _ in seen} == {16}
    assert seen[0][2].startswith("Without, level 1") and seen[-1][2].startswith("With, level 4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "castle"}, "What is built must be one of: housing"),
        ({"metres": 1050}, "Side must be between 50 and 1000"),
        ({"row": 8}, "Row must be between 0 and 7"),
        ({"column": None}, "Column must be a whole number"),
        ({"samples": 1}, "Samples must be between 2 and 16"),
    ],
)
def test_plans_that_cannot_be_are_explained(engine, options, message):
    with pytest.raises(ValueError, match=message):
        with_stadium(engine, **options)


def test_the_map_of_land_use_shows_what_a_cell_holds():
    area = areas.helsinki_area()
    codes, names = views.land_use_codes(area), list(views.LAND_USE)
    surface, aoi = area.context["surface"].values, area.context["aoi"].values
    assert (codes[surface == 1] == names.index("water")).all() and (surface == 1).any()
    parks = (aoi == views.AOI_CLASSES.index("park")) & np.isin(surface, [0, 2, 3])
    assert (codes[parks] == names.index("park")).all() and parks.any()
    row, column = views.green_place(area, 6)
    assert (codes[row - 3 : row + 3, column - 3 : column + 3] == names.index("park")).mean() > 0.5
    bare = dataclasses.replace(area, context=area.context[["population"]])
    assert set(np.unique(views.land_use_codes(bare))) == {names.index("other built ground")}
    data = json.loads(views.land_use_data(area, (row, column), 6))
    assert data["side"] == 6 and data["levels"][0]["shape"] == [1, 32, 16] and not data["north_up"]
