# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Levels of real coverage areas against squares: two models, trained alike, on simulated cities with irregular sites.

    python -m benchmarks.zones --output benchmarks/results/zones.json

One model has the areas of base stations and their sectors as its coarse levels, the other squares of 400 m and 200 m.
Both make the same finest level, so both are scored at all units: per level CRPS over held-out cities, its ratio to the
true law's, and spread/skill. Areas count by their size.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from zoomdiff_diffusers import ZoomDiffPipeline
from zoomdiff_diffusers.data.simulated_city import SimulatedCity
from zoomdiff_diffusers.data.simulated_context import simulate_zones
from zoomdiff_diffusers.evaluation import cross_level_error, fair_crps
from zoomdiff_diffusers.hierarchy import Hierarchy, Level
from zoomdiff_diffusers.training.arguments import parse_arguments
from zoomdiff_diffusers.training.trainer import Trainer

from .report import make_parser, publish


CONFIG = Path(__file__).parents[1] / "configs" / "simulated_zones.yaml"
# Units at which both models are scored.
UNITS = {
    "site, 1 day": Level("site", 8, 24, "site"),
    "sector, 4 h": Level("sector", 4, 4, "sector"),
    "400 m, 1 day": Level("square_400m", 8, 24),
    "200 m, 4 h": Level("square_200m", 4, 4),
    "100 m, 2 h": Level("square_100m", 2, 2),
    "50 m, 1 h": Level("square_50m", 1, 1),
}
FIRST_CITY = 2_000_000


def train(which, arguments):
    """The trained pipeline of one hierarchy, and the seconds that it took; an earlier training is taken up."""
    folder = Path("runs") / f"zones_{which}"
    if arguments.reuse:
        pipe = ZoomDiffPipeline.from_pretrained(folder)
        found = pipe.training_summary
        if (found["steps"], found["seed"]) != (arguments.steps, arguments.seed):
            raise ValueError(f"{folder} was trained with {found['steps']} steps and seed {found['seed']}.")
        return pipe, found["seconds"]
    words = ["--config", str(CONFIG), "--output_dir", str(folder), "--overwrite_output_dir", "true"]
    words += ["--max_train_steps", str(arguments.steps), "--seed", str(arguments.seed)]
    parsed = parse_arguments([*words, "--validation_steps", str(arguments.steps), "--validation_areas", "0"])
    if which == "squares":
        squares = [{key: value for key, value in level.items() if key != "zones"} for level in parsed.hierarchy.levels]
        parsed = replace(parsed, hierarchy=replace(parsed.hierarchy, levels=squares))
    trainer = Trainer(parsed)
    return trainer.pipeline(), trainer.train()["seconds"]


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="training steps of each model (default: 1500)")
    parser.add_argument("--reuse", action="store_true", help="take the models of an earlier run out of runs/")
    parser.add_argument("--cities", type=int, default=8, help="held-out cities (default: 8)")
    parser.add_argument("--side", type=int, default=32, help="height and width of a city in cells (default: 32)")
    parser.add_argument("--samples", type=int, default=16, help="size of the ensembles (default: 16)")
    parser.add_argument("--truths", type=int, default=8, help="weeks to score against (default: 8)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    trained = {which: train(which, arguments) for which in ("zones", "squares")}
    scores = {which: {unit: [] for unit in UNITS} for which in (*trained, "true law")}
    errors = {which: [] for which in trained}
    for seed in range(FIRST_CITY, FIRST_CITY + arguments.cities):
        city = SimulatedCity(arguments.side, arguments.side, seed)
        zones = simulate_zones(city.context, seed)
        truths = city.sample_traffic(arguments.truths, seed=1)
        for which in scores:
            if which == "true law":
                finest = city.sample_traffic(arguments.samples, seed=2)
            else:
                pipe = trained[which][0]
                pipe.set_progress_bar_config(disable=True)
                levels = pipe(
                    city.context | (zones if which == "zones" else {}),
                    num_samples_per_context=arguments.samples,
                    generator=torch.Generator().manual_seed(arguments.seed),
                ).levels
                finest = levels[pipe.hierarchy.names[-1]]
                errors[which].append(consistency(levels, pipe.hierarchy, zones))
            for unit, values in scored(finest, truths, zones).items():
                scores[which][unit].append(values)
    results = {which: summary(values) for which, values in scores.items()}
    for which, (_, seconds) in trained.items():
        results[which] |= {"training_seconds": seconds, "largest_error_of_sums": max(errors[which])}
        for unit in UNITS:
            results[which][unit]["crps_over_law"] = results[which][unit]["crps"] / results["true law"][unit]["crps"]
    publish(results, arguments)


def consistency(levels, hierarchy, zones):
    """Largest difference between a level and the sums of the finest one, over the level's mean."""
    if not hierarchy.zone_layers:
        return max(cross_level_error(levels, hierarchy).values())
    tensors = {name: torch.as_tensor(labels)[None].long() for name, labels in zones.items()}
    finest = levels[hierarchy.names[-1]].astype(np.float64)
    return max(
        float(np.abs(hierarchy.aggregate(finest, name, zones=tensors) - values).max() / values.mean())
        for name, values in levels.items()
    )


def scored(finest, truths, zones):
    """Per kind of unit: CRPS, variance of the ensemble and squared error of its mean, over one city."""
    tensors = {name: torch.as_tensor(labels)[None].long() for name, labels in zones.items()}
    found = {}
    for name, level in UNITS.items():
        pair = Hierarchy([level, Level("cells", 1, 1)])
        ensemble, observed = (pair.aggregate(values, 0, zones=tensors) for values in (finest, truths))
        found[name] = {
            "crps": float(np.mean([fair_crps(ensemble, truth).mean() for truth in observed])),
            "variance": float(ensemble.var(axis=0, ddof=1, dtype=np.float64).mean()),
            "squared_error": float(np.mean((ensemble.mean(axis=0, dtype=np.float64) - observed) ** 2)),
        }
    return found


def summary(scores):
    """Means over the cities, with the standard error of the CRPS."""
    results = {}
    for unit, cities in scores.items():
        crps = np.array([city["crps"] for city in cities])
        variance, error = (np.mean([city[name] for city in cities]) for name in ("variance", "squared_error"))
        results[unit] = {
            "crps": float(crps.mean()),
            "crps_standard_error": float(crps.std(ddof=1) / np.sqrt(len(crps))) if len(crps) > 1 else None,
            "spread_skill": float(np.sqrt(variance / error)),
        }
    return results


if __name__ == "__main__":
    main()
