# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
What the model says that plans change, next to what the law of the simulated city says, which is the truth.

    python -m benchmarks.what_if
    python -m benchmarks.what_if --cities 1 --presets park stadium

Every preset replaces the same nine hectares in the middle of every city. Traffic is that of these cells, two days.
"""

import numpy as np
import torch
import xarray as xr

from zoomdiff_diffusers import ZoomDiffPipeline
from zoomdiff_diffusers.data.differences import compare_contexts
from zoomdiff_diffusers.data.edits import PRESETS, edit_context
from zoomdiff_diffusers.data.simulated_city import mean_traffic, simulate_context

from .report import make_parser, model_path, publish


FIRST_CITY = 3_100_000  # no city of the training
SIZE, EDITED, HOURS = 24, slice(9, 15), 48  # cells of 50 m


def make_context(seed):
    """The layers of a city without people per hour, which nobody counts for a plan, and its context."""
    layers = simulate_context(SIZE, SIZE, seed)
    del layers["population_over_time"]
    dims = {2: ("y", "x"), 3: ("poi_category", "y", "x")}
    centres = 50.0 * np.arange(SIZE) + 25
    variables = {name: (dims[layer.ndim], layer) for name, layer in layers.items()}
    return xr.Dataset(variables, {"y": centres, "x": centres})


def lawful_traffic(context):
    """What the law expects in the edited cells, GB."""
    layers = {name: layer.values for name, layer in context.items()}
    return float(mean_traffic(layers, hours=HOURS)[:, EDITED, EDITED].sum(dtype=np.float64)) / 1e3


def answer(pipe, context, preset, arguments):
    """What model and law say of one plan, GB in the edited cells."""
    low, high = 50 * EDITED.start, 50 * EDITED.stop
    corners = [[low, low], [high, low], [high, high], [low, high], [low, low]]
    feature = {"geometry": {"type": "Polygon", "coordinates": [corners]}, "properties": {"preset": preset}}
    plan, _ = edit_context(context, {"type": "FeatureCollection", "features": [{"type": "Feature", **feature}]})
    tree = compare_contexts(pipe, context, plan, num_hours=HOURS, num_samples=arguments.samples, seed=arguments.seed)
    change = (tree["edited_after"] - tree["edited_before"]).values / 1e3
    before, after = lawful_traffic(context), lawful_traffic(plan)
    return {
        "preset": preset,
        "model_before": float(tree["edited_before"].mean()) / 1e3,
        "model_after": float(tree["edited_after"].mean()) / 1e3,
        "model_change": float(change.mean()),
        "model_spread": float(change.std(ddof=1)),
        "law_before": before,
        "law_after": after,
        "law_change": after - before,
    }


def summarise(rows):
    """How well the changes agree over all plans, and how far off the traffic after a plan is, by preset."""
    changes = np.array([[row["model_change"], row["law_change"]] for row in rows])
    ratios = {}
    for row in rows:
        ratios.setdefault(row["preset"], []).append(row["model_after"] / row["law_after"])
    errors = np.abs(np.concatenate(list(ratios.values())) - 1)
    return {
        "correlation_of_changes": float(np.corrcoef(changes.T)[0, 1]),
        "median_relative_error_after": float(np.median(errors)),
        "mean_ratio_after": {preset: float(np.mean(values)) for preset, values in ratios.items()},
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=None, help="folder or Hub id (default: the bundled weights)")
    parser.add_argument("--cities", type=int, default=4, help="how many simulated cities (default: 4)")
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help="kinds of plans (default: all)")
    parser.add_argument("--samples", type=int, default=4, help="pairs of samples (default: 4)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe = ZoomDiffPipeline.from_pretrained(model_path(arguments.model)).to(arguments.device)
    pipe.set_progress_bar_config(disable=True)
    contexts = [make_context(FIRST_CITY + city) for city in range(arguments.cities)]
    rows = [answer(pipe, context, preset, arguments) for context in contexts for preset in arguments.presets]
    publish({"summary": summarise(rows), "plans": rows}, arguments)


if __name__ == "__main__":
    main()
