# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Windows of one level whose law is known: traffic = a static layer + a daily sine + noise."""

import math

import torch

from benchmarks.datasets import LevelContext, LevelWindows


NOISE = 0.3  # standard deviation given the context; the fair CRPS of the law itself is NOISE / sqrt(pi)


def toy_windows(num_windows=64, channels=1, steps=14, height=3, width=2, static=1, temporal=0, seed=0) -> LevelWindows:
    """
    Windows (num_windows, channels, steps, height, width) of about zero mean and unit variance.

    The first static layer sets the level of a cell (without one it is random), every further layer means nothing; the
    second channel is the first one upside down.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = torch.randn(num_windows, static, height, width, generator=generator)
    varying = torch.randn(num_windows, temporal, steps, height, width, generator=generator)
    start = 24 * torch.randint(0, 7, (num_windows, 1), generator=generator)
    hours = (start + 4 * torch.arange(steps)) % 168
    level = layers[:, :1] if static else torch.randn(num_windows, 1, height, width, generator=generator)
    traffic = toy_mean(level, hours)
    traffic = traffic + NOISE * torch.randn(traffic.shape, generator=generator)
    traffic = torch.cat([traffic, -traffic], dim=1)[:, :channels]
    weight = torch.ones(num_windows, 1, steps, height, width)
    return LevelWindows(traffic, weight, LevelContext(layers, varying, hours, channels))


def toy_mean(level: torch.Tensor, hours: torch.Tensor) -> torch.Tensor:
    """Expected traffic (N, 1, T, H, W) of the first channel given `level` (N, 1, H, W) and `hours` (N, T)."""
    daily = torch.sin(2 * math.pi * hours / 24)[:, None, :, None, None]
    return 0.7 * level[:, :, None] + 0.7 * daily


def fair_crps(samples: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean fair CRPS of an ensemble (n, ...) against the truth (...)."""
    count = len(samples)
    spread = (samples[:, None] - samples[None]).abs().sum(dim=(0, 1)) / (2 * count * (count - 1))
    return ((samples - truth).abs().mean(dim=0) - spread).mean().item()
