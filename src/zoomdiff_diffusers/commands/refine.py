# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff refine`."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .generate import (
    Context,
    Device,
    Json,
    Model,
    Samples,
    Seed,
    Steps,
    Store,
    Units,
    make_city,
    make_pipeline,
    open_context,
    read_context,
    run_pipeline,
)
from .messages import check_output, fail, fail_without, failures_of, input_file
from .models import DEFAULT_MODEL


STORE = "traffic.zarr"  # in a folder of `zoomdiff dataset`


def refine(
    traffic: Annotated[
        Path,
        typer.Option(
            exists=True,
            readable=True,
            help="What was measured: a table of base stations or cells (CSV, Parquet), a folder of `zoomdiff dataset`,"
            " or a NetCDF file as `generate` writes it, with NaN where nothing is known.",
        ),
    ],
    context: Context,
    output: Store,
    sites: Annotated[
        Path | None, input_file("Of a table: its sites or sectors, with id, lon and lat (or x and y), azimuth ...")
    ] = None,
    areas: Annotated[Path | None, input_file("Of a table: coverage polygons with an id, in place of sites.")] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Of a table: local time of the place, such as Europe/Rome.")
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(help="Of a table: factor from its unit to the model's, as of `zoomdiff info` (default 1)."),
    ] = None,
    largest_distance: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Cells farther from what serves them, in m, count as not measured; by default no cell is too far.",
        ),
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="Of a NetCDF file: its level that is given; the finest one by default.")
    ] = None,
    model: Model = DEFAULT_MODEL,
    samples: Samples = 1,
    seed: Seed = 0,
    steps: Steps = None,
    units: Units = "mean",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """
    Refine measured traffic, such as that of base stations, to all finer levels.

    The results add up to what is given. Where values are missing, or outside the measured area, traffic is generated.

    A table may be of any area and length; the result is a Zarr store then, as of `zoomdiff generate`. If it needs
    more options, make a folder of it with `zoomdiff dataset` and `--context` first, and give that.

    Examples:

    zoomdiff refine --traffic bs.csv --sites sites.csv --context city.nc --output refined.zarr

    zoomdiff refine --traffic stations.nc --level bs --context context.nc --output refined.nc

    Exit codes: 0 done; 1 the files, the model and the arguments do not fit together; 2 wrong arguments.
    """
    check_output(output, traffic, sites, areas)
    of_tables = {"--sites": sites, "--areas": areas, "--timezone": timezone, "--scale": scale}
    if traffic.suffix == ".nc":
        others = {**of_tables, "--largest-distance": largest_distance}
    else:
        others = {"--level": level} | (of_tables if (traffic / STORE).is_dir() else {})
    if given := [name for name, value in others.items() if value is not None]:
        fail(f"{', '.join(given)} cannot be used with {traffic}: see the help of these options.")
    if traffic.suffix == ".nc":
        layers = read_context(context, output)
        pipe = make_pipeline(model, device)
        values, level, start = _read_coarse(traffic, level, pipe, units, layers, context)
        call = partial(pipe.refine, values, level, layers, start=start, num_samples_per_context=samples)
        run_pipeline(call, output, model, seed, steps, units, as_json)
        return
    if output.suffix != ".zarr":
        fail(f"--output: {output} must end in .zarr: what is measured in a table may be larger than memory.")
    if output.exists():
        fail(f"--output: {output} exists already; remove it or choose another name.")
    with open_context(context, output) as layers:
        measured = _read_measured(
            traffic, layers, output, sites, areas, timezone, scale, largest_distance, quiet=as_json
        )
        options = {"start": measured.start, "num_inference_steps": steps, "num_samples": samples}
        make_city(
            output,
            model,
            device,
            as_json,
            lambda pipe: pipe.refine_city(
                measured.values, measured.labels, layers, output, **options, seed=seed, units=units
            ),
        )


def _read_measured(traffic: Path, layers, output: Path, sites, areas, timezone, scale, largest_distance, quiet: bool):
    """Totals of units and the cells that they serve, from a table or from what `zoomdiff dataset` made of one."""
    try:
        import polars  # noqa: F401
        import zarr  # noqa: F401

        from ..data.operator_data import TableFormat, build_dataset, read_measured
    except ModuleNotFoundError as error:
        fail_without(error.name, "dataset")
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as temporary:
        folder = traffic
        with failures_of(output, "context", "--traffic"):
            if not (traffic / STORE).is_dir():
                if (sites is None) == (areas is None):
                    fail("A table needs --sites or --areas, which say where its units are.")
                folder, form = Path(temporary, "measured"), TableFormat(timezone=timezone)
                report = build_dataset(
                    traffic, folder, form, sites, areas, context=layers, scale=1.0 if scale is None else scale
                )
                if not quiet:
                    for note in report["notes"]:
                        typer.echo(f"- {note}", err=True)
            return read_measured(folder, layers, largest_distance)


def _read_coarse(path: Path, level: str | None, pipe, units: str, layers, context: Path):
    """Traffic (N, C, T, H, W) in `units`, its level and its start; it must lie where the layers of `context` lie."""
    import numpy as np

    from ..evaluation.inputs import position, read_traffic
    from ..pipelines.zoomdiff.inputs import cell_centres

    try:
        stored = read_traffic(path)
    except ValueError as error:
        fail(f"--traffic: {error}")
    try:
        cells = cell_centres(layers, [layers.sizes.get(axis) for axis in ("y", "x")])
    except ValueError as error:
        fail(f"--context: {error}")
    level = level or list(stored.levels)[-1]
    if level not in stored.levels or level not in pipe.hierarchy.names:
        fail(f"--level: {level!r} must be among those of {path}, {list(stored.levels)}, and {pipe.hierarchy.names}.")
    found, expected = (
        stored.hierarchy.levels[stored.hierarchy.index(level)],
        pipe.hierarchy.levels[pipe.hierarchy.index(level)],
    )
    if found != expected:
        fail(f"--traffic: level {level!r} of {path} is {found}, but the model has {expected}.")
    _check_channels(stored, pipe.traffic_processor)
    for axis, centres in zip(("y", "x"), cells):
        if centres is None:
            continue
        (found, direction), (wanted, expected_direction) = position(getattr(stored, axis)), position(centres)
        if abs(found - wanted) > pipe.hierarchy.config.cell_size / 2:
            fail(f"--traffic: the area of {path} has its middle at {axis} = {found:g} m, the context at {wanted:g} m.")
        if direction != expected_direction and len(getattr(stored, axis)) > 1:
            fail(
                f"--traffic: the {axis} axis of {path} is {direction}, that of the context {expected_direction}: turn"
                " one of the files."
            )
    values = stored.levels[level]
    zones = _common_zones(stored, expected, pipe, layers, context)
    if units == "sum":
        values = values * np.asarray(pipe.hierarchy.volume(level, zones))
    return values, level, stored.start


def _check_channels(stored, processor) -> None:
    """Refuse traffic of other channels or units than the model's; a unit that the file does not state may be any."""
    if stored.channels != processor.channels:
        fail(
            f"--traffic: the channels of {stored.path} are {stored.channels}, but the model has {processor.channels}."
        )
    for channel, found, expected in zip(stored.channels, stored.units, processor.units):
        if found not in ("", expected):
            fail(f"--traffic: {channel!r} of {stored.path} is in {found}, but the model has {expected}: convert it.")


def _common_zones(stored, level, pipe, layers, context: Path):
    """The zones of a level (1, H, W) by layer, which must be those of the context; `None` for squares."""
    if not level.zones:
        return None
    size = tuple(layers.sizes.get(axis) for axis in ("y", "x"))
    try:
        zones = pipe.context_processor.zones([layers], size)
    except ValueError as error:
        fail(f"--context: {error}")
    found, expected = stored.zones[level.zones], zones[level.zones][0].numpy()
    if found.shape != expected.shape:
        difference = f"cover {found.shape} and {expected.shape} cells (y, x)"
    elif (found != expected).any():
        difference = f"differ at {int((found != expected).sum())} of {found.size} cells"
    else:
        return zones
    fail(
        f"--traffic: the zones {level.zones!r} of level {level.name!r} in {stored.path} must be those of the context"
        f" {context}, but they {difference}."
    )
