# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The training loop of the adversarial baselines: two networks, two optimisers, one time budget."""

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import nn

from ..datasets import LevelWindows
from .base import Budget, draw_batch


# Length of the finite differences, in standard deviations of the traffic.
SLOPE_STEP = 0.1

Loss = Callable[[LevelWindows, torch.Generator], torch.Tensor]


def train_adversarially(
    generator_network: nn.Module,
    discriminator: nn.Module,
    generator_loss: Loss,
    discriminator_loss: Loss,
    dataset: LevelWindows,
    budget: Budget,
    learning_rate: float = 3e-3,
    discriminator_steps: int = 1,
    ema_decay: float = 0.995,
) -> int:
    """
    Train two networks against each other by Adam.

    As in `train_network` there are a warm-up, a cosine that ends with the time budget, clipping and averaged weights
    of the generator. All is float32: the differences of scores that teach a generator drown in the rounding of
    bfloat16.

    Args:
        generator_network (`nn.Module`): Left in evaluation mode, with the averaged weights.
        discriminator (`nn.Module`): Left in evaluation mode.
        generator_loss (`Callable`): Loss of the generator on a batch, a scalar.
        discriminator_loss (`Callable`): Loss of the discriminator on a batch, a scalar.
        dataset (`LevelWindows`): Batches are drawn from it with replacement.
        budget (`Budget`): Time and size; `max_steps` counts steps of the generator.
        learning_rate (`float`, defaults to 0.003): Peak, of both networks.
        discriminator_steps (`int`, defaults to 1): Steps of the discriminator before each one of the generator.
        ema_decay (`float`, defaults to 0.995): Largest decay of the averaged weights.

    Returns:
        `int`: steps of the generator done.
    """
    random = torch.Generator().manual_seed(budget.seed)
    networks = [network.to(budget.device).train() for network in (generator_network, discriminator)]
    averaged = copy.deepcopy(generator_network).eval().requires_grad_(False)
    optimizers = [torch.optim.Adam(network.parameters(), learning_rate, betas=(0.5, 0.9)) for network in networks]
    started, step = time.monotonic(), 0
    while True:
        progress = (time.monotonic() - started) / budget.seconds
        if budget.max_steps is not None:
            progress = max(progress, step / budget.max_steps)
        if progress >= 1:
            break
        for optimizer in optimizers:
            warm_up, decline = min(1.0, (step + 1) / 50), 0.5 * (1 + math.cos(math.pi * progress))
            optimizer.param_groups[0]["lr"] = learning_rate * warm_up * decline
        for _ in range(discriminator_steps):
            loss = discriminator_loss(draw_batch(dataset, budget, random), random)
            _descend(loss, discriminator, optimizers[1])
        discriminator.requires_grad_(False)
        _descend(generator_loss(draw_batch(dataset, budget, random), random), generator_network, optimizers[0])
        discriminator.requires_grad_(True)
        step += 1
        decay = min(ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for shadow, value in zip(averaged.parameters(), generator_network.parameters()):
                shadow.lerp_(value, 1 - decay)
    generator_network.load_state_dict(averaged.state_dict())
    generator_network.eval()
    discriminator.eval()
    return step


def shaken(series: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """`series` with a little normal noise from a CPU generator, for [`squared_slope`]."""
    return series + SLOPE_STEP * torch.randn(series.shape, generator=random).to(series)


def squared_slope(scores: torch.Tensor, shaken_scores: torch.Tensor) -> torch.Tensor:
    """
    R1 (https://arxiv.org/abs/1801.04406) by finite differences: mean squared slope of a discriminator D.

    With standard normal n, E[(D(x + step n) - D(x))^2] / step^2 tends to |grad D(x)|^2. Unlike the exact gradient it
    needs no second derivative, which the recurrent layers of accelerators do not have.

    Args:
        scores (`torch.Tensor`): Scores of real series.
        shaken_scores (`torch.Tensor`): Scores of the same series after [`shaken`].
    """
    return ((shaken_scores - scores) / SLOPE_STEP).square().mean()


def _descend(loss: torch.Tensor, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
