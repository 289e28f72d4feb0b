# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A transformer over time for each cell, from context and calendar to expected traffic (Vaswani et al. 2017)."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .base import Baseline, Budget, train_network
from .denoising import CHUNK_VALUES, ContextEmbedding, unpatchify, weighted_mean


NUM_LAYERS = 2
NUM_HEADS = 4
TIME_TOKENS = 32  # at most, so 6 hours a token at 168: more cells are seen in the same time
TOKEN_WIDTH = 2  # a token stands for several hours, so it is wider than a layer that sees single values
CELLS_PER_WINDOW = 4  # of a training step, drawn anew for each: cells of one window are alike
DROPOUT = 0.1


def cell_contexts(context: LevelContext, cells: torch.Tensor) -> LevelContext:
    """
    The context of single cells as windows of one cell; the mean of the 3 x 3 cells around joins its static layers.

    Args:
        context (`LevelContext`): Of N windows.
        cells (`torch.Tensor`): (P,) int, positions in the flattened (H_k, W_k).

    Returns:
        `LevelContext` of N P windows with 2 F static layers, the cells of a window side by side.
    """
    static = context.static
    if static.shape[1] > 0:  # pooling refuses data without context
        around = F.avg_pool2d(static, 3, stride=1, padding=1, count_include_pad=False)
        static = torch.cat([static, around], dim=1)
    static = static.flatten(2)[..., cells]  # (N, 2 F, P)
    temporal = context.temporal.flatten(3)[..., cells]  # (N, Ft, T, P)
    return replace(
        context,
        static=static.movedim(-1, 1).flatten(0, 1)[..., None, None],
        temporal=temporal.movedim(-1, 1).flatten(0, 1)[..., None, None],
        hours=context.hours.repeat_interleave(len(cells), dim=0),
    )


def cell_values(values: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Values (N, C, T, H, W) of single cells, (N P, C, T, 1, 1), in the order of [`cell_contexts`]."""
    return values.flatten(3)[..., cells].movedim(-1, 1).flatten(0, 1)[..., None, None]


class TransformerNetwork(nn.Module):
    """
    An encoder over one context token and the time tokens of a cell.

    Args:
        context (`LevelContext`): Any context of single cells, for its shape.
        width (`int`): Width of the budget.
    """

    def __init__(self, context: LevelContext, width: int):
        super().__init__()
        dim = TOKEN_WIDTH * width
        _, channels, steps, _, _ = context.shape
        length = next(size for size in range(1, steps + 1) if steps % size == 0 and steps <= TIME_TOKENS * size)
        self.patch = (length, 1, 1)
        self.time_embedding = ContextEmbedding(context, self.patch, dim)
        self.time_position = nn.Parameter(0.02 * torch.randn(steps // self.patch[0], dim))
        self.place_embedding = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(context.static.shape[1], dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        layer = nn.TransformerEncoderLayer(
            dim, NUM_HEADS, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, NUM_LAYERS, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.output_projection = nn.Linear(dim, channels * self.patch[0])

    def forward(self, context: LevelContext) -> torch.Tensor:
        """Expected encoded traffic of single cells, (N, C, T_k, 1, 1)."""
        times = self.time_embedding(context).flatten(1, 3) + self.time_position  # (N, T', dim)
        place = self.place_embedding(context.static.flatten(1).to(times.device))[:, None]
        hidden = self.encoder(torch.cat([place.to(times), times], dim=1))[:, 1:]
        return unpatchify(self.output_projection(hidden)[:, :, None, None], self.patch)


class Transformer(Baseline):
    """
    Regression by mean squared error in the encoded space. Deterministic.
    """

    name = "Transformer"
    has_distribution = False

    def fit(self, dataset: LevelWindows, budget: Budget) -> "Transformer":
        torch.manual_seed(budget.seed)
        num_cells = dataset.traffic.shape[-2] * dataset.traffic.shape[-1]
        self.network = TransformerNetwork(cell_contexts(dataset.context[:1], torch.arange(1)), budget.width)

        def loss_of(batch: LevelWindows, generator: torch.Generator) -> torch.Tensor:
            cells = torch.randperm(num_cells, generator=generator)[:CELLS_PER_WINDOW]
            prediction = self.network(cell_contexts(batch.context, cells)).float()
            target = cell_values(batch.traffic, cells).to(prediction.device)
            return weighted_mean((prediction - target) ** 2, cell_values(batch.weight, cells))

        self.steps = train_network(self.network, loss_of, dataset, budget)
        return self

    @torch.inference_mode()
    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        """The same forecast `num_samples` times, (n, N, C, T_k, H_k, W_k)."""
        device = self.network.time_position.device
        _, channels, steps, height, width = context.shape
        cells = torch.arange(height * width)
        at_once = max(1, CHUNK_VALUES // (steps * len(cells)))
        with torch.autocast(device.type, torch.bfloat16):
            forecasts = [
                self.network(cell_contexts(context[windows], cells)).float().cpu()
                for windows in torch.arange(len(context)).split(at_once)
            ]
        forecast = torch.cat(forecasts).reshape(len(context), height, width, channels, steps)
        return forecast.permute(0, 3, 4, 1, 2).expand(num_samples, *context.shape)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())
