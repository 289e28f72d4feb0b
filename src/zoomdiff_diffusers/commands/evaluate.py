# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from .messages import fail, fail_without, input_file


def evaluate(
    generated: Annotated[Path, input_file("NetCDF file of the generated traffic: all levels and samples.")],
    truth: Annotated[
        Path,
        input_file("NetCDF file of the true traffic: one sample; any levels, down to the finest that you know."),
    ],
    output: Annotated[Path, typer.Option(file_okay=False, help="Folder for evaluation.json and report.html.")],
    mask: Annotated[
        Path | None,
        input_file("NetCDF file with `valid` (time, y, x) or (time): non-zero where the truth was measured."),
    ] = None,
    context: Annotated[
        Path | None, input_file("NetCDF file with `aoi` (y, x), the type of the area around each finest cell.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON instead of a table.")] = False,
) -> None:
    """
    Score generated traffic against the truth, at every level.

    Writes evaluation.json and a report with figures, report.html, which needs no other file; prints a summary.
    The files are those of `zoomdiff_diffusers.data.stores.write_netcdf`.

    Example: zoomdiff evaluate --generated out.nc --truth truth.nc --context context.nc --output evaluation

    Exit codes: 0 done; 1 the files do not fit together or are no traffic; 2 wrong arguments.
    """
    from ..evaluation.report import write_report

    try:
        result, generated, truth = _evaluate(generated, truth, mask, context)
    except ValueError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail_without(error.name, "evaluation")
    try:
        paths = write_report(output, result, generated, truth)
    except OSError as error:
        fail(f"Cannot write to {output}: {error.strerror}.")
    except ModuleNotFoundError as error:
        fail_without(error.name, "evaluation")
    if as_json:
        typer.echo(paths[0].read_text(encoding="utf-8"), nl=False)
    else:
        _print_summary(result, paths)


def _evaluate(generated, truth, mask, context):
    from ..evaluation.evaluate import evaluate
    from ..evaluation.inputs import match_truth, read_area_types, read_mask, read_traffic

    generated, truth = read_traffic(generated), read_traffic(truth)
    finest, factor = list(truth.levels.values())[-1], truth.hierarchy.raster_factors[-1]
    known = None if mask is None else read_mask(mask, finest.shape[-3:])
    truth, generated = match_truth(truth, generated, known)
    cells = tuple(size * factor for size in finest.shape[-2:])
    types, names = (None, None) if context is None else read_area_types(context, cells)
    of_truth = {name: values[0] for name, values in truth.levels.items()}
    hierarchy, channels, zones = generated.hierarchy, generated.channels, generated.zones
    result = evaluate(generated.levels, of_truth, hierarchy, channels, types, names, zones)
    return result, generated, truth


def _print_summary(result, paths):
    from ..evaluation.report import findings, score_table

    for channel in result["channels"]:
        typer.echo(f"\n{channel}\n")
        width = max(12, *(len(name) + 2 for name in result["levels"]))
        typer.echo(f"{'':<26}{'':<9}" + "".join(f"{name:>{width}}" for name in result["levels"]))
        for row in score_table(result, channel):
            values = "".join(f"{value:>{width}}" for value in row["values"])
            typer.echo(f"{row['name']:<26}{row['unit']:<9}{values}")
        typer.echo()
        for line in findings(result, channel):
            typer.echo(f"- {line}")
    typer.echo(f"\n{paths[0]}: all numbers\n{paths[1]}: the report with figures")
