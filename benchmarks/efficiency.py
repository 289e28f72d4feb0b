# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Table V: parameters, training and inference speed for 500 base stations at four levels."""

import time
from dataclasses import replace

from .baselines import baseline_class
from .baselines.base import Budget
from .budgets import BenchmarkBudget
from .datasets import BenchmarkData
from .markdown import markdown_table, number
from .systems import PerLevel, ZoomDiffSystem, subset
from .variants import levels_words, load_cities


# The paper's task: four levels of one hour each, batches of 4 areas of one base station, an epoch of 500.
AREAS, BATCH = 500, 4
LEVELS = levels_words({"bs": 8, "cell": 4, "grid_100m": 2, "grid_50m": 1}, [1], steps=600)
SYSTEMS = ("ZoomDiff", "CSDI", "DiT")
# Two training runs of these numbers of steps: their difference leaves out whatever happens once.
STEPS = (2, 12)
FULL_CHAIN_FRACTION = 15  # of the full chain, every 15th call is run: all calls of a stage cost the same


def cells(budget: BenchmarkBudget) -> list[dict]:
    """One cell for each system."""
    return [{"experiment": "efficiency", "dataset": "simulated", "system": system, "seed": 0} for system in SYSTEMS]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Measure one system on a part of an epoch and scale to all of it."""
    data = subset(load_cities(budget, [*LEVELS, "--batch_size", str(BATCH)], train_windows=4 * BATCH), BATCH)
    measure = _measure_zoomdiff if cell["system"] == "ZoomDiff" else _measure_baseline
    return measure(cell, data, budget)


def _measure_zoomdiff(cell: dict, data: BenchmarkData, budget: BenchmarkBudget) -> dict:
    seconds = []
    for steps in STEPS:
        system = ZoomDiffSystem(["--regression_steps", "1", "--stage_items", str(BATCH)]).fit(
            data, replace(budget, seconds=1e9, max_steps=steps)
        )
        seconds.append(system.training_seconds)
    full = system.full_chain()
    calls = len(full.pipe.scheduler)
    part = calls // FULL_CHAIN_FRACTION
    few = _sampling_seconds(lambda: system.sample(data, 1), data)
    return {
        "num_parameters": system.num_parameters,
        "training_seconds": _epoch_seconds(seconds),
        "inference_seconds": few,
        "calls": len(system.pipe.scheduler.timesteps),
        "full_chain_calls": calls,
        "full_chain_seconds": calls / part * _sampling_seconds(lambda: full.sample(data, 1, 0, part), data),
    }


def _measure_baseline(cell: dict, data: BenchmarkData, budget: BenchmarkBudget) -> dict:
    system = PerLevel(baseline_class(cell["system"]))
    seconds = [0.0, 0.0]
    for level in range(len(data.hierarchy)):
        windows = data.train_windows(level)
        for run, steps in enumerate(STEPS):
            spend = Budget(seconds=1e9, width=budget.width, batch_size=BATCH, max_steps=steps, device=budget.device)
            started = time.perf_counter()
            model = system.baseline().fit(windows, spend)
            seconds[run] += time.perf_counter() - started
        system.models.append(model)
    return {
        "num_parameters": system.num_parameters,
        "training_seconds": _epoch_seconds(seconds),
        "inference_seconds": _sampling_seconds(lambda: system.sample(data, 1), data),
    }


def _epoch_seconds(seconds: list[float]) -> float:
    """Of one epoch over all areas, from the times of the two runs."""
    return (seconds[1] - seconds[0]) / (STEPS[1] - STEPS[0]) * AREAS / BATCH


def _sampling_seconds(sample, data: BenchmarkData) -> float:
    """Of all areas, from the held-out ones at hand; the second run, since the first one also warms up."""
    for _ in range(2):
        started = time.perf_counter()
        sample()
        seconds = time.perf_counter() - started
    return seconds * AREAS / len(data.test_areas)


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    found = {document["cell"]["system"]: document["results"] for document in results}
    rows = []
    for system in [system for system in SYSTEMS if system in found]:
        result = found[system]
        start = [number(result["num_parameters"] / 1e6), number(result["training_seconds"])]
        if "calls" in result:
            rows += [
                [f"{system}, few steps ({result['calls']} calls)", *start, number(result["inference_seconds"])],
                [f"{system}, full chain ({result['full_chain_calls']})", *start, number(result["full_chain_seconds"])],
            ]
        else:
            rows.append([f"{system}, one model per level", *start, number(result["inference_seconds"])])
    return (
        "### Table V: efficiency (500 areas of one base station, four hourly levels, batches of 4)\n\n"
        "Times were measured on a part of an epoch and scaled to 500 areas; those of the full chain on every "
        f"{FULL_CHAIN_FRACTION}th of its calls. The baselines have the width and the few-step samplers of the other "
        "tables. The paper, on one A100: CSDI 0.748 M, 22.9 s and 896.6 s; DiT 0.99 M, 146 s and 1001 s; ZoomDiff "
        "0.504 M, 12.25 s and 446.2 s.\n\n"
        + markdown_table(["system", "parameters (M)", "training (s/epoch)", "inference (s/500 areas)"], rows)
    )
