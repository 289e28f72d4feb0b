# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The other sides of Bonn."""

from benchmarks import main_tables, sides
from benchmarks.budgets import BUDGETS
from benchmarks.datasets import DATASETS
from benchmarks.runner import PAPER, as_json


def test_the_sides_have_the_systems_of_the_main_tables():
    budget = BUDGETS["small"]
    systems = [cell["system"] for cell in main_tables.cells(budget) if cell["dataset"] == "bonn"]
    cells = sides.cells(budget, seeds=(0, 1))
    assert [cell["system"] for cell in cells if cell["seed"] == 1] == systems
    assert {(cell["experiment"], cell["dataset"]) for cell in cells} == {("sides", "bonn_sides")}
    assert "sides" not in PAPER and len(sides.SIDES) == DATASETS["bonn_sides"].folds


def test_the_table_tells_the_sides_apart():
    def document(system, seed, *crps):
        folds = [{"rows": {system: {"bs": {"crps": value}, "cell": {"crps": 2 * value}}}} for value in crps]
        return {
            "cell": {"dataset": "bonn_sides", "system": system, "seed": seed},
            "results": as_json({"folds": folds}),
        }

    documents = [document("CSDI", 0, 0.2, 0.1, 0.7), document("ZoomDiff", 0, 0.1, 0.3, 0.4)]
    documents.append(document("ZoomDiff", 1, 0.1, 0.3, 0.8))
    header, _, ours, other = sides._table_of_sides(main_tables.over_seeds(documents)).strip().splitlines()
    assert header.startswith("| system | west, bs | west, cell | north, bs |")
    assert ours == "| ZoomDiff | **0.1** | **0.2** | *0.3* | *0.6* | **0.6** | **1.2** |"
    assert other == "| CSDI | *0.2* | *0.4* | **0.1** | **0.2** | *0.7* | *1.4* |"
