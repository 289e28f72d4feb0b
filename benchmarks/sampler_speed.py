# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Seconds and peak memory of generating one week at all levels for many base-station areas of 8 x 8 cells.

    python -m benchmarks.sampler_speed --areas 500

Timed is the pipeline's call: context normalisation, all stages, reconciliation. The paper's Table V has 446 s for 500
base stations on an A100.
"""

import time

import torch

from zoomdiff_diffusers import ZoomDiffPipeline
from zoomdiff_diffusers.data.simulated_city import SimulatedCity
from zoomdiff_diffusers.evaluation import cross_level_error

from .report import make_parser, model_path, peak_memory_gib, publish


SIDE = 8  # cells of 50 m along a base-station area


def area_contexts(count, seed):
    """Contexts of `count` base-station areas, cut from one simulated city."""
    across = 25
    city = SimulatedCity(SIDE * -(-count // across), SIDE * across, seed)
    starts = [(SIDE * (index // across), SIDE * (index % across)) for index in range(count)]
    return [
        {name: layer[..., row : row + SIDE, column : column + SIDE] for name, layer in city.context.items()}
        for row, column in starts
    ]


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=None, help="folder or Hub id (default: the bundled weights)")
    parser.add_argument("--areas", type=int, default=500, help="number of base-station areas (default: 500)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs (default: 3)")
    parser.add_argument("--batch-size", type=int, default=None, help="areas at once (default: the pipeline's choice)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipe = ZoomDiffPipeline.from_pretrained(model_path(arguments.model)).to(arguments.device)
    pipe.set_progress_bar_config(disable=True)
    contexts = area_contexts(arguments.areas, seed=arguments.seed)
    before = peak_memory_gib()

    seconds = []
    for repeat in range(arguments.repeats):
        generator = torch.Generator().manual_seed(arguments.seed + repeat)
        started = time.perf_counter()
        levels = pipe(contexts, generator=generator, batch_size=arguments.batch_size).levels
        seconds.append(time.perf_counter() - started)
    results = {
        "seconds": seconds,
        "peak_memory_gib": peak_memory_gib(),
        "memory_before_gib": before,
        "calls": len(pipe.scheduler.timesteps),
        "parameters": sum(
            parameter.numel()
            for network in (pipe.regressor, pipe.unet)
            if network
            for parameter in network.parameters()
        ),
        "shapes": {name: list(values.shape) for name, values in levels.items()},
        "cross_level_error": max(cross_level_error(levels, pipe.hierarchy).values()),
        "minimum": min(float(values.min()) for values in levels.values()),
    }
    publish(results, arguments)


if __name__ == "__main__":
    main()
