# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""keGAN: a knowledge-enhanced GAN (Hui et al., WWW 2022, https://doi.org/10.1145/3485447.3511976)."""

from dataclasses import replace

import torch
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .adversarial import train_adversarially
from .base import Baseline, Budget
from .series import ContextEmbedding, block_length, draw_noise, place_windows, sample_places, to_blocks


NOISE_SIZE = 8
SERIES_PER_STEP = 8  # times the windows of the budget: a window has up to 256 places
GRADIENT_WEIGHT = 10.0
CRITIC_STEPS = 5


class AttentiveGenerator(nn.Module):
    """Noise and knowledge of a block -> LSTM over blocks -> self-attention over blocks -> the values of the block."""

    def __init__(self, context: LevelContext, length: int, width: int):
        super().__init__()
        self.knowledge = ContextEmbedding(context, length, width)
        self.recurrence = nn.LSTM(width + 2 * NOISE_SIZE, 2 * width, batch_first=True)
        self.attention = nn.MultiheadAttention(2 * width, num_heads=1, batch_first=True)
        self.norm = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, length * context.channels)

    def forward(self, context: LevelContext, noise: torch.Tensor) -> torch.Tensor:
        """Context of M places, noise (1, M, L, 2 NOISE_SIZE) -> blocks (1, M, L, C * length)."""
        hidden, _ = self.recurrence(torch.cat([self.knowledge(context), noise[0]], dim=-1))
        attended, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        return self.head(self.norm(hidden + attended))[None]


class Critic(nn.Module):
    """Knowledge and the whole series at once -> layers of normalised ReLU -> one score."""

    def __init__(self, context: LevelContext, length: int, width: int):
        super().__init__()
        steps = context.hours.shape[1]
        self.knowledge = ContextEmbedding(context, steps, 2 * width)
        sizes = [2 * width + steps * context.channels, 4 * width, 4 * width, 4 * width]
        layers = [
            nn.Sequential(nn.Linear(have, want), nn.LayerNorm(want), nn.ReLU()) for have, want in zip(sizes, sizes[1:])
        ]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, context: LevelContext, blocks: torch.Tensor) -> torch.Tensor:
        """Context of M places, blocks (M, L, C * length) -> scores (M,)."""
        return self.layers(torch.cat([self.knowledge(context)[:, 0], blocks.flatten(1)], dim=-1))[:, 0]


class KeGAN(Baseline):
    """
    Every place's series from its context and noise, by an LSTM with self-attention against a critic of whole series.

    As in the paper: conditions by concatenation, an LSTM whose steps emit blocks of consecutive values,
    self-attention, and a Wasserstein critic with gradient penalty, five steps for each one of the generator.
    Embeddings of the paper's knowledge graph are replaced by an embedding of the context, learned with the rest; its
    generators of device types and of series' lengths have nothing to do here.
    """

    name = "keGAN"

    def fit(self, dataset: LevelWindows, budget: Budget) -> "KeGAN":
        torch.manual_seed(budget.seed)
        places = place_windows(dataset)
        self.length = block_length(places.traffic.shape[2])
        self.generator = AttentiveGenerator(places.context, self.length, budget.width)
        self.critic = Critic(places.context, self.length, budget.width)
        budget = replace(budget, batch_size=SERIES_PER_STEP * budget.batch_size)
        self.device = budget.device
        self.steps = train_adversarially(
            self.generator,
            self.critic,
            self._generator_loss,
            self._critic_loss,
            places,
            budget,
            discriminator_steps=CRITIC_STEPS,
        )
        return self

    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        return sample_places(self._generate, context, num_samples, seed)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.generator.parameters())

    def _generate(self, context: LevelContext, random: torch.Generator) -> torch.Tensor:
        return self.generator(context, draw_noise(context, self.length, NOISE_SIZE, random).to(self.device))

    def _weight(self, batch: LevelWindows) -> torch.Tensor:
        """(M, L, C * length): what was not measured is hidden from the critic on both sides."""
        return to_blocks(batch.weight.expand_as(batch.traffic).flatten(2), self.length).to(self.device)

    def _critic_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        """Wasserstein loss with gradient penalty (https://arxiv.org/abs/1704.00028)."""
        weight = self._weight(batch)
        real = weight * to_blocks(batch.traffic.flatten(2), self.length).to(self.device)
        with torch.no_grad():
            fake = weight * self._generate(batch.context, random)[0]
        share = torch.rand(len(real), 1, 1, generator=random).to(self.device)
        between = torch.lerp(real, fake, share).requires_grad_(True)
        (slope,) = torch.autograd.grad(self.critic(batch.context, between).sum(), between, create_graph=True)
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        distance = self.critic(batch.context, real).mean() - self.critic(batch.context, fake).mean()
        return GRADIENT_WEIGHT * penalty - distance

    def _generator_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        return -self.critic(batch.context, self._weight(batch) * self._generate(batch.context, random)[0]).mean()
