# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The data of every comparison: one split, one context and one set of windows for all systems."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState

from zoomdiff_diffusers import ContextProcessor, Hierarchy, TrafficProcessor
from zoomdiff_diffusers.data.datasets import (
    TrafficArea,
    TrafficWindows,
    load_areas,
    smoothed_layers,
    stack_windows,
)
from zoomdiff_diffusers.training.arguments import Arguments, parse_arguments
from zoomdiff_diffusers.training.components import build_hierarchy, fit_traffic_processor
from zoomdiff_diffusers.training.loss import masked_pyramid


HOURS_PER_WEEK = 168
# Seeds of the held-out simulated cities start here, after `city_seed`; those of their traffic are the same, so that
# any other seed gives traffic that is independent of the truth.
HELD_OUT_CITIES = 1_000_000
TRUTH_SEED = 20_000_000  # of further true weeks; the seeds of samples are small
# Prepared files and trained pipelines; ignored by git.
CACHE = Path("runs/benchmarks")


@dataclass(frozen=True)
class NamedDataset:
    """
    A dataset of the tables.

    Args:
        title (`str`): Headline in the results; says whether the traffic was measured.
        words (`tuple[str, ...]`): Command-line words of `train.py`, `--config` first.
        folds (`int`, defaults to 1):
            Splits, each of which holds out every so many areas; 1 takes the configuration's own split.
        regions (`tuple[tuple[dict, dict], ...]`, defaults to `()`):
            Of each fold, the region that is trained on and the one that is held out, in place of every so many areas.
        short_folds (`bool`, defaults to `False`): Whether a fold has the time of folds and not that of datasets.
        small_windows (`int`, defaults to 1): How many of its windows cost about as much as one of 8 x 8 cells.
        context_noise (`float`, defaults to 0.0): Noise on the context with which the baselines' networks are trained.
        true_weeks (`int`, defaults to 1):
            Weeks of traffic that every held-out window is scored against. Only simulated traffic has more than one.
        members (`int`, defaults to 1):
            Size of the ensembles of the main tables, in multiples of the budget's. More where the coarsest level has
            few units, so that the members that happen to be drawn would decide who is first.
        recipes (`tuple[tuple[str, ...], ...]`, defaults to `()`):
            Of each fold, words for the training of ZoomDiff: the variant of `recipes.py` that was best on parts of the
            fold's training places.
    """

    title: str
    words: tuple[str, ...]
    folds: int = 1
    regions: tuple[tuple[dict, dict], ...] = ()
    short_folds: bool = False
    small_windows: int = 1
    context_noise: float = 0.0
    true_weeks: int = 1
    members: int = 1
    recipes: tuple[tuple[str, ...], ...] = ()

    def words_of_fold(self, fold: int) -> list[str]:
        """Command-line words of `train.py` for one split."""
        words = list(self.words)
        if self.folds > 1:
            areas = [{"areas": {"folds": self.folds, kind: fold}} for kind in ("without", "only")]
            kept, held_out = self.regions[fold] if self.regions else areas
            words += ["--train_region", json.dumps(kept), "--validation_region", json.dumps(held_out)]
        return words


# Its random effects are less than configured, for the 600 steps of which half fit into the small budget.
BONN = {
    "words": ("--config", "configs/bonn.yaml", "--random_effects", "0.2"),
    "context_noise": 1.2,
    "members": 4,
}
DATASETS = {
    "simulated": NamedDataset(
        "Simulated city (simulated context and traffic)",
        (
            *("--config", "configs/simulated_city.yaml", "--train_cities", "10", "--validation_cities", "12"),
            *("--city_height", "48", "--city_width", "48", "--city_weeks", "2"),
            *("--crop_height", "8", "--crop_width", "8"),
            *("--batch_size", "16", "--warmup_steps", "50"),
            *("--stage_items", "8", "16", "8", "4", "--learning_rate", "0.004"),  # more steps in the same time
            *("--regressor", "{}"),  # bounded: ten cities are fewer than the eighty of the configuration
            # No layer is ever absent here.
            *("--layer_dropout", "0", "--layer_dropout_of", "{}", "--context_dropout", "0", "--random_effects", "0.2"),
        ),
        true_weeks=8,
        members=4,
    ),
    "bonn": NamedDataset("Bonn, east held out (open context, traffic synthesised by a third party)", **BONN),
    "bonn_sides": NamedDataset(
        "Bonn, each of its other sides held out (west, north, south; data as above)",
        **BONN,
        folds=3,
        regions=(
            ({"columns": [8, 28]}, {"columns": [0, 8]}),
            ({"rows": [8, 25]}, {"rows": [0, 8]}),
            ({"rows": [0, 17]}, {"rows": [17, 25]}),
        ),
    ),
    "shandong": NamedDataset(
        "Shandong, five folds by place (measured traffic and users)",
        ("--config", "configs/shandong.yaml"),
        folds=5,
        short_folds=True,
        small_windows=4,
        members=4,
        recipes=(
            ("--random_effects", "0"),
            (),
            ("--regressor", '{"bounded_context": false}'),
            ("--context_noise", "0"),
            ("--context_noise", "0"),
        ),
    ),
    "beijing": NamedDataset(
        "Beijing base stations, every fifth held out (measured; levels in time only)",
        ("--config", "configs/beijing.yaml"),
        small_windows=4,
    ),
}


@dataclass(frozen=True)
class LevelContext:
    """
    What a system of one level may know about N windows.

    Args:
        static (`torch.Tensor`): (N, F, H_k, W_k), standardised layers that do not change, F may be 0.
        temporal (`torch.Tensor`): (N, Ft, T_k, H_k, W_k), standardised layers that do, Ft may be 0.
        hours (`torch.Tensor`): (N, T_k) int, hour of the week at which each step starts.
        channels (`int`): Traffic channels C.
    """

    static: torch.Tensor
    temporal: torch.Tensor
    hours: torch.Tensor
    channels: int

    def __len__(self) -> int:
        return len(self.static)

    def __getitem__(self, index) -> "LevelContext":
        """The windows of a slice, a list or an index tensor."""
        return replace(self, static=self.static[index], temporal=self.temporal[index], hours=self.hours[index])

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(N, C, T_k, H_k, W_k), the shape of the traffic."""
        return (len(self), self.channels, self.hours.shape[1], *self.static.shape[-2:])


@dataclass(frozen=True)
class LevelWindows:
    """
    Training windows of one level.

    Args:
        traffic (`torch.Tensor`): (N, C, T_k, H_k, W_k), encoded: logarithmic, about zero mean and unit variance.
        weight (`torch.Tensor`): (N, 1, T_k, H_k, W_k), the fraction of every unit that was measured, 0 to 1.
        context (`LevelContext`): What is known about the same windows.
    """

    traffic: torch.Tensor
    weight: torch.Tensor
    context: LevelContext

    def __len__(self) -> int:
        return len(self.traffic)

    def __getitem__(self, index) -> "LevelWindows":
        return LevelWindows(self.traffic[index], self.weight[index], self.context[index])


@dataclass(frozen=True)
class BenchmarkData:
    """
    One split of one dataset.

    Args:
        name (`str`): Short name, such as "bonn".
        words (`tuple[str, ...]`): Command-line words of `train.py`, `--config` first; they say what is held out.
        arguments (`Arguments`): The same, parsed.
        hierarchy (`Hierarchy`): The levels.
        traffic_processor (`TrafficProcessor`): Transform fitted to the training part.
        context_processor (`ContextProcessor`): Context schema, fitted to the training part.
        train (`dict[str, torch.Tensor]`): Stacked training windows, as [`TrafficWindows`] draws them, flips included.
        test (`dict[str, torch.Tensor]`): Stacked held-out windows, without overlap.
        test_areas (`list[TrafficArea]`): The held-out windows with their raw context.
        test_places (`list[tuple[int, tuple[int, ...]]]`): Of each, the held-out area and its first (t, y, x) there.
        unit (`np.ndarray`): (C, 1, 1, 1) mean of the training traffic: the unit of every score.
        context_noise (`float`, defaults to 0.0): As in `NamedDataset`.
        more_weeks (`torch.Tensor`, *optional*):
            (W, N, C, T, H, W'), independent weeks of traffic of the held-out windows, beside the one in `test`. A city
            has few independent units at its coarsest level, of which one week would mostly tell chance.
    """

    name: str
    words: tuple[str, ...]
    arguments: Arguments
    hierarchy: Hierarchy
    traffic_processor: TrafficProcessor
    context_processor: ContextProcessor
    train: dict[str, torch.Tensor]
    test: dict[str, torch.Tensor]
    test_areas: list[TrafficArea] = field(repr=False)
    test_places: list[tuple[int, tuple[int, ...]]]
    unit: np.ndarray
    context_noise: float = 0.0
    more_weeks: torch.Tensor | None = None

    def train_windows(self, level: int) -> LevelWindows:
        """What a system of one level learns from."""
        levels, weights = masked_pyramid(self.train["traffic"], self.hierarchy, self.train.get("mask"))
        traffic = self.traffic_processor.encode(levels[level])
        weight = torch.ones_like(traffic[:, :1]) if weights is None else weights[level]
        return LevelWindows(traffic, weight, self._context(self.train, level))

    def test_context(self, level: int) -> LevelContext:
        """What a system of one level gets to know about the held-out windows."""
        return self._context(self.test, level)

    def test_truth(self, level: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Held-out traffic (N, C, T_k, H_k, W_k) as physical means, and where it is known (N, 1, T_k, H_k, W_k)."""
        levels, weights = masked_pyramid(self.test["traffic"], self.hierarchy, self.test.get("mask"))
        return levels[level].numpy(), None if weights is None else weights[level].numpy() > 0

    def test_truths(self, level: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Every held-out week, each as from `test_truth`."""
        yield self.test_truth(level)
        for week in [] if self.more_weeks is None else self.more_weeks:
            yield masked_pyramid(week, self.hierarchy)[0][level].numpy(), None

    def decode(self, samples: torch.Tensor) -> np.ndarray:
        """Encoded traffic (n, N, C, ...) of any level as physical means, float32."""
        return self.traffic_processor.decode(samples.flatten(0, 1).float()).unflatten(0, samples.shape[:2]).numpy()

    def _context(self, windows: dict[str, torch.Tensor], level: int) -> LevelContext:
        spatial, temporal = self.hierarchy.spatial_factors[level], self.hierarchy.temporal_factors[level]
        blocks = windows["static"].unflatten(-1, (-1, spatial)).unflatten(-3, (-1, spatial))
        static = blocks.mean((-3, -1))  # without avg_pool2d, which refuses data without context
        num_windows, _, steps, height, width = windows["traffic"].shape
        varying = windows.get("temporal")
        if varying is None:
            varying = torch.zeros(num_windows, 0, steps // temporal, height // spatial, width // spatial)
        else:
            varying = torch.nn.functional.avg_pool3d(varying, (temporal, spatial, spatial))
        step_hours = self.hierarchy.config.time_step * temporal
        hours = windows["hour_of_week"][:, None] + step_hours * torch.arange(steps // temporal)
        return LevelContext(static, varying, hours.long() % HOURS_PER_WEEK, windows["traffic"].shape[1])


def load_named(
    name: str, train_windows: int, test_windows: int, fold: int = 0, overrides: Sequence[str] = ()
) -> BenchmarkData:
    """
    A dataset of the tables.

    Args:
        name (`str`): Key of `DATASETS`.
        train_windows (`int`): Number of training windows to draw.
        test_windows (`int`): Number of held-out windows of 8 x 8 cells, at most; more where windows are smaller.
        fold (`int`, defaults to 0): Which split.
        overrides (`Sequence[str]`, defaults to `()`): More command-line words of `train.py`.
    """
    dataset = DATASETS[name]
    words = [*dataset.words_of_fold(fold), *overrides]
    data = load(name, words, train_windows, test_windows * dataset.small_windows, dataset.true_weeks)
    return replace(data, context_noise=dataset.context_noise)


def simulate(data: BenchmarkData, num_weeks: int, seed: int) -> torch.Tensor:
    """
    Traffic of the held-out windows of the simulated cities, drawn anew from its true law.

    Args:
        data (`BenchmarkData`): Of the simulated city.
        num_weeks (`int`): Number of independent draws W.
        seed (`int`): Seed of the draws; that of a held-out city gives its truth.

    Returns:
        `torch.Tensor`: (W, N, C, T, H, W'), physical means at the finest level.
    """
    from zoomdiff_diffusers.data.simulated_city import SimulatedCity

    options = data.arguments.data
    cities: dict[int, np.ndarray] = {}
    windows = []
    for area, (hour, row, column) in data.test_places:
        index = area // options.city_weeks
        if index not in cities:
            city_seed, culture = options.city_seed + HELD_OUT_CITIES + index, index % len(options.cultures)
            city = SimulatedCity(options.city_height, options.city_width, city_seed, options.cultures[culture])
            cities[index] = city.sample_traffic(num_weeks, seed=seed)
        rows, columns = slice(row, row + options.crop_height), slice(column, column + options.crop_width)
        windows.append(cities[index][:, :, hour : hour + options.crop_hours, rows, columns])
    return torch.from_numpy(np.stack(windows, axis=1))


def load(
    name: str, words: Sequence[str], train_windows: int, test_windows: int | None = None, true_weeks: int = 1
) -> BenchmarkData:
    """
    Read a dataset and cut the windows that every system sees.

    Args:
        name (`str`): Short name for messages and results.
        words (`Sequence[str]`): Command-line words of `train.py`, `--config` first.
        train_windows (`int`): Number of training windows to draw.
        test_windows (`int`, *optional*): Number of held-out windows, evenly spread; all by default.
        true_weeks (`int`, defaults to 1): As in `NamedDataset`.
    """
    arguments = parse_arguments(list(words))
    PartialState()  # parts of the training log through Accelerate
    data = arguments.data
    layers = _layers(arguments)
    names = [layer["name"] for layer in layers]
    train_areas, held_out = (load_areas(data, names, split) for split in ("train", "validation"))
    schema = layers + smoothed_layers(layers, data.smooth_layers)
    context_processor = ContextProcessor(schema, largest_deviation=data.largest_deviation)
    context_processor.fit(list({id(area.context): area.context for area in train_areas}.values()))
    hierarchy = build_hierarchy(arguments)
    size = (data.crop_hours, data.crop_height, data.crop_width)
    steps_per_day = max(1, round(24 / hierarchy.config.time_step))
    common = (context_processor, size, steps_per_day, hierarchy.config.time_step)
    drawn = TrafficWindows(train_areas, *common, data.crop_alignment, data.flips, arguments.training.seed)
    tiles = TrafficWindows(held_out, *common)
    chosen = range(len(tiles))
    if test_windows is not None and test_windows < len(tiles):
        chosen = np.linspace(0, len(tiles) - 1, test_windows).round().astype(int)
    found = BenchmarkData(
        name=name,
        words=tuple(words),
        arguments=arguments,
        hierarchy=hierarchy,
        traffic_processor=fit_traffic_processor(train_areas, arguments),
        context_processor=context_processor,
        train=stack_windows(drawn.draw(number) for number in range(train_windows)),
        test=stack_windows(tiles[int(index)] for index in chosen),
        test_areas=[_cut(held_out, tiles, int(index)) for index in chosen],
        test_places=[_place(tiles, int(index)) for index in chosen],
        unit=_mean_of(train_areas),
    )
    return found if true_weeks == 1 else replace(found, more_weeks=simulate(found, true_weeks - 1, TRUTH_SEED))


def _layers(arguments: Arguments) -> list[dict]:
    if arguments.data.dataset == "simulated_city":
        from zoomdiff_diffusers.data.simulated_city import SIMULATED_LAYERS

        return list(SIMULATED_LAYERS)
    return list(arguments.data.layers or [])


def _place(tiles: TrafficWindows, index: int) -> tuple[int, tuple[int, ...]]:
    """Area and first (t, y, x) of a tile."""
    area, tile = tiles.tiles[index]
    return area, tuple(place * length for place, length in zip(tile, tiles.size))


def _cut(areas: list[TrafficArea], tiles: TrafficWindows, index: int) -> TrafficArea:
    """The area of one tile, cut to its hours, rows and columns."""
    area, start = _place(tiles, index)
    time, rows, columns = (slice(first, first + length) for first, length in zip(start, tiles.size))
    part = areas[area].crop(rows, columns)
    varying = {name for name, layer in part.context.items() if _is_temporal(layer, areas[area])}
    return replace(
        part,
        traffic=part.traffic[:, time],
        valid=None if part.valid is None else part.valid[time],
        context={name: layer[..., time, :, :] if name in varying else layer for name, layer in part.context.items()},
        start_hour=round(part.start_hour + time.start * tiles.time_step) % HOURS_PER_WEEK,
    )


def _is_temporal(layer: np.ndarray, area: TrafficArea) -> bool:
    return layer.ndim >= 3 and layer.shape[-3] == area.traffic.shape[1]


def _mean_of(areas: list[TrafficArea]) -> np.ndarray:
    """Mean of the measured traffic per channel, (C, 1, 1, 1) float32."""
    total = sum(area.traffic.sum(axis=(1, 2, 3), dtype=np.float64) for area in areas)  # 0 where not measured
    count = sum(area.traffic[0].size if area.valid is None else int(area.valid.sum()) for area in areas)
    return (total / count).astype(np.float32).reshape(-1, 1, 1, 1)
