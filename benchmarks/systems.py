# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Whatever generates all levels of a dataset: ZoomDiff, and the baselines, which need one model per level."""

import json
import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from zoomdiff_diffusers import DRDMScheduler, Hierarchy, ZoomDiffPipeline
from zoomdiff_diffusers.data.datasets import TrafficArea
from zoomdiff_diffusers.training.arguments import Arguments, parse_arguments
from zoomdiff_diffusers.training.loss import masked_pyramid

from .baselines.base import Baseline
from .budgets import BenchmarkBudget
from .datasets import BenchmarkData, simulate


MONDAY = np.datetime64("2024-01-01T00", "h")
# Of the training time of a baseline, the part of the finest level, which has most of the values; the others share the
# rest equally.
FINEST_SHARE = 0.5


class System(ABC):
    """
    A row of a table.

    Attributes:
        name (`str`): As in the tables.
        has_distribution (`bool`): Whether two samples of one window differ.
        training_seconds (`float`): Time that `fit` took; 0 before it.
        steps (`int`, *optional*): Optimiser steps of `fit`, where they are counted.
    """

    name: str
    has_distribution: bool = True
    training_seconds: float = 0.0
    steps: int | None = None

    @abstractmethod
    def fit(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int = 0) -> "System":
        """Learn from the training part of the data within `budget.seconds`; returns itself."""

    @abstractmethod
    def sample(self, data: BenchmarkData, num_samples: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Physical means of all held-out windows by level name, each (n, N, C, T_k, H_k, W_k) float32."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Trained numbers of all levels together."""


class PerLevel(System):
    """
    One model of a baseline for every level, trained and sampled independently of the others.

    Args:
        baseline (`type[Baseline]`): Its class.
    """

    def __init__(self, baseline: type[Baseline]):
        self.baseline, self.name, self.has_distribution = baseline, baseline.name, baseline.has_distribution
        self.models: list[Baseline] = []

    def fit(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int = 0) -> "PerLevel":
        started = time.perf_counter()
        shares = level_shares(len(data.hierarchy))
        # Some forecast physical means, and need the transform for it.
        needed = [data.traffic_processor] if getattr(self.baseline, "needs_traffic_processor", False) else []
        self.models = [
            self.baseline(*needed).fit(
                data.train_windows(level), budget.training(share * budget.seconds, seed, data.context_noise)
            )
            for level, share in enumerate(shares)
        ]
        self.training_seconds = time.perf_counter() - started
        self.steps = sum(model.steps for model in self.models)
        return self

    def sample(self, data: BenchmarkData, num_samples: int, seed: int = 0) -> dict[str, np.ndarray]:
        count = num_samples if self.has_distribution else 1
        # Each level has its own seed: the levels are independent, and must not share their noise by accident.
        seeds = np.random.SeedSequence(seed).generate_state(len(self.models))
        return {
            name: data.decode(model.sample(data.test_context(level), count, int(seeds[level])))
            for level, (name, model) in enumerate(zip(data.hierarchy.names, self.models))
        }

    @property
    def num_parameters(self) -> int:
        return sum(model.num_parameters for model in self.models)


class ZoomDiffSystem(System):
    """
    This project's pipeline, trained by its own `Trainer` with the dataset's configuration.

    The configuration may end training before the budget does (`max_train_steps`): on few places it was chosen inside
    the training region, against overfitting.

    Args:
        overrides (`Sequence[str]`, defaults to `()`): Command-line words of `train.py` after those of the dataset.
        name (`str`, defaults to `"ZoomDiff"`): As in the tables.
        cache (`Path`, *optional*):
            Folder of the trained pipeline. One that is already there is used if it was trained with the same
            arguments. Without it, the pipeline lives in a temporary folder until it is loaded.
    """

    def __init__(self, overrides: Sequence[str] = (), name: str = "ZoomDiff", cache: Path | None = None):
        self.overrides, self.name, self.cache = list(overrides), name, cache
        self.pipe: ZoomDiffPipeline | None = None
        self.summary: dict = {}

    def arguments(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int, output_dir: str) -> Arguments:
        """The arguments of the training run."""
        words = [*data.words, *self.overrides]
        words += ["--output_dir", output_dir, "--overwrite_output_dir", "true", "--seed", str(seed)]
        words += ["--max_train_seconds", str(budget.seconds), "--mixed_precision", "bf16", "--tensorboard", "false"]
        words += ["--validation_areas", "0", "--checkpointing_steps", str(10**9), "--validation_steps", str(10**9)]
        if budget.max_steps is not None:
            words += ["--max_train_steps", str(budget.max_steps)]
        return parse_arguments(words)

    def fit(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int = 0) -> "ZoomDiffSystem":
        from zoomdiff_diffusers.training import Trainer

        parent = Path(tempfile.gettempdir()) if self.cache is None else self.cache.parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".training.", dir=parent) as folder:
            arguments = self.arguments(data, budget, seed, folder)
            if not self._is_cached(arguments):
                Trainer(arguments).train()
                if self.cache is not None:
                    _replace_folder(Path(folder), self.cache)
            trained = self.cache or Path(folder)
            self.summary = json.loads((trained / "training_summary.json").read_text(encoding="utf-8"))
            self.pipe = ZoomDiffPipeline.from_pretrained(trained).to(budget.device)
        self.pipe.set_progress_bar_config(disable=True)
        self.training_seconds, self.steps = self.summary["seconds"], self.summary["steps"]
        return self

    def sample(
        self, data: BenchmarkData, num_samples: int, seed: int = 0, num_inference_steps: int | list[int] | None = None
    ) -> dict[str, np.ndarray]:
        return sample_pipeline(self.pipe, data.test_areas, num_samples, seed, num_inference_steps)

    @property
    def num_parameters(self) -> int:
        networks = [network for network in (self.pipe.regressor, self.pipe.unet) if network is not None]
        return sum(parameter.numel() for network in networks for parameter in network.parameters())

    def full_chain(self) -> "ZoomDiffSystem":
        """The same trained network, sampled by every step of the trained chain with DDPM."""
        other = ZoomDiffSystem(self.overrides, f"{self.name}, full chain")
        scheduler = DRDMScheduler.from_config(self.pipe.scheduler.config, solver="ddpm", timestep_spacing="even")
        other.pipe = ZoomDiffPipeline(**{**self.pipe.components, "scheduler": scheduler})
        other.pipe.set_progress_bar_config(disable=True)
        other.summary, other.training_seconds, other.steps = self.summary, self.training_seconds, self.steps
        return other

    def _is_cached(self, arguments: Arguments) -> bool:
        """Whether the cache holds a pipeline that was trained with these arguments."""
        path = None if self.cache is None else self.cache / "training_summary.json"
        if path is None or not path.is_file():
            return False
        found = json.loads(path.read_text(encoding="utf-8"))["config"]
        wanted = json.loads(json.dumps(arguments.to_dict()))
        for config in (found, wanted):
            config["training"].pop("output_dir")
            config.pop("hub", None)  # what the model card says
        return found == wanted


class SimulatedLaw(System):
    """The law of the simulated traffic itself: no system can score better, but for chance."""

    name = "Noise floor (the true law)"
    num_parameters = 0

    def fit(self, data: BenchmarkData, budget: BenchmarkBudget, seed: int = 0) -> "SimulatedLaw":
        return self

    def sample(self, data: BenchmarkData, num_samples: int, seed: int = 0) -> dict[str, np.ndarray]:
        return aggregated(simulate(data, num_samples, seed).numpy(), data.hierarchy)


def sample_pipeline(
    pipe: ZoomDiffPipeline,
    areas: list[TrafficArea],
    num_samples: int,
    seed: int = 0,
    num_inference_steps: int | list[int] | None = None,
) -> dict[str, np.ndarray]:
    """
    Samples of a pipeline for areas of one size.

    Args:
        pipe (`ZoomDiffPipeline`): Trained.
        areas (`list[TrafficArea]`): As in `BenchmarkData.test_areas`.
        num_samples (`int`): Size of the ensembles.
        seed (`int`, defaults to 0): Seed of the noise; that of an area depends on its place in the list only.
        num_inference_steps (`int` or `list[int]`, *optional*): Calls of the network; the scheduler's default.

    Returns:
        `dict[str, np.ndarray]`: per level, physical means (n, N, C, T_k, H_k, W_k) float32.
    """
    seeds = np.random.SeedSequence(seed).generate_state(len(areas) * num_samples, np.uint64).tolist()
    generators = [torch.Generator().manual_seed(value) for value in seeds]
    shapes = pipe.hierarchy.shapes(*areas[0].traffic.shape[1:])
    lead = (num_samples, len(areas), len(pipe.traffic_processor.channels))
    samples = {name: np.empty((*lead, *shape), np.float32) for name, shape in zip(pipe.hierarchy.names, shapes)}
    for start_hour in sorted({area.start_hour for area in areas}):  # a call has one start
        chosen = [index for index, area in enumerate(areas) if area.start_hour == start_hour]
        levels = pipe(
            [areas[index].context for index in chosen],
            start=MONDAY + np.timedelta64(start_hour, "h"),
            num_hours=round(areas[0].traffic.shape[1] * pipe.hierarchy.config.time_step),
            num_inference_steps=num_inference_steps,
            num_samples_per_context=num_samples,
            generator=[generators[index * num_samples + member] for index in chosen for member in range(num_samples)],
        ).levels
        for name, values in levels.items():
            samples[name][:, chosen] = values.reshape(len(chosen), num_samples, *values.shape[1:]).swapaxes(0, 1)
    return samples


def level_shares(num_levels: int) -> list[float]:
    """How the training time of a baseline is shared over its levels, coarse to fine."""
    if num_levels == 1:
        return [1.0]
    return [(1 - FINEST_SHARE) / (num_levels - 1)] * (num_levels - 1) + [FINEST_SHARE]


def aggregated(finest: np.ndarray, hierarchy: Hierarchy, mask: torch.Tensor | None = None) -> dict[str, np.ndarray]:
    """
    All levels of finest samples, averaged over the same measured hours as the truth.

    Args:
        finest (`np.ndarray`): (n, N, C, T, H, W), physical means.
        hierarchy (`Hierarchy`): The levels.
        mask (`torch.Tensor`, *optional*): (N, T, H, W) bool, true where the truth was measured.
    """
    members = [masked_pyramid(torch.from_numpy(member), hierarchy, mask)[0] for member in finest]
    return {
        name: torch.stack([member[level] for member in members]).numpy() for level, name in enumerate(hierarchy.names)
    }


def subset(data: BenchmarkData, num_windows: int) -> BenchmarkData:
    """The same data with fewer held-out windows, evenly spread."""
    count = len(data.test_areas)
    chosen = np.linspace(0, count - 1, min(num_windows, count)).round().astype(int).tolist()
    return replace(
        data,
        test={name: values[chosen] for name, values in data.test.items()},
        test_areas=[data.test_areas[index] for index in chosen],
        test_places=[data.test_places[index] for index in chosen],
        more_weeks=None if data.more_weeks is None else data.more_weeks[:, chosen],
    )


def _replace_folder(source: Path, target: Path) -> None:
    """Copy a folder to its place; whoever looks there sees a complete one or none."""
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copytree(source, staged)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(staged, target)
