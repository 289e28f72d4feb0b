# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Systems that refine measured coarse traffic to the finest level: what ZoomDiff's own refinement is compared with.

Each is given the held-out truth of a coarse level, as means per finest cell and time step, and generates the finest
level only. Nothing makes their results agree with the coarse level, except where a class says so.
"""

import time
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from zoomdiff_diffusers import Hierarchy

from .baselines.base import Baseline
from .baselines.climatology import HourlyClimatology
from .budgets import BenchmarkBudget
from .datasets import BenchmarkData, LevelContext
from .systems import System


class Interpolation(System):
    """
    Linear in both directions of space and in time, between the centres of the coarse units; constant beyond them. It
    knows nothing but the coarse values of a window, so it has no daily profile below a coarse level of days.

    Args:
        source (`str` or `int`, defaults to 0): Coarse level that is given.
    """

    name = "Bilinear"
    has_distribution = False
    num_parameters = 0

    def __init__(self, source: str | int = 0):
        self.source = source

    def fit(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int = 0) -> "Interpolation":
        return self

    def sample(self, data: BenchmarkData, num_samples: int, seed: int = 0) -> dict[str, np.ndarray]:
        """One forecast of the finest level by its name, (1, N, C, T, H, W)."""
        coarse = torch.from_numpy(_coarse_truth(data, self.source))
        size = data.test["traffic"].shape[-3:]
        fine = F.interpolate(coarse, size=size, mode="trilinear", align_corners=False)
        return {data.hierarchy.names[-1]: fine[None].numpy()}


class ProportionalToPopulation(System):
    """
    Shares every coarse value over its cells by their population, and over its hours by the training part's mean of
    each hour of the week. Sums are preserved; a unit without people is shared evenly.

    Args:
        source (`str` or `int`, defaults to 0): Coarse level that is given.
        layer (`str`, defaults to `"population"`): Static context layer with people per cell, as it is in the data.
    """

    name = "Proportional to population"
    has_distribution = False

    def __init__(self, source: str | int = 0, layer: str = "population"):
        self.source, self.layer = source, layer

    def fit(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int = 0) -> "ProportionalToPopulation":
        started = time.perf_counter()
        finest = len(data.hierarchy) - 1
        self.profile = HourlyClimatology(data.traffic_processor)
        self.profile.fit(data.train_windows(finest), budget.training(budget.seconds, seed, data.context_noise))
        self.training_seconds = time.perf_counter() - started
        return self

    def sample(self, data: BenchmarkData, num_samples: int, seed: int = 0) -> dict[str, np.ndarray]:
        """One forecast of the finest level by its name, (1, N, C, T, H, W)."""
        levels = data.hierarchy.levels
        hourly = data.decode(self.profile.sample(data.test_context(len(levels) - 1), 1))[0]
        people = np.stack([self._people(area.context, area.name) for area in data.test_areas])
        pair = Hierarchy([levels[data.hierarchy.index(self.source)], levels[-1]])
        fine = pair.reconcile(hourly * people[:, None, None], _coarse_truth(data, self.source), 1)
        return {data.hierarchy.names[-1]: fine.astype(np.float32)[None]}

    def _people(self, context: dict[str, np.ndarray], area: str) -> np.ndarray:
        """People per cell, (H, W)."""
        if self.layer not in context:
            raise ValueError(f"`layer` must be a context layer of {area}, {sorted(context)}, but is {self.layer!r}.")
        layer = np.asarray(context[self.layer], dtype=np.float32)
        return layer.reshape(-1, *layer.shape[-2:]).sum(axis=0)

    @property
    def num_parameters(self) -> int:
        return self.profile.num_parameters


class ConditionedRefiner(System):
    """
    A baseline of the finest level that sees the coarse level as one more context that varies over time: encoded, and
    repeated in every cell and time step of its unit. Trained for the task on the coarse levels of its own windows.

    Args:
        baseline (`type[Baseline]`): Its class.
        source (`str` or `int`, defaults to 0): Coarse level that is given.
    """

    def __init__(self, baseline: type[Baseline], source: str | int = 0):
        self.baseline, self.source = baseline, source
        self.name, self.has_distribution = f"{baseline.name} with the coarse level", baseline.has_distribution

    def fit(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int = 0) -> "ConditionedRefiner":
        started = time.perf_counter()
        windows = data.train_windows(len(data.hierarchy) - 1)
        coarse = data.train_windows(data.hierarchy.index(self.source)).traffic
        windows = replace(windows, context=self._with_coarse(windows.context, coarse, data))
        # Some forecast physical means, and need the transform for it.
        needed = [data.traffic_processor] if getattr(self.baseline, "needs_traffic_processor", False) else []
        self.model = self.baseline(*needed).fit(windows, budget.training(budget.seconds, seed, data.context_noise))
        self.training_seconds = time.perf_counter() - started
        return self

    def sample(self, data: BenchmarkData, num_samples: int, seed: int = 0) -> dict[str, np.ndarray]:
        """The finest level by its name, (n, N, C, T, H, W) with n = 1 where two samples would not differ."""
        coarse = data.traffic_processor.encode(torch.from_numpy(_coarse_truth(data, self.source)))
        context = self._with_coarse(data.test_context(len(data.hierarchy) - 1), coarse, data)
        samples = self.model.sample(context, num_samples if self.has_distribution else 1, seed)
        return {data.hierarchy.names[-1]: data.decode(samples)}

    def _with_coarse(self, context: LevelContext, coarse: torch.Tensor, data: BenchmarkData) -> LevelContext:
        repeated = data.hierarchy.upsample(coarse, self.source, -1)
        return replace(context, temporal=torch.cat([context.temporal, repeated], dim=1))

    @property
    def num_parameters(self) -> int:
        return self.model.num_parameters


def _coarse_truth(data: BenchmarkData, source: str | int) -> np.ndarray:
    """Held-out truth of a level, (N, C, T_k, H_k, W_k) float32, physical means."""
    return data.test_truth(data.hierarchy.index(source))[0].astype(np.float32)
