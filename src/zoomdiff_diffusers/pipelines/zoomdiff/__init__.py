# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic at all levels of a hierarchy from urban context."""

from .pipeline_output import ZoomDiffPipelineOutput
from .pipeline_zoomdiff import ZoomDiffPipeline


__all__ = ["ZoomDiffPipeline", "ZoomDiffPipelineOutput"]
