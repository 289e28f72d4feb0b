# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Cells in their own processes: one file each, done once, and a failure stops nothing."""

import json
from dataclasses import asdict

import pytest

from benchmarks.__main__ import main
from benchmarks.budgets import BUDGETS
from benchmarks.main_tables import cells
from benchmarks.runner import cell_name, is_done, run_cells


TINY = BUDGETS["tiny"]


def test_cells_run_once_and_a_failed_one_stops_nothing(tmp_path):
    works = {"experiment": "main", "dataset": "simulated", "system": "Hourly climatology", "seed": 0}
    fails = {"experiment": "main", "dataset": "nowhere", "system": "CSDI", "seed": 0}
    lines = []
    failed = run_cells([fails, works], TINY, tmp_path, jobs=1, report=lines.append)
    assert failed == [str(tmp_path / "main" / "nowhere--0--csdi.json")]
    assert "KeyError" in (tmp_path / "main" / "nowhere--0--csdi.log").read_text()
    path = tmp_path / "main" / "simulated--0--hourly-climatology.json"
    document = json.loads(path.read_text())
    (fold,) = document["results"]["folds"]
    assert document["cell"] == works
    assert document["budget"]["name"] == "tiny"
    assert {"commit", "processor", "torch"} <= set(document["circumstances"])
    assert set(fold["rows"]) == {"Hourly climatology", "Hourly climatology, aggregated"}
    assert all(
        level["crps"] == pytest.approx(level["mae_of_mean"], rel=1e-4)
        for level in fold["rows"]["Hourly climatology"].values()
    )
    written = path.stat().st_mtime_ns
    assert run_cells([works], TINY, tmp_path, jobs=1, report=lines.append) == []
    assert path.stat().st_mtime_ns == written
    assert lines[-1] == "1 of 1 cells are done already"


def test_results_of_another_budget_or_cell_are_not_taken(tmp_path):
    cell = {"experiment": "main", "system": "CSDI"}
    path = tmp_path / "cell.json"
    assert not is_done(path, cell, TINY)
    path.write_text(json.dumps({"cell": cell, "budget": asdict(TINY)}))
    assert is_done(path, cell, TINY)
    assert not is_done(path, {**cell, "seed": 1}, TINY)
    assert not is_done(path, cell, TINY.with_seconds(11.0))


def test_every_cell_of_the_main_tables_has_its_own_file():
    names = [cell_name(cell) for cell in cells(TINY)]
    assert len(set(names)) == len(names) > 50


def test_cells_can_be_listed_and_chosen(capsys):
    words = ["run", "--list", "--experiment", "main", "--dataset", "bonn", "beijing", "--system", "CSDI", "ZoomDiff"]
    assert main(words) == 0
    assert capsys.readouterr().out.split() == [
        "main/bonn--0--zoomdiff",
        "main/bonn--0--csdi",
        "main/beijing--0--zoomdiff",
        "main/beijing--0--csdi",
    ]


def test_the_main_tables_take_several_training_seeds(capsys):
    words = ["--experiment", "main", "schedules", "--dataset", "simulated", "--system", "CSDI", "SN, SA, SD"]
    assert main(["run", "--list", *words, "--seeds", "1", "2"]) == 0
    assert capsys.readouterr().out.split() == [
        "main/simulated--1--csdi",
        "main/simulated--2--csdi",
        "schedules/simulated--0--sn--sa--sd",
    ]


def test_the_experiments_of_the_paper_are_the_default(capsys):
    def listed(*words):
        assert main(["run", "--list", *words]) == 0
        return {line.split("/")[0] for line in capsys.readouterr().out.split()}

    paper = {"main", "schedules", "resolution_preference", "efficiency", "refinement", "transfer", "figures"}
    assert listed() == listed("--experiment", "paper") == paper
    assert listed("--experiment", "all") == paper | {"sides", "few_steps", "recipes"}


@pytest.mark.parametrize(
    "words, message",
    [
        (["--budget", "huge"], "--budget must be one of tiny, small, full, got 'huge'"),
        (["--experiment", "main", "--dataset", "atlantis"], "--dataset: no cell of these experiments has atlantis"),
        (["--experiment", "dinner"], "got dinner"),
    ],
)
def test_unknown_choices_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["run", "--list", *words])
    assert message in capsys.readouterr().err
