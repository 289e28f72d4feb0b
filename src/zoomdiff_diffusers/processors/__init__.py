# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What stands between physical arrays and the network's tensors: traffic and urban context."""

from .context_processor import ContextProcessor, ContextTensors
from .traffic_processor import TrafficProcessor


__all__ = ["ContextProcessor", "ContextTensors", "TrafficProcessor"]
