# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Mobile traffic at several resolutions from open urban data: ZoomDiff as a Diffusers pipeline.

Importing the package makes its classes known to Diffusers, so that `DiffusionPipeline.from_pretrained` loads
checkpoints that name them.
"""

import diffusers
from diffusers import ModelMixin, SchedulerMixin
from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES

from .configuration import ConfigurableComponent
from .hierarchy import Hierarchy, Level
from .hub import bundled_model
from .models import ZoomDiffRegressor, ZoomDiffUNet
from .pipelines import ZoomDiffPipeline, ZoomDiffPipelineOutput
from .processors import ContextProcessor, ContextTensors, TrafficProcessor
from .schedulers import DRDMScheduler


__version__ = "0.1.0"

__all__ = [
    "ConfigurableComponent",
    "ContextProcessor",
    "ContextTensors",
    "DRDMScheduler",
    "Hierarchy",
    "Level",
    # Diffusers looks up the base classes of a library's components in the library itself.
    "ModelMixin",
    "SchedulerMixin",
    "TrafficProcessor",
    "ZoomDiffPipeline",
    "ZoomDiffPipelineOutput",
    "ZoomDiffRegressor",
    "ZoomDiffUNet",
    "bundled_model",
]


def _register_with_diffusers():
    """Let Diffusers save and load components by the name of this package instead of by module paths."""
    methods = {"ConfigurableComponent": ["save_pretrained", "from_pretrained"]}
    LOADABLE_CLASSES.setdefault(__name__, methods)
    ALL_IMPORTABLE_CLASSES.update(methods)
    for public in (DRDMScheduler, ZoomDiffPipeline, ZoomDiffRegressor, ZoomDiffUNet):
        setattr(diffusers, public.__name__, public)


_register_with_diffusers()
