# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff generate`, and what other commands that call the pipeline share with it."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from .messages import check_output, fail, fail_without, failures_of, input_file
from .models import DEFAULT_MODEL, MODEL_HELP, load_pipeline


Context = Annotated[
    Path, input_file("NetCDF file with the context layers that the model knows (`zoomdiff info`), on y and x.")
]
Output = Annotated[Path, typer.Option("--output", "--out", help="NetCDF file to write, one group per level.")]
Store = Annotated[
    Path,
    typer.Option(
        "--output",
        "--out",
        help="NetCDF file to write, one group per level; or, ending in .zarr, a store for areas larger than memory.",
    ),
]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
Samples = Annotated[int, typer.Option(min=1, help="Size of the ensemble.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed: the same one gives the same traffic.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Network calls in total; the model's default if not given.")]
Units = Annotated[
    Literal["mean", "sum"],
    typer.Option(help="Means per finest cell and time step, or sums per unit and its time step."),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 ...; an accelerator if there is one. Not mps: it has no float64.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def generate(
    context: Context,
    output: Store,
    model: Model = DEFAULT_MODEL,
    start: Annotated[
        str | None,
        typer.Option(help="First hour, local time: weekdays matter. That of the context's hours, else a Monday."),
    ] = None,
    hours: Annotated[int | None, typer.Option(min=1, help="Length; one week if no layer tells.")] = None,
    samples: Samples = 1,
    seed: Seed = 0,
    steps: Steps = None,
    units: Units = "mean",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """
    Generate traffic at every level for the context of an area.

    Example: zoomdiff generate --context context.nc --output traffic.nc --samples 8

    With an output that ends in .zarr, the area may have any size and the time any number of weeks; a run that was
    interrupted goes on when the same command is given again, and several processes share the work:

    accelerate launch -m zoomdiff_diffusers.commands generate --context city.nc --output city.zarr

    Exit codes: 0 done; 1 the files, the model and the arguments do not fit together; 2 wrong arguments.
    """
    if output.suffix == ".zarr":
        with open_context(context, output) as layers:
            make_city(
                output,
                model,
                device,
                as_json,
                lambda pipe: pipe.generate_city(layers, output, start, hours, steps, samples, seed, units),
            )
        return
    if output.suffix != ".nc":
        fail(f"--output: {output} must end in .nc, or in .zarr for a store.")
    layers = read_context(context, output)
    pipe = make_pipeline(model, device)
    call = partial(pipe, layers, start=start, num_hours=hours, num_samples_per_context=samples)
    run_pipeline(call, output, model, seed, steps, units, as_json)


def make_city(output: Path, model: str, device, as_json: bool, make) -> None:
    """
    Call `make(pipe)`, which writes a Zarr store for an area of any size, and print a summary.

    Several processes, started by `accelerate launch` or torchrun, share out the work.
    """
    main = True
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        try:
            from accelerate import PartialState
            from accelerate.utils import parse_flag_from_env
        except ModuleNotFoundError as error:
            fail_without(error.name, "train")
        # Left to itself, it takes every one of several processes on a CPU for the main one.
        process = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
        main, device = process.is_main_process, device or _device_with_float64(process.device)
    started = time.perf_counter()
    pipe = make_pipeline(model, device)
    with failures_of(output, "city"):
        make(pipe)
    if main:
        _print_store(output, time.perf_counter() - started, as_json)


def _print_store(output: Path, seconds: float, as_json: bool) -> None:
    from ..data.stores import open_levels

    with open_levels(output) as (_, levels):
        shapes = {name: list(level["traffic"].shape) for name, level in levels.items()}
        units = next(iter(levels.values()))["traffic"].attrs["cell_methods"].split()[-1]
    if as_json:
        described = {name: {"shape": shape} for name, shape in shapes.items()}
        summary = {"output": str(output), "seconds": round(seconds, 3), "units": units, "levels": described}
        typer.echo(json.dumps(summary))
        return
    for name, shape in shapes.items():
        typer.echo(f"{name:<16}{' x '.join(map(str, shape))}")
    typer.echo(
        f"\n{output}: in {seconds:.1f} s; xarray.open_datatree(..., engine='zarr', consolidated=False) reads it"
    )


def read_context(path: Path, output: Path):
    """The layers; what is wrong with the files is said before a model is loaded."""
    if output.suffix != ".nc":
        fail(f"--output: {output} must end in .nc.")
    with open_context(path, output) as layers:
        try:
            return layers.load()
        except OSError as error:
            fail(f"--context: {path} is damaged ({error}).")


@contextmanager
def open_context(path: Path, output: Path) -> Iterator:
    """
    The layers, read when they are asked for, closed after the `with` block. Damage that shows up in it is one line.

    HDF5 may crash when a file that is still open is opened again.
    """
    import xarray

    check_output(output, path)
    try:
        import netCDF4  # noqa: F401 xarray would speak of engines
    except ModuleNotFoundError as error:
        fail_without(error.name, "plot")
    try:
        layers = xarray.open_dataset(path, engine="netcdf4")
    except (OSError, RuntimeError, ValueError) as error:
        fail(f"--context: {path} is not a readable NetCDF-4 file ({error}).")
    with layers:
        try:
            yield layers
        except RuntimeError as error:
            if not str(error).startswith("NetCDF:"):  # of PyTorch, not of the file
                raise
            fail(f"--context: {path} is damaged ({error}).")


def make_pipeline(model: str, device: str | None):
    """The pipeline on its device, an accelerator if there is one that has float64."""
    import torch

    if device is not None and device.split(":")[0] == "mps":
        fail(f"--device: {device!r} has no float64, in which levels are made to add up; take cpu or a CUDA device.")
    pipe = load_pipeline(model)
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        device = _device_with_float64(device)
    try:
        return pipe.to(device)
    except (RuntimeError, AssertionError, ValueError) as error:
        fail(f"--device: {device!r} cannot be used: {str(error).splitlines()[0]}")


def _device_with_float64(found) -> str:
    """The name of a device that was found, or the CPU in place of MPS: levels are made to add up in float64."""
    return "cpu" if str(found).startswith("mps") else str(found)


def run_pipeline(call, output: Path, model: str, seed: int, steps: int | None, units: str, as_json: bool) -> None:
    """Call the pipeline, write the file and print a summary."""
    from importlib.metadata import version

    import torch

    from ..data.stores import channel_units, write_netcdf

    started = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    try:
        tree = call(num_inference_steps=steps, generator=generator, output_type="xarray", units=units).levels
    except (ValueError, TypeError) as error:
        fail(str(error))
    seconds = time.perf_counter() - started
    tree.attrs |= {
        "title": "Generated mobile traffic",
        "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}, model {model}",
        "seed": seed,
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        write_netcdf(tree, output)
    except OSError as error:
        fail(f"--output: cannot write {output}: {error.strerror}.")
    levels = {
        name: {
            "shape": list(node["traffic"].shape),
            "mean": float(node["traffic"].mean()),
            "unit": ", ".join(dict.fromkeys(channel_units(node["traffic"]))),
        }
        for name, node in tree.children.items()
    }
    if as_json:
        typer.echo(json.dumps({"output": str(output), "seconds": round(seconds, 3), "units": units, "levels": levels}))
        return
    typer.echo(f"{'level':<16}{'samples, channels, time, y, x':<34}{'mean':>12}")
    for name, level in levels.items():
        shape = " x ".join(map(str, level["shape"]))
        typer.echo(f"{name:<16}{shape:<34}{level['mean']:>12.4g} {level['unit']}")
    typer.echo(f"\n{output}: all levels and samples, in {seconds:.1f} s; xarray.open_datatree reads it")
