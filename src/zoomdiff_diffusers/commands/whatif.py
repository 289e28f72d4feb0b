# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff whatif`."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from .generate import (
    Context,
    Device,
    Json,
    Model,
    Seed,
    Steps,
    Units,
    make_pipeline,
    open_context,
)
from .messages import check_output, fail, fail_without, failures_of, input_file
from .models import DEFAULT_MODEL


WORDS = {
    "building_volume": "building volume (m3)",
    "population": "residents",
    "poi": "points of interest",
    "aoi": "land use",
    "surface": "surface",
}


def whatif(
    context: Context,
    edit: Annotated[Path, input_file("GeoJSON file of the plan: what changes where.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "--out",
            help="NetCDF file to write, an existing one is replaced; or, ending in .zarr, a store for areas larger"
            " than memory.",
        ),
    ],
    model: Model = DEFAULT_MODEL,
    samples: Annotated[int, typer.Option(min=1, help="Pairs of samples, with and without the plan.")] = 8,
    seed: Seed = 0,
    start: Annotated[
        str | None,
        typer.Option(help="First hour, local time: weekdays matter. That of the context's hours, else a Monday."),
    ] = None,
    hours: Annotated[int | None, typer.Option(min=1, help="Length; one week if no layer tells.")] = None,
    steps: Steps = None,
    units: Units = "sum",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """
    Generate traffic with and without a plan, from the same noise, and write what the plan changes.

    The plan is a GeoJSON file of polygons and points. Their properties say what stands there afterwards: `preset`
    ("housing", "offices", "stadium", "park" ...), `aoi`, `surface`, `building_volume` (m3), `population` (residents)
    and `poi`, numbers by category.

    Example: zoomdiff whatif --context context.nc --edit plan.geojson --output difference.nc

    With an output that ends in .zarr, a run that was interrupted goes on when the same command is given again.

    Exit codes: 0 done; 1 the files, the model and the arguments do not fit together; 2 wrong arguments.
    """
    if output.suffix not in (".nc", ".zarr"):
        fail(f"--output: {output} must end in .nc or .zarr.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        fail("whatif runs in one process. Generate both contexts on several, and compare the stores in Python.")
    check_output(output, context, edit)
    with open_context(context, output) as layers:
        if not {"y", "x"} <= set(layers.coords):
            fail(f"--context: {context} lacks the coordinates y and x of its cells, which place the plan.")
        try:
            from ..data.edits import edit_context

            plan, report = edit_context(layers, edit)
        except ModuleNotFoundError as error:
            fail_without(error.name, "context")
        except (ValueError, OSError) as error:
            fail(f"--edit: {error}")
        if not report["features"]:
            fail(f"--edit: {edit} has no features, so that nothing changes.")
        from ..data.differences import summarise_difference

        hours = hours or layers.sizes.get("hour")
        started = time.perf_counter()
        pipe = make_pipeline(model, device)
        arguments = (pipe, layers.drop_vars(report["dropped"]), plan)
        options = {"start": start, "num_hours": hours, "num_samples": samples, "seed": seed, "units": units}
        with failures_of(output, "city"):
            tree = _compare(arguments, options | {"num_inference_steps": steps}, output, _provenance(model, report))
        with tree:
            result = {"output": str(output), "seconds": round(time.perf_counter() - started, 3), "units": units}
            result |= {"samples": samples, "plan": report, **summarise_difference(tree)}
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
    else:
        _print(result)


def _compare(arguments, options: dict, output: Path, provenance: dict):
    """Compare, write, and return the result opened."""
    import xarray

    from ..data.differences import compare_cities, compare_contexts
    from ..data.stores import write_netcdf

    if output.suffix == ".nc":
        tree = compare_contexts(*arguments, **options)
        tree.attrs |= provenance
        write_netcdf(tree, output)
        return tree
    compare_cities(*arguments, output, **options, attrs=provenance)
    return xarray.open_datatree(output, engine="zarr", consolidated=False)


def _provenance(model: str, report: dict) -> dict:
    from importlib.metadata import version

    return {
        "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}, model {model}",
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": json.dumps(report, ensure_ascii=False),
    }


def _print(result: dict) -> None:
    for feature in result["plan"]["features"]:
        typer.echo(f"{feature['name']}: {_cells(feature)}, {feature['hectares']:.1f} ha")
        for layer, totals in feature["totals"].items():
            typer.echo(f"  {WORDS[layer]:<22}{_change(totals)}")
    for name in result["plan"]["dropped"]:
        people = name == "population_over_time"
        why = "nobody has counted the people of a plan" if people else "how to make it of the plan is not known"
        typer.echo(f"- {name} is left out, with and without the plan: {why}")
    typer.echo(
        f"\n{'':<16}{'before':>14}{'after':>14}{'difference':>14}{'spread':>12}"
        f"   {result['unit']} in the whole period, at every level"
    )
    for where, label in (("total", "whole area"), ("edited", "edited cells")):
        row = result["totals"][where]
        numbers = (f"{row[key]:>14,.0f}" for key in ("before", "after"))
        typer.echo(f"{label:<16}{''.join(numbers)}{row['difference']:>+14,.0f}{_spread(row):>12}")
    per = f"{result['unit']} " + (
        "in the whole period" if result["units"] == "sum" else "per finest cell and time step"
    )
    typer.echo(f"\n{'level':<16}{'rises most by':>14}{'spread':>12}   {'falls most by':>14}{'spread':>12}   {per}")
    for name, level in result["levels"].items():
        rise, fall = level["rise"], level["fall"]
        cells = (f"{_signed(end['difference']):>14}{_spread(end):>12}   " for end in (rise, fall))
        typer.echo(f"{name:<16}{''.join(cells)}rise at {_place(rise)}, fall at {_place(fall)}")
    typer.echo(
        f"\n{result['output']}: differences of {result['samples']} pair{'s' * (result['samples'] != 1)} of samples"
        f" at all levels, in {result['seconds']:.1f} s.\nThe spread is over the samples. What the model has learnt"
        " says nothing about where people move from, or about days of events."
    )


def _change(totals: dict) -> str:
    before, after = totals["before"], totals["after"]
    if not isinstance(before, dict):
        return f"{before:,.0f} -> {after:,.0f}"
    if not before:
        return "as before"
    return ", ".join(f"{label} {before[label]:g} -> {after[label]:g}" for label in before)


def _cells(feature: dict) -> str:
    return f"{feature['cells']} cell{'s' * (feature['cells'] != 1)}"


def _signed(value: float) -> str:
    return f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}"


def _spread(row: dict) -> str:
    if row["spread"] is None:
        return "unknown"
    return f"{row['spread']:,.0f}" if row["spread"] >= 100 else f"{row['spread']:.3g}"


def _place(end: dict) -> str:
    return f"x {end['x']:.0f}, y {end['y']:.0f}"
