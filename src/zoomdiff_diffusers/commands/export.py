# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff export`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .messages import check_output, fail, fail_without, failures_of


KINDS = {".tif": "GeoTIFF", ".parquet": "GeoParquet", ".csv": "CSV", ".nc": "NetCDF"}
Traffic = Annotated[
    Path,
    typer.Option(exists=True, readable=True, help="NetCDF file or Zarr store of `generate`, `summarise` or `whatif`."),
]


def export(
    traffic: Traffic,
    output: Annotated[
        Path,
        typer.Option("--output", "--out", help="File to write; .tif, .parquet, .csv or .nc says what kind it is."),
    ],
    level: Annotated[
        str | None, typer.Option(help="The level; the finest one if not given, for NetCDF all of them.")
    ] = None,
    statistic: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the samples: mean, std, q90 (any quantile), exceedance, or samples for each of them; also several"
            " times. Of a file of statistics, the name of one. The mean if not given."
        ),
    ] = None,
    time: Annotated[
        Literal["each", "mean", "max", "busy-hour"],
        typer.Option(
            help="Each time step; the mean or the maximum over the time, of every sample before the statistic is"
            " taken; or the step in which the whole area has the most traffic."
        ),
    ] = "each",
    threshold: Annotated[float | None, typer.Option(help="Exceedance is the share of the samples above it.")] = None,
    crs: Annotated[
        str | None, typer.Option(help="Coordinate reference system, such as EPSG:32635, where the file names none.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """
    Write traffic for other programs: GeoTIFF, GeoParquet or CSV of one level, or NetCDF.

    A GeoTIFF has a band per statistic and time step, a table a row per unit and time step. Areas larger than memory
    are written part by part. An existing file is replaced when the new one is complete.

    Example: zoomdiff export --traffic traffic.nc --output busy.tif --level grid_50m --statistic q90 --time busy-hour

    Exit codes: 0 done; 1 the file does not have what is asked for, or the output cannot be written; 2 wrong arguments.
    """
    kind = KINDS.get(output.suffix)
    if kind is None:
        fail(f"--output: {output} must end in {', '.join(KINDS)}.")
    check_output(output, traffic)
    for option, value, kinds in (
        ("--crs", crs, ("GeoTIFF", "GeoParquet")),
        ("--statistic", statistic, ("GeoTIFF", "GeoParquet", "CSV")),
        ("--time", None if time == "each" else time, ("GeoTIFF", "GeoParquet", "CSV")),
        ("--threshold", threshold, ("GeoTIFF", "GeoParquet", "CSV")),
    ):
        if value is not None and kind not in kinds:
            fail(f"{option} is for {', '.join(kinds)}, not for {kind}.")
    _import_libraries(kind)
    from ..data import exports

    options = {"statistics": statistic or ["mean"], "time": time, "threshold": threshold}
    with failures_of(output, "city"):
        if kind == "GeoTIFF":
            report = exports.export_geotiff(traffic, output, level, **options, crs=crs)
        elif kind == "GeoParquet":
            report = exports.export_geoparquet(traffic, output, level, **options, crs=crs)
        elif kind == "CSV":
            report = exports.export_csv(traffic, output, level, **options)
        else:
            report = exports.export_netcdf(traffic, output, level)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        _print(kind, report)


def _import_libraries(kind: str) -> None:
    """Say which library is missing before anything is read."""
    libraries = {"GeoTIFF": ["pyproj", "rasterio"], "GeoParquet": ["pyarrow.parquet", "pyproj", "shapely"]}
    try:
        for name in libraries.get(kind, []):
            __import__(name)
    except ModuleNotFoundError as error:
        fail_without(error.name, "context")
    try:
        import netCDF4  # noqa: F401
    except ModuleNotFoundError as error:
        fail_without(error.name, "plot")


def _print(kind: str, report: dict) -> None:
    if kind == "NetCDF":
        for name, variables in report["levels"].items():
            shapes = (f"{variable} {' x '.join(map(str, shape))}" for variable, shape in variables.items())
            typer.echo(f"{name:<16}{', '.join(shapes)}")
    else:
        statistics = report["statistics"]
        names = ", ".join(statistics[:6]) + (f" ... ({len(statistics)})" if len(statistics) > 6 else "")
        when = "for the whole time"
        if report["first_time"] is not None:
            when = f"at {report['times']} times from {report['first_time']}" if report["times"] > 1 else ""
            when = when or f"at {report['first_time']}"
        number, what = (report["bands"], "band") if "bands" in report else (report["rows"], "row")
        count = f"{number:,} {what}{'s' * (number != 1)}"
        place = f", {report['crs']}" if "crs" in report else ""
        typer.echo(f"{report['level']}: {names}, {when}; {report['height']} x {report['width']} units{place}; {count}")
    typer.echo(f"\n{report['output']}: {kind}")
    if "licence" in report:
        typer.echo(report["licence"])
