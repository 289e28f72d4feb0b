# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Quality on a simulated city that was held out, against the best score that is possible (the noise floor).

    python -m benchmarks.simulated_city --samples 16
    python -m benchmarks.simulated_city --samples 16 --cities 40 --height 24 --width 24 --full-chain

The first prints per level CRPS, its ratio to the floor and spread/skill of the default few-step sampler; the second
also those of the full chain of DDPM steps for the same cities, which takes about 25 times as long.
"""

import time

import numpy as np
import torch

from zoomdiff_diffusers import DRDMScheduler, ZoomDiffPipeline
from zoomdiff_diffusers.data.simulated_city import SimulatedCity, noise_floor
from zoomdiff_diffusers.evaluation import cross_level_error, ensemble_scores, fair_crps

from .report import make_parser, model_path, publish


def score_against_many(samples, truths):
    """
    Mean scores of ensembles against several truths from the same law.

    A single truth would not do: a whole city has few independent units at its coarsest level.

    Args:
        samples (`np.ndarray`): `(n, cities, ...)`.
        truths (`np.ndarray`): `(truths, cities, ...)`.

    Returns:
        `dict`: scores, and `crps_per_city`.
    """
    scores = [ensemble_scores(samples, truth) for truth in truths]
    spread = scores[0]["spread_skill"] * scores[0]["rmse_of_mean"]  # the same for every truth
    rmse = float(np.sqrt(np.mean([score["rmse_of_mean"] ** 2 for score in scores])))
    names = ("crps", "mae_of_mean", "mae_of_sample")
    means = {name: float(np.mean([score[name] for score in scores])) for name in names}
    per_city = [_scores_of_city(samples[:, city], truths[:, city]) for city in range(truths.shape[1])]
    columns = {f"{name}_per_city": [city[name] for city in per_city] for name in per_city[0]}
    return {**means, "rmse_of_mean": rmse, "spread_skill": spread / rmse, **columns}


def _scores_of_city(samples, truths):
    """CRPS, variance and squared error of one city, and the variance of the logarithm: see [`ratios`]."""
    scale = truths.mean(dtype=np.float64)
    return {
        "crps": float(np.mean([fair_crps(samples, truth).mean() for truth in truths])),
        "variance": float(samples.var(axis=0, ddof=1, dtype=np.float64).mean()),
        "squared_error": float(np.mean((samples.mean(axis=0, dtype=np.float64) - truths) ** 2)),
        "log_variance": float(np.log1p(samples / scale).var(axis=0, ddof=1, dtype=np.float64).mean()),
    }


def evaluate(pipe, cities, truths, arguments, steps=None):
    """Scores per level over several cities, and how long generating took."""
    started = time.perf_counter()
    contexts = [
        {name: layer for name, layer in city.context.items() if name not in arguments.without} for city in cities
    ]
    levels = pipe(
        contexts,
        num_samples_per_context=arguments.samples,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(arguments.seed),
    ).levels
    seconds = time.perf_counter() - started
    scores = {
        name: score_against_many(
            values.reshape(len(cities), arguments.samples, *values.shape[1:]).swapaxes(0, 1), truths[name]
        )
        for name, values in levels.items()
    }
    return {
        "levels": scores,
        "calls": len(pipe.scheduler.timesteps),
        "seconds": seconds,
        "cross_level_error": max(cross_level_error(levels, pipe.hierarchy).values()),
        "minimum": min(float(values.min()) for values in levels.values()),
    }


def ratios(few, full):
    """
    Few steps over the full chain, per level, with jackknife standard errors over the cities.

    A few busy places dominate the spread of traffic. `log_spread`, the standard deviation of log(1 + traffic / mean of
    the city), weighs all places alike and is known far better.
    """
    return {name: _with_error(scores, full[name]) for name, scores in few.items()}


def _with_error(few, full):
    count = len(few["crps_per_city"])
    whole = _ratios_over(few, full, np.arange(count))
    if count == 1:
        return whole
    parts = [_ratios_over(few, full, np.delete(np.arange(count), city)) for city in range(count)]
    errors = {
        f"{name}_standard_error": float(np.sqrt((count - 1) * np.var([part[name] for part in parts])))
        for name in whole
    }
    return {**whole, **errors}


def _ratios_over(few, full, cities):
    def mean(scores, name):
        return np.mean(np.asarray(scores[f"{name}_per_city"])[cities])

    def spread_skill(scores):
        return np.sqrt(mean(scores, "variance") / mean(scores, "squared_error"))

    return {
        "crps": float(mean(few, "crps") / mean(full, "crps")),
        "spread_skill": float(spread_skill(few) / spread_skill(full)),
        "log_spread": float(np.sqrt(mean(few, "log_variance") / mean(full, "log_variance"))),
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=None, help="folder or Hub id (default: the bundled weights)")
    parser.add_argument("--height", type=int, default=48, help="height of a city in cells (default: 48)")
    parser.add_argument("--width", type=int, default=48, help="width of a city in cells (default: 48)")
    parser.add_argument("--cities", type=int, default=1, help="number of cities (default: 1)")
    parser.add_argument("--city-seed", type=int, default=2_000_000, help="seed of the first one (default: 2000000)")
    parser.add_argument("--culture", default="default", help="culture of the cities (default: default)")
    parser.add_argument("--samples", type=int, default=16, help="size of the ensemble (default: 16)")
    parser.add_argument("--truths", type=int, default=16, help="weeks to score against (default: 16)")
    parser.add_argument("--without", nargs="*", default=[], help="context layers to leave out")
    parser.add_argument("--full-chain", action="store_true", help="also run every step of the trained chain with DDPM")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe = ZoomDiffPipeline.from_pretrained(model_path(arguments.model)).to(arguments.device)
    pipe.set_progress_bar_config(disable=True)

    seeds = range(arguments.city_seed, arguments.city_seed + arguments.cities)
    cities = [SimulatedCity(arguments.height, arguments.width, seed, arguments.culture) for seed in seeds]
    weeks = np.stack([city.sample_traffic(arguments.truths, seed=1) for city in cities], axis=1)
    truths = dict(zip(pipe.hierarchy.names, pipe.hierarchy.pyramid(weeks)))
    floors = [noise_floor(city, pipe.hierarchy, num_samples=32, seed=2) for city in cities]
    results = {"few_steps": evaluate(pipe, cities, truths, arguments)}
    for name, scores in results["few_steps"]["levels"].items():
        scores["floor"] = float(np.mean([floor[name]["crps"] for floor in floors]))
        scores["crps_over_floor"] = scores["crps"] / scores["floor"]
    if arguments.full_chain:
        pipe.scheduler = DRDMScheduler.from_config(pipe.scheduler.config, solver="ddpm", timestep_spacing="even")
        results["full_chain"] = evaluate(pipe, cities, truths, arguments, steps=len(pipe.scheduler))
        results["few_steps_over_full_chain"] = ratios(results["few_steps"]["levels"], results["full_chain"]["levels"])
    publish(results, arguments)


if __name__ == "__main__":
    main()
