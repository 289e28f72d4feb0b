# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What [`ZoomDiffPipeline`] returns."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray
from diffusers.utils import BaseOutput


@dataclass
class ZoomDiffPipelineOutput(BaseOutput):
    """
    Traffic at all levels, coarse to fine.

    Args:
        levels (`dict[str, np.ndarray]`, `dict[str, torch.Tensor]` or `xarray.DataTree`):
            By name of the level, (samples, C, T_k, H_k, W_k) in float32; of several contexts, the samples of the first
            come first. Every level sums exactly to the one before it, and no value is negative. With
            `output_type="latent"` the values are in the network's space; with `"xarray"` each level is a group.
        units (`str`): `"mean"` per finest cell and time step, or `"sum"` per unit of the level and its time step.
        start (`np.datetime64`): The first hour.
    """

    levels: dict[str, np.ndarray] | dict[str, torch.Tensor] | xarray.DataTree
    units: str
    start: np.datetime64
