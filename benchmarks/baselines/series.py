# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Windows as series, one per place: what the recurrent adversarial baselines learn from and generate."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .base import calendar_features


# A recurrence over a week of hours is slow and forgets, so each of its steps emits a block of consecutive values, as
# in DoppelGANger (Lin et al. 2020, https://arxiv.org/abs/1909.13403): the days of a week.
LARGEST_SEQUENCE = 7
# Bounds the memory of sampling: values (series times time steps) generated at once.
CHUNK_VALUES = 2**18


def block_length(steps: int) -> int:
    """Shortest block that divides `steps` into at most `LARGEST_SEQUENCE` blocks: 24 for 168 steps, 1 for 7."""
    return next(
        length for length in range(1, steps + 1) if steps % length == 0 and steps // length <= LARGEST_SEQUENCE
    )


def to_blocks(values: torch.Tensor, length: int) -> torch.Tensor:
    """(M, C, T) -> (M, T / length, C * length)."""
    return values.unflatten(-1, (-1, length)).transpose(1, 2).flatten(2)


def from_blocks(blocks: torch.Tensor, channels: int) -> torch.Tensor:
    """(M, L, C * length) -> (M, C, L * length), the inverse of [`to_blocks`]."""
    return blocks.unflatten(-1, (channels, -1)).transpose(1, 2).flatten(2)


def place_context(context: LevelContext) -> LevelContext:
    """
    The same context with every place as a window of its own, M = N * H * W windows of one place.

    The static layers become (M, 2 F, 1, 1): those of the place, and their mean over it and its eight neighbours, so
    that a series knows its surroundings.
    """
    num_windows, _, steps, height, width = context.shape
    static = context.static
    if static.shape[1] > 0:
        near = torch.nn.functional.avg_pool2d(static, 3, stride=1, padding=1, count_include_pad=False)
        static = torch.cat([static, near], dim=1)
    return replace(
        context,
        static=static.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None],
        temporal=_as_places(context.temporal),
        hours=context.hours[:, None].expand(num_windows, height * width, steps).flatten(0, 1),
    )


def place_windows(dataset: LevelWindows) -> LevelWindows:
    """Training windows with every place as a window of its own; see [`place_context`]."""
    traffic, weight = _as_places(dataset.traffic), _as_places(dataset.weight)
    return LevelWindows(traffic, weight, place_context(dataset.context))


def _as_places(windows: torch.Tensor) -> torch.Tensor:
    """(N, C, T, H, W) -> (N * H * W, C, T, 1, 1)."""
    return windows.permute(0, 3, 4, 1, 2).flatten(0, 2)[..., None, None]


def draw_noise(
    context: LevelContext, length: int, size: int, generator: torch.Generator, versions: int = 1
) -> torch.Tensor:
    """
    Normal noise (versions, M, L, 2 * size) for M series of L blocks, drawn on the CPU.

    The first half is the same in all blocks of a series, the second is not: what makes a place busy lasts, what makes
    an hour busy does not.
    """
    blocks = context.hours.shape[1] // length
    lasting = torch.randn(versions, len(context), 1, size, generator=generator).expand(-1, -1, blocks, -1)
    return torch.cat([lasting, torch.randn(versions, len(context), blocks, size, generator=generator)], dim=-1)


class ContextEmbedding(nn.Module):
    """
    One vector per block of a series from the layers of its place, the calendar and the varying layers.

    Args:
        context (`LevelContext`): Any context of places, for its numbers of channels.
        length (`int`): Time steps of a block.
        width (`int`): Size of the vector.
        dropout (`float`, defaults to 0.5): Rate at which static layers are hidden in training: with few places a
            network would know them by heart.
    """

    def __init__(self, context: LevelContext, length: int, width: int, dropout: float = 0.5):
        super().__init__()
        layers, varying = context.static.shape[1], context.temporal.shape[1]
        self.length = length
        self.place = nn.Sequential(nn.Dropout(dropout), nn.Linear(layers, width)) if layers else None
        self.time = nn.Linear((6 + varying) * length, width)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, context: LevelContext) -> torch.Tensor:
        """Context of M places -> (M, L, width)."""
        device = self.time.weight.device
        varying = torch.cat([calendar_features(context.hours), context.temporal.flatten(2)], dim=1).to(device)
        embedded = self.time(to_blocks(varying, self.length))
        if self.place is not None:
            embedded = embedded + self.place(context.static.flatten(1).to(device))[:, None]
        return self.mix(embedded)


@torch.inference_mode()
def sample_places(
    generate: Callable[[LevelContext, torch.Generator], torch.Tensor],
    context: LevelContext,
    num_samples: int,
    seed: int,
) -> torch.Tensor:
    """
    Generate all series of all windows in chunks of bounded memory.

    Args:
        generate (`Callable`): Blocks of series (1, M, L, C * length) for a context of M places.
        context (`LevelContext`): N windows.
        num_samples (`int`): Samples n of each window.
        seed (`int`): Seed of the noise.

    Returns:
        `torch.Tensor`: (n, N, C, T, H, W), float32 on the CPU.
    """
    num_windows, channels, steps, height, width = context.shape
    places, generator = place_context(context), torch.Generator().manual_seed(seed)
    samples = torch.empty(num_samples, len(places), channels, steps)
    at_once = max(1, CHUNK_VALUES // steps)
    for sample in range(num_samples):
        for first in range(0, len(places), at_once):
            part = slice(first, first + at_once)
            samples[sample, part] = from_blocks(generate(places[part], generator)[0], channels).float().cpu()
    return samples.unflatten(1, (num_windows, height, width)).permute(0, 1, 4, 5, 2, 3).contiguous()
