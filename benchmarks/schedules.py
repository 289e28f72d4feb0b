# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Table III: all eight combinations of noise intensity, noise adding and denoising, on the paper's S3T2."""

from itertools import product

from .budgets import BenchmarkBudget
from .level_tables import level_tables
from .markdown import markdown_table, number
from .variants import levels_words, run_variant


# (2 h, BS), (1 h, cell), (1 h, grid), with 600 steps as in the paper.
LEVELS = levels_words({"bs": 4, "cell": 2, "grid": 1}, [2, 1], steps=600)
CHOICES = {"C": "continuous", "S": "segmented"}
SCHEDULES = {
    f"{intensity}N, {adding}A, {denoising}D": [
        *("--intensity", CHOICES[intensity], "--adding", CHOICES[adding], "--denoising", CHOICES[denoising])
    ]
    for intensity, adding, denoising in product(CHOICES, repeat=3)
}
OURS = "SN, SA, SD"


def cells(budget: BenchmarkBudget) -> list[dict]:
    """One cell for each combination."""
    return [
        {"experiment": "schedules", "dataset": "simulated", "system": schedule, "seed": 0} for schedule in SCHEDULES
    ]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Train and score one combination."""
    return run_variant([*LEVELS, *SCHEDULES[cell["system"]]], budget, cell["seed"])


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    found = {document["cell"]["system"]: document["results"] for document in results}
    found = {schedule: found[schedule] for schedule in SCHEDULES if schedule in found}
    costs = [
        [schedule, str(result["steps"]), number(result["sampling_seconds"])] for schedule, result in found.items()
    ]
    return (
        "### Table III: noise schedules (simulated city, S3T2)\n\n"
        "C is continuous, S is segmented; N is the intensity of the noise, A the adding, D the denoising. All are "
        "trained for the same time, without the regression. A continuous adding or denoising keeps every stage on the "
        "finest grid, hence its fewer optimiser steps. Sums are made exact in all of them. Errors are in multiples of "
        "the mean traffic.\n\n"
        + level_tables({schedule: result["levels"] for schedule, result in found.items()}, first="schedule")
        + "\n"
        + markdown_table(["schedule", "optimiser steps", "sampling (s)"], costs)
    )


def bars(results: list[dict]) -> list[dict]:
    """[SN, SA, SD] should have the lowest CRPS at every level."""
    found = {document["cell"]["system"]: document["results"]["levels"] for document in results}
    if set(found) != set(SCHEDULES):
        return []
    lines = []
    for level, ours in found[OURS].items():
        others = {schedule: levels[level]["crps"] for schedule, levels in found.items() if schedule != OURS}
        best = min(others, key=others.get)
        lines.append(
            {
                "bar": f"Table III, {level}: [{OURS}] has the lowest CRPS of all schedules",
                "met": ours["crps"] <= others[best],
                "found": f"{number(ours['crps'])} against {number(others[best])} of [{best}]",
            }
        )
    return lines
