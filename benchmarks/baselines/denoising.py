# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the diffusion baselines share: patches, the embedding of the context, training, and sampling in chunks."""

import itertools
from abc import abstractmethod
from collections.abc import Callable

import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from torch import nn

from ..datasets import LevelContext, LevelWindows
from .base import Baseline, Budget, calendar_features, train_network


CHUNK_VALUES = 2**18  # values that are denoised at once: bounds the memory of sampling
CLEAN_LIMIT = 6.0  # estimates are clipped there, as in DDPM; encoded traffic is about N(0, 1)
MAX_TOKENS = 256  # of a window: transformers over single hours and cells would hardly train in the budget
LONGEST_PATCH, WIDEST_PATCH = 12, 4  # time steps and cells
CONTEXT_DROPOUT = 0.1  # places are few: a network must not know them by heart


def patch_size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """
    The smallest patch that cuts a level into at most `MAX_TOKENS` tokens, extended in time rather than in space.

    Args:
        shape (`tuple[int, ...]`): (..., T, H, W) of the level, which patches divide.

    Returns:
        `tuple[int, int, int]`: time steps, rows, columns. (12, 2, 2) for (168, 8, 8).
    """
    longest = (LONGEST_PATCH, WIDEST_PATCH, WIDEST_PATCH)
    divisors = [
        [size for size in range(1, most + 1) if length % size == 0] for length, most in zip(shape[-3:], longest)
    ]
    patches = sorted(
        itertools.product(*divisors),
        key=lambda patch: (patch[0] * patch[1] * patch[2], patch[1] * patch[2], abs(patch[1] - patch[2])),
    )
    values = shape[-3] * shape[-2] * shape[-1]
    return next((patch for patch in patches if values <= MAX_TOKENS * patch[0] * patch[1] * patch[2]), patches[-1])


def patchify(values: torch.Tensor, patch: tuple[int, int, int]) -> torch.Tensor:
    """(B, C, T, H, W) -> (B, T', H', W', C x values of a patch)."""
    for axis, size in zip((2, 4, 6), patch):
        values = values.unflatten(axis, (-1, size))  # (B, C, T', t, H', h, W', w)
    return values.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def unpatchify(tokens: torch.Tensor, patch: tuple[int, int, int]) -> torch.Tensor:
    """The inverse of [`patchify`]."""
    values = tokens.unflatten(-1, (-1, *patch)).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return values.flatten(6, 7).flatten(4, 5).flatten(2, 3)


class ContextEmbedding(nn.Module):
    """
    Embeds static layers, temporal layers and the calendar of each patch together, since what a place asks for depends
    on the hour.

    Args:
        context (`LevelContext`): Any context of the level, for its shape.
        patch (`tuple[int, int, int]`): Time steps, rows and columns of a patch.
        dim (`int`): Size of the embedding.
    """

    def __init__(self, context: LevelContext, patch: tuple[int, int, int], dim: int):
        super().__init__()
        self.patch = patch
        steps, height, width = patch
        features = context.static.shape[1] * height * width + context.temporal.shape[1] * steps * height * width
        self.dropout = nn.Dropout(CONTEXT_DROPOUT)
        self.layers = nn.Sequential(
            nn.Linear(features + calendar_features(context.hours[:1]).shape[1] * steps, dim),
            nn.SiLU(),
            nn.Linear(dim, dim),
        )

    def forward(self, context: LevelContext) -> torch.Tensor:
        """Embed N windows, (N, T', H', W', dim)."""
        device = self.layers[0].weight.device
        steps, height, width = self.patch
        static = patchify(context.static[:, :, None].to(device), (1, height, width))
        temporal = patchify(context.temporal.to(device), self.patch)
        calendar = patchify(calendar_features(context.hours)[..., None, None].to(device), (steps, 1, 1))
        grid = (-1, temporal.shape[1], *static.shape[2:4], -1)
        places = self.dropout(torch.cat([static.expand(grid), temporal], dim=-1))
        return self.layers(torch.cat([places, calendar.expand(grid)], dim=-1))


def add_noise(
    scheduler: DDPMScheduler, clean: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Noise a batch at random steps.

    Args:
        scheduler (`DDPMScheduler`): Noise schedule and prediction type.
        clean (`torch.Tensor`): (B, ...).
        generator (`torch.Generator`): On the CPU.

    Returns:
        `tuple`: noisy state (B, ...), steps (B,), and what the network is to predict (B, ...).
    """
    noise = torch.randn(clean.shape, generator=generator).to(clean.device)
    # One step per stratum: the loss of a small batch varies less.
    position = (torch.randperm(len(clean), generator=generator) + torch.rand(len(clean), generator=generator)) / len(
        clean
    )
    steps = (position * scheduler.config.num_train_timesteps).long().to(clean.device)
    noisy = scheduler.add_noise(clean, noise, steps)
    if scheduler.config.prediction_type == "sample":
        return noisy, steps, clean
    if scheduler.config.prediction_type == "v_prediction":
        return noisy, steps, scheduler.get_velocity(clean, noise, steps)
    return noisy, steps, noise


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of (B, C, T, H, W) with the weights (B, 1, T, H, W) of what was measured, a scalar."""
    weight = weight.to(values.device).expand(values.shape)
    return (values.float() * weight).sum() / weight.sum().clamp_min(1e-6)


def solver_steps(scheduler: DDPMScheduler, num_steps: int) -> list[int]:
    """
    Steps of the training chain evenly spread in log-SNR, noisiest first.

    An even spread over the chain spends too few steps where the spread of the samples is decided. Signal-to-noise
    ratios below 1e-3 are left out: they carry no signal, and divide errors in the noise by a small number.
    """
    noise_level = torch.log(1 / scheduler.alphas_cumprod.cpu().double() - 1)  # increases along the chain
    ends = noise_level.clamp(-7.0, 7.0)[[-1, 0]]
    wanted = torch.linspace(ends[0], ends[1], num_steps, dtype=torch.float64)
    nearest = (noise_level[None] - wanted[:, None]).abs().argmin(dim=1)
    return sorted(set(nearest.tolist()), reverse=True)


@torch.inference_mode()
def denoise(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    scheduler: DDPMScheduler,
    noise: torch.Tensor,
    num_steps: int,
) -> torch.Tensor:
    """
    Solve the probability-flow ODE of a trained network by DPM-Solver++ (2M; Lu et al. 2022, arXiv:2211.01095).

    Args:
        predict (`Callable`): Prediction of the network for a state (B, ...) and steps (B,).
        scheduler (`DDPMScheduler`): Noise schedule and prediction type of the training.
        noise (`torch.Tensor`): (B, ...), standard normal, float32.
        num_steps (`int`): Network calls, fewer where the chain is shorter.

    Returns:
        `torch.Tensor`: (B, ...), clean, float32.
    """
    solver = DPMSolverMultistepScheduler(
        trained_betas=scheduler.betas.numpy(), num_train_timesteps=len(scheduler.betas), prediction_type="sample"
    )
    solver.set_timesteps(timesteps=solver_steps(scheduler, num_steps), device=noise.device)
    state = noise
    for step in solver.timesteps:
        prediction = predict(state, step.expand(len(state))).float()
        signal = scheduler.alphas_cumprod[step.item()].item()
        if scheduler.config.prediction_type == "epsilon":
            prediction = (state - (1 - signal) ** 0.5 * prediction) / signal**0.5
        elif scheduler.config.prediction_type == "v_prediction":
            prediction = signal**0.5 * state - (1 - signal) ** 0.5 * prediction
        state = solver.step(prediction.clamp(-CLEAN_LIMIT, CLEAN_LIMIT), step, state).prev_sample
    return state


@torch.inference_mode()
def sample_windows(
    network: nn.Module,
    scheduler: DDPMScheduler,
    num_steps: int,
    context: LevelContext,
    num_samples: int,
    seed: int,
    state_shape: tuple[int, ...] | None = None,
    finish: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """
    Sample every window of a context, a bounded number of values at a time.

    Args:
        network (`nn.Module`): With `encode_context(context)`, computed once, and
            `forward(state (B, ...), steps (B,), encoded context (B, ...))`.
        scheduler (`DDPMScheduler`): Noise schedule and prediction type of the training.
        num_steps (`int`): Network calls per sample.
        context (`LevelContext`): N windows.
        num_samples (`int`): n.
        seed (`int`): Of the noise, drawn window by window: a window's samples do not depend on those after it.
        state_shape (`tuple[int, ...]`, *optional*): Shape of what is denoised, (C, T, H, W) by default.
        finish (`Callable`, *optional*): Makes traffic (B, C, T, H, W) of states (B, *state_shape) of another shape.

    Returns:
        `torch.Tensor`: (n, N, C, T, H, W) float32 on the CPU.
    """
    state_shape = context.shape[1:] if state_shape is None else state_shape
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, CHUNK_VALUES // torch.Size(state_shape).numel())
    samples = []
    with torch.autocast(device.type, torch.bfloat16):
        for windows in torch.arange(len(context)).split(max(1, at_once // num_samples)):
            encoded = network.encode_context(context[windows]).repeat_interleave(num_samples, dim=0)
            noise = torch.cat([torch.randn(num_samples, *state_shape, generator=generator) for _ in windows])
            parts = [
                denoise(
                    lambda state, step: network(state, step, condition), scheduler, state.to(device), num_steps
                ).cpu()
                for state, condition in zip(noise.split(at_once), encoded.split(at_once))
            ]
            clean = torch.cat(parts) if finish is None else finish(torch.cat(parts))
            samples.append(clean.unflatten(0, (len(windows), num_samples)))
    return torch.cat(samples).transpose(0, 1).contiguous()


class DenoisingBaseline(Baseline):
    """
    A network that learns to denoise whole windows of a level and knows their context.

    Attributes:
        learning_rate (`float`): Peak, see [`train_network`].
        sampling_steps (`int`): Network calls per sample, at most.
    """

    learning_rate: float = 3e-3
    sampling_steps: int = 20

    @abstractmethod
    def make_network(self, context: LevelContext, width: int) -> nn.Module:
        """As [`sample_windows`] takes it, for any context of the level and the width of the budget."""

    @abstractmethod
    def make_scheduler(self) -> DDPMScheduler:
        """Noise schedule and prediction type of the training."""

    def fit(self, dataset: LevelWindows, budget: Budget) -> "DenoisingBaseline":
        torch.manual_seed(budget.seed)
        self.scheduler = self.make_scheduler()
        self.network = self.make_network(dataset.context, budget.width)
        self.steps = train_network(self.network, self.loss, dataset, budget, self.learning_rate)
        return self

    def predict(self, noisy: torch.Tensor, steps: torch.Tensor, context: LevelContext) -> torch.Tensor:
        """What the network says of a noised batch, float32."""
        return self.network(noisy, steps, self.network.encode_context(context)).float()

    def loss(self, batch: LevelWindows, generator: torch.Generator) -> torch.Tensor:
        """Squared error of the prediction over what was measured, a scalar."""
        noisy, steps, target = add_noise(self.scheduler, batch.traffic.to(self.device), generator)
        return weighted_mean((self.predict(noisy, steps, batch.context) - target) ** 2, batch.weight)

    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        return sample_windows(self.network, self.scheduler, self.sampling_steps, context, num_samples, seed)

    @property
    def device(self) -> torch.device:
        """That of the network."""
        return next(self.network.parameters()).device

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())
