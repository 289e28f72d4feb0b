# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Seconds and peak memory of generating one week at all levels for areas of several sizes, into a Zarr store.

    python -m benchmarks.city_speed --cells 250000 500000 1000000
    python -m benchmarks.city_speed --cells 250000 --processes 2 --threads 1
    python -m benchmarks.city_speed --cells --scaling 60000

The context is a simulated one, repeated: what is measured does not depend on what it shows. Every size runs in
processes of its own. Time should grow with the area, memory should not. With `--scaling`, one process with one thread,
two processes with one thread each, and one process with two threads run `zoomdiff generate` on the same area.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import netCDF4
import numpy as np

from zoomdiff_diffusers.data.simulated_city import simulate_context

from .report import make_parser, model_path, publish


TILE, UNIT = 160, 8  # cells along a side of what is repeated, and of a base-station area


def write_context(path, cells, seed):
    """A NetCDF file of about so many cells, written tile by tile; returns its height and width."""
    layers = simulate_context(height=TILE, width=TILE, seed=seed)
    height = round(math.sqrt(cells) / UNIT) * UNIT
    width = round(cells / height / UNIT) * UNIT
    with netCDF4.Dataset(path, "w") as file:
        for axis, size in (("y", height), ("x", width)):
            file.createDimension(axis, size)
        for name, values in layers.items():
            if name == "population_over_time":
                continue
            channels = (f"{name}_channel",)[: values.ndim - 2]
            for axis, size in zip(channels, values.shape):
                file.createDimension(axis, size)
            chunks = (*values.shape[:-2], min(TILE, height), min(TILE, width))
            layer = file.createVariable(name, values.dtype, (*channels, "y", "x"), chunksizes=chunks)
            for row in range(0, height, TILE):
                rows = np.tile(values[..., : min(TILE, height - row), :], width // TILE + 1)[..., :width]
                layer[..., row : row + rows.shape[-2], :] = rows
    return height, width


CHILD = """
import json, sys, time
import torch, xarray
from zoomdiff_diffusers import ZoomDiffPipeline
from benchmarks.report import peak_memory_gib as peak
model, context, output, threads, seed, hours = sys.argv[1:]
torch.set_num_threads(int(threads))
if torch.distributed.is_torchelastic_launched():
    torch.distributed.init_process_group("gloo")
pipe = ZoomDiffPipeline.from_pretrained(model)
pipe.set_progress_bar_config(disable=True)
before, started = peak(), time.perf_counter()
with xarray.open_dataset(context, engine="netcdf4") as layers:
    pipe.generate_city(layers, output, num_hours=int(hours), seed=int(seed))
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "memory_before_gib": before, "peak_memory_gib": peak()}))
"""


def measure(cells, arguments):
    """Seconds, and the largest resident memory of a process, for one size."""
    with tempfile.TemporaryDirectory() as folder:
        context, program = Path(folder) / "context.nc", Path(folder) / "program.py"
        height, width = write_context(context, cells, arguments.seed)
        program.write_text(CHILD, encoding="utf-8")
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(arguments.processes)]
        words = [model_path(arguments.model), context, Path(folder) / "out.zarr", arguments.threads, arguments.seed]
        words.append(arguments.hours)
        command = [sys.executable, *(launch if arguments.processes > 1 else []), program, *words]
        root = str(Path(__file__).parents[1])
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "PYTHONPATH": root}
        done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        parts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    largest = {name: max(part[name] for part in parts) for name in parts[0]}
    return {"cells": height * width, "height": height, "width": width, **largest}


SETUPS = ((1, 1), (2, 1), (1, 2))  # processes, and threads of each
TWO_PROCESSES = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no".split()


def measure_scaling(cells, arguments):
    """Seconds of one and of two processes for one area, without what it takes to start Python."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder) / "context.nc"
        height, width = write_context(context, cells, arguments.seed)
        for processes, threads in SETUPS:
            launch = ["-m", "accelerate.commands.launch", *TWO_PROCESSES, "--main_process_port", "0"]
            words = [
                "-m",
                "zoomdiff_diffusers.commands",
                "generate",
                "--context",
                context,
                "--device",
                "cpu",
                "--json",
            ]
            words += ["--model", model_path(arguments.model), "--hours", arguments.hours, "--seed", arguments.seed]
            words += ["--output", Path(folder) / f"{processes}_{threads}.zarr"]
            command = [sys.executable, *(launch if processes > 1 else []), *words]
            # Without this, accelerate starts one process on a CPU.
            environment = os.environ | {"OMP_NUM_THREADS": str(threads), "ACCELERATE_USE_CPU": "true"}
            done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(done.stderr[-3000:])
            (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
            runs.append({"processes": processes, "threads": threads, "seconds": json.loads(line)["seconds"]})
    one, two_processes, two_threads = (run["seconds"] for run in runs)
    return {
        "cells": height * width,
        "runs": runs,
        "speed_up_of_two_processes": one / two_processes,
        "speed_up_of_two_threads": one / two_threads,
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--model", default=None, help="folder or Hub id (default: the bundled weights)")
    parser.add_argument("--cells", type=int, nargs="*", default=[250_000, 500_000, 1_000_000], help="sizes of areas")
    parser.add_argument("--hours", type=int, default=168, help="hours to generate (default: 168)")
    parser.add_argument("--processes", type=int, default=1, help="processes that share the work (default: 1)")
    parser.add_argument("--scaling", type=int, default=None, help="cells of an area for one and for two processes")
    arguments = parser.parse_args()
    sizes = [measure(cells, arguments) for cells in arguments.cells]
    for size in sizes:
        size["microseconds_per_cell"] = 1e6 * size["seconds"] / size["cells"]
    results = {"hours": arguments.hours, "sizes": sizes}
    if arguments.scaling is not None:
        results["scaling"] = measure_scaling(arguments.scaling, arguments)
    publish(results, arguments)


if __name__ == "__main__":
    main()
