# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""NetDiffus: one series at a time, as an image for image diffusion (Sivaroopan et al. 2023, arXiv:2310.04429)."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .base import Budget
from .denoising import ContextEmbedding, DenoisingBaseline, add_noise, sample_windows, weighted_mean
from .series import place_context, place_windows


LARGEST_IMAGE = 12  # pixels along a side
LOWEST = 0.2  # series are scaled to [LOWEST, 1]: the inverse divides by them
SERIES_PER_WINDOW = 4  # places per window and training step


def gramian_angular_field(series: torch.Tensor) -> torch.Tensor:
    """
    Gramian angular summation field (Wang & Oates 2015, arXiv:1506.00327).

    Args:
        series (`torch.Tensor`): (..., S) in [0, 1], the cosines of angles phi.

    Returns:
        `torch.Tensor`: (..., S, S), cos(phi_i + phi_j).
    """
    sine = (1 - series**2).clamp_min(0).sqrt()
    return series[..., :, None] * series[..., None, :] - sine[..., :, None] * sine[..., None, :]


def series_of_field(field: torch.Tensor) -> torch.Tensor:
    """
    The inverse of [`gramian_angular_field`]: its diagonal is cos(2 phi) = 2 x^2 - 1.

    Args:
        field (`torch.Tensor`): (..., S, S); what sampling left outside [-1, 1] is clipped.
    """
    diagonal = field.diagonal(dim1=-2, dim2=-1).clamp(-1, 1)
    return ((diagonal + 1) / 2).sqrt()


class SeriesImages:
    """
    Folds a series of T steps into T / S rows of S steps, each an image of S x S pixels; together they are the channels
    of one picture. One image of all 168 hours would have 28,224 pixels.

    Args:
        traffic (`torch.Tensor`): (N, C, T, H, W) of the training; its extremes define the scale.
    """

    def __init__(self, traffic: torch.Tensor):
        self.channels, length = traffic.shape[1:3]
        self.side = max(side for side in range(1, LARGEST_IMAGE + 1) if length % side == 0)
        self.rows = length // self.side
        self.low, self.high = traffic.min().item(), traffic.max().item()
        self.mean, self.scale = 0.0, 1.0
        some = self.encode(traffic[:64].permute(0, 3, 4, 1, 2).flatten(0, 2))
        self.mean, self.scale = some.mean().item(), max(some.std().item(), 1e-6)

    def encode(self, series: torch.Tensor) -> torch.Tensor:
        """(M, C, T) -> (M, C x T / S, S, S), of about zero mean and unit variance."""
        unit = LOWEST + (1 - LOWEST) * (series - self.low) / max(self.high - self.low, 1e-6)
        field = gramian_angular_field(unit.clamp(LOWEST, 1).unflatten(-1, (self.rows, self.side))).flatten(1, 2)
        return (field - self.mean) / self.scale

    def decode(self, images: torch.Tensor) -> torch.Tensor:
        """(M, C x T / S, S, S) -> (M, C, T)."""
        field = self.mean + self.scale * images.unflatten(1, (self.channels, self.rows))
        unit = series_of_field(field).flatten(2).clamp(LOWEST, 1)
        return self.low + (unit - LOWEST) / (1 - LOWEST) * (self.high - self.low)


class NetDiffusNetwork(nn.Module):
    """
    A small image U-Net. The original makes one model per service; here the embedded context of the place takes the
    part of the class.

    Args:
        context (`LevelContext`): Any context of single places, for its shape.
        channels (`int`): Channels of a picture.
        width (`int`): Width of the budget.
    """

    def __init__(self, context: LevelContext, channels: int, width: int):
        super().__init__()
        outer = width // 2
        embedding_dim = 4 * outer  # what UNet2DModel gives its embedding of the step
        self.context_embedding = ContextEmbedding(context, (context.shape[2], 1, 1), embedding_dim)
        self.unet = UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            block_out_channels=(outer, width),
            layers_per_block=1,
            norm_num_groups=math.gcd(outer, 8),
            add_attention=False,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity",
        )

    def encode_context(self, context: LevelContext) -> torch.Tensor:
        """Context of M places, (M, embedding size)."""
        return self.context_embedding(context).flatten(1)

    def forward(self, state: torch.Tensor, steps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Predict for the noisy pictures `state` (B, channels, S, S) at `steps` (B,)."""
        side = state.shape[-1]
        even = F.pad(state, (0, side % 2, 0, side % 2))  # the U-Net halves the image once
        return self.unet(even, steps, class_labels=context).sample[..., :side, :side]


class NetDiffus(DenoisingBaseline):
    """
    Diffusion of Gramian angular fields of single series, 1000 steps, cosine, squared error of the velocity.

    Places are independent of each other given their context, as in the original.
    """

    name = "NetDiffus"
    learning_rate = 5e-3
    sampling_steps = 12  # a level has as many images as cells, so that steps are dear

    def make_scheduler(self) -> DDPMScheduler:
        return DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")

    def fit(self, dataset: LevelWindows, budget: Budget) -> "NetDiffus":
        self.images = SeriesImages(dataset.traffic)
        return super().fit(place_windows(dataset), replace(budget, batch_size=SERIES_PER_WINDOW * budget.batch_size))

    def make_network(self, context: LevelContext, width: int) -> NetDiffusNetwork:
        return NetDiffusNetwork(context, self.images.channels * self.images.rows, width)

    def loss(self, batch: LevelWindows, generator: torch.Generator) -> torch.Tensor:
        """Squared error of the prediction for the pixels that were measured, a scalar."""
        pictures = self.images.encode(batch.traffic.flatten(2)).to(self.device)
        noisy, steps, target = add_noise(self.scheduler, pictures, generator)
        prediction = self.predict(noisy, steps, batch.context)
        # A pixel is known as well as the two steps it is made of; all channels of the traffic are known alike.
        known = batch.weight.flatten(2).unflatten(-1, (self.images.rows, self.images.side))
        known = (known[..., :, None] * known[..., None, :]).flatten(1, 2).repeat(1, self.images.channels, 1, 1)
        return weighted_mean((prediction - target) ** 2, known)

    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        picture = (self.images.channels * self.images.rows, self.images.side, self.images.side)
        series = sample_windows(
            self.network,
            self.scheduler,
            self.sampling_steps,
            place_context(context),
            num_samples,
            seed,
            picture,
            self.images.decode,
        )  # (n, N x H x W, C, T)
        return series.unflatten(1, (-1, *context.shape[3:])).permute(0, 1, 4, 5, 2, 3).contiguous()
