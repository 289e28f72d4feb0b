# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Scores of generated traffic. The figures are in `zoomdiff_diffusers.evaluation.plots`, which needs matplotlib."""

from .generation import discriminative_score, nearest_neighbour_distances, train_on_synthetic_test_on_real
from .metrics import (
    cross_level_error,
    ensemble_scores,
    fair_crps,
    mae_of_mean,
    mae_of_sample,
    rmse_of_mean,
    spread_skill,
)
from .similarity import rv_coefficient, rv_matrix
from .streaming import StreamingScores


__all__ = [
    "StreamingScores",
    "cross_level_error",
    "discriminative_score",
    "ensemble_scores",
    "fair_crps",
    "mae_of_mean",
    "mae_of_sample",
    "nearest_neighbour_distances",
    "rmse_of_mean",
    "rv_coefficient",
    "rv_matrix",
    "spread_skill",
    "train_on_synthetic_test_on_real",
]
