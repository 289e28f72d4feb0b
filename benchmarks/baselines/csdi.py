# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""CSDI: residual blocks with a transformer over time and one over places (Tashiro et al. 2021, arXiv:2107.03502)."""

import math

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from ..datasets import LevelContext
from .denoising import ContextEmbedding, DenoisingBaseline, patch_size, patchify, unpatchify


NUM_BLOCKS = 4
NUM_HEADS = 4
# A token stands for up to some fifty values, so it is wider than a layer that sees single values.
TOKEN_WIDTH = 2


class CSDIBlock(nn.Module):
    """
    A residual block of DiffWave whose convolution is a transformer layer over time, then one over places.

    The layers normalise before attention and not after it, as in the original: that trains faster.

    Args:
        dim (`int`): Channels.
    """

    def __init__(self, dim: int):
        super().__init__()
        layer = {
            "nhead": NUM_HEADS,
            "dim_feedforward": 2 * dim,
            "dropout": 0.0,
            "activation": "gelu",
            "norm_first": True,
        }
        self.step_projection = nn.Linear(dim, dim)
        self.time_layer = nn.TransformerEncoderLayer(dim, **layer, batch_first=True)
        self.place_layer = nn.TransformerEncoderLayer(dim, **layer, batch_first=True)
        self.mid_projection = nn.Linear(dim, 2 * dim)
        self.context_projection = nn.Linear(dim, 2 * dim)
        self.output_projection = nn.Linear(dim, 2 * dim)

    def forward(
        self, tokens: torch.Tensor, embedding: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Mix `tokens` (B, T', P, dim), given `embedding` (B, dim) and `context` (B, T', P, dim); residual, skip."""
        batch, length, places, _ = tokens.shape
        hidden = tokens + self.step_projection(embedding)[:, None, None]
        hidden = self.time_layer(hidden.transpose(1, 2).flatten(0, 1))  # (B P, T', dim)
        hidden = hidden.unflatten(0, (batch, places)).transpose(1, 2)
        hidden = self.place_layer(hidden.flatten(0, 1)).unflatten(0, (batch, length))  # (B, T', P, dim)
        gate, value = (self.mid_projection(hidden) + self.context_projection(context)).chunk(2, dim=-1)
        residual, skip = self.output_projection(torch.sigmoid(gate) * torch.tanh(value)).chunk(2, dim=-1)
        return (tokens + residual) / math.sqrt(2), skip


class CSDINetwork(nn.Module):
    """
    The denoiser. The embedded context, with learned embeddings of time and place, is both the side information of the
    original and its conditional observation. A token is a patch: both transformers stay affordable at 168 hours of 64
    cells.

    Args:
        context (`LevelContext`): Any context of the level, for its shape.
        width (`int`): Width of the budget.
    """

    def __init__(self, context: LevelContext, width: int):
        super().__init__()
        dim = TOKEN_WIDTH * width
        shape = context.shape
        self.patch = patch_size(shape)
        length, height, columns = (size // part for size, part in zip(shape[2:], self.patch))
        patch_values = shape[1] * self.patch[0] * self.patch[1] * self.patch[2]
        self.context_embedding = ContextEmbedding(context, self.patch, dim)
        self.time_position = nn.Parameter(0.02 * torch.randn(length, 1, dim))
        self.place_position = nn.Parameter(0.02 * torch.randn(height * columns, dim))
        self.time_proj = Timesteps(128, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(128, dim, post_act_fn="silu")
        self.input_projection = nn.Linear(patch_values, dim)
        self.blocks = nn.ModuleList([CSDIBlock(dim) for _ in range(NUM_BLOCKS)])
        self.hidden_projection = nn.Linear(dim, dim)
        self.output_projection = nn.Linear(dim, patch_values)
        self.output_gain = nn.Linear(dim, 1)  # of what does not fit into a token
        for name, layer in self.named_modules():
            if name.endswith("projection"):
                nn.init.kaiming_normal_(layer.weight)
        for layer in (self.output_projection, self.output_gain):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode_context(self, context: LevelContext) -> torch.Tensor:
        """Context of each token, (N, T', P, dim)."""
        return self.context_embedding(context).flatten(2, 3) + self.time_position + self.place_position

    def forward(self, state: torch.Tensor, steps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Predict for the noisy `state` (B, C, T, H, W) at `steps` (B,)."""
        patches = patchify(state, self.patch)
        grid = patches.shape[2:4]
        tokens = F.relu(self.input_projection(patches.flatten(2, 3)) + context)
        embedding = self.time_embedding(self.time_proj(steps))
        total = 0
        for block in self.blocks:
            tokens, skip = block(tokens, embedding, context)
            total = total + skip
        hidden = F.relu(self.hidden_projection(total / math.sqrt(len(self.blocks))))
        output = self.output_projection(hidden).unflatten(2, grid)
        return unpatchify(output + self.output_gain(hidden).unflatten(2, grid) * patches, self.patch)


class CSDI(DenoisingBaseline):
    """
    Conditional score-based diffusion with the schedule of the original: 50 steps, quadratic from 1e-4 to 0.5.

    It predicts the velocity. With the noise as the target, as in the original, the same short training gave a higher
    CRPS.
    """

    name = "CSDI"

    def make_network(self, context: LevelContext, width: int) -> CSDINetwork:
        return CSDINetwork(context, width)

    def make_scheduler(self) -> DDPMScheduler:
        # "scaled_linear" is linear in the root of beta, which CSDI calls quadratic.
        return DDPMScheduler(50, 1e-4, 0.5, "scaled_linear", prediction_type="v_prediction")
