# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
from .context_encoder import ContextEncoder
from .regressor_zoomdiff import ZoomDiffRegressor
from .unet_zoomdiff import ZoomDiffUNet, ZoomDiffUNetOutput


__all__ = ["ContextEncoder", "ZoomDiffRegressor", "ZoomDiffUNet", "ZoomDiffUNetOutput"]
