# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Scores of generated traffic. The figures are in `zoomdiff_diffusers.evaluation.plots`, which needs matplotlib."""

from .metrics import (
    cross_level_error,
    ensemble_scores,
    fair_crps,
    mae_of_mean,
    mae_of_sample,
    rmse_of_mean,
    spread_skill,
)


__all__ = [
    "cross_level_error",
    "ensemble_scores",
    "fair_crps",
    "mae_of_mean",
    "mae_of_sample",
    "rmse_of_mean",
    "spread_skill",
]
