# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""How the recipes of the datasets were chosen: variants on places or cities that no table tests."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .budgets import BenchmarkBudget
from .datasets import DATASETS, load
from .main_tables import score
from .markdown import emphasised, markdown_table, number
from .systems import ZoomDiffSystem


UNBOUNDED = ["--regressor", '{"bounded_context": false}']
WITHOUT_EFFECTS = ["--random_effects", "0"]
AS_CONFIGURED = "as configured"
# Dataset -> variant -> command-line words of `train.py` after those of the dataset and the split.
VARIANTS = {
    "simulated": {
        AS_CONFIGURED: [],
        "unbounded context": UNBOUNDED,
        "without random effects": WITHOUT_EFFECTS,
        "layers dropped": ["--layer_dropout", "0.1", "--context_dropout", "0.1"],
        "all items at every stage": ["--stage_items", "16", "--learning_rate", "0.002"],
    },
    "bonn": {
        AS_CONFIGURED: [],
        "unbounded context": UNBOUNDED,
        "without random effects": WITHOUT_EFFECTS,
        "random effects 0.1": ["--random_effects", "0.1"],
        "random effects 0.3": ["--random_effects", "0.3"],
        "denoiser sees the context": ["--denoiser_context", "true"],
        "fewer items of coarse stages": ["--stage_items", "1", "4", "8", "8"],
        "without regression": ["--regression_steps", "0", "--denoiser_context", "true", *WITHOUT_EFFECTS],
    },
    "shandong": {
        AS_CONFIGURED: [],
        "unbounded context": UNBOUNDED,
        "without random effects": WITHOUT_EFFECTS,
        "random effects 0.3": ["--random_effects", "0.3"],
        "without context noise": ["--context_noise", "0"],
        "context noise 1": ["--context_noise", "1"],
        "half the steps": ["--max_train_steps", "75", "--regression_steps", "100"],
    },
    "beijing": {
        AS_CONFIGURED: [],
        "unbounded context": UNBOUNDED,
        "context noise 0.5": ["--context_noise", "0.5"],
    },
}
LARGER = 2  # times the members and the windows of the budget, since variants differ by little
CITY_SEEDS = (500_000, 600_000)
# Of the training part, whose columns are 0 to 19: rows and columns that are kept, and that are held out.
BONN_SIDES = {
    "west": ([0, 25], [8, 20], [0, 25], [0, 8]),
    "east": ([0, 25], [0, 12], [0, 25], [12, 20]),
    "north": ([8, 25], [0, 20], [0, 8], [0, 20]),
    "south": ([0, 17], [0, 20], [17, 25], [0, 20]),
}
SHANDONG_PLACES, BEIJING_STATIONS, FOLDS = 33, 960, 5
INNER_FOLDS, SHANDONG_PARTS = 4, 2


def splits(dataset: str) -> dict[str, list[str]]:
    """Name of each split of a dataset's training part -> command-line words of `train.py`."""
    if dataset == "simulated":
        return {f"cities {seed}": ["--city_seed", str(seed)] for seed in CITY_SEEDS}
    if dataset == "bonn":
        return {
            side: _regions({"rows": rows, "columns": columns}, {"rows": out_rows, "columns": out_columns})
            for side, (rows, columns, out_rows, out_columns) in BONN_SIDES.items()
        }
    if dataset == "shandong":
        chosen = {f"fold {fold}, part {part}": (fold, part) for fold in range(FOLDS) for part in range(SHANDONG_PARTS)}
        return {name: _inner_split(SHANDONG_PLACES, *split) for name, split in chosen.items()}
    return {f"fold {FOLDS - 1}, part 0": _inner_split(BEIJING_STATIONS, FOLDS - 1, 0)}


def choose(results: list[dict], fold: int) -> str:
    """
    The variant for one fold of Shandong, from parts of the fold's own training places.

    Args:
        results (`list[dict]`): The documents of all cells.
        fold (`int`): Which fold of the main tables.

    Returns:
        `str`: the variant with the lowest geometric mean of the CRPS over the seeds, the parts and the levels.
    """
    names = [f"fold {fold}, part {part}" for part in range(SHANDONG_PARTS)]
    logarithms = {
        variant: [
            np.log(level["crps"]) for splits in seeds for name in names for level in splits[name]["levels"].values()
        ]
        for variant, seeds in _by_variant(results, "shandong").items()
    }
    return min(logarithms, key=lambda variant: np.mean(logarithms[variant]))


def cells(budget: BenchmarkBudget, seeds: Sequence[int] = (0,)) -> list[dict]:
    """One cell for each dataset, variant and training seed."""
    return [
        {"experiment": "recipes", "dataset": dataset, "system": variant, "seed": seed}
        for seed in seeds
        for dataset, variants in VARIANTS.items()
        for variant in variants
    ]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Train a variant on every split and score it there."""
    dataset = DATASETS[cell["dataset"]]
    seconds = budget.fold_seconds if dataset.short_folds else budget.seconds
    results = {}
    for name, words in splits(cell["dataset"]).items():
        words = [*dataset.words, *words, *budget.words]
        windows = LARGER * budget.test_windows * dataset.small_windows
        data = load(cell["dataset"], words, 1, windows, dataset.true_weeks)
        system = ZoomDiffSystem(VARIANTS[cell["dataset"]][cell["system"]])
        system.fit(data, budget.with_seconds(seconds), cell["seed"])
        samples = system.sample(data, LARGER * budget.num_samples, cell["seed"])
        results[name] = {
            "levels": score(samples, data),
            "steps": system.steps,
            "training_seconds": system.training_seconds,
            "test_windows": len(data.test_areas),
        }
    return {"splits": results}


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    parts = [
        "### How the recipes were chosen\n\n"
        "Variants of ZoomDiff's recipes on parts of the training data: other simulated cities; each side of Bonn's "
        "training part; two of four parts of the training places of each fold of Shandong; a quarter of Beijing's "
        "training stations. The first variant of each is that of the tables above, except in Shandong. The values are "
        "means over the splits, and over the training seeds where there are several, those of the CRPS geometric: the "
        "splits differ by more than the variants do. Bonn's north and south have one seed. Ensembles have "
        f"{LARGER} times the members of the budget. In Shandong, each fold has the variant with the lowest geometric "
        "mean of the CRPS over its own parts and the levels.\n"
    ]
    for dataset, variants in VARIANTS.items():
        found = _by_variant(results, dataset)
        rows = {variant: found[variant] for variant in variants if variant in found}
        if rows:
            seeds = max(len(splits) for splits in rows.values())
            title = DATASETS[dataset].title + (f", {seeds} training seeds" if seeds > 1 else "")
            parts.append(f"#### {title}\n\n{_table(rows)}")
        if dataset == "shandong" and rows:
            folds = (f"{choose(results, fold)} (fold {fold})" for fold in range(FOLDS))
            parts.append(f"Chosen: {', '.join(folds)}.\n")
    return "\n".join(parts)


def _by_variant(results: list[dict], dataset: str) -> dict[str, list[dict]]:
    """Variant -> the splits of every training seed."""
    found = defaultdict(list)
    for document in results:
        if document["cell"]["dataset"] == dataset:
            found[document["cell"]["system"]].append(document["results"]["splits"])
    return found


def _table(rows: dict[str, list[dict]]) -> str:
    """CRPS and spread/skill of every variant at every level: geometric and arithmetic means over seeds and splits."""
    first = next(iter(next(iter(rows.values()))[0].values()))
    levels = list(first["levels"])
    header = ["variant", *(f"CRPS, {level}" for level in levels), *(f"spread/skill, {level}" for level in levels)]

    def mean(variant, level, name, transform=lambda value: value):
        """Over the splits, each the mean over the seeds that have it."""
        of_split = defaultdict(list)
        for splits in rows[variant]:
            for split, result in splits.items():
                of_split[split].append(transform(result["levels"][level][name]))
        return float(np.mean([np.mean(found) for found in of_split.values()]))

    columns = [emphasised([math.exp(mean(variant, level, "crps", math.log)) for variant in rows]) for level in levels]
    columns += [[number(mean(variant, level, "spread_skill")) for variant in rows] for level in levels]
    return markdown_table(header, [[variant, *line] for variant, *line in zip(rows, *columns)])


def _inner_split(count: int, fold: int, part: int) -> list[str]:
    """Of the training places of a fold, those of one part held out and the others kept."""
    places = [place for place in range(count) if place % FOLDS != fold]
    held_out = places[part::INNER_FOLDS]
    kept = [place for place in places if place not in set(held_out)]
    return _regions({"areas": kept}, {"areas": held_out})


def _regions(kept: dict, held_out: dict) -> list[str]:
    return ["--train_region", json.dumps(kept), "--validation_region", json.dumps(held_out)]
