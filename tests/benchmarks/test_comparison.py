# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From scores to what the results page says."""

import json

import pytest

from benchmarks import figures
from benchmarks.comparison import average, check_levels, over_seeds, paper_claim, seed_table
from benchmarks.markdown import emphasised, markdown_table, number
from benchmarks.results_page import opening, page, write_page


def scores(crps, mae=1.0, spread_skill=1.0, wasserstein=0.1, mae_of_sample=1.4):
    return {
        "crps": crps,
        "mae_of_mean": mae,
        "mae_of_median": 0.85 * mae,
        "mae_of_sample": mae_of_sample,
        "spread_skill": spread_skill,
        "wasserstein": wasserstein,
        "rank_histogram": [0.5, 0.5],
    }


ROWS = {
    "ours": {"fine": scores(0.80)},
    "CSDI": {"fine": scores(0.99)},
    "CSDI, aggregated": {"fine": scores(0.94)},
    "DiT": {"fine": scores(1.20, wasserstein=0.05)},
    "XGBoost": {"fine": scores(0.90, mae=0.90, spread_skill=None, mae_of_sample=0.90)},
    "floor": {"fine": scores(0.10, wasserstein=0.01)},
}


def test_scores_are_averaged_over_folds():
    folds = [{"fine": scores(1.0)}, {"fine": scores(3.0, spread_skill=None)}]
    folds[1]["fine"]["rank_histogram"] = [0.25, 0.75]
    mean = average(folds)["fine"]
    assert mean["crps"] == 2.0
    assert mean["spread_skill"] is None
    assert mean["rank_histogram"] == [0.375, 0.625]


def trained(system, seed, *crps, dataset="city"):
    """Document of one training seed, with the CRPS of each fold."""
    folds = [
        {"rows": {system: {"fine": scores(value)}}, "steps": 10 * seed, "has_distribution": True} for value in crps
    ]
    return {"cell": {"dataset": dataset, "system": system, "seed": seed}, "results": {"folds": folds}}


def test_training_seeds_are_averaged_system_by_system_and_fold_by_fold():
    documents = [trained("ours", 0, 1.0, 2.0), trained("DiT", 0, 5.0, 5.0), trained("ours", 1, 2.0, 6.0)]
    ours, other, elsewhere = over_seeds([*documents, trained("ours", 0, 9.0, dataset="town")])
    folds = ours["results"]["folds"]
    assert [fold["rows"]["ours"]["fine"]["crps"] for fold in folds] == [1.5, 4.0]
    assert folds[0]["steps"] == 5.0
    assert folds[0]["has_distribution"] is True
    assert [document["cell"]["system"] for document in (ours, other, elsewhere)] == ["ours", "DiT", "ours"]
    assert elsewhere["results"]["folds"][0]["rows"]["ours"]["fine"]["crps"] == 9.0


def test_seeds_are_shown_from_the_lowest_to_the_highest():
    documents = [trained("ours", 0, 2.0, 3.0), trained("DiT", 0, 5.0), trained("ours", 1, 1.0, 2.0)]
    assert seed_table(documents, "crps").splitlines()[2:] == ["| ours | 1.5 to 2.5 |", "| DiT | 5 |"]


def test_bars_are_checked_against_the_best_of_those_they_name():
    found = {line["bar"]: line for line in check_levels(ROWS, "ours", "city", floor="floor")}
    met = {bar.removeprefix("city, fine: "): line["met"] for bar, line in found.items()}
    assert met == {
        "CRPS lowest of all systems": True,
        "Wasserstein distance of the values lowest of all systems": False,  # that of DiT
        "CRPS at least 15 % below the best of CSDI, DiT and Diffusion-TS": False,  # 0.8 > 0.85 * 0.94
        "MAE of the ensemble mean no worse than the best of XGBoost and Transformer": False,
        "MAE of the ensemble median no worse than the best of XGBoost and Transformer": False,
        "spread/skill between 0.8 and 1.2": True,
    }
    (text,) = (line["found"] for bar, line in found.items() if "15 %" in bar)
    assert text == "0.8 against 0.94 of CSDI, aggregated"
    (mean,) = (line["found"] for bar, line in found.items() if "ensemble mean" in bar)
    assert mean == "1 against 0.9 of XGBoost; 1 of floor misses it too"


def test_ensembles_made_for_it_are_compared_with_forecasts_and_an_unreachable_bar_says_so():
    forecasts = {"ours": {"fine": scores(0.1, mae=0.89)}, "floor": {"fine": scores(0.1, mae=0.95)}}
    rows = ROWS | {"floor": {"fine": scores(0.80, spread_skill=1.1, wasserstein=0.01)}}
    found = {line["bar"]: line for line in check_levels(rows, "ours", "city", forecasts, "floor")}
    (mean,) = (line for bar, line in found.items() if "ensemble mean" in bar)
    (margin,) = (line for bar, line in found.items() if "15 %" in bar)
    assert mean["met"]
    assert mean["found"] == "0.89 against 0.9 of XGBoost; 0.95 of floor misses it too"
    assert margin["found"] == "0.8 against 0.94 of CSDI, aggregated; 0.8 of floor misses it too"
    assert all("misses" not in line["found"] for bar, line in found.items() if "Wasserstein" in bar)
    assert [line["found"] for bar, line in found.items() if "spread/skill" in bar] == ["1; 1.1 of floor"]


def test_verdicts_within_the_scatter_of_the_seeds_are_said_to_be():
    def rows(ours, rival):
        return {"ours": {"fine": scores(ours, mae=0.5)}, "rival": {"fine": scores(rival, mae=0.5)}}

    def crps_bar(seeds):
        means = average(seeds)
        forecasts = [{} for _ in seeds]
        return next(line for line in check_levels(means, "ours", "city", seeds=seeds, forecasts_of_seeds=forecasts))

    # The standard error of the difference of the means is sqrt(0.01 / 3 + 0.01 / 3) = 0.0816.
    close = [rows(0.9 + step, 1.0 + other) for step, other in ((-0.1, 0.1), (0.0, -0.1), (0.1, 0.0))]
    apart = [rows(0.8 + step, 1.0 + other) for step, other in ((-0.1, 0.1), (0.0, -0.1), (0.1, 0.0))]
    assert crps_bar(close)["chance"] and crps_bar(close)["found"].endswith("of rival, within chance")
    assert not crps_bar(apart)["chance"] and crps_bar(apart)["met"]
    assert not crps_bar(close[:1])["chance"]  # one seed has no scatter


def test_the_claim_of_the_paper_is_held_against_all_and_against_those_with_a_distribution():
    text = paper_claim({"city": ROWS}, "ours", ("floor",))
    assert "55.6 % above that of the best other system" in text  # 1.4 against 0.9
    assert "the lowest in 0 of 1 comparisons" in text
    assert "it is 0.0 % below that of the best" in text


def test_the_best_is_bold_and_the_second_in_italics():
    assert emphasised([3.0, 1.0, None, 2.0]) == ["3", "**1**", "–", "*2*"]
    assert emphasised([3.0, 1.0, 2.0], "highest") == ["**3**", "1", "*2*"]
    assert emphasised([0.7, 1.1, 2.0], "one") == ["*0.7*", "**1.1**", "2"]
    assert emphasised([3.0, 1.0, 2.0], ranked=[True, False, True]) == ["*3*", "1", "**2**"]


@pytest.mark.parametrize(
    "value, text", [(0.12345, "0.123"), (0.0, "0"), (1234.5, "1234"), (1e-5, "1.00e-05"), (None, "–"), (99.96, "100")]
)
def test_numbers_have_three_digits(value, text):
    assert number(value) in (text, text.replace("1234", "1230"))


def test_a_table_has_one_line_per_row():
    assert markdown_table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"


def test_the_page_opens_with_what_is_missed():
    lines = [
        {"bar": "city, fine: CRPS lowest", "met": False, "found": ""},
        {"bar": "city, coarse: CRPS lowest", "met": False, "found": ""},
        {"bar": "other city, coarse: CRPS lowest", "met": None, "found": ""},
        {"bar": "calibrated", "met": True, "found": "", "chance": True},
        {"bar": "few steps", "met": None, "found": ""},
        {"bar": "apart", "met": True, "found": "", "chance": False},
    ]
    paragraph, table = opening("The claim fails.", lines).split("\n\n")
    assert paragraph.startswith("The claim fails. Of 6 bars, 2 are met, 2 missed, and 2 open")
    assert "1 verdicts are within chance" in paragraph
    assert table.splitlines()[2:] == [
        "| CRPS lowest | 0 | 2 | 1 | – |",  # nobody assessed whether these are chance
        "| calibrated | 1 | 0 | 0 | 1 |",
        "| few steps | 0 | 0 | 1 | – |",
        "| apart | 1 | 0 | 0 | 0 |",
    ]
    assert opening("The claim fails.", []) == "The claim fails."


GENERATION = ("discriminative_score", "forecast_ratio", "neighbour_median_ratio", "neighbour_smallest_ratio")


def document(system, rows, **more):
    fold = {
        "rows": rows,
        "test_windows": 3,
        "generation": dict.fromkeys(GENERATION, 0.25),
        "cross_level_error": {"fine": 1e-7},
        "num_parameters": 5,
        "training_seconds": 2.0,
        "sampling_seconds": 1.0,
        **more,
    }
    budget = {"name": "small", "seconds": 45, "fold_seconds": 15, "point_seconds": 20, "num_samples": 8, "width": 32}
    machine = {"accelerator": None, "processor": "a CPU", "threads": 1, "torch": "2", "python": "3", "commit": "abc"}
    return {
        "cell": {"experiment": "main", "dataset": "bonn", "system": system, "seed": 0},
        "budget": budget,
        "seconds": 36.0,
        "results": {"folds": [fold]},
        "circumstances": machine,
    }


def test_the_page_is_made_from_the_files_alone(tmp_path):
    forecast = {"fine": {"mae_of_mean": 0.875, "mae_of_median": 0.75}}
    documents = [
        document("ZoomDiff", {"ZoomDiff": ROWS["ours"]}, forecast=forecast),
        document("XGBoost", {"XGBoost": ROWS["XGBoost"], "XGBoost, aggregated": ROWS["XGBoost"]}),
        document("CSDI", {"CSDI": ROWS["CSDI"], "CSDI, aggregated": ROWS["CSDI, aggregated"]}),
    ]
    (tmp_path / "main").mkdir()
    for number_of_file, content in enumerate(documents):
        (tmp_path / "main" / f"{number_of_file}.json").write_text(json.dumps(content), encoding="utf-8")
    write_page(tmp_path, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert text == page({"main": documents})
    first, kinds = text.split("\n\n")[1:3]
    assert first.startswith("The paper's claim is") and "| MAE of the ensemble mean no worse" in kinds
    forecasts = text.split("As forecasts, MAE:")[1].split("\n\n")[1]
    assert forecasts.splitlines()[2:] == [
        "| ZoomDiff, mean | *0.875* |",
        "| ZoomDiff, median | **0.75** |",
        "| XGBoost | 0.9 |",
        "| XGBoost, aggregated | – |",  # the finest level of one system is that of the other
    ]
    assert "Bonn, east held out (open context, traffic synthesised by a third party)" in text
    assert "3 cells, 0.0 hours of work in all, seeds 0." in text
    assert not list(tmp_path.glob("*.part"))


def test_the_figures_of_a_page_are_beside_it_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "figures").mkdir(parents=True)
    levels = {"fine": {"crps": 1.0, "mae_of_sample": 2.0}}
    for index, system in enumerate((figures.DEFAULT, *figures.ENCODINGS)):
        content = document(system, {}) | {"results": {"levels": levels, "steps": 5}}
        (tmp_path / "results" / "figures" / f"{index}.json").write_text(json.dumps(content), encoding="utf-8")
    write_page(tmp_path / "results", tmp_path / "mine" / "page.md")
    image = "images/results/figure-13.png"
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")] == [f"mine/{image}"]
    assert f"]({image})" in (tmp_path / "mine" / "page.md").read_text(encoding="utf-8")


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no <experiment>/<cell>.json"):
        write_page(tmp_path, tmp_path / "results.md")
