# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Scores of the model on held-out windows while it trains."""

import numpy as np
import torch

from ..evaluation import ensemble_scores
from ..processors import ContextTensors
from .loss import VALIDATION_STREAM, DRDMLoss, masked_pyramid, seeded_generator, zones_of


@torch.no_grad()
def sample_levels(
    loss: DRDMLoss,
    windows: dict[str, torch.Tensor],
    num_samples: int,
    num_inference_steps: int | list[int] | None = None,
    seed: int = 0,
) -> list[torch.Tensor]:
    """
    All levels for the context of some windows.

    Args:
        loss (`DRDMLoss`): Holds the network, the scheduler, the hierarchy and the traffic processor.
        windows (`dict[str, torch.Tensor]`): Stacked windows; only context, hour of the week and size are used.
        num_samples (`int`): Samples n per window.
        num_inference_steps (`int` or `list[int]`, *optional*): Network calls, as in `DRDMScheduler.set_timesteps`.
        seed (`int`, defaults to 0): Every sample's noise is a function of it and of the sample's place in the batch.

    Returns:
        Physical means per level, (n, B, C, T_k, H_k, W_k).
    """
    unet, hierarchy, processor = loss.unet, loss.hierarchy, loss.traffic_processor
    scheduler = loss.scheduler.from_config(loss.scheduler.config)  # sampling leaves the one used in training alone
    scheduler.set_timesteps(num_inference_steps, device=unet.device)
    count, channels, *finest = windows["traffic"].shape
    tensors = windows["static"], windows.get("temporal"), windows["present"], zones_of(windows)
    context = ContextTensors(*tensors).repeat_interleave(num_samples)
    zones = context.zones
    hours = windows["hour_of_week"].repeat_interleave(num_samples)
    generators = [seeded_generator(seed, VALIDATION_STREAM, index) for index in range(count * num_samples)]
    shapes = hierarchy.shapes(*finest)
    forecast = loss.forecast(context, finest[0], hours)
    levels, coarse, state = [], None, None
    for stage in range(len(hierarchy)):
        level = scheduler.state_level(stage)
        shape = (count * num_samples, channels, *shapes[level])
        guess = forecast and forecast[stage]
        prior = processor.encode_prior(hierarchy, stage, level, coarse, guess, zones, forecast and forecast[-1])
        state = scheduler.begin_stage(
            stage, shape, prior=prior, generator=generators, device=unet.device, dtype=torch.float32, sample=state
        )
        state = hierarchy.noise_over_units(state, stage, zones)
        embedding = unet.encode_context(context, stage)
        for timestep in scheduler.stage_timesteps(stage):
            model_input = scheduler.scale_model_input(state, timestep)
            output = unet(model_input, timestep, stage, prior, embedding, hours).sample.float()
            output = hierarchy.over_units(output, stage, zones)
            result = scheduler.step(output, timestep, state, generator=generators)
            state = result.prev_sample
        values = processor.decode(result.level)
        values = hierarchy.aggregate(values, stage, source=level)
        if stage > 0:
            values = hierarchy.reconcile(values, coarse, stage, zones=zones, profile=forecast and forecast[-1])
        coarse = values
        finished = hierarchy.level_of(coarse, stage, zones)
        levels.append(finished.unflatten(0, (count, num_samples)).transpose(0, 1).cpu())
    return levels


def score_levels(
    levels: list[torch.Tensor], windows: dict[str, torch.Tensor], loss: DRDMLoss
) -> dict[str, dict[str, float]]:
    """
    Scores per level (and channel, where there are several), over what was measured.

    Args:
        levels (`list[torch.Tensor]`): From [`sample_levels`].
        windows (`dict[str, torch.Tensor]`): The same windows.
        loss (`DRDMLoss`): Holds the hierarchy and the channel names.
    """
    mask = windows.get("mask")
    zones = zones_of(windows)
    truth, weights = masked_pyramid(windows["traffic"], loss.hierarchy, mask, zones)
    if mask is not None:  # compare the same hours: means over the measured part of the finest samples
        members = [masked_pyramid(member, loss.hierarchy, mask, zones)[0] for member in levels[-1].to(mask.device)]
        levels = [torch.stack(parts) for parts in zip(*members)]
    scores = {}
    for position, name in enumerate(loss.hierarchy.names):
        for channel, channel_name in enumerate(loss.traffic_processor.channels):
            key = name if len(loss.traffic_processor.channels) == 1 else f"{name}/{channel_name}"
            measured = None if weights is None else (weights[position][:, 0] > 0).cpu().numpy()
            samples = levels[position][:, :, channel].cpu().numpy().astype(np.float64)
            scores[key] = ensemble_scores(samples, truth[position][:, channel].cpu().numpy(), measured)
    return scores
