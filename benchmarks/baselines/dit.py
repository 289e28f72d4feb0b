# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""DiT: a transformer over patches of space and time (Peebles & Xie 2023, arXiv:2212.09748)."""

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import AdaLayerNormZero
from torch import nn

from ..datasets import LevelContext
from .denoising import ContextEmbedding, DenoisingBaseline, patch_size, patchify, unpatchify


NUM_LAYERS = 4
HEAD_DIM = 32
# A token stands for up to some fifty values, so it is wider than a layer that sees single values.
TOKEN_WIDTH = 3


class DiTBlock(nn.Module):
    """
    Attention and perceptron, both modulated by the embedding of step and context (adaLN-Zero).

    Args:
        dim (`int`): Channels, a multiple of the size of a head.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm_attention = AdaLayerNormZero(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim, elementwise_affine=False)
        self.mlp = FeedForward(dim, mult=4, activation_fn="gelu-approximate")
        nn.init.zeros_(self.norm_attention.linear.weight)
        nn.init.zeros_(self.norm_attention.linear.bias)

    def forward(self, tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Mix `tokens` (B, L, dim); `embedding` (B, dim)."""
        hidden, gate, shift_mlp, scale_mlp, gate_mlp = self.norm_attention(tokens, emb=embedding)
        query, key, value = self.to_qkv(hidden).unflatten(-1, (3, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        hidden = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + gate[:, None] * self.to_out(hidden)
        hidden = self.norm_mlp(tokens) * (1 + scale_mlp[:, None]) + shift_mlp[:, None]
        return tokens + gate_mlp[:, None] * self.mlp(hidden)


class DiTNetwork(nn.Module):
    """
    The denoiser. Each token is one patch of the noisy traffic plus the embedded context of the same patch, in place of
    the class label of the original; the mean of the embedded context joins the step in the modulation.

    Args:
        context (`LevelContext`): Any context of the level, for its shape.
        width (`int`): Width of the budget.
    """

    def __init__(self, context: LevelContext, width: int):
        super().__init__()
        dim = max(1, TOKEN_WIDTH * width // HEAD_DIM) * HEAD_DIM
        shape = context.shape
        self.patch = patch_size(shape)
        patch_values = shape[1] * self.patch[0] * self.patch[1] * self.patch[2]
        num_tokens = torch.Size(shape[1:]).numel() // patch_values
        self.context_embedding = ContextEmbedding(context, self.patch, dim)
        self.patch_embedding = nn.Linear(patch_values, dim)
        self.position = nn.Parameter(0.02 * torch.randn(num_tokens, dim))
        self.time_proj = Timesteps(dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(dim, dim)
        self.blocks = nn.ModuleList([DiTBlock(dim) for _ in range(NUM_LAYERS)])
        self.norm_out = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulation_out = nn.Linear(dim, 2 * dim)
        self.proj_out = nn.Linear(dim, patch_values)
        self.gain_out = nn.Linear(dim, 1)  # of what does not fit into a token
        for layer in (self.modulation_out, self.proj_out, self.gain_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode_context(self, context: LevelContext) -> torch.Tensor:
        """Context of each token, (N, T', H', W', dim)."""
        return self.context_embedding(context)

    def forward(self, state: torch.Tensor, steps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Predict for the noisy `state` (B, C, T, H, W) at `steps` (B,)."""
        patches = patchify(state, self.patch)
        tokens = self.patch_embedding(patches) + context
        grid = tokens.shape[1:4]
        tokens = tokens.flatten(1, 3) + self.position
        embedding = self.time_embedding(self.time_proj(steps)) + context.mean(dim=(1, 2, 3))
        for block in self.blocks:
            tokens = block(tokens, embedding)
        shift, scale = self.modulation_out(F.silu(embedding))[:, None].chunk(2, dim=-1)
        tokens = (self.norm_out(tokens) * (1 + scale) + shift).unflatten(1, grid)
        return unpatchify(self.proj_out(tokens) + self.gain_out(tokens) * patches, self.patch)


class DiT(DenoisingBaseline):
    """
    Diffusion with a transformer over patches.

    It predicts the velocity on a cosine schedule: in patches of many values per token the noise itself, which the
    original predicts, costs most of the capacity.
    """

    name = "DiT"

    def make_network(self, context: LevelContext, width: int) -> DiTNetwork:
        return DiTNetwork(context, width)

    def make_scheduler(self) -> DDPMScheduler:
        return DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
