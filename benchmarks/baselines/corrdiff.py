# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The CorrDiff scheme: a regressed mean and a diffused residual (Mardani et al. 2023, arXiv:2309.15214)."""

from dataclasses import replace

import torch
from diffusers import EDMDPMSolverMultistepScheduler
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .base import Baseline, Budget, train_network
from .denoising import CHUNK_VALUES, ContextEmbedding, patch_size, patchify, unpatchify, weighted_mean


NUM_BLOCKS = 4
TOKEN_WIDTH = 2  # a token stands for up to some fifty values, so it is wider than a layer that sees single values
MEAN_SHARE = 0.4  # of the training time: the mean is the easier task
SIGMA_DATA = 0.5  # standard deviation that residuals are scaled to, as in EDM
LOG_SIGMA_MEAN, LOG_SIGMA_STD = 0.0, 1.2  # noise levels of the training, as in CorrDiff
# Even in log(sigma): the spread of Gaussian data comes out 2 % too large, in EDM's own spacing 10 %. CorrDiff takes 9
# to 18 steps as well.
SOLVER = {"sigma_data": SIGMA_DATA, "sigma_min": 0.01, "sigma_max": 80.0, "sigma_schedule": "exponential"}
SAMPLING_STEPS = 14
TIME_FREQUENCY = 1000  # noise levels are embedded as the steps of a long chain are: c_noise is within about 2


class MixingBlock(nn.Module):
    """
    Residual convolutions over space and over time, modulated by the noise level.

    Args:
        dim (`int`): Channels.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulation = nn.Linear(dim, 2 * dim)
        self.over_space = nn.Conv3d(dim, dim, (1, 3, 3), padding=(0, 1, 1))
        self.over_time = nn.Conv3d(dim, dim, (5, 1, 1), padding=(2, 0, 0))
        self.output_projection = nn.Linear(dim, dim)
        self.activation = nn.SiLU()
        nn.init.zeros_(self.output_projection.weight)
        nn.init.zeros_(self.output_projection.bias)

    def forward(self, tokens: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """Mix `tokens` (B, T', H', W', dim), given `embedding` (B, dim)."""
        scale, shift = self.modulation(embedding)[:, None, None, None].chunk(2, dim=-1)
        hidden = (self.norm(tokens) * (1 + scale) + shift).movedim(-1, 1)  # (B, dim, T', H', W')
        hidden = self.activation(self.over_time(self.activation(self.over_space(hidden))))
        return tokens + self.output_projection(hidden.movedim(1, -1))


class CorrectionNetwork(nn.Module):
    """
    Serves as the regression and as the denoiser. Patches take the place of the levels of CorrDiff's U-Net: a week of
    traffic is cut into a few hundred tokens, over which four blocks of convolutions see everything.

    Args:
        context (`LevelContext`): Any context of the level, for its shape.
        width (`int`): Width of the budget.
        state_channels (`int`): Channels of the input besides the context; 0 for the regression.
    """

    def __init__(self, context: LevelContext, width: int, state_channels: int):
        super().__init__()
        dim = TOKEN_WIDTH * width
        self.patch = patch_size(context.shape)
        values = self.patch[0] * self.patch[1] * self.patch[2]
        self.context_embedding = ContextEmbedding(context, self.patch, dim)
        self.state_projection = nn.Linear(state_channels * values, dim, bias=False) if state_channels else None
        self.time_proj = Timesteps(128, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(128, dim, post_act_fn="silu")
        self.blocks = nn.ModuleList([MixingBlock(dim) for _ in range(NUM_BLOCKS)])
        self.norm = nn.LayerNorm(dim)
        self.output_projection = nn.Linear(dim, context.channels * values)
        nn.init.zeros_(self.output_projection.weight)
        nn.init.zeros_(self.output_projection.bias)

    def encode_context(self, context: LevelContext) -> torch.Tensor:
        """Context of each token, (N, T', H', W', dim)."""
        return self.context_embedding(context)

    def forward(
        self, context: torch.Tensor, state: torch.Tensor | None = None, noise_level: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Predict traffic, or what denoises a state.

        Args:
            context (`torch.Tensor`): (B, T', H', W', dim), as encoded.
            state (`torch.Tensor`, *optional*): (B, state_channels, T, H, W).
            noise_level (`torch.Tensor`, *optional*): (B,), a quarter of the logarithm of sigma, as in EDM.
        """
        noise_level = context.new_zeros(len(context), dtype=torch.float32) if noise_level is None else noise_level
        embedding = self.time_embedding(self.time_proj(TIME_FREQUENCY * noise_level))
        tokens = context if state is None else context + self.state_projection(patchify(state, self.patch))
        for block in self.blocks:
            tokens = block(tokens, embedding)
        return unpatchify(self.output_projection(self.norm(tokens)), self.patch)


class CorrDiff(Baseline):
    """
    Samples are a regressed mean plus a residual, which is diffused in the formulation of EDM (Karras et al. 2022,
    arXiv:2206.00364). The denoiser sees the mean beside the context.
    """

    name = "CorrDiff scheme"

    def fit(self, dataset: LevelWindows, budget: Budget) -> "CorrDiff":
        torch.manual_seed(budget.seed)
        channels = dataset.context.channels
        self.mean_network = CorrectionNetwork(dataset.context, budget.width, 0)
        self.residual_network = CorrectionNetwork(dataset.context, budget.width, 2 * channels)
        self.scheduler = EDMDPMSolverMultistepScheduler(**SOLVER)
        for_mean = replace(budget, seconds=MEAN_SHARE * budget.seconds)
        for_residual = replace(budget, seconds=(1 - MEAN_SHARE) * budget.seconds)
        self.steps = train_network(self.mean_network, self._regression_loss, dataset, for_mean)
        mean = self._predict_mean(dataset.context)
        residual = dataset.traffic - mean
        weight = dataset.weight.expand(residual.shape)
        square = (residual**2 * weight).sum((0, 2, 3, 4)) / weight.sum((0, 2, 3, 4)).clamp(min=1e-6)
        self.residual_scale = (square.sqrt().clamp(min=1e-3) / SIGMA_DATA).reshape(-1, 1, 1, 1)
        paired = replace(dataset, traffic=torch.cat([residual / self.residual_scale, mean], dim=1))
        self.steps += train_network(self.residual_network, self._residual_loss, paired, for_residual)
        return self

    def _regression_loss(self, batch: LevelWindows, generator: torch.Generator) -> torch.Tensor:
        prediction = self.mean_network(self.mean_network.encode_context(batch.context)).float()
        return weighted_mean((prediction - batch.traffic.to(prediction.device)) ** 2, batch.weight)

    def _residual_loss(self, batch: LevelWindows, generator: torch.Generator) -> torch.Tensor:
        """Eq. 2 of EDM; the batch holds scaled residuals and means side by side."""
        residual, mean = batch.traffic.chunk(2, dim=1)
        sigma = torch.exp(LOG_SIGMA_MEAN + LOG_SIGMA_STD * torch.randn(len(residual), generator=generator))
        sigma = sigma.reshape(-1, 1, 1, 1, 1)
        noisy = residual + sigma * torch.randn(residual.shape, generator=generator)
        context = self.residual_network.encode_context(batch.context)
        residual, mean, noisy, sigma = (tensor.to(context.device) for tensor in (residual, mean, noisy, sigma))
        weight = (sigma**2 + SIGMA_DATA**2) / (sigma * SIGMA_DATA) ** 2
        denoised = self.scheduler.precondition_outputs(noisy, self._raw_output(context, mean, noisy, sigma), sigma)
        return weighted_mean(weight * (denoised - residual) ** 2, batch.weight)

    def _raw_output(self, context, mean, noisy, sigma: torch.Tensor) -> torch.Tensor:
        """The network between EDM's preconditioners, in float32, for `sigma` (B, 1, 1, 1, 1)."""
        state = torch.cat([self.scheduler.precondition_inputs(noisy, sigma), mean], dim=1)
        return self.residual_network(context, state, self.scheduler.precondition_noise(sigma).flatten()).float()

    @torch.inference_mode()
    def _predict_mean(self, context: LevelContext) -> torch.Tensor:
        """Regressed traffic of N windows, (N, C, T_k, H_k, W_k) float32 on the CPU."""
        network = self.mean_network
        with torch.autocast(_device(network).type, torch.bfloat16):
            means = [
                network(network.encode_context(context[windows])).float().cpu()
                for windows in torch.arange(len(context)).split(_windows_at_once(context))
            ]
        return torch.cat(means)

    @torch.inference_mode()
    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        at_once, samples = _windows_at_once(context), []
        for windows in torch.arange(len(context)).split(max(1, at_once // num_samples)):
            # Noise is drawn window by window: the samples of one do not depend on those after it.
            noise = torch.cat([torch.randn(num_samples, *context.shape[1:], generator=generator) for _ in windows])
            chosen = windows.repeat_interleave(num_samples)
            mean = self._predict_mean(context[windows]).repeat_interleave(num_samples, dim=0)
            pieces = zip(chosen.split(at_once), mean.split(at_once), noise.split(at_once))
            parts = [self._denoise(context[rows], means, noises) for rows, means, noises in pieces]
            samples.append((mean + self.residual_scale * torch.cat(parts)).unflatten(0, (len(windows), num_samples)))
        return torch.cat(samples).transpose(0, 1).contiguous()

    def _denoise(self, context: LevelContext, mean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Scaled residuals (B, C, T_k, H_k, W_k) from standard normal noise, by DPM-Solver++ (2M)."""
        device = _device(self.residual_network)
        solver = EDMDPMSolverMultistepScheduler(**SOLVER)
        solver.set_timesteps(SAMPLING_STEPS, device=device)
        mean, state = mean.to(device), noise.to(device) * solver.init_noise_sigma
        with torch.autocast(device.type, torch.bfloat16):
            encoded = self.residual_network.encode_context(context)
            for timestep, sigma in zip(solver.timesteps, solver.sigmas):
                output = self._raw_output(encoded, mean, state, sigma.to(device).expand(len(state), 1, 1, 1, 1))
                state = solver.step(output, timestep, state).prev_sample
        return state.cpu()

    @property
    def num_parameters(self) -> int:
        networks = (self.mean_network, self.residual_network)
        return sum(parameter.numel() for network in networks for parameter in network.parameters())


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _windows_at_once(context: LevelContext) -> int:
    return max(1, CHUNK_VALUES // torch.Size(context.shape[1:]).numel())
