# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Pipelines that ship with the package."""

from .zoomdiff import ZoomDiffPipeline, ZoomDiffPipelineOutput


__all__ = ["ZoomDiffPipeline", "ZoomDiffPipelineOutput"]
