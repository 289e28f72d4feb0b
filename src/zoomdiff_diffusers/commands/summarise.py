# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff summarise`."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from .messages import check_output, fail, failures_of


STATISTICS = ("mean", "std", "quantiles", "exceedance")


def summarise(
    traffic: Annotated[
        Path, typer.Option(exists=True, readable=True, help="Zarr store or NetCDF file of `generate`, with samples.")
    ],
    output: Annotated[Path, typer.Option("--output", "--out", help="Zarr store to make, ending in .zarr.")],
    quantile: Annotated[
        list[float] | None,
        typer.Option(min=0, max=1, help="Between 0 and 1; also several times. 0.1, 0.5 and 0.9 if not given."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LEVEL=VALUE",
            help="Also the share of the samples above a value, in the units of the file; once per level.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """
    Make maps of the mean, the spread, quantiles and the chance of an overload from the samples of an area.

    Works part by part: the area may be larger than memory.

    Example: zoomdiff summarise --traffic city.zarr --output summary.zarr --quantile 0.9 --threshold grid_50m=12.5

    Exit codes: 0 done; 1 the file and the arguments do not fit together; 2 wrong arguments.
    """
    check_output(output)
    thresholds = _thresholds(threshold or [])
    quantiles = list(dict.fromkeys(quantile or [0.1, 0.5, 0.9]))
    from ..data.ensembles import summarise_ensemble
    from ..data.stores import open_levels

    with failures_of(output, "city"):
        summarise_ensemble(traffic, output, quantiles, thresholds)
        with open_levels(output) as (_, levels):
            variables = {name: [it for it in STATISTICS if it in level] for name, level in levels.items()}
    if as_json:
        typer.echo(json.dumps({"output": str(output), "quantiles": quantiles, "levels": variables}))
        return
    for name, names in variables.items():
        typer.echo(f"{name:<16}{', '.join(names)}")
    typer.echo(f"\n{output}: zoomdiff export writes maps and tables of it")


def _thresholds(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        level, _, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = None
        if not level or number is None or not math.isfinite(number):
            fail(f"--threshold: must be a level and a number, such as grid_50m=12.5, but is {text!r}.")
        if level in found:
            fail(f"--threshold: {level!r} is given twice.")
        found[level] = number
    return found
