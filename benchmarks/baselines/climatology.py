# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Hourly climatology: the training places' mean for each hour of the week, whatever the place."""

import torch

from zoomdiff_diffusers import TrafficProcessor

from ..datasets import HOURS_PER_WEEK, LevelContext, LevelWindows
from .base import Baseline, Budget


class HourlyClimatology(Baseline):
    """
    The mean of the training traffic for each hour of the week. Deterministic; it sees no context.

    Means are taken of physical traffic, since the scores are, so the constructor needs the transform:
    `HourlyClimatology(data.traffic_processor)`.

    Args:
        traffic_processor (`TrafficProcessor`): The transform that encoded the traffic.
    """

    name = "Hourly climatology"
    has_distribution = False
    needs_traffic_processor = True

    def __init__(self, traffic_processor: TrafficProcessor):
        self.traffic_processor = traffic_processor
        self.means = torch.zeros(HOURS_PER_WEEK, 0)

    def fit(self, dataset: LevelWindows, budget: Budget) -> "HourlyClimatology":
        """Average over places; an hour of the week without training traffic takes its hour of the day, or all."""
        traffic = self.traffic_processor.decode(dataset.traffic)
        weight = dataset.weight
        sums = (traffic * weight).double().sum((3, 4)).transpose(1, 2).flatten(0, 1)  # (N * T, C)
        counts = weight.double().sum((3, 4)).flatten()[:, None]  # (N * T, 1)
        hours = dataset.context.hours.flatten()
        total = torch.zeros(HOURS_PER_WEEK, sums.shape[1], dtype=torch.double).index_add(0, hours, sums)
        count = torch.zeros(HOURS_PER_WEEK, 1, dtype=torch.double).index_add(0, hours, counts)
        of_day = torch.arange(HOURS_PER_WEEK) % 24
        total_of_day = torch.zeros(24, sums.shape[1], dtype=torch.double).index_add(0, of_day, total)[of_day]
        count_of_day = torch.zeros(24, 1, dtype=torch.double).index_add(0, of_day, count)[of_day]
        overall = total.sum(0) / count.sum().clamp(min=1e-12)
        fallback = torch.where(count_of_day > 0, total_of_day / count_of_day.clamp(min=1e-12), overall)
        self.means = torch.where(count > 0, total / count.clamp(min=1e-12), fallback).float()
        return self

    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        """The same forecast `num_samples` times, (n, N, C, T_k, H_k, W_k)."""
        means = self.means[context.hours].transpose(1, 2)[..., None, None]  # (N, C, T, 1, 1)
        return self.traffic_processor.encode(means.expand(context.shape)).expand(num_samples, *context.shape)

    @property
    def num_parameters(self) -> int:
        return self.means.numel()
