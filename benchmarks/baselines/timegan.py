# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""TimeGAN: an autoencoder and a GAN in its latent space (Yoon, Jarrett and van der Schaar, NeurIPS 2019)."""

from dataclasses import replace

import torch
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .adversarial import shaken, squared_slope, train_adversarially
from .base import Baseline, Budget, train_network
from .series import block_length, draw_noise, from_blocks, place_windows, sample_places, to_blocks


NOISE_SIZE = 8
SERIES_PER_STEP = 8  # times the windows of the budget: a window has up to 256 places
# Shares of the budget of the first two of the paper's three phases. It gives each the same number of steps, and the
# last one's are the dearest.
EMBEDDING_SHARE, SUPERVISED_SHARE = 0.25, 0.1
SMOOTHNESS_WEIGHT = 0.1


class Recurrence(nn.Module):
    """GRU over blocks and a linear layer, with a sigmoid where the result is latent."""

    def __init__(self, inputs: int, width: int, outputs: int, latent: bool):
        super().__init__()
        self.recurrence = nn.GRU(inputs, width, batch_first=True)
        self.head = nn.Linear(width, outputs)
        self.latent = latent

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        """(M, L, inputs) -> (M, L, outputs)."""
        hidden, _ = self.recurrence(sequence)
        return self.head(hidden).sigmoid() if self.latent else self.head(hidden)


class GeneratorSide(nn.Module):
    """The four networks of TimeGAN that are not the discriminator."""

    def __init__(self, values: int, width: int):
        super().__init__()
        self.embedder = Recurrence(values, width, width, latent=True)
        self.recovery = Recurrence(width, width, values, latent=False)
        self.generator = Recurrence(2 * NOISE_SIZE, width, width, latent=True)
        self.supervisor = Recurrence(width, width, width, latent=True)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        """Noise (M, L, 2 NOISE_SIZE) -> blocks (M, L, C * length)."""
        return self.recovery(self.supervisor(self.generator(noise)))


def week_order(hours: torch.Tensor) -> torch.Tensor | None:
    """Order (M, T) that turns windows (M, T) of exactly one week to start on Monday 00:00; None for other windows."""
    steps = hours.shape[1]
    if steps < 2 or steps * ((hours[0, 1] - hours[0, 0]) % 168) != 168:
        return None
    return hours.argsort(dim=1)


class TimeGAN(Baseline):
    """
    Unconditional series of one place (all its channels), as the paper has them: without context.

    One place at a time and not a window at a time: there are many more series to learn from, and any window size is
    the same task. Windows of one week are turned to start on Monday before training and turned back in sampling, so
    that the series have the one common clock that those of the paper have. GRUs have one layer, for the time budget,
    and their steps are blocks of consecutive values. What was not measured enters the embedder as the dataset fills it
    in, but counts in no loss on traffic.
    """

    name = "TimeGAN"

    def fit(self, dataset: LevelWindows, budget: Budget) -> "TimeGAN":
        torch.manual_seed(budget.seed)
        places = place_windows(dataset)
        self.length, self.device = block_length(places.traffic.shape[2]), budget.device
        self.networks = GeneratorSide(self.length * places.traffic.shape[1], budget.width)
        self.discriminator = Recurrence(budget.width, budget.width, 1, latent=False)
        budget = replace(budget, batch_size=SERIES_PER_STEP * budget.batch_size)
        self.steps = train_network(self.networks, self._embedding_loss, places, _share(budget, EMBEDDING_SHARE))
        self.steps += train_network(self.networks, self._supervised_loss, places, _share(budget, SUPERVISED_SHARE))
        self.steps += train_adversarially(
            self.networks,
            self.discriminator,
            self._generator_loss,
            self._discriminator_loss,
            places,
            _share(budget, 1 - EMBEDDING_SHARE - SUPERVISED_SHARE),
        )
        return self

    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        return sample_places(self._generate, context, num_samples, seed)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.networks.parameters())

    def _generate(self, context: LevelContext, random: torch.Generator) -> torch.Tensor:
        blocks = self.networks(self._noise(context, random)).cpu()
        order = week_order(context.hours)
        if order is None:
            return blocks[None]
        series = from_blocks(blocks, context.channels)
        turned = series.gather(2, order.argsort(dim=1)[:, None].expand_as(series))
        return to_blocks(turned, self.length)[None]

    def _noise(self, context: LevelContext, random: torch.Generator) -> torch.Tensor:
        return draw_noise(context, self.length, NOISE_SIZE, random)[0].to(self.device)

    def _real(self, batch: LevelWindows) -> tuple[torch.Tensor, torch.Tensor]:
        """Blocks of the traffic and of its weight, both (M, L, C * length), weeks from Monday on."""
        traffic = batch.traffic.flatten(2)
        weight = batch.weight.flatten(2).expand_as(traffic)
        order = week_order(batch.context.hours)
        if order is not None:
            order = order[:, None].expand_as(traffic)
            traffic, weight = traffic.gather(2, order), weight.gather(2, order)
        return tuple(to_blocks(part, self.length).to(self.device) for part in (traffic, weight))

    def _embedding_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        """Phase 1: reconstruction."""
        real, weight = self._real(batch)
        return _weighted(self.networks.recovery(self.networks.embedder(real)) - real, weight)

    def _supervised_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        """Phase 2: the supervisor foresees the next latent of real series."""
        real, _ = self._real(batch)
        with torch.no_grad():
            latent = self.networks.embedder(real)
        return _foresight(self.networks.supervisor(latent), latent)

    def _discriminator_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        """Phase 3: real latents against generated ones, before and after the supervisor."""
        real, _ = self._real(batch)
        with torch.no_grad():
            latent = self.networks.embedder(real)
            early = self.networks.generator(self._noise(batch.context, random))
            late = self.networks.supervisor(early)
        scores = self._scores(torch.stack([latent, shaken(latent, random), early, late]))
        entropy = nn.functional.softplus(-scores[0]).mean() + nn.functional.softplus(scores[2:]).mean()
        return entropy + SMOOTHNESS_WEIGHT * squared_slope(scores[0], scores[1])

    def _scores(self, latents: torch.Tensor) -> torch.Tensor:
        """(K, M, L, width) -> (K, M), the mean over blocks."""
        return self.discriminator(latents.flatten(0, 1)).mean((1, 2)).unflatten(0, latents.shape[:2])

    def _generator_loss(self, batch: LevelWindows, random: torch.Generator) -> torch.Tensor:
        """Phase 3: the paper's weighting of deception, foresight, moments and reconstruction."""
        real, weight = self._real(batch)
        networks = self.networks
        latent = networks.embedder(real)
        early = networks.generator(self._noise(batch.context, random))
        late = networks.supervisor(early)
        deception = 2 * nn.functional.softplus(-self._scores(torch.stack([early, late]))).mean()
        foresight = _foresight(networks.supervisor(latent), latent)
        reconstruction = _weighted(networks.recovery(latent) - real, weight)
        moments = _moment_difference(networks.recovery(late), real, weight)
        return deception + 100 * (foresight + 1e-8).sqrt() + 100 * moments + 10 * (reconstruction + 1e-8).sqrt()


def _share(budget: Budget, share: float) -> Budget:
    steps = None if budget.max_steps is None else max(1, round(share * budget.max_steps))
    return replace(budget, seconds=share * budget.seconds, max_steps=steps)


def _weighted(error: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean square of what was measured."""
    return (weight * error.square()).sum() / weight.sum().clamp(min=1)


def _foresight(foreseen: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    return (foreseen[:, :-1] - latent[:, 1:]).square().mean() if latent.shape[1] > 1 else 0 * foreseen.mean()


def _moment_difference(fake: torch.Tensor, real: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Distance of mean and standard deviation over the batch, at every time step."""
    total = weight.sum(0).clamp(min=1e-3)
    mean = (weight * real).sum(0) / total
    variance = (weight * (real - mean).square()).sum(0) / total
    spread = (fake.var(0, correction=0) + 1e-6).sqrt() - (variance + 1e-6).sqrt()
    seen = (weight.sum(0) > 0).float()
    return (seen * ((fake.mean(0) - mean).abs() + spread.abs())).mean()
