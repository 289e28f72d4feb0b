# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Variants of ZoomDiff, all trained for the same time on the same simulated cities, for the ablations."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from zoomdiff_diffusers import Hierarchy

from .budgets import BenchmarkBudget
from .datasets import BenchmarkData, load_named
from .main_tables import score
from .systems import ZoomDiffSystem, aggregated


# Simulating more would take longer than training does with the small budget.
SMALL_CITIES = [
    *("--train_cities", "8", "--validation_cities", "12", "--city_weeks", "1"),
    *("--city_height", "32", "--city_width", "32"),
]
# The ablations are those of the paper's method, which has no regression; every stage learns from the whole batch,
# whatever the levels.
PAPER_METHOD = [
    *("--regression_steps", "0", "--stage_items", "16", "--learning_rate", "0.002"),
    *("--layer_dropout", "0.1", "--context_dropout", "0.1", "--random_effects", "0"),
]
# The network's patches are half as long as the coarsest time step of the levels and would be single hours without a
# daily one: ten times the cost. This makes them those of the default hierarchy, whatever the levels.
DEFAULT_PATCHES = '{"coarsest_unit": [24, 8]}'


def levels_words(spatial: Mapping[str, int], temporal: Sequence[int], steps: int = 600, rgp: str = "fine") -> list:
    """Command-line words of `train.py` for the levels of spatial scales, temporal factors and an RGP."""
    return [
        *("--spatial_scales", json.dumps(spatial), "--temporal_scales", *map(str, temporal), "--rgp", rgp),
        *("--num_train_timesteps", str(steps), "--unet", DEFAULT_PATCHES),
    ]


def load_cities(budget: BenchmarkBudget, overrides: Sequence[str] = (), train_windows: int = 1) -> BenchmarkData:
    """The cities of the ablations; `train_windows` are for systems of one level."""
    cities = [] if budget.name == "full" else SMALL_CITIES
    return load_named("simulated", train_windows, budget.test_windows, overrides=[*cities, *overrides])


def train_variant(
    overrides: Sequence[str], budget: BenchmarkBudget, seed: int
) -> tuple[BenchmarkData, dict[str, np.ndarray], dict]:
    """
    Train a variant for `budget.point_seconds` and sample it.

    Args:
        overrides (`Sequence[str]`): Command-line words of `train.py`.
        budget (`BenchmarkBudget`): Training time and number of windows and samples.
        seed (`int`): Seed of training and sampling.

    Returns:
        The data, the samples by level, and a `dict` with the optimiser steps, the parameters and the seconds.
    """
    data = load_cities(budget, overrides)
    system = ZoomDiffSystem(PAPER_METHOD).fit(data, budget.with_seconds(budget.point_seconds), seed)
    started = time.perf_counter()
    samples = system.sample(data, budget.num_samples, seed)
    costs = {
        "steps": system.steps,
        "num_parameters": system.num_parameters,
        "training_seconds": system.training_seconds,
        "sampling_seconds": time.perf_counter() - started,
    }
    return data, samples, costs


def run_variant(overrides: Sequence[str], budget: BenchmarkBudget, seed: int, scored: Hierarchy | None = None) -> dict:
    """
    Train a variant and score it; arguments as of [`train_variant`].

    Args:
        scored (`Hierarchy`, *optional*): Levels to score, if not those that are generated: finest samples aggregated.

    Returns:
        `dict`: `levels`, the scores by level, and what the variant cost.
    """
    data, samples, costs = train_variant(overrides, budget, seed)
    if scored is not None:
        samples = aggregated(samples[data.hierarchy.names[-1]], scored)
        data = replace(data, hierarchy=scored)
    return {"levels": labelled_scores(samples, data), **costs}


def labelled_scores(samples: dict[str, np.ndarray], data: BenchmarkData) -> dict[str, dict]:
    """Scores by level, whose names tell the time step."""
    return {level_label(data.hierarchy, name): scores for name, scores in score(samples, data).items()}


def level_label(hierarchy: Hierarchy, name: str) -> str:
    """For example "bs, 2 h"."""
    hours = hierarchy.temporal_factors[hierarchy.index(name)] * hierarchy.config.time_step
    return f"{name.removesuffix(f'_{hours:g}h').replace('_', ' ')}, {hours:g} h"
