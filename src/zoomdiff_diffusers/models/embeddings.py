# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Patches and spatio-temporal positional encodings (Sec. IV-A of the paper)."""

import torch
from torch import nn


HOURS_PER_WEEK = 168


def patchify(values: torch.Tensor, time: int, space: int) -> torch.Tensor:
    """Cut `(B, C, T, H, W)` into patches of `time x space x space` values: `(B, T', H', W', C * time * space**2)`."""
    batch, channels, steps, height, width = values.shape
    values = values.reshape(batch, channels, steps // time, time, height // space, space, width // space, space)
    values = values.permute(0, 2, 4, 6, 1, 3, 5, 7)
    return values.reshape(batch, steps // time, height // space, width // space, -1)


def unpatchify(tokens: torch.Tensor, channels: int, time: int, space: int) -> torch.Tensor:
    """Inverse of [`patchify`]: `(B, T', H', W', C * time * space**2)` to `(B, C, T, H, W)`."""
    batch, steps, height, width, _ = tokens.shape
    tokens = tokens.reshape(batch, steps, height, width, channels, time, space, space)
    tokens = tokens.permute(0, 4, 1, 5, 2, 6, 3, 7)
    return tokens.reshape(batch, channels, steps * time, height * space, width * space)


class TemporalPositionalEncoding(nn.Module):
    """
    Sinusoidal encoding of the hour of the week (TPE, Eq. 6), so that the same weekday and hour get the same code in
    every week of a series of any length.

    Args:
        dim (`int`, defaults to 128): Size of the encoding.
    """

    def __init__(self, dim: int = 128):
        super().__init__()
        self.dim = dim

    def forward(self, hours: torch.Tensor) -> torch.Tensor:
        """Encode `hours` since Monday 00:00, of any shape, as `(..., dim)`."""
        # Not a buffer: in a half-precision network it would be rounded, and late hours of the week far off.
        exponents = -2.0 * torch.arange(self.dim // 2, device=hours.device, dtype=torch.float32) / self.dim
        angles = torch.remainder(hours, HOURS_PER_WEEK).float()[..., None] * 10000.0**exponents
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class SpatialPositionalEncoding(nn.Module):
    """
    Learned encoding of the place inside a coarsest unit (SPE, Sec. IV-A), one table per stage because every spatial
    resolution has its own. The tables repeat over the area, so that an area of any size is covered.

    Args:
        units (`list[int]`): Number of tokens along one side of a coarsest unit, for each stage.
        dim (`int`, defaults to 128): Size of the encoding.
    """

    def __init__(self, units: list[int], dim: int = 128):
        super().__init__()
        self.tables = nn.ParameterList([nn.Parameter(0.02 * torch.randn(unit, unit, dim)) for unit in units])

    def forward(self, level: int, height: int, width: int) -> torch.Tensor:
        """Encoding of the tokens of stage `level` on a grid of `height x width` tokens: `(height, width, dim)`."""
        table = self.tables[level]
        return table.repeat(height // table.shape[0], width // table.shape[1], 1)
