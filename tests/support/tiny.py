# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A pipeline of real components, small enough for tests, and raw contexts for it."""

from contextlib import contextmanager

import numpy as np
import torch

from zoomdiff_diffusers import (
    ContextProcessor,
    DRDMScheduler,
    Hierarchy,
    TrafficProcessor,
    ZoomDiffPipeline,
    ZoomDiffRegressor,
    ZoomDiffUNet,
)
from zoomdiff_diffusers.data.simulated_context import SECTORS, SITES, simulate_context, simulate_zones
from zoomdiff_diffusers.hierarchy import Level


LAYERS = [
    {"name": "surface", "kind": "categorical", "classes": ["building", "road", "green"]},
    {"name": "poi", "kind": "count", "channels": ["shop", "school"]},
    {"name": "population", "kind": "continuous", "channels": ["residents"], "log": True},
    {"name": "population_over_time", "kind": "temporal", "channels": ["people"], "log": True},
]
HOURS, HEIGHT, WIDTH = 48, 8, 16


def random_context(seed=0, hours=HOURS, height=HEIGHT, width=WIDTH) -> dict:
    random = np.random.default_rng(seed)
    return {
        "surface": random.integers(0, 3, (height, width)),
        "poi": random.poisson(1.0, (2, height, width)),
        "population": 100 * random.random((height, width)),
        "population_over_time": 50 * random.random((hours, height, width)),
    }


def random_traffic(seed=0, channels=1) -> np.ndarray:
    random = np.random.default_rng(seed)
    traffic = random.gamma(0.5, 10.0, (3, channels, HOURS, HEIGHT, WIDTH))
    return traffic * (random.random(traffic.shape) > 0.2)


def tiny_unet(context_layers, gain=0.1, **config) -> ZoomDiffUNet:
    """A network with random weights everywhere: layers that start at zero would hide whatever is behind them."""
    torch.manual_seed(0)
    small = {"block_channels": [8, 12], "embedding_dim": 16, "context_dim": 8, "fusion_dim": 4}
    unet = ZoomDiffUNet(**small | config | {"context_layers": context_layers}).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in unet.parameters():
        parameter.data += gain * torch.randn(parameter.shape, generator=generator)
    return unet


def tiny_regressor(context_layers, gain=0.1, **config) -> ZoomDiffRegressor:
    torch.manual_seed(2)
    small = {"latent_dim": 8, "hidden_dim": 12}
    regressor = ZoomDiffRegressor(**small | config | {"context_layers": context_layers}).eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in regressor.parameters():
        parameter.data += gain * torch.randn(parameter.shape, generator=generator)
    return regressor


def tiny_pipeline(
    channels=1, gain=0.1, scheduler=None, regression=False, hierarchy=None, **unet_config
) -> ZoomDiffPipeline:
    names = ["traffic", "users"][:channels]
    hierarchy = hierarchy or Hierarchy()
    factors = {"spatial_factors": hierarchy.spatial_factors, "temporal_factors": hierarchy.temporal_factors}
    hours = {"time_step": hierarchy.config.time_step}
    context_processor = ContextProcessor(LAYERS).fit([random_context(seed) for seed in range(2)])
    pipe = ZoomDiffPipeline(
        unet=tiny_unet(context_processor.layer_specs, gain, channels=channels, **(factors | hours | unet_config)),
        scheduler=scheduler or DRDMScheduler(coarsest_prior=regression, **factors),
        hierarchy=hierarchy,
        traffic_processor=TrafficProcessor(names, ["MB", "1"][:channels]).fit(random_traffic(channels=channels)),
        context_processor=context_processor,
        regressor=tiny_regressor(context_processor.layer_specs, channels=channels, **hours) if regression else None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def zoned_pipeline(regression=True, scheduler=None, levels=None, **unet_config) -> ZoomDiffPipeline:
    """Sites at 1 day and their sectors at 4 h, then squares; or other `levels`, some with zones."""
    squares = [Level("grid_2", 2, 2), Level("grid_1", 1, 1)]
    hierarchy = Hierarchy(levels or [Level("bs", 8, 24, SITES), Level("cell", 4, 4, SECTORS), *squares])
    zones = [{"name": name, "kind": "zones"} for name in hierarchy.zone_layers]
    processor = ContextProcessor(LAYERS + zones).fit([random_context()])
    spatial, temporal = hierarchy.spatial_factors, hierarchy.temporal_factors
    factors = {"spatial_factors": hierarchy.raster_factors, "temporal_factors": temporal}
    stages = {"spatial_factors": spatial, "temporal_factors": temporal}
    pipe = ZoomDiffPipeline(
        unet=tiny_unet(processor.layer_specs, **factors, coarsest_unit=[temporal[0], spatial[0]], **unet_config),
        scheduler=DRDMScheduler(coarsest_prior=regression, **stages, **(scheduler or {})),
        hierarchy=hierarchy,
        traffic_processor=TrafficProcessor(unit="MB").fit(random_traffic()),
        context_processor=processor,
        regressor=tiny_regressor(processor.layer_specs) if regression else None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def context_with_zones(seed=0, hours=HOURS, height=16, width=24) -> dict:
    zones = simulate_zones(simulate_context(height, width, seed), seed)
    return random_context(seed, hours, height, width) | zones


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@contextmanager
def interrupted(pipe, calls: int):
    """Ctrl-C when the network is called for the `calls`-th time inside of the block."""
    left = iter(range(calls - 1, -1, -1))

    def interrupt(*_):
        if next(left) == 0:
            raise KeyboardInterrupt

    hook = pipe.unet.register_forward_pre_hook(interrupt)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        hook.remove()
    raise AssertionError("the network was called less often")
