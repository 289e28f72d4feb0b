# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff dataset`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .messages import fail, fail_without, failures_of, input_file


def dataset(
    traffic: Annotated[
        Path,
        typer.Option(exists=True, readable=True, help="Table of traffic, CSV or Parquet, or a folder of such files."),
    ],
    output: Annotated[Path, typer.Option("--output", "--out", help="Folder to make.")],
    layout: Annotated[
        Literal["long", "telecom-italia", "uomo"],
        typer.Option(
            help="long: one row per unit and interval. telecom-italia: the files of that challenge, as published."
            " uomo: tiles.npz, arrays made from the UoMo release."
        ),
    ] = "long",
    context: Annotated[
        Path | None, input_file("NetCDF file of `zoomdiff context`: traffic goes on its cells, with its layers.")
    ] = None,
    sites: Annotated[
        Path | None,
        input_file("Table of sites or sectors: id, lon and lat (or x and y), optionally azimuth and site."),
    ] = None,
    areas: Annotated[
        Path | None, input_file("Coverage polygons with an id, GeoJSON, GeoPackage, GeoParquet ...")
    ] = None,
    grid_width: Annotated[
        int | None, typer.Option(min=1, help="Units are squares, numbered in rows of so many from the south-west.")
    ] = None,
    grid_height: Annotated[
        int | None, typer.Option(min=1, help="Rows of squares; up to the last id if not given.")
    ] = None,
    first_id: Annotated[
        int | None, typer.Option(help="Number of the south-western square of --grid-width; 1 if not given.")
    ] = None,
    cell_size: Annotated[
        float | None,
        typer.Option(help="Side of a square of --grid-width in m; if not given 50, or 235 for telecom-italia."),
    ] = None,
    unit_column: Annotated[str | None, typer.Option(help="Column with the id of the base station or cell.")] = None,
    time_column: Annotated[str | None, typer.Option(help="Column with the start of the interval.")] = None,
    value_column: Annotated[
        list[str] | None, typer.Option(help="Column of traffic; several of these options become channels.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column or property of --sites or --areas with the id.")
    ] = None,
    sites_crs: Annotated[
        str | None,
        typer.Option(help="Coordinate reference system of x and y in --sites; that of the context if not given."),
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="Of the times, if it is not known: '%d/%m/%Y %H:%M', with %z for an offset.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Local time of the place, such as Europe/Rome.")] = None,
    interval: Annotated[
        int | None, typer.Option(min=1, max=60, help="Minutes of an interval; taken from the table if not given.")
    ] = None,
    duplicates: Annotated[
        Literal["error", "sum", "mean", "last"],
        typer.Option(
            help="What to do with rows of one unit and time that differ in any column; equal rows count once."
        ),
    ] = "error",
    missing_rows: Annotated[
        Literal["gap", "zero"],
        typer.Option(
            help="How to read a missing row: as not measured, or as zero traffic. Empty values are not measured."
        ),
    ] = "gap",
    counter: Annotated[
        bool, typer.Option("--counter", help="Values are readings of counters, which rise until they are reset.")
    ] = False,
    scale: Annotated[float, typer.Option(help="All values are multiplied by it.")] = 1.0,
    value_unit: Annotated[str, typer.Option(help="Unit of the values after that, such as MB.")] = "1",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """
    Make a training set from measured traffic: long tables of base stations, cells or squares, of any length.

    The folder holds the weeks as areas for `zoomdiff train` (areas), the hours as a store (traffic.zarr) and what was
    found and repaired (report.json).

    Examples:

    zoomdiff dataset --traffic cells.csv --timezone Europe/Rome --sites sites.csv --context city.nc --out measured

    zoomdiff dataset --traffic sms-call-internet-mi --layout telecom-italia --out milan

    Exit codes: 0 done; 1 an input is unusable or the folder cannot be written; 2 wrong arguments.
    """
    if layout != "long":
        of_long = {"--sites": sites, "--areas": areas, "--unit-column": unit_column, "--time-column": time_column}
        of_long |= {"--value-column": value_column, "--time-format": time_format, "--interval": interval}
        of_long |= {"--counter": counter, "--grid-height": grid_height, "--id-column": id_column}
        of_long |= {
            "--duplicates": duplicates != "error",
            "--missing-rows": missing_rows != "gap",
            "--scale": scale != 1,
            "--value-unit": value_unit != "1",
            "--first-id": first_id is not None,
            "--sites-crs": sites_crs,
        }
        if layout == "uomo":
            of_long |= {"--grid-width": grid_width, "--context": context, "--timezone": timezone}
            of_long["--cell-size"] = cell_size is not None
        if given := [name for name, value in of_long.items() if value]:
            fail(f"--layout {layout} knows its own columns and places; leave out {', '.join(given)}.")
    try:
        import netCDF4  # noqa: F401 xarray would speak of engines
        import zarr  # noqa: F401

        from ..data.operator_data import TableFormat, build_dataset, build_telecom_italia, build_uomo
    except ModuleNotFoundError as error:
        fail_without(error.name, "dataset")
    with failures_of(output, "context"):
        if layout == "uomo":
            report = build_uomo(traffic, output)
        elif layout == "telecom-italia":
            report = build_telecom_italia(traffic, output, grid_width, context, timezone or "Europe/Rome", cell_size)
        else:
            form = TableFormat(
                unit=unit_column,
                time=time_column,
                values=tuple(value_column or ()),
                time_format=time_format,
                timezone=timezone,
                interval=None if interval is None else 60 * interval,
            )
            report = build_dataset(
                traffic,
                output,
                form,
                sites=sites,
                areas=areas,
                grid_width=grid_width,
                grid_height=grid_height,
                first_id=first_id,
                cell_size=cell_size,
                context=context,
                id_column=id_column,
                sites_crs=sites_crs,
                duplicates=duplicates,
                counter=counter,
                missing_rows=missing_rows,
                scale=scale,
                value_unit=value_unit,
            )
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        _print(report)


def _print(report: dict) -> None:
    if "rows" in report:
        typer.echo(
            f"{report['rows']:,} rows of {report['units_in_table']:,} units, every {report['interval_min']:g} min"
        )
        where = "" if report["grid"] is None else " on {} x {} cells".format(*report["grid"])
        first, count = report["weeks"][0][:10], len(report["weeks"])
        typer.echo(f"{count} week(s) from {first}, local time, of {report['units']:,} units{where}")
    unit = f" {report['value_unit']}" if report.get("value_unit", "1") != "1" else ""
    for channel, total in report["totals"].items():
        typer.echo(f"{channel:<18}{total:,.6g}{unit}")
    typer.echo(f"{'known hours':<18}{report['known_hours_share']:.2%}\n")
    for note in report["notes"]:
        typer.echo(f"- {note}")
    typer.echo(
        f"\n{report['output']}: areas, {report['rows_for_training']} rows for `zoomdiff train`; traffic.zarr, the"
        " hours; report.json"
    )
