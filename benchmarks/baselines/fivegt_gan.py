# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""5GT-GAN: a recurrent conditional GAN of traffic series (Pandey et al. 2023, IEEE Access 11, 120983-120996)."""

from dataclasses import replace

import torch
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .adversarial import shaken, squared_slope, train_adversarially
from .base import Baseline, Budget
from .series import ContextEmbedding, block_length, draw_noise, place_windows, sample_places, to_blocks


NOISE_SIZE = 8
SERIES_PER_STEP = 8  # times the windows of the budget: a window has up to 256 places
SMOOTHNESS_WEIGHT = 0.1
SUPERVISED_WEIGHT = 1.0


class RecurrentGenerator(nn.Module):
    """Noise and context of a block -> LSTM over blocks -> the values of the block."""

    def __init__(self, context: LevelContext, length: int, width: int):
        super().__init__()
        self.embedding = ContextEmbedding(context, length, width)
        self.recurrence = nn.LSTM(width + 2 * NOISE_SIZE, width, batch_first=True)
        self.head = nn.Sequential(
            nn.Linear(2 * width + 2 * NOISE_SIZE, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, length * context.channels),
        )

    def forward(self, context: LevelContext, noise: torch.Tensor) -> torch.Tensor:
        """Context of M places, noise (K, M, L, 2 NOISE_SIZE) -> blocks (K, M, L, C * length)."""
        embedded = self.embedding(context).expand(len(noise), -1, -1, -1)
        inputs = torch.cat([embedded, noise], dim=-1).flatten(0, 1)
        hidden, _ = self.recurrence(inputs)
        return self.head(torch.cat([hidden, inputs], dim=-1)).unflatten(0, noise.shape[:2])


class RecurrentDiscriminator(nn.Module):
    """Blocks of a series and their context -> LSTM -> one score."""

    def __init__(self, context: LevelContext, length: int, width: int):
        super().__init__()
        self.embedding = ContextEmbedding(context, length, width)
        self.values = nn.Linear(length * context.channels, width)
        self.recurrence = nn.LSTM(2 * width, width, batch_first=True)
        self.head = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, context: LevelContext, blocks: torch.Tensor) -> torch.Tensor:
        """Context of M places, blocks (K, M, L, C * length) -> scores (K, M), the mean over blocks."""
        embedded = self.embedding(context).expand(len(blocks), -1, -1, -1)
        inputs = torch.cat([embedded, self.values(blocks)], dim=-1).flatten(0, 1)
        hidden, _ = self.recurrence(inputs)
        return self.head(torch.cat([hidden, inputs], dim=-1)).mean((1, 2)).unflatten(0, blocks.shape[:2])


class FiveGTGAN(Baseline):
    """
    Every place's series from its context and noise, by a recurrent generator against a recurrent discriminator.

    No code of the paper was found; this follows its description, a recurrent GAN of time series, with the context as
    the condition. The losses are our choice: the hinge with a smoothness penalty, and a supervised loss on the
    generator's conditional mean. A step of the recurrence is a block of consecutive values, and the series of one
    window are generated independently.
    """

    name = "5GT-GAN"

    def fit(self, dataset: LevelWindows, budget: Budget) -> "FiveGTGAN":
        torch.manual_seed(budget.seed)
        places = place_windows(dataset)
        self.length = block_length(places.traffic.shape[2])
        self.generator = RecurrentGenerator(places.context, self.length, budget.width)
        self.discriminator = RecurrentDiscriminator(places.context, self.length, budget.width)
        budget = replace(budget, batch_size=SERIES_PER_STEP * budget.batch_size)
        self.device = budget.device
        self.steps = train_adversarially(
            self.generator, self.discriminator, self._generator_loss, self._discriminator_loss, places, budget
        )
        return self

    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        return sample_places(self._generate, context, num_samples, seed)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.generator.parameters())

    def _generate(self, context: LevelContext, random: torch.Generator, versions: int = 1) -> torch.Tensor:
        """Blocks (versions, M, L, C * length)."""
        noise = draw_noise(context, self.length, NOISE_SIZE, random, versions)
        return self.generator(context, noise.to(self.device))

    def _real(self, batch: LevelWindows) -> tuple[torch.Tensor, torch.Tensor]:
        """Blocks of the traffic and of its weight, both (M, L, C * length)."""
        weight = batch.weight.expand_as(batch.traffic)
        return tuple(to_blocks(part.flatten(2), self.length).to(self.device) for part in (batch.traffic, weight))

    def _discriminator_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        """Hinge loss; what was not measured is hidden from both sides."""
        real, weight = self._real(batch)
        with torch.no_grad():
            fake = self._generate(batch.context, random)
        series = torch.cat([real[None], shaken(real[None], random), fake])
        scores = self.discriminator(batch.context, weight * series)
        hinge = torch.relu(1 - scores[0]).mean() + torch.relu(1 + scores[2]).mean()
        return hinge + SMOOTHNESS_WEIGHT * squared_slope(scores[0], scores[1])

    def _generator_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        """
        Adversarial and supervised loss.

        For two independent samples a and b of one series, E[(a - y) (b - y)] = (E[a] - y)^2: the error of the
        conditional mean, without the punishment of spread that a plain squared error brings.
        """
        real, weight = self._real(batch)
        pair = self._generate(batch.context, random, versions=2)
        supervised = (weight * (pair - real).prod(0)).sum() / weight.sum().clamp(min=1)
        return SUPERVISED_WEIGHT * supervised - self.discriminator(batch.context, weight * pair).mean()
