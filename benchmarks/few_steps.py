# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The default sampler of few steps against the full chain that was trained, on every dataset of the main tables."""

import time
from collections.abc import Sequence

import numpy as np

from zoomdiff_diffusers.evaluation import fair_crps

from .budgets import BenchmarkBudget
from .comparison import over_seeds
from .datasets import DATASETS, BenchmarkData, load_named
from .main_tables import TABULATED, ZOOMDIFF, trained_system
from .markdown import markdown_table, number


MEMBERS = 4  # times the budget's: both samplers draw on their own, and their chance counts twice
TOLERANCE = 0.02
SAMPLERS = ("few steps", "full chain")


def cells(budget: BenchmarkBudget, seeds: Sequence[int] = (0,)) -> list[dict]:
    """One cell for each dataset and training seed; the folds of a dataset belong together."""
    return [
        {"experiment": "few_steps", "dataset": dataset, "system": ZOOMDIFF, "seed": seed}
        for dataset in TABULATED
        for seed in seeds
    ]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Sample every fold's system of the main tables both ways; it is trained if it is not kept from there."""
    return {"folds": [_run_fold(cell, budget, fold) for fold in range(DATASETS[cell["dataset"]].folds)]}


def window_scores(samples: np.ndarray, truth: np.ndarray, known: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """
    What the ratios are made of, for every window.

    Args:
        samples (`np.ndarray`): (n, N, C, T, H, W), in units of the traffic.
        truth (`np.ndarray`): (N, C, T, H, W).
        known (`np.ndarray`, *optional*): Which values of the truth were measured, broadcastable to it.

    Returns:
        `dict[str, np.ndarray]`: mean `crps`, `variance` and `squared_error` of the mean, each (N,).
    """
    weight = np.ones(truth.shape) if known is None else np.broadcast_to(known, truth.shape)
    values = {
        "crps": fair_crps(samples, truth),
        "variance": samples.var(axis=0, ddof=1, dtype=np.float64),
        "squared_error": (samples.mean(axis=0, dtype=np.float64) - truth) ** 2,
    }
    axes = (1, 2, 3, 4)
    return {name: (value * weight).sum(axes) / weight.sum(axes) for name, value in values.items()}


def compare(folds: list[dict], level: str) -> dict[str, np.ndarray]:
    """
    CRPS and spread/skill of both samplers over all windows of a level.

    Args:
        folds (`list[dict]`): Results of a cell, or their mean over training seeds.
        level (`str`): Which level.

    Returns:
        `dict[str, np.ndarray]`: each (2,), of CRPS and of spread/skill: `few steps` and `full chain`, their `ratio`,
        and its standard `error` by the jackknife over windows.
    """
    scores = {
        sampler: {
            name: np.concatenate([fold["levels"][level][sampler][name] for fold in folds])
            for name in ("crps", "variance", "squared_error")
        }
        for sampler in SAMPLERS
    }
    count = len(scores[SAMPLERS[0]]["crps"])

    def both(windows) -> np.ndarray:
        means = [{name: values[windows].mean() for name, values in scores[sampler].items()} for sampler in SAMPLERS]
        return np.array([[mean["crps"], np.sqrt(mean["variance"] / mean["squared_error"])] for mean in means])

    few, full = both(slice(None))
    left_out = np.stack([np.divide(*both(np.arange(count) != window)) for window in range(count)])
    error = np.sqrt((count - 1) * left_out.var(axis=0))
    return dict(zip(SAMPLERS, (few, full))) | {"ratio": few / full, "error": error}


def bars(results: list[dict]) -> list[dict]:
    """
    Whether the default sampler is as good as the full chain, level by level; open where the windows are too few to
    tell, that is where the limit lies within two standard errors.
    """
    checked = []
    for dataset, folds in _by_dataset(results).items():
        for level in folds[0]["levels"]:
            found = compare(folds, level)
            ratio, error = found["ratio"], found["error"]
            excess = np.array([ratio[0] - 1, abs(ratio[1] - 1)])  # a lower CRPS is better, another spread is not
            met = None
            if (excess - 2 * error > TOLERANCE).any():
                met = False
            elif (excess + 2 * error <= TOLERANCE).all():
                met = True
            ratios = " and ".join(f"{ratio[score]:.3f} ± {error[score]:.3f}" for score in range(2))
            spreads = " against ".join(f"{found[sampler][1]:.2f}" for sampler in SAMPLERS)
            checked.append(
                {
                    "bar": f"{dataset}, {level}: few steps within {100 * TOLERANCE:.0f} % of the full chain in CRPS "
                    "and spread/skill",
                    "met": met,
                    "found": f"{ratios} of it; spread/skill {spreads}",
                }
            )
    return checked


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    rows = []
    for dataset, folds in _by_dataset(results).items():
        for level in folds[0]["levels"]:
            found = compare(folds, level)
            columns = []
            for score in range(2):
                columns += [number(found[sampler][score]) for sampler in SAMPLERS]
                columns.append(f"{found['ratio'][score]:.3f} ± {found['error'][score]:.3f}")
            rows.append([f"{dataset}, {level}", *columns])
    seeds = {}
    for document in results:
        seeds.setdefault(document["cell"]["dataset"], []).append(str(document["cell"]["seed"]))
    header = ["dataset, level"]
    header += [f"{score}, {what}" for score in ("CRPS", "spread/skill") for what in (*SAMPLERS, "ratio")]
    return (
        "### Few steps against the full chain\n\n"
        "The systems of the main tables, sampled by the default sampler and by DDPM with every step of the trained "
        f"chain, on the same windows, with {MEMBERS} times the budget's members each. Errors of the ratios are "
        "standard errors by the jackknife over windows; those of one city are not independent, so that the errors on "
        "the simulated city are too small. Figures are pooled over windows, not averaged"
        " over folds, and spread/skill is without the correction for the size of the ensemble, so that both differ "
        "somewhat from those above. Training seeds, whose scores are averaged window by window: "
        + "; ".join(f"{dataset} {', '.join(sorted(found))}" for dataset, found in seeds.items())
        + ".\n\n"
        + markdown_table(header, rows)
    )


def _by_dataset(results: list[dict]) -> dict[str, list[dict]]:
    """Folds of every dataset, averaged over training seeds."""
    found = {document["cell"]["dataset"]: document["results"]["folds"] for document in over_seeds(results)}
    return {dataset: found[dataset] for dataset in DATASETS if dataset in found}


def _run_fold(cell: dict, budget: BenchmarkBudget, fold: int) -> dict:
    data = load_named(cell["dataset"], budget.train_windows, budget.test_windows, fold, budget.words)
    few = trained_system(cell, data, budget, fold)
    full = few.full_chain()
    calls = {"few steps": None, "full chain": len(full.pipe.scheduler)}
    levels: dict[str, dict[str, dict]] = {name: {} for name in data.hierarchy.names}
    seconds = {}
    for sampler, system in zip(SAMPLERS, (few, full)):
        started = time.perf_counter()
        samples = system.sample(data, MEMBERS * budget.num_samples, cell["seed"], calls[sampler])
        seconds[sampler] = time.perf_counter() - started
        for name, scores in _score(samples, data).items():
            levels[name][sampler] = scores
    return {"levels": levels, "sampling_seconds": seconds, "test_windows": len(data.test_areas)}


def _score(samples: dict[str, np.ndarray], data: BenchmarkData) -> dict[str, dict[str, list[float]]]:
    """Per level, the scores of every window in units of the training mean, averaged over the true weeks."""
    scores = {}
    for level, name in enumerate(data.hierarchy.names):
        weeks = [
            window_scores(samples[name] / data.unit, truth / data.unit, known)
            for truth, known in data.test_truths(level)
        ]
        scores[name] = {key: np.mean([week[key] for week in weeks], axis=0).tolist() for key in weeks[0]}
    return scores
