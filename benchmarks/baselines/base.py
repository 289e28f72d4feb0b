# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The interface of the baselines that know one level, and the one training loop of those that are networks."""

import copy
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..datasets import LevelContext, LevelWindows


WARMUP = 0.05  # share of the budget


@dataclass(frozen=True)
class Budget:
    """
    What a system may spend, the same for all systems of a table.

    Args:
        seconds (`float`): Training time of one model on the hardware at hand.
        width (`int`): Channels of a network's layers: it bounds the cost of sampling.
        batch_size (`int`): Windows per optimiser step.
        context_noise (`float`): Std of the noise on the static layers in training, for data with few places.
        max_steps (`int`, *optional*): Also stop after so many steps; for tests that must not depend on a clock.
        device (`str`): Device of the networks.
        seed (`int`): Seed of weights, order and noise.
    """

    seconds: float
    width: int = 32
    batch_size: int = 16
    context_noise: float = 0.0
    max_steps: int | None = None
    device: str = "cpu"
    seed: int = 0


class Baseline(ABC):
    """
    A system that generates one level. All traffic is encoded; see `LevelWindows`.

    Attributes:
        name (`str`): As in the tables.
        has_distribution (`bool`): Whether two samples of one window differ.
        steps (`int`): Optimiser steps of `fit`, of all its networks and phases; 0 where nothing is trained by steps.
    """

    name: str
    has_distribution: bool = True
    steps: int = 0

    @abstractmethod
    def fit(self, dataset: LevelWindows, budget: Budget) -> "Baseline":
        """Learn from training windows within the budget; returns itself."""

    @abstractmethod
    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        """`num_samples` independent windows for each of the N contexts, (n, N, C, T_k, H_k, W_k) on the CPU."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Trained numbers; nodes for trees."""


def calendar_features(hours: torch.Tensor) -> torch.Tensor:
    """(N, T) hours of the week -> (N, 6, T): sine and cosine of the day and of the week, position, weekend."""
    day, week = 2 * math.pi * hours / 24, 2 * math.pi * hours / 168
    position = torch.linspace(-1, 1, hours.shape[1]).expand(hours.shape)
    weekend = (hours >= 5 * 24).float()
    return torch.stack([day.sin(), day.cos(), week.sin(), week.cos(), position, weekend], dim=1)


def draw_batch(dataset: LevelWindows, budget: Budget, generator: torch.Generator) -> LevelWindows:
    """`budget.batch_size` windows drawn with replacement, with noise on their static layers."""
    batch = dataset[torch.randint(len(dataset), (min(budget.batch_size, len(dataset)),), generator=generator)]
    if budget.context_noise == 0:
        return batch
    static = batch.context.static
    noise = torch.randn(static.shape, generator=generator).to(static)
    return replace(batch, context=replace(batch.context, static=static + budget.context_noise * noise))


def train_network(
    network: nn.Module,
    loss_of: Callable[[LevelWindows, torch.Generator], torch.Tensor],
    dataset: LevelWindows,
    budget: Budget,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.995,
) -> int:
    """
    Train by AdamW with warm-up, a cosine that ends with the time budget, clipping and averaged weights.

    Args:
        network (`nn.Module`): Left in evaluation mode, with the averaged weights.
        loss_of (`Callable`): Loss of a batch, a scalar; the generator is for its noise.
        dataset (`LevelWindows`): Batches are drawn from it with replacement.
        budget (`Budget`): Time and size.
        learning_rate (`float`, defaults to 0.001): Peak.
        ema_decay (`float`, defaults to 0.995): Largest decay of the averaged weights.

    Returns:
        `int`: steps done.
    """
    generator = torch.Generator().manual_seed(budget.seed)
    network.to(budget.device).train()
    averaged = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    started, step = time.monotonic(), 0
    while True:
        progress = (time.monotonic() - started) / budget.seconds
        if budget.max_steps is not None:
            progress = max(progress, step / budget.max_steps)
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, progress / WARMUP) * 0.5 * (1 + math.cos(math.pi * progress))
        with torch.autocast(torch.device(budget.device).type, torch.bfloat16):
            loss = loss_of(draw_batch(dataset, budget, generator), generator)
        optimizer.zero_grad()
        loss.float().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for shadow, value in zip(averaged.parameters(), network.parameters()):
                shadow.lerp_(value, 1 - decay)
            for shadow, value in zip(averaged.buffers(), network.buffers()):
                shadow.copy_(value)
    network.load_state_dict(averaged.state_dict())
    network.eval()
    return step
