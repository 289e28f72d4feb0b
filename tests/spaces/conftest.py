# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The modules of the page, which is no installed package."""

import sys
from pathlib import Path


SPACE = Path(__file__).parents[2] / "spaces" / "zoomdiff"
sys.path.insert(0, str(SPACE))
