# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""How much every system may spend: `small` for two CPU cores, `full` for an accelerator, `tiny` to try the code."""

from dataclasses import dataclass, replace

import torch

from .baselines.base import Budget


@dataclass(frozen=True)
class BenchmarkBudget:
    """
    The same for all systems of a table.

    Args:
        name (`str`): As on the command line.
        seconds (`float`): Training of one system on one dataset, all its levels together.
        fold_seconds (`float`): The same for one fold of a dataset that is split several times.
        point_seconds (`float`): The same for one point of an ablation.
        num_samples (`int`): Size of the ensembles.
        train_windows (`int`): Windows drawn for the systems of one level; ZoomDiff draws its own from the same areas.
        test_windows (`int`): Held-out windows that are scored, at most.
        width (`int`): Channels of the baselines' networks.
        batch_size (`int`): Windows per optimiser step of the baselines.
        device (`str`): Device of all networks.
        words (`tuple[str, ...]`, defaults to `()`): Words for `train.py`, for the data of the main tables.
        max_steps (`int`, *optional*): Also stop after so many optimiser steps; for tests.
    """

    name: str
    seconds: float
    fold_seconds: float
    point_seconds: float
    num_samples: int
    train_windows: int
    test_windows: int
    width: int
    batch_size: int = 16
    device: str = "cpu"
    words: tuple[str, ...] = ()
    max_steps: int | None = None

    def training(self, seconds: float, seed: int = 0, context_noise: float = 0.0) -> Budget:
        """What one model may spend that has `seconds` of training time."""
        return Budget(
            seconds=seconds,
            width=self.width,
            batch_size=self.batch_size,
            context_noise=context_noise,
            max_steps=self.max_steps,
            device=self.device,
            seed=seed,
        )

    def with_seconds(self, seconds: float) -> "BenchmarkBudget":
        """The same budget with another training time."""
        return replace(self, seconds=seconds)


BUDGETS = {
    "tiny": BenchmarkBudget(
        name="tiny",
        seconds=10.0,
        fold_seconds=10.0,
        point_seconds=10.0,
        num_samples=2,
        train_windows=16,
        test_windows=2,
        width=8,
        batch_size=4,
        words=("--train_cities", "2", "--validation_cities", "1", "--city_height", "16", "--city_width", "16"),
        max_steps=2,
    ),
    "small": BenchmarkBudget(
        name="small",
        seconds=45.0,
        fold_seconds=15.0,
        point_seconds=20.0,
        num_samples=8,
        train_windows=1024,
        test_windows=48,
        width=32,
    ),
    "full": BenchmarkBudget(
        name="full",
        seconds=600.0,
        fold_seconds=300.0,
        point_seconds=300.0,
        num_samples=16,
        train_windows=8192,
        test_windows=64,
        width=64,
        batch_size=32,
        device="cuda" if torch.cuda.is_available() else "cpu",
    ),
}
