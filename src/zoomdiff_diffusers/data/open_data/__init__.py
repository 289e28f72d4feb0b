# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The urban context of a real city from open data: OpenStreetMap, a population raster, points of interest."""

from .context import build_context, summarise


__all__ = ["build_context", "summarise"]
