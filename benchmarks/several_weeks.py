# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Other lengths than a week, on simulated cities that were held out: three weeks made at once, and few days.

    python -m benchmarks.several_weeks --output benchmarks/results/several_weeks.json

Per level, for each of the weeks and for a week and few days made alone: CRPS over that of as many samples of the true
law, and mean and standard deviation over the law's, as means over the cities with standard errors.
"""

import numpy as np
import torch

from zoomdiff_diffusers import ZoomDiffPipeline
from zoomdiff_diffusers.data.simulated_city import SimulatedCity
from zoomdiff_diffusers.evaluation import fair_crps

from .report import make_parser, model_path, publish


HOURS, WEEKS = 168, 3
ALONE = {"a week alone": 168, "a day alone": 24, "two days alone": 48, "three days alone": 72, "four days alone": 96}
FIRST_CITY = 2_000_000


def generate(pipe, city, hours, samples, seed):
    return pipe(
        city.context_for(hours),
        num_hours=hours,
        num_samples_per_context=samples,
        generator=torch.Generator().manual_seed(seed + city.seed),  # other noise in every city
    ).levels


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=None, help="folder or Hub id (default: the bundled weights)")
    parser.add_argument("--cities", type=int, default=16, help="held-out cities (default: 16)")
    parser.add_argument("--side", type=int, default=24, help="height and width of a city in cells (default: 24)")
    parser.add_argument("--samples", type=int, default=8, help="size of the ensembles (default: 8)")
    parser.add_argument("--truths", type=int, default=6, help="periods to score against (default: 6)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe = ZoomDiffPipeline.from_pretrained(model_path(arguments.model)).to(arguments.device)
    pipe.set_progress_bar_config(disable=True)

    scores = {}
    for seed in range(FIRST_CITY, FIRST_CITY + arguments.cities):
        city = SimulatedCity(arguments.side, arguments.side, seed)
        together = generate(pipe, city, WEEKS * HOURS, arguments.samples, arguments.seed)
        alone = {
            label: generate(pipe, city, hours, arguments.samples, arguments.seed) for label, hours in ALONE.items()
        }
        truths, law = (
            dict(zip(pipe.hierarchy.names, pipe.hierarchy.pyramid(city.sample_traffic(count, WEEKS * HOURS, of))))
            for count, of in ((arguments.truths, 1), (arguments.samples, 2))
        )
        for name in pipe.hierarchy.names:
            length = truths[name].shape[2] // WEEKS
            compared = {
                f"week {week + 1} of {WEEKS}": (
                    week * length,
                    together[name][:, :, week * length : (week + 1) * length],
                )
                for week in range(WEEKS)
            } | {label: (0, levels[name]) for label, levels in alone.items()}
            for label, (start, values) in compared.items():
                part = np.s_[:, :, start : start + values.shape[2]]
                found = score(values, truths[name][part], law[name][part])
                scores.setdefault(name, {}).setdefault(label, []).append(found)
    means = {name: {label: mean(found) for label, found in weeks.items()} for name, weeks in scores.items()}
    publish(means, arguments)


def score(values, truths, law):
    return {
        "crps": [np.mean([fair_crps(ensemble, truth).mean() for truth in truths]) for ensemble in (values, law)],
        "mean": [values.mean(dtype=np.float64), truths.mean(dtype=np.float64)],
        "std": [ensemble.std(axis=0, ddof=1, dtype=np.float64).mean() for ensemble in (values, law)],
    }


def mean(found):
    """Ratios to the law: their mean over the cities and its standard error."""
    summary = {}
    for name in found[0]:
        ratios = np.array([city[name][0] / city[name][1] for city in found])
        summary[f"{name}_over_law"] = float(ratios.mean())
        summary[f"{name}_standard_error"] = float(ratios.std(ddof=1) / np.sqrt(len(ratios)))
    return summary


if __name__ == "__main__":
    main()
