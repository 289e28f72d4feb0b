# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""For tools that still call setup.py. All metadata is in pyproject.toml."""

from setuptools import setup


setup()
