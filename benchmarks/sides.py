# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The systems of the main tables where another side of Bonn is held out: how much the choice of the place matters."""

from collections.abc import Sequence

import numpy as np

from .budgets import BenchmarkBudget
from .comparison import over_seeds
from .main_tables import SYSTEMS, bars, dataset_tables, run_cell
from .markdown import emphasised, markdown_table


__all__ = ["bars", "cells", "run_cell", "tables"]
DATASET = "bonn_sides"
SIDES = ("west", "north", "south")  # in the order of the dataset's folds


def cells(budget: BenchmarkBudget, seeds: Sequence[int] = (0,)) -> list[dict]:
    """One cell for each system and training seed; the sides belong together."""
    return [
        {"experiment": "sides", "dataset": DATASET, "system": system, "seed": seed}
        for system in SYSTEMS
        for seed in seeds
    ]


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    return "\n".join(
        [
            "### Bonn: another side held out\n\n"
            "The systems of the main tables, trained without the west, the north or the south of Bonn and scored "
            "there; its east is in the main tables. Nothing was chosen anew for these sides: ZoomDiff's recipe comes "
            "from parts of columns 0 to 19, which hold the west and most of the north and south, and the settings of "
            "the others from the east. CRPS by side:\n",
            _table_of_sides(over_seeds(results)),
            *dataset_tables(results),
        ]
    )


def _table_of_sides(documents: list[dict]) -> str:
    """CRPS of every row on every side at every level."""
    values: dict[str, list[float]] = {}
    for document in sorted(documents, key=lambda document: SYSTEMS.index(document["cell"]["system"])):
        folds = document["results"]["folds"]
        for row in folds[0]["rows"]:
            values[row] = [scores["crps"] for fold in folds for scores in fold["rows"][row].values()]
    levels = list(next(iter(documents[0]["results"]["folds"][0]["rows"].values())))
    header = ["system", *(f"{side}, {level}" for side in SIDES for level in levels)]
    columns = [emphasised(column) for column in np.array(list(values.values())).T.tolist()]
    return markdown_table(header, [[row, *line] for row, *line in zip(values, *columns)])
