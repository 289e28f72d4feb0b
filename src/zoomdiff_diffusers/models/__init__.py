# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
from .context_encoder import ContextEncoder
from .unet_zoomdiff import ZoomDiffUNet, ZoomDiffUNetOutput


__all__ = ["ContextEncoder", "ZoomDiffUNet", "ZoomDiffUNetOutput"]
