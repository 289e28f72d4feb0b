# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""XGBoost (Chen & Guestrin 2016, arXiv:1603.02754): trees from context and calendar to traffic."""

import math
import time

import numpy as np
import torch
import xgboost

from zoomdiff_diffusers import TrafficProcessor

from ..datasets import LevelContext, LevelWindows
from .base import Baseline, Budget


# The strongest of three settings tried on Bonn; absolute error is what is scored.
PARAMETERS = {
    "objective": "reg:absoluteerror",
    "learning_rate": 0.05,
    "subsample": 0.5,
    "colsample_bytree": 0.5,
    "tree_method": "hist",
}
TREES = 400
PROBED_TREES, PROBED_ROWS = 10, (8_000, 32_000)
MARGIN = 0.8  # of the time is planned for: later trees may be slower than those of the probe
ROWS_PER_PREDICTION = 2**18


class BoostedTrees(Baseline):
    """
    Gradient-boosted trees, one ensemble per channel. Deterministic: strong at absolute error, without a distribution.

    A row is one cell and time step: its static and temporal context, hour of the day, day of the week. Datasets with
    smoothed context show it as static channels. Means over neighbouring cells or the window as further features made
    the forecasts of held-out places worse on the simulated cities, Bonn and Shandong, so there are none.

    The target is physical traffic in units of its mean, since scores are of physical traffic, so the constructor needs
    the transform: `BoostedTrees(data.traffic_processor)`.

    Args:
        traffic_processor (`TrafficProcessor`): The transform that encoded the traffic.
    """

    name = "XGBoost"
    has_distribution = False
    needs_traffic_processor = True

    def __init__(self, traffic_processor: TrafficProcessor):
        self.traffic_processor = traffic_processor
        self.ensembles: list[xgboost.Booster] = []
        self.scales: list[float] = []

    def fit(self, dataset: LevelWindows, budget: Budget) -> "BoostedTrees":
        """Grow all trees on as many rows, drawn evenly over places, as time allows; `max_steps` bounds the trees."""
        deadline = time.monotonic()
        traffic = self.traffic_processor.decode(dataset.traffic)
        rows = even_rows(dataset, budget.seed)
        trees = TREES if budget.max_steps is None else min(TREES, budget.max_steps)
        self.ensembles, self.scales = [], []
        for channel in range(traffic.shape[1]):
            deadline += budget.seconds / traffic.shape[1]
            target = traffic[:, channel].flatten()
            scale = target[rows].mean().item() or 1.0
            draw = _Rows(dataset, target / scale, rows, budget.seed)
            count = len(rows) if len(rows) <= PROBED_ROWS[-1] else _affordable_rows(draw, trees, deadline)
            self.ensembles.append(draw.train(draw.table(count), trees, deadline))
            self.scales.append(scale)
        return self

    def sample(self, context: LevelContext, num_samples: int, seed: int = 0) -> torch.Tensor:
        """The same forecast `num_samples` times, (n, N, C, T_k, H_k, W_k)."""
        windows, _, steps, height, width = context.shape
        count = windows * steps * height * width
        forecast = np.empty((len(self.ensembles), count), dtype=np.float32)
        for start in range(0, count, ROWS_PER_PREDICTION):
            rows = torch.arange(start, min(start + ROWS_PER_PREDICTION, count))
            features = row_features(context, rows)
            for channel, (ensemble, scale) in enumerate(zip(self.ensembles, self.scales)):
                forecast[channel, rows] = np.maximum(ensemble.inplace_predict(features), 0.0) * scale
        traffic = torch.from_numpy(forecast).reshape(-1, windows, steps, height, width).transpose(0, 1)
        return self.traffic_processor.encode(traffic).expand(num_samples, *context.shape)

    @property
    def num_parameters(self) -> int:
        """Nodes and leaves of all trees."""
        return sum(tree.count("\n") for ensemble in self.ensembles for tree in ensemble.get_dump())


def row_features(context: LevelContext, rows: torch.Tensor) -> np.ndarray:
    """
    Features of single cells and time steps.

    Args:
        context (`LevelContext`): Of N windows.
        rows (`torch.Tensor`): (R,) int, positions in the flattened (N, T_k, H_k, W_k).

    Returns:
        `np.ndarray`: (R, F + Ft + 5) float32: context; sine and cosine of the hour, hour, day, weekend.
    """
    _, _, steps, height, width = context.shape
    places = rows // width
    column, row, step, window = rows % width, places % height, places // height % steps, places // height // steps
    hours = context.hours[window, step]
    hour, day = hours % 24, hours // 24
    angle = 2 * math.pi * hour / 24
    calendar = torch.stack([angle.sin(), angle.cos(), hour, day, day >= 5], dim=1).float()
    static, temporal = context.static[window, :, row, column], context.temporal[window, :, step, row, column]
    return torch.cat([static.float(), temporal.float(), calendar], dim=1).numpy()


def even_rows(dataset: LevelWindows, seed: int) -> torch.Tensor:
    """
    Measured rows in a random order whose beginning holds all places equally often.

    Windows are cut at random and overlap, most of all in the middle of an area. A place is told by its context, which
    is drawn in inverse proportion to the number of windows that show it (Efraimidis & Spirakis 2006).

    Args:
        dataset (`LevelWindows`): N training windows.
        seed (`int`): Of the order.

    Returns:
        `torch.Tensor`: (R,) int, positions in the flattened (N, T_k, H_k, W_k).
    """
    static = dataset.context.static.movedim(1, -1)
    shown = torch.ones(static.shape[:-1])
    if static.shape[-1]:
        _, place, counts = torch.unique(static.flatten(0, 2), dim=0, return_inverse=True, return_counts=True)
        shown = counts[place].reshape(shown.shape)
    rows = dataset.weight.flatten().nonzero()[:, 0]
    waiting = torch.empty(len(rows)).exponential_(generator=torch.Generator().manual_seed(seed))
    return rows[(waiting * shown[:, None].expand_as(dataset.weight[:, 0]).flatten()[rows]).argsort()]


class _Rows:
    """Weighted training rows in random order, the target in units of its mean."""

    def __init__(self, dataset: LevelWindows, target: torch.Tensor, rows: torch.Tensor, seed: int):
        self.context, self.weight = dataset.context, dataset.weight.flatten()
        self.target, self.rows, self.seed = target, rows, seed

    def table(self, count: int) -> xgboost.QuantileDMatrix:
        """The first `count` rows, binned."""
        rows = self.rows[:count]
        return xgboost.QuantileDMatrix(
            row_features(self.context, rows), self.target[rows].numpy(), weight=self.weight[rows].numpy()
        )

    def train(self, table: xgboost.QuantileDMatrix, trees: int, deadline: float) -> xgboost.Booster:
        """`trees` in number, fewer only if the clock reaches the deadline."""
        settings = PARAMETERS | {"nthread": torch.get_num_threads(), "seed": self.seed}
        return xgboost.train(settings, table, trees, callbacks=[_Deadline(deadline)])


class _Deadline(xgboost.callback.TrainingCallback):
    """Stop growing trees at a time of the monotonic clock."""

    def __init__(self, deadline: float):
        super().__init__()
        self.deadline = deadline

    def after_iteration(self, model, epoch, evals_log) -> bool:
        return time.monotonic() >= self.deadline


def _affordable_rows(draw: _Rows, trees: int, deadline: float) -> int:
    """How many rows leave time for all trees: cost is a constant and something per row, both measured."""
    seconds = []
    for count in PROBED_ROWS:
        started = time.monotonic()
        table = draw.table(count)
        binned = time.monotonic()
        draw.train(table, PROBED_TREES, deadline)
        seconds.append(binned - started + (time.monotonic() - binned) * trees / PROBED_TREES)
    per_row = max((seconds[1] - seconds[0]) / (PROBED_ROWS[1] - PROBED_ROWS[0]), 1e-9)
    constant = max(seconds[0] - per_row * PROBED_ROWS[0], 0.0)
    left = MARGIN * (deadline - time.monotonic())
    return int(np.clip((left - constant) / per_row, PROBED_ROWS[0], len(draw.rows)))
