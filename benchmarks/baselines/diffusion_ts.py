# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Diffusion-TS: a decoder into trend and season that predicts the sample (Yuan & Qiao 2024, arXiv:2403.01742)."""

import math

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .base import calendar_features
from .denoising import ContextEmbedding, DenoisingBaseline, add_noise, weighted_mean


NUM_LAYERS = 2  # of the encoder, and of the decoder
HEAD_DIM = 32
TREND_DEGREE = 3
# A token is the traffic of all places at one time, so it is wider than a layer that sees single values.
TOKEN_WIDTH = 3
FOURIER_WEIGHT = 0.5


class StepNorm(nn.Module):
    """Layer norm shifted and scaled by the embedding of the step and of the conditioning token."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulation = nn.Linear(dim, 2 * dim)

    def forward(self, tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        shift, scale = self.modulation(F.silu(embedding))[:, None].chunk(2, dim=-1)
        return self.norm(tokens) * (1 + scale) + shift


class Attention(nn.Module):
    """Multi-head attention of (B, L, dim) to (B, L', dim)."""

    def __init__(self, dim: int):
        super().__init__()
        self.to_query = nn.Linear(dim, dim)
        self.to_key_value = nn.Linear(dim, 2 * dim)
        self.to_out = nn.Linear(dim, dim)

    def forward(self, tokens: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        query = self.to_query(tokens).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
        key, value = self.to_key_value(memory).unflatten(-1, (2, -1, HEAD_DIM)).permute(2, 0, 3, 1, 4)
        return self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention and perceptron."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = StepNorm(dim)
        self.attention = Attention(dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(tokens, embedding)
        tokens = tokens + self.attention(hidden, hidden)
        return tokens + self.mlp(self.norm_mlp(tokens))


class DecoderLayer(nn.Module):
    """
    Self-attention, attention to the encoder, and the split into trend, season and what is left.

    Args:
        dim (`int`): Channels.
        length (`int`): Time steps T.
    """

    def __init__(self, dim: int, length: int):
        super().__init__()
        self.norm = StepNorm(dim)
        self.attention = Attention(dim)
        self.norm_cross = StepNorm(dim)
        self.cross_attention = Attention(dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.to_parts = nn.Linear(dim, 2 * dim)
        self.to_coefficients = nn.Linear(length, TREND_DEGREE + 1)
        self.num_frequencies = max(1, round(2 * math.log(length)))
        time = torch.linspace(-1, 1, length)
        self.register_buffer("powers", time ** torch.arange(TREND_DEGREE + 1)[:, None])  # (degree + 1, T)

    def forward(
        self, tokens: torch.Tensor, memory: torch.Tensor, embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of `tokens` (B, T, dim) given `memory` (B, L, dim): the rest, the trend and the season, each (B, T, dim)."""
        hidden = self.norm(tokens, embedding)
        tokens = tokens + self.attention(hidden, hidden)
        tokens = tokens + self.cross_attention(self.norm_cross(tokens, embedding), memory)
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        for_trend, for_season = self.to_parts(tokens).chunk(2, dim=-1)
        trend = (self.to_coefficients(for_trend.transpose(1, 2)) @ self.powers).transpose(1, 2)
        season = strongest_frequencies(for_season.float(), self.num_frequencies)
        return tokens - tokens.mean(dim=1, keepdim=True), trend, season


def strongest_frequencies(series: torch.Tensor, number: int) -> torch.Tensor:
    """Keep the `number` strongest frequencies of each channel of `series` (B, T, dim), besides the mean."""
    spectrum = torch.fft.rfft(series, dim=1)
    strength = spectrum[:, 1:].abs()
    weakest = strength.topk(min(number, strength.shape[1]), dim=1).values[:, -1:]
    kept = spectrum[:, 1:] * (strength >= weakest)
    return torch.fft.irfft(torch.cat([torch.zeros_like(spectrum[:, :1]), kept], dim=1), series.shape[1], dim=1)


class PlaceReadout(nn.Module):
    """
    From tokens (B, T, dim) to every place's traffic (B, T, C, P) by weights that depend on the place's context: which
    place is which differs from window to window.

    Args:
        dim (`int`): Channels of a token.
        context_dim (`int`): Size of the context embedding of a place.
        places (`int`): P.
        channels (`int`): C.
    """

    def __init__(self, dim: int, context_dim: int, places: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, places, dim) / math.sqrt(dim))
        self.to_weight = nn.Linear(context_dim, channels * dim)

    def forward(self, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        by_context = self.to_weight(places).unflatten(-1, (-1, tokens.shape[-1])).transpose(1, 2)  # (B, C, P, dim)
        return torch.einsum("btd,bcpd->bctp", tokens, self.weight + by_context / math.sqrt(tokens.shape[-1]))


class DiffusionTSNetwork(nn.Module):
    """
    The denoiser: a window is one multivariate series whose variables are its places.

    The original is unconditional. Here the places' embedded context, averaged, is a conditioning token beside those of
    the encoder and joins the step in the modulation; the calendar is added to the tokens.

    Args:
        context (`LevelContext`): Any context of the level, for its shape.
        width (`int`): Width of the budget.
    """

    def __init__(self, context: LevelContext, width: int):
        super().__init__()
        dim = max(1, TOKEN_WIDTH * width // HEAD_DIM) * HEAD_DIM
        _, channels, length, height, columns = context.shape
        places = height * columns
        self.length = length
        self.context_embedding = ContextEmbedding(context, (length, 1, 1), dim)
        self.calendar_embedding = nn.Linear(calendar_features(context.hours[:1]).shape[1], dim)
        self.time_proj = Timesteps(dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(dim, dim)
        self.proj_in = nn.Linear(channels * places, dim)
        self.position = nn.Parameter(0.02 * torch.randn(length, dim))
        self.encoder = nn.ModuleList([EncoderLayer(dim) for _ in range(NUM_LAYERS)])
        self.decoder = nn.ModuleList([DecoderLayer(dim, length) for _ in range(NUM_LAYERS)])
        self.trend_out, self.season_out, self.rest_out = (PlaceReadout(dim, dim, places, channels) for _ in range(3))
        self.gain_out = nn.Linear(dim, channels)  # of what does not fit into a token
        nn.init.zeros_(self.gain_out.weight)
        nn.init.zeros_(self.gain_out.bias)

    def encode_context(self, context: LevelContext) -> torch.Tensor:
        """Context of each place and of each time step, (N, P + T, dim)."""
        places = self.context_embedding(context).flatten(1, 3)
        calendar = calendar_features(context.hours).transpose(1, 2).to(places.device)
        return torch.cat([places, self.calendar_embedding(calendar)], dim=1)

    def forward(self, state: torch.Tensor, steps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Predict the sample for the noisy `state` (B, C, T, H, W) at `steps` (B,)."""
        places, calendar = context.tensor_split([context.shape[1] - self.length], dim=1)
        condition = places.mean(dim=1)
        embedding = self.time_embedding(self.time_proj(steps)) + condition
        tokens = self.proj_in(state.transpose(1, 2).flatten(2)) + calendar + self.position
        memory = torch.cat([condition[:, None], tokens], dim=1)
        for layer in self.encoder:
            memory = layer(memory, embedding)
        trends = seasons = 0
        for layer in self.decoder:
            tokens, trend, season = layer(tokens, memory, embedding)
            trends, seasons = trends + trend, seasons + season
        output = self.trend_out(trends, places) + self.season_out(seasons, places) + self.rest_out(tokens, places)
        gain = self.gain_out(F.silu(embedding)[:, None] + places).transpose(1, 2)[:, :, None]  # (B, C, 1, P)
        return (output + gain * state.flatten(3)).reshape(state.shape)


class DiffusionTS(DenoisingBaseline):
    """
    Diffusion of multivariate series, 500 steps, cosine, squared error of the sample with a Fourier loss.

    The network's output is taken as the velocity, and the losses are those of the sample that follows from it: asked
    for the sample itself, as in the original, it leaves out what varies from step to step and spreads too little.
    """

    name = "Diffusion-TS"

    def make_network(self, context: LevelContext, width: int) -> DiffusionTSNetwork:
        return DiffusionTSNetwork(context, width)

    def make_scheduler(self) -> DDPMScheduler:
        return DDPMScheduler(500, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")

    def loss(self, batch: LevelWindows, generator: torch.Generator) -> torch.Tensor:
        """Squared error of the sample and of its spectrum, weighted by the step, a scalar."""
        clean = batch.traffic.to(self.device)
        noisy, steps, _ = add_noise(self.scheduler, clean, generator)
        velocity = self.predict(noisy, steps, batch.context)
        # With these arguments `get_velocity` turns the velocity back into the sample.
        prediction = self.scheduler.get_velocity(velocity, noisy, steps)
        weight = batch.weight.to(self.device)
        # A spectrum needs every hour: where nothing was measured the prediction stands in for the truth.
        target = torch.where(weight > 0, clean, prediction.detach())
        step_weight = step_weights(self.scheduler).to(self.device)[steps].reshape(-1, 1, 1, 1, 1)
        error = step_weight * (prediction - target) ** 2
        return (
            weighted_mean(error, weight) + FOURIER_WEIGHT * (step_weight * spectral_error(prediction, target)).mean()
        )


def step_weights(scheduler: DDPMScheduler) -> torch.Tensor:
    """Weights (number of steps,) of the loss, of mean one; as in the paper, small where almost all is noise."""
    weights = (scheduler.alphas * (1 - scheduler.alphas_cumprod.cpu())).sqrt() / scheduler.betas
    return weights / weights.mean()


def spectral_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error of the unitary Fourier transforms over time of (B, C, T, H, W), same shape but for the time."""
    difference = torch.fft.rfft(prediction - target, dim=2, norm="ortho")
    return difference.abs() ** 2
