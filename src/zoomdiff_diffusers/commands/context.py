# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff context`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .messages import check_output, fail, fail_without, input_file


LARGE_MIB, MIB_PER_MINUTE = 250, 100  # per minute as in benchmarks/results/context_speed.json, a small extract


def context(
    osm: Annotated[Path, input_file("OpenStreetMap extract: .osm.pbf, .osm, .osm.gz, .osm.bz2 or .opl.")],
    output: Annotated[
        Path, typer.Option("--output", "--out", help="NetCDF file to write; an existing one is replaced.")
    ],
    boundary: Annotated[
        Path | None, input_file("Polygons around the area, GeoJSON, GeoPackage ...; else all of the extract.")
    ] = None,
    population: Annotated[
        Path | None, input_file("Raster of residents per pixel; else estimated from building volume.")
    ] = None,
    poi: Annotated[
        Path | None,
        input_file("CSV file of points of interest in place of the extract's: lon, lat (or x, y) and category."),
    ] = None,
    cell_size: Annotated[float, typer.Option(help="Side of a cell in m; the bundled weights expect 50.")] = 50.0,
    multiple: Annotated[
        int, typer.Option(min=1, help="Height and width become multiples of it: the cells along a base station.")
    ] = 8,
    poi_crs: Annotated[
        str | None, typer.Option(help="Coordinate reference system of x and y in the CSV file, such as EPSG:3067.")
    ] = None,
    total_population: Annotated[
        float | None, typer.Option(help="Residents of the whole grid that the estimate is scaled to.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """
    Build the context of an area from open data, for `zoomdiff generate`.

    Example: zoomdiff context --osm city.osm.pbf --boundary city.geojson --cell-size 50 --out context.nc

    Exit codes: 0 done; 1 an input is unusable or the file cannot be written; 2 wrong arguments.
    """
    if output.suffix != ".nc":
        fail(f"--output: {output} must end in .nc.")
    check_output(output, boundary, population, poi)
    try:
        import netCDF4  # noqa: F401 xarray would speak of engines

        from ..data.open_data import build_context, summarise
    except ModuleNotFoundError as error:
        fail_without(error.name, "context")
    size = osm.stat().st_size / 2**20
    if size > LARGE_MIB:
        typer.echo(f"Reading {size:,.0f} MiB of {osm.name}: about {size / MIB_PER_MINUTE:.0f} minutes ...", err=True)
    try:
        dataset = build_context(
            osm, boundary, population, poi, cell_size, multiple, poi_crs=poi_crs, total_population=total_population
        )
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"A file cannot be read, or the temporary folder cannot be written to: {error}.")
    _write(dataset, output)
    report = {"output": str(output), **summarise(dataset)}
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        _print(report)


def _write(dataset, output: Path) -> None:
    import xarray

    from ..data.stores import write_netcdf

    try:
        write_netcdf(xarray.DataTree(dataset), output)
    except (OSError, RuntimeError) as error:  # the NetCDF library's own errors are RuntimeErrors
        fail(f"--output: cannot write {output}: {getattr(error, 'strerror', None) or error}.")


def _print(report: dict) -> None:
    left, bottom, right, top = report["bounds_m"]
    typer.echo(
        f"{report['height']} x {report['width']} cells of {report['cell_size_m']:g} m, {report['crs']},"
        f" x {left:.0f} to {right:.0f}, y {bottom:.0f} to {top:.0f}; OpenStreetMap data of {report['osm_timestamp']}\n"
    )
    for name in ("surface", "aoi"):
        shares = (f"{label} {share:.1%}" for label, share in report[name].items() if share > 0)
        typer.echo(f"{name:<18}{', '.join(shares)}")
    typer.echo(f"{'poi':<18}{', '.join(f'{label} {count}' for label, count in report['poi'].items())}")
    typer.echo(
        f"{'building volume':<18}{report['building_volume_m3']:,.0f} m3;"
        f" a height is known for {report['known_heights_share']:.0%} of the ground they stand on"
    )
    how = "estimated from building volume" if report["population_estimated"] else "from the raster"
    typer.echo(f"{'population':<18}{report['population']:,.0f} residents, {how}")
    typer.echo(f"{'not mapped':<18}{report['unmapped_ground_share']:.1%} of the ground\n")
    for name, what in (("unknown_tags", "tags"), ("unknown_poi_categories", "categories")):
        if unknown := report[name]:
            first = ", ".join(f"{tag} ({count})" for tag, count in list(unknown.items())[:10])
            more = " ..." if len(unknown) > 10 else ""
            typer.echo(f"- {sum(unknown.values())} objects with {len(unknown)} unknown {what}: {first}{more}")
    for note in report["notes"]:
        typer.echo(f"- {note}")
    typer.echo(f"\n{report['output']}: the layers, with hashes of the inputs\n{report['licence']}")
