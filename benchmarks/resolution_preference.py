# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Table IV: the three resolution greediness preferences (RGP) on the paper's S3T2 with 400 steps."""

from zoomdiff_diffusers import Hierarchy

from .budgets import BenchmarkBudget
from .level_tables import level_tables
from .variants import levels_words, run_variant


SPATIAL, TEMPORAL, STEPS = {"bs": 4, "cell": 2, "grid": 1}, [2, 1], 400
PREFERENCES = {"Uniform": "uniform", "Coarse Gr.": "coarse", "Fine Gr.": "fine"}


def cells(budget: BenchmarkBudget) -> list[dict]:
    """One cell for each preference."""
    return [
        {"experiment": "resolution_preference", "dataset": "simulated", "system": preference, "seed": 0}
        for preference in PREFERENCES
    ]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Train one preference and score it at all levels of the uniform one: those it lacks follow by exact sums."""
    words = levels_words(SPATIAL, TEMPORAL, STEPS, PREFERENCES[cell["system"]])
    return run_variant(words, budget, cell["seed"], scored=Hierarchy.from_resolutions(SPATIAL, TEMPORAL, "uniform"))


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    found = {document["cell"]["system"]: document["results"]["levels"] for document in results}
    rows = {preference: found[preference] for preference in PREFERENCES if preference in found}
    return (
        "### Table IV: resolution greediness preference (simulated city, S3T2, N = 400)\n\n"
        "Uniform has the four stages (2 h, BS), (2 h, cell), (1 h, cell) and (1 h, grid); the coarse-grained greedy "
        "one leaves out (1 h, cell), the fine-grained greedy one (2 h, cell). A level that is no stage of its own is "
        "the sum of the finest one. All are without the regression. Errors are in multiples of the mean traffic.\n\n"
        + level_tables(rows, first="RGP")
    )
