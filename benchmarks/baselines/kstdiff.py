# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""KSTDiff: diffusion around an estimated volume (Zhou et al. 2023, arXiv:2309.10547)."""

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .denoising import (
    CONTEXT_DROPOUT,
    ContextEmbedding,
    DenoisingBaseline,
    add_noise,
    patch_size,
    patchify,
    unpatchify,
    weighted_mean,
)


NUM_BLOCKS = 4
# A token stands for up to some fifty values, so it is wider than a layer that sees single values.
TOKEN_WIDTH = 2


class VolumeEstimator(nn.Module):
    """
    Estimates the volume of every place, its mean traffic, from the static context of the place and its neighbours.

    Args:
        context (`LevelContext`): Any context of the level, for its shape.
        dim (`int`): Channels.
    """

    def __init__(self, context: LevelContext, dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(CONTEXT_DROPOUT),
            nn.Conv2d(2 * (context.static.shape[1] + 1), dim, 1),
            nn.SiLU(),
            nn.Conv2d(dim, context.channels, 1),
        )

    def forward(self, context: LevelContext) -> torch.Tensor:
        """Volume of N windows, (N, C, 1, H, W)."""
        own = F.pad(context.static, (0, 0, 0, 0, 0, 1), value=1.0).to(self.layers[1].weight.device)  # maybe no layers
        around = F.avg_pool2d(own, 3, stride=1, padding=1, count_include_pad=False)
        return self.layers(torch.cat([own, around], dim=1))[:, :, None]


class KSTBlock(nn.Module):
    """
    A residual block: gated convolution over time, convolution over neighbouring places, and fusion of the knowledge.

    Args:
        dim (`int`): Channels.
        dilation (`int`): Of the convolution over time, in patches.
    """

    def __init__(self, dim: int, dilation: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.step_projection = nn.Linear(dim, dim)
        self.time_conv = nn.Conv2d(dim, 2 * dim, (3, 1), padding=(dilation, 0), dilation=(dilation, 1))
        self.place_conv = nn.Conv2d(dim, dim, 3, padding=1)
        self.knowledge = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor, embedding: torch.Tensor, knowledge: torch.Tensor) -> torch.Tensor:
        """Mix `tokens` (B, T', H', W', dim), given `embedding` (B, dim) and `knowledge` (B, T', H', W', dim)."""
        batch, length, height, width, _ = tokens.shape
        hidden = self.norm(tokens) + self.step_projection(embedding)[:, None, None, None]
        hidden = hidden.flatten(2, 3).permute(0, 3, 1, 2)  # (B, dim, T', H' W')
        hidden = F.glu(self.time_conv(hidden), dim=1).permute(0, 2, 3, 1)
        hidden = hidden.reshape(batch * length, height, width, -1).permute(0, 3, 1, 2)  # (B T', dim, H', W')
        hidden = self.place_conv(hidden).permute(0, 2, 3, 1).unflatten(0, (batch, length))
        shift, scale = self.knowledge(knowledge).chunk(2, dim=-1)
        return tokens + self.out(F.silu(hidden * (1 + scale) + shift))


class KSTDiffNetwork(nn.Module):
    """
    The denoiser of the traffic around its estimated volume, and the estimator. The embedded context takes the place of
    the urban knowledge graph, and neighbouring places that of the graph's edges.

    Args:
        context (`LevelContext`): Any context of the level, for its shape.
        width (`int`): Width of the budget.
    """

    def __init__(self, context: LevelContext, width: int):
        super().__init__()
        dim = TOKEN_WIDTH * width
        self.patch = patch_size(context.shape)
        patch_values = context.channels * self.patch[0] * self.patch[1] * self.patch[2]
        self.volume = VolumeEstimator(context, dim)
        self.context_embedding = ContextEmbedding(context, self.patch, dim)
        self.time_proj = Timesteps(128, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(128, dim, post_act_fn="silu")
        self.proj_in = nn.Linear(patch_values, dim)
        self.blocks = nn.ModuleList([KSTBlock(dim, 2**number) for number in range(NUM_BLOCKS)])
        self.norm_out = nn.LayerNorm(dim)
        self.proj_out = nn.Linear(dim, patch_values)
        self.gain_out = nn.Linear(dim, 1)  # of what does not fit into a token
        for layer in (self.proj_out, self.gain_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def encode_context(self, context: LevelContext) -> torch.Tensor:
        """Context of each token, (N, T', H', W', dim)."""
        return self.context_embedding(context)

    def forward(self, state: torch.Tensor, steps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Predict for the noisy `state` (B, C, T, H, W) at `steps` (B,)."""
        patches = patchify(state, self.patch)
        tokens = self.proj_in(patches) + context
        embedding = self.time_embedding(self.time_proj(steps))
        for block in self.blocks:
            tokens = block(tokens, embedding, context)
        tokens = self.norm_out(tokens)
        return unpatchify(self.proj_out(tokens) + self.gain_out(tokens) * patches, self.patch)


class KSTDiff(DenoisingBaseline):
    """
    Diffusion whose prior is centred on the estimated volume of each place: 1000 steps, cosine, L1 loss.

    A chain whose noise is centred on mu is, shifted by mu, an ordinary chain for the traffic minus mu; that is what is
    implemented. Volume and denoiser are trained together, as in the paper. The denoiser predicts the velocity.
    """

    name = "KSTDiff"

    def make_network(self, context: LevelContext, width: int) -> KSTDiffNetwork:
        return KSTDiffNetwork(context, width)

    def make_scheduler(self) -> DDPMScheduler:
        return DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")

    def loss(self, batch: LevelWindows, generator: torch.Generator) -> torch.Tensor:
        """Absolute error of the prediction and squared error of the volume over what was measured, a scalar."""
        traffic = batch.traffic.to(self.device)
        # The squared error of a constant over time is least at the mean of the traffic.
        volume = self.network.volume(batch.context).float()
        noisy, steps, target = add_noise(self.scheduler, traffic - volume.detach(), generator)
        prediction = self.predict(noisy, steps, batch.context)
        volume_loss = weighted_mean((volume - traffic) ** 2, batch.weight)
        return weighted_mean((prediction - target).abs(), batch.weight) + volume_loss

    @torch.inference_mode()
    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        return super().sample(context, num_samples, seed) + self.network.volume(context).cpu()
