# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Measurements of speed and quality, each one command that prints JSON: `python -m benchmarks.<name> --help`."""
