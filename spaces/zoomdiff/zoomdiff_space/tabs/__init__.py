# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
The tabs of the page, a module each. A tab makes its inputs and outputs; its `connect` says what happens to them.

Generate and Refine make a result, which Zoom and the downloads show: `last_result`.
"""

from .compare import CompareTab
from .generate import GenerateTab
from .last_result import Downloads, LastResult
from .refine import RefineTab
from .what_if import WhatIfTab
from .zoom import ZoomTab


__all__ = ["CompareTab", "Downloads", "GenerateTab", "LastResult", "RefineTab", "WhatIfTab", "ZoomTab"]
