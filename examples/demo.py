# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
One week of mobile traffic at four scales for a simulated city, from the weights that ship with the package.

    python examples/demo.py --output outputs/demo

Writes `traffic.nc` (all levels and samples, with coordinates, units and provenance) and `zoom.png`; prints a table.
"""

import argparse
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from zoomdiff_diffusers import ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.simulated_city import SimulatedCity
from zoomdiff_diffusers.data.stores import levels_to_datatree, write_netcdf
from zoomdiff_diffusers.evaluation import cross_level_error
from zoomdiff_diffusers.evaluation.plots import plot_zoom, save_figure


MODEL = "simulated-city"
START = "2026-03-02T00:00"  # a Monday
CITY_SEED = 2026  # not among the cities that the model was trained on


class LevelTimer:
    """Adds up the seconds between the sampler's steps, per level; pass it as `callback_on_step_end`."""

    def __init__(self, hierarchy):
        self.seconds = dict.fromkeys(hierarchy.names, 0.0)
        self.last = time.perf_counter()

    def __call__(self, pipe, step, timestep, tensors):
        name = pipe.hierarchy.names[int(pipe.scheduler.stage_of(timestep))]
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now
        return tensors


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder for the two files")
    parser.add_argument("--model", default=None, help="folder or Hub id (default: the bundled weights)")
    parser.add_argument("--height", type=int, default=48, help="cells of 50 m from south to north (default: 48)")
    parser.add_argument("--width", type=int, default=64, help="cells of 50 m from west to east (default: 64)")
    parser.add_argument("--samples", type=int, default=8, help="size of the ensemble (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated traffic (default: 0)")
    return parser.parse_args()


def provenance(arguments, model):
    return {
        "title": "Generated mobile traffic of a simulated city",
        "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}, model {model}",
        "simulated": "yes: the city is simulated and the traffic is generated; nothing here was measured",
        "city_seed": CITY_SEED,
        "seed": arguments.seed,
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def print_table(levels, hierarchy, unit, seconds):
    errors = cross_level_error(levels, hierarchy)
    print(f"\n{'level':<12}{'time, y, x':<16}{f'total ({unit})':>14}{'cross-level error':>20}{'seconds':>10}")
    for level in hierarchy.levels:
        values = levels[level.name]
        cells_and_hours = level.spatial_factor**2 * level.temporal_factor
        total = values.sum(dtype="float64") * cells_and_hours / len(values)
        shape = " x ".join(str(size) for size in values.shape[2:])
        error = f"{errors[level.name]:.1e}" if level.name in errors else "-"
        print(f"{level.name:<12}{shape:<16}{total:>14,.0f}{error:>20}{seconds[level.name]:>10.1f}")


def main():
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True, exist_ok=True)
    model = arguments.model or f"{MODEL} (bundled)"
    pipe = ZoomDiffPipeline.from_pretrained(arguments.model or bundled_model(MODEL))
    hierarchy, processor = pipe.hierarchy, pipe.traffic_processor
    hierarchy.shapes(168, arguments.height, arguments.width)  # refuses sizes that do not fit
    city = SimulatedCity(arguments.height, arguments.width, seed=CITY_SEED)

    side = hierarchy.config.cell_size / 1000
    print(
        f"Simulated city of {arguments.height * side:g} x {arguments.width * side:g} km: "
        f"one week, {arguments.samples} samples, model {model}"
    )
    timer = LevelTimer(hierarchy)
    levels = pipe(
        city.context,
        start=START,
        num_samples_per_context=arguments.samples,
        generator=torch.Generator().manual_seed(arguments.seed),
        callback_on_step_end=timer,
    ).levels

    attrs = provenance(arguments, model)
    tree = levels_to_datatree(levels, hierarchy, START, processor.channels, processor.units, "mean", attrs=attrs)
    write_netcdf(tree, arguments.output / "traffic.nc")
    figure = plot_zoom(
        {name: values[:, 0] for name, values in levels.items()},
        hierarchy,
        start=START,
        unit=processor.units[0],
        title="One generated week of mobile traffic, from base stations to 50 m (simulated city)",
    )
    save_figure(figure, arguments.output / "zoom.png")
    print_table(levels, hierarchy, processor.units[0], timer.seconds)
    print(f"\n{arguments.output / 'traffic.nc'}: all levels and samples, with coordinates and units")
    print(f"{arguments.output / 'zoom.png'}: the picture")


if __name__ == "__main__":
    main()
