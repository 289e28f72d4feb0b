# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Table VII: train in one city, generate in another, zero-shot and few-shot, at macro and pico base stations.

The cities are simulated ones of two cultures, which differ in buildings, land use and daily rhythm. For Frankfurt
there is context but no traffic: what a network trained on Bonn generates there can only be judged for plausibility.
"""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from zoomdiff_diffusers import Hierarchy
from zoomdiff_diffusers.data.datasets import TrafficWindows, load_areas, smooth_context, stack_windows

from .baselines import baseline_class
from .baselines.base import train_network
from .baselines.denoising import add_noise, weighted_mean
from .budgets import BenchmarkBudget
from .comparison import average
from .datasets import BenchmarkData, load_named
from .level_tables import level_tables
from .main_tables import cache_folder, score
from .markdown import markdown_table, number
from .systems import ZoomDiffSystem
from .variants import load_cities


HOME, AWAY = "default", "dense"
# Pico base stations cover 2 x 2 cells, macro ones 8 x 8. Both are scored hour by hour.
PICO_CELLS = 2
STATIONS = Hierarchy(
    [
        {"name": "macro", "spatial_factor": 4, "temporal_factor": 1},
        {"name": "pico", "spatial_factor": 1, "temporal_factor": 1},
    ],
    cell_size=100.0,
)
# Seeds of the other culture's cities, those to learn from and those held out. What one small city teaches is much of
# chance, so that there are three.
AWAY_SEEDS = (0, 700_000, 800_000)
# One small city of the other culture: 16 places of 8 x 8 cells, one week.
FEW = ["--train_cities", "1", "--city_weeks", "1", "--city_height", "32", "--city_width", "32"]
FEW_WINDOWS = 64  # drawn from it, with flips
FEW_SHOT_RATE = 2e-4  # a tenth to a fifth of the rates from scratch: what was learned at home should stay
FRANKFURT = Path("spectragan_frankfurt/context.npz")  # beside Bonn's folder


def cells(budget: BenchmarkBudget) -> list[dict]:
    """One cell for each system and city to train in, and one for Bonn -> Frankfurt."""
    simulated = [
        {"experiment": "transfer", "dataset": "simulated", "system": system, "train": culture, "seed": 0}
        for system in ("ZoomDiff", "CSDI")
        for culture in (HOME, AWAY)
    ]
    bonn = {"experiment": "transfer", "dataset": "bonn", "system": "ZoomDiff", "train": "bonn", "seed": 0}
    return [*simulated, bonn]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Train in one city and score there; a model of the home city also in the other one, as it is and fine-tuned."""
    if cell["train"] == "bonn":
        return {"cities": _frankfurt(budget, cell["seed"])}
    culture, few_budget = cell["train"], budget.with_seconds(budget.point_seconds)
    home = load_cities(budget, ["--cultures", culture], budget.train_windows)
    model = (_ZoomDiff if cell["system"] == "ZoomDiff" else _CSDI)(budget.num_samples, cell["seed"])
    model.fit(home, budget)
    if culture == AWAY:
        there = [model.score(_seen_from(home, load_cities(budget, _away(seed)))) for seed in AWAY_SEEDS]
        return {"scores": {AWAY: {"trained there": average(there)}}, "each": {"trained there": there}}
    each = {"zero-shot": [], "few-shot": []}
    for seed in AWAY_SEEDS:
        away = _seen_from(home, load_cities(budget, _away(seed)))
        each["zero-shot"].append(model.score(away))
        tuned = model.fine_tuned(load_cities(budget, [*_away(seed), *FEW]), few_budget)
        each["few-shot"].append(tuned.score(away))
    means = {training: average(scores) for training, scores in each.items()}
    return {"scores": {HOME: {"trained there": model.score(home)}, AWAY: means}, "each": each}


def _away(seed: int) -> list[str]:
    """Words of `train.py` for cities of the other culture."""
    return ["--cultures", AWAY, "--city_seed", str(seed)]


class _ZoomDiff:
    """All levels of the default hierarchy; stations are sums of the finest one."""

    def __init__(self, num_samples: int, seed: int):
        self.num_samples, self.seed = num_samples, seed

    def fit(self, home: BenchmarkData, budget: BenchmarkBudget) -> None:
        self.system = ZoomDiffSystem().fit(home, budget, self.seed)

    def fine_tuned(self, few: BenchmarkData, budget: BenchmarkBudget) -> "_ZoomDiff":
        """One that went on with a few windows, with the statistics of home."""
        other = _ZoomDiff(self.num_samples, self.seed)
        with tempfile.TemporaryDirectory() as folder:
            self.system.pipe.save_pretrained(folder)
            words = ["--pretrained_pipeline", folder, "--learning_rate", str(FEW_SHOT_RATE), "--warmup_steps", "10"]
            words += ["--regression_learning_rate", str(FEW_SHOT_RATE)]
            other.system = ZoomDiffSystem(words).fit(few, budget, self.seed)
        return other

    def score(self, target: BenchmarkData) -> dict:
        finest = list(self.system.sample(target, self.num_samples, self.seed).values())[-1]
        return _score(_pool(torch.from_numpy(finest)), target)


class _CSDI:
    """One model of the pico level, which has the whole training time; macro stations are sums."""

    def __init__(self, num_samples: int, seed: int):
        self.num_samples, self.seed = num_samples, seed

    def fit(self, home: BenchmarkData, budget: BenchmarkBudget) -> None:
        self.home = home
        windows = _at_pico(home).train_windows(1)
        self.model = baseline_class("CSDI")().fit(windows, budget.training(budget.seconds, self.seed))

    def fine_tuned(self, few: BenchmarkData, budget: BenchmarkBudget) -> "_CSDI":
        """One that went on with a few windows, with the loss and the statistics of home."""
        other = _CSDI(self.num_samples, self.seed)
        other.home, other.model = self.home, copy.deepcopy(self.model)
        scheduler, network = other.model.scheduler, other.model.network

        def loss_of(batch, generator):
            noisy, steps, target = add_noise(scheduler, batch.traffic.to(budget.device), generator)
            prediction = network(noisy, steps, network.encode_context(batch.context))
            return weighted_mean((prediction.float() - target) ** 2, batch.weight)

        windows = _few_windows(self.home, few).train_windows(1)
        train_network(network, loss_of, windows, budget.training(budget.seconds, self.seed), FEW_SHOT_RATE)
        return other

    def score(self, target: BenchmarkData) -> dict:
        pico = _at_pico(target)
        samples = self.model.sample(pico.test_context(1), self.num_samples, self.seed)
        return _score(torch.from_numpy(pico.decode(samples)), target)


def _windows(source: BenchmarkData, areas: list) -> TrafficWindows:
    """Windows of other areas, normalised with the statistics of the source."""
    return TrafficWindows(areas, source.context_processor, source.test["traffic"].shape[2:])


def _seen_from(source: BenchmarkData, target: BenchmarkData) -> BenchmarkData:
    """The target's held-out windows with the statistics of the source, scored in units of the target's mean."""
    windows = _windows(source, target.test_areas)
    test = stack_windows(windows[index] for index in range(len(windows)))
    return replace(
        source,
        test=test,
        test_areas=target.test_areas,
        test_places=target.test_places,
        unit=target.unit,
        more_weeks=target.more_weeks,
    )


def _few_windows(source: BenchmarkData, few: BenchmarkData) -> BenchmarkData:
    """At pico level, the few training windows of another city with the statistics of the source."""
    names = [layer["name"] for layer in source.context_processor.layers]
    windows = _windows(source, load_areas(few.arguments.data, names, "train"))
    return _at_pico(replace(source, train=stack_windows(windows.draw(number) for number in range(FEW_WINDOWS))))


def _at_pico(data: BenchmarkData) -> BenchmarkData:
    """The same windows as those of a city whose cells are pico stations."""
    pooled = ("traffic", "static", "temporal")
    train, test = (
        {name: _pool(values) if name in pooled else values for name, values in windows.items()}
        for windows in (data.train, data.test)
    )
    more_weeks = None if data.more_weeks is None else _pool(data.more_weeks)
    return replace(data, hierarchy=STATIONS, train=train, test=test, more_weeks=more_weeks)


def _pool(values: torch.Tensor) -> torch.Tensor:
    """Means over the cells of every pico station, (..., H, W) -> (..., H / 2, W / 2)."""
    return values.unflatten(-1, (-1, PICO_CELLS)).unflatten(-3, (-1, PICO_CELLS)).mean((-3, -1))


def _score(pico: torch.Tensor, target: BenchmarkData) -> dict:
    """Scores at both kinds of stations of pico samples (n, N, C, T, H, W)."""
    samples = {"macro": STATIONS.aggregate(pico, "macro").numpy(), "pico": pico.numpy()}
    return score(samples, _at_pico(target))


def _frankfurt(budget: BenchmarkBudget, seed: int) -> dict:
    """What is generated for Frankfurt's context, beside Bonn's traffic."""
    bonn = load_named("bonn", 1, budget.test_windows)
    system = ZoomDiffSystem(cache=cache_folder(budget, "bonn", "ZoomDiff", seed)).fit(bonn, budget, seed)
    data, side = bonn.arguments.data, bonn.hierarchy.spatial_factors[0]
    with np.load(Path(data.dataset).parents[1] / FRANKFURT, allow_pickle=False) as archive:
        layers = {layer["name"]: archive[layer["name"]] for layer in data.layers}
    height, width = (length // side * side for length in layers["population"].shape)
    layers = {name: values[..., :height, :width] for name, values in layers.items()}
    output = system.pipe(
        smooth_context(layers, data.layers, data.smooth_layers),
        num_samples_per_context=budget.num_samples,
        generator=torch.Generator().manual_seed(seed),
    )
    generated = output.levels[bonn.hierarchy.names[-1]][:, 0]
    area = load_areas(replace(data, train_region=None), list(layers), "train")[0]
    return {
        "Bonn, data": _character(area.traffic, area.context["population"]),
        "Frankfurt, generated": _character(generated, layers["population"]),
    }


def _character(traffic: np.ndarray, population: np.ndarray) -> dict:
    """Total per inhabitant, dependence on population, concentration and daily profile of traffic (n, T, H, W)."""
    mean = traffic.mean(axis=(0, 1), dtype=np.float64)
    profile = traffic.mean(axis=(0, 2, 3), dtype=np.float64).reshape(-1, 24).mean(axis=0)
    return {
        "per_inhabitant": float(mean.sum() / population.sum()),
        "population_correlation": float(spearmanr(mean.ravel(), population.ravel()).statistic),
        "busiest_tenth": float(np.sort(mean.ravel())[-mean.size // 10 :].sum() / mean.sum()),
        "daily_profile": (profile / profile.mean()).tolist(),
    }


def tables(results: list[dict]) -> str:
    """Markdown of the documents of all cells."""
    rows, cities, ranges = {}, {}, []
    for document in results:
        cities |= document["results"].get("cities", {})
        for city, trainings in document["results"].get("scores", {}).items():
            for training, levels in trainings.items():
                row = rows.setdefault(f"{document['cell']['system']}, {training}", {})
                row |= {f"{level} (city '{city}')": scores for level, scores in levels.items()}
        for training, sets in document["results"].get("each", {}).items():
            found = ([scores[level]["crps"] for scores in sets] for level in STATIONS.names)
            name = f"{document['cell']['system']}, {training}"
            ranges.append([name, *(f"{number(min(values))} to {number(max(values))}" for values in found)])
    parts = [
        "### Table VII: transfer between cities (simulated cultures)\n\n"
        f"Trained in '{HOME}' and generated in '{AWAY}' as it is (zero-shot), or fine-tuned on one week of 32 x 32 "
        f"cells there (few-shot), beside those trained there; the means over {len(AWAY_SEEDS)} sets of cities there, "
        "each with its own small city. CSDI is one model of the hourly pico level with the same training time as "
        "ZoomDiff has for all levels. Errors are in multiples of the mean traffic of the generated cities.\n\n"
        + level_tables(dict(sorted(rows.items(), reverse=True)))
    ]
    if ranges:
        header = ["system", *STATIONS.names]
        parts.append(
            f"CRPS in city '{AWAY}', from the lowest to the highest of the sets of cities:\n\n"
            + markdown_table(header, sorted(ranges, reverse=True))
        )
    if cities:
        parts.append(_plausibility(cities))
    return "\n".join(parts)


def _plausibility(cities: dict[str, dict]) -> str:
    bonn, frankfurt = cities.values()
    similarity = np.corrcoef(bonn["daily_profile"], frankfurt["daily_profile"])[0, 1]
    rows = [
        [name, *(number(city[key]) for key in ("per_inhabitant", "population_correlation", "busiest_tenth"))]
        for name, city in cities.items()
    ]
    header = ["city", "traffic per inhabitant", "rank correlation with population", "share of the busiest tenth"]
    return (
        "From Bonn to Frankfurt only plausibility can be judged, and Bonn's traffic is synthesised by a third party. "
        f"The correlation of the two mean daily profiles is {number(similarity)}.\n\n" + markdown_table(header, rows)
    )
