# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Table VI: the held-out traffic of the base-station level is given and refined to the finest grid."""

import time
from dataclasses import replace

import numpy as np
import torch
import xarray

from zoomdiff_diffusers import Hierarchy, ZoomDiffPipeline
from zoomdiff_diffusers.data.datasets import TrafficArea

from .baselines import baseline_class
from .budgets import BenchmarkBudget
from .datasets import DATASETS, BenchmarkData, load, load_named
from .level_tables import level_tables
from .main_tables import cache_folder, score
from .markdown import markdown_table, number
from .refiners import ConditionedRefiner, Interpolation, ProportionalToPopulation
from .systems import MONDAY, ZoomDiffSystem, aggregated


SOURCE = 0  # the base-station level
ZERO_SHOT, RETRAINED = "ZoomDiff (zero-shot)", "ZoomDiff (retrained)"
CONDITIONED = ("CSDI", "CorrDiff scheme", "XGBoost")
SIMPLE = {"Bilinear": Interpolation, "Proportional to population": ProportionalToPopulation}
SYSTEMS = (ZERO_SHOT, RETRAINED, *CONDITIONED, *SIMPLE)
# Nanjing has no context: only refinement can be judged there. Its windows have 4 x 4 cells.
NANJING, NANJING_TITLE = ["--config", "configs/nanjing.yaml"], "Nanjing (measured, no context, east held out)"
TITLES = {"simulated": DATASETS["simulated"].title, "bonn": DATASETS["bonn"].title, "nanjing": NANJING_TITLE}
RETRAINED_TOLERANCE = 0.05


def cells(budget: BenchmarkBudget) -> list[dict]:
    """One cell for each dataset and system; without population, nothing can be proportional to it."""
    return [
        {"experiment": "refinement", "dataset": dataset, "system": system, "seed": 0}
        for dataset in TITLES
        for system in SYSTEMS
        if (dataset, system) != ("nanjing", "Proportional to population")
    ]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Train a system, refine all held-out windows and score every level below the given one."""
    dataset, name, seed = cell["dataset"], cell["system"], cell["seed"]
    if dataset == "nanjing":
        data = load(dataset, NANJING, budget.train_windows, 4 * budget.test_windows)
    else:
        data = load_named(dataset, budget.train_windows, budget.test_windows)
    if name in (ZERO_SHOT, RETRAINED):
        system = _zoomdiff(name, dataset, data, budget, seed).fit(data, budget, seed)
    else:
        system = make_refiner(name).fit(data, budget, seed)
    started = time.perf_counter()
    if name in (ZERO_SHOT, RETRAINED):
        finest = refine(system.pipe, data, budget.num_samples, seed)
    else:
        finest = system.sample(data, budget.num_samples, seed)[data.hierarchy.names[-1]]
    return {
        "levels": _score(finest, data),
        "sum_error": sum_error(finest, data),
        "sampling_seconds": time.perf_counter() - started,
        "training_seconds": system.training_seconds,
        "num_parameters": system.num_parameters,
    }


def make_refiner(name: str):
    """A baseline of refinement by its name in the table."""
    return SIMPLE[name](SOURCE) if name in SIMPLE else ConditionedRefiner(baseline_class(name), SOURCE)


def _zoomdiff(name: str, dataset: str, data: BenchmarkData, budget: BenchmarkBudget, seed: int) -> ZoomDiffSystem:
    """The pipeline of the main tables, or one whose training leaves out the stage that is given."""
    if name == ZERO_SHOT:
        return ZoomDiffSystem(cache=cache_folder(budget, dataset, "ZoomDiff", seed))
    weights = ["0"] * (SOURCE + 1) + ["1"] * (len(data.hierarchy) - SOURCE - 1)
    return ZoomDiffSystem(["--stage_weights", *weights], RETRAINED)


def refine(pipe: ZoomDiffPipeline, data: BenchmarkData, num_samples: int, seed: int = 0) -> np.ndarray:
    """Refinements of the held-out truth of the given level, finest level, physical means (n, N, C, T, H, W)."""
    truth, _ = data.test_truth(SOURCE)
    seeds = np.random.SeedSequence(seed).generate_state(len(truth) * num_samples, np.uint64).tolist()
    generators = [torch.Generator().manual_seed(value) for value in seeds]
    finest = np.empty((num_samples, *data.test["traffic"].shape), np.float32)
    starts = [area.start_hour for area in data.test_areas]
    for start_hour in sorted(set(starts)):  # a call has one start
        chosen = [index for index, start in enumerate(starts) if start == start_hour]
        levels = pipe.refine(
            truth[chosen],
            SOURCE,
            [_context(data.test_areas[index]) for index in chosen],
            start=MONDAY + np.timedelta64(start_hour, "h"),
            num_samples_per_context=num_samples,
            generator=[generators[index * num_samples + member] for index in chosen for member in range(num_samples)],
        ).levels
        values = levels[pipe.hierarchy.names[-1]]
        finest[:, chosen] = values.reshape(len(chosen), num_samples, *values.shape[1:]).swapaxes(0, 1)
    return finest


def _context(area: TrafficArea) -> dict | xarray.Dataset:
    """The layers of an area; where there is none, a dataset that tells its size."""
    height, width = area.traffic.shape[-2:]
    return area.context or xarray.Dataset(coords={"y": np.arange(height), "x": np.arange(width)})


def _score(finest: np.ndarray, data: BenchmarkData) -> dict:
    levels = data.hierarchy.levels[SOURCE + 1 :]
    metric = {name: data.hierarchy.config[name] for name in ("cell_size", "time_step")}
    # The week whose stations are given is the truth, no other one.
    below = replace(data, hierarchy=Hierarchy(levels, **metric), more_weeks=None)
    return score(aggregated(finest, below.hierarchy), below)


def sum_error(finest: np.ndarray, data: BenchmarkData) -> float:
    """Mean absolute difference between aggregated samples and what was given, relative to its mean."""
    truth, _ = data.test_truth(SOURCE)
    sums = data.hierarchy.aggregate(finest, SOURCE)
    return float(np.abs(sums - truth).mean(dtype=np.float64) / truth.mean(dtype=np.float64))


def _by_dataset(results: list[dict]) -> dict[str, dict[str, dict]]:
    """Dataset -> system -> results, in the order of the page."""
    found = {(document["cell"]["dataset"], document["cell"]["system"]): document["results"] for document in results}
    return {
        dataset: {system: found[dataset, system] for system in SYSTEMS if (dataset, system) in found}
        for dataset in TITLES
    }


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    parts = [
        "### Table VI: refinement of base-station traffic\n\n"
        "The held-out daily values of the coarsest level are given. Zero-shot is the pipeline of the main tables, "
        "retrained leaves the given stage out of its training. CSDI, the CorrDiff scheme and XGBoost see the given "
        "level as one more layer of context. The sum error says how far results are from adding up to what was given. "
        "Errors are in multiples of the mean training traffic.\n"
    ]
    for dataset, systems in _by_dataset(results).items():
        if systems:
            errors = [
                [system, "exact" if result["sum_error"] < 1e-5 else f"{result['sum_error']:.1%}"]
                for system, result in systems.items()
            ]
            parts.append(f"#### {TITLES[dataset]}\n")
            parts.append(level_tables({system: result["levels"] for system, result in systems.items()}))
            parts.append(markdown_table(["system", "sum error"], errors))
    return "\n".join(parts)


def bars(results: list[dict]) -> list[dict]:
    """At the finest level: zero-shot close to retrained, and both ahead of XGBoost with the coarse value."""
    lines = []
    for dataset, systems in _by_dataset(results).items():
        crps = {system: list(result["levels"].values())[-1]["crps"] for system, result in systems.items()}

        def compare(ours: str, other: str, factor: float, what: str):
            if ours in crps and other in crps:
                lines.append(
                    {
                        "bar": f"Table VI, {dataset.capitalize()}: {what}",
                        "met": crps[ours] <= factor * crps[other],
                        "found": f"{number(crps[ours])} against {number(crps[other])}",
                    }
                )

        within = f"CRPS of zero-shot refinement within {RETRAINED_TOLERANCE:.0%} of retrained"
        compare(ZERO_SHOT, RETRAINED, 1 + RETRAINED_TOLERANCE, within)
        for ours in (ZERO_SHOT, RETRAINED):
            compare(ours, "XGBoost", 1.0, f"CRPS of {ours} not above XGBoost with the coarse value")
    return lines
