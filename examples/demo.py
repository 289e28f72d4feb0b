# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
One week of mobile traffic at four scales for central Helsinki, from the context and the weights in the package.

    python examples/demo.py --output outputs/demo

Writes `traffic.nc` (all levels and samples, with coordinates, units and provenance), `context.png` (what the model was
given) and `zoom.png` (what it made of it); prints a table.
"""

import argparse
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from zoomdiff_diffusers import ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.demo_city import load_demo_context
from zoomdiff_diffusers.data.stores import write_netcdf
from zoomdiff_diffusers.evaluation import cross_level_error
from zoomdiff_diffusers.evaluation.plots import plot_context, plot_zoom, save_figure


MODEL = "simulated-city"
START = "2026-03-02T00:00"  # a Monday
ATTRIBUTION = "context: © OpenStreetMap contributors"


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
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), help="folder for the three files")
    parser.add_argument("--model", default=None, help="folder or Hub id (default: the bundled weights)")
    parser.add_argument("--samples", type=int, default=8, help="size of the ensemble (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated traffic (default: 0)")
    return parser.parse_args()


def provenance(arguments, model, context):
    return {
        "title": "Generated mobile traffic of central Helsinki",
        "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}, model {model}",
        "comment": "The traffic is generated. Nothing in it was measured, and it is no forecast of the traffic there.",
        "licence": context.attrs["licence"],
        "osm_timestamp": context.attrs["osm_timestamp"],
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
    hierarchy, unit = pipe.hierarchy, pipe.traffic_processor.units[0]
    context = load_demo_context()

    side = hierarchy.config.cell_size / 1000
    print(
        f"Central Helsinki, {context.sizes['y'] * side:g} x {context.sizes['x'] * side:g} km: one week,"
        f" {arguments.samples} samples, model {model}"
    )
    timer = LevelTimer(hierarchy)
    tree = pipe(
        context,
        start=START,
        num_samples_per_context=arguments.samples,
        generator=torch.Generator().manual_seed(arguments.seed),
        callback_on_step_end=timer,
        output_type="xarray",
    ).levels
    tree.attrs |= provenance(arguments, model, context)
    levels = {name: tree[name]["traffic"].values for name in hierarchy.names}

    write_netcdf(tree, arguments.output / "traffic.nc")
    title = f"Central Helsinki: what the model is given ({ATTRIBUTION})"
    figure = plot_context(context, pipe.context_processor.layers, hierarchy, title=title)
    save_figure(figure, arguments.output / "context.png")
    title = f"Central Helsinki: one generated week of mobile traffic, not measured ({ATTRIBUTION})"
    one_channel = {name: values[:, 0] for name, values in levels.items()}
    figure = plot_zoom(one_channel, hierarchy, start=START, unit=unit, title=title)
    save_figure(figure, arguments.output / "zoom.png")
    print_table(levels, hierarchy, unit, timer.seconds)
    print(f"\n{arguments.output / 'traffic.nc'}: all levels and samples, with coordinates and units")
    print(f"{arguments.output / 'context.png'}: land use, buildings, residents and points of interest")
    print(f"{arguments.output / 'zoom.png'}: the traffic")


if __name__ == "__main__":
    main()
