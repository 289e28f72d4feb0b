# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Training of a ZoomDiff pipeline: arguments, objective, loop, checkpoints and validation."""

from .arguments import Arguments, parse_arguments
from .loss import DRDMLoss
from .trainer import Trainer


__all__ = ["Arguments", "DRDMLoss", "Trainer", "parse_arguments"]
