# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A file of a few measured places, small enough for tests, and the arguments of `train.py` that read it."""

import json
from pathlib import Path

import numpy as np


PLACES, HOURS, HEIGHT, WIDTH = 5, 96, 4, 6
FAULTY_HOUR = 4  # of every day: not measured


def write_places(folder: Path, seed: int = 0) -> list[str]:
    """
    Write two traffic channels of five places of 4 x 6 cells, four days each, with two context layers.

    Returns:
        `list[str]`: command-line words of `train.py`; the last place is held out, windows are two days of 4 x 6 cells.
    """
    random = np.random.default_rng(seed)
    population = random.gamma(2.0, 1.0, (PLACES, HEIGHT, WIDTH))
    day = 1 + 0.5 * np.sin(2 * np.pi * np.arange(HOURS) / 24)
    mean = population[:, None] * day[None, :, None, None]
    valid = np.arange(HOURS) % 24 != FAULTY_HOUR
    path = folder / "places.npz"
    np.savez(
        path,
        traffic=random.gamma(4.0, mean / 4),
        users=random.gamma(9.0, 3 * mean / 9),
        valid=valid,
        population=population,
        poi=random.poisson(1.0, (PLACES, 2, HEIGHT, WIDTH)),
    )
    layers = [
        {"name": "population", "kind": "continuous", "channels": ["residents"], "log": True},
        {"name": "poi", "kind": "count", "channels": ["shop", "school"]},
    ]
    unet = {"block_channels": [16, 16], "layers_per_block": [1, 1], "embedding_dim": 16, "context_dim": 16}
    return [
        *("--dataset", str(path), "--layers", json.dumps(layers), "--traffic_variables", "traffic", "users"),
        *("--spatial_scales", '{"area": 2, "cell": 1}', "--temporal_scales", "24", "1", "--rgp", "fine"),
        *("--train_region", '{"areas": {"folds": 5, "without": 4}}'),
        *("--validation_region", '{"areas": {"folds": 5, "only": 4}}'),
        *("--crop_hours", "48", "--crop_height", str(HEIGHT), "--crop_width", str(WIDTH), "--start_hour", "120"),
        *("--unet", json.dumps({**unet, "fusion_dim": 4}), "--batch_size", "2", "--warmup_steps", "1"),
    ]
