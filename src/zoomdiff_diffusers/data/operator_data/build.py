# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From a table of traffic to a training set, a store and a report."""

import json
import os
import shutil
import time
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xarray as xr

from ..stores import shared_attributes, write_netcdf
from .hours import Hours
from .places import (
    Places,
    Sites,
    places_of_polygons,
    places_of_sites,
    places_of_squares,
    places_of_units,
    read_context,
    read_polygons,
    read_sites,
)
from .readings import Readings, Table, TableFormat, read_readings
from .writing import AreaWriter, HourStore


AREAS, STORE, CONTEXT, REPORT = "areas", "traffic.zarr", "context.nc", "report.json"
NAMES_IN_REPORT = 20
CLEANING_S = 10
FIRST_ID, CELL_M = 1, 50.0


def build_dataset(
    traffic,
    output,
    form: TableFormat | None = None,
    sites=None,
    areas=None,
    grid_width: int | None = None,
    context=None,
    id_column: str | None = None,
    sites_crs: str | None = None,
    first_id: int | None = None,
    cell_size: float | None = None,
    grid_height: int | None = None,
    duplicates: str = "error",
    counter: bool = False,
    missing_rows: str = "gap",
    scale: float = 1.0,
    value_unit: str = "1",
) -> dict:
    """
    Make a training set from a long table of traffic, of any length: one row per unit and interval.

    `output` becomes a folder with the weeks as areas for training (`areas`), the hours as a Zarr store
    (`traffic.zarr`), with zones the context and its zones (`context.nc`), and what was found (`report.json`). It
    appears when all is complete.

    Args:
        traffic (`str` or `os.PathLike`): CSV or Parquet file, or a folder of them.
        output (`str` or `os.PathLike`): Folder to make; it must not exist.
        form ([`TableFormat`], *optional*): Columns, time zone and interval.
        sites (`str` or `os.PathLike`, *optional*): Table of sites or sectors, see [`read_sites`].
        areas (`str` or `os.PathLike`, *optional*): Vector file of coverage polygons.
        grid_width (`int`, *optional*): The units are squares, numbered along rows of so many from the south-west.
        context (`str`, `os.PathLike` or `xr.Dataset`, *optional*): Layers, a NetCDF file. The traffic of a unit is
            shared out evenly over the cells it serves.
        id_column (`str`, *optional*): Of `sites` or `areas`.
        sites_crs (`str`, *optional*): Coordinate reference system of `x` and `y` in `sites`. Default: the context's.
        first_id (`int`, *optional*), cell_size (`float`, *optional*), grid_height (`int`, *optional*):
            With `grid_width`: number of the south-western square, the side of a square in m, and the number of rows.
            Default: 1, 50 m, and up to the highest number.
        duplicates (`str`), counter (`bool`), missing_rows (`str`): As in [`Hours`].
        scale (`float`, defaults to 1.0): All values are multiplied by it.
        value_unit (`str`, defaults to `"1"`): Unit of the values after that.

    Returns:
        `dict`: the report, JSON-safe.

    Raises:
        ValueError: If an input is unusable; the message says which and why. Nothing is left behind.
        OSError: If something cannot be written. Nothing is left behind.
    """
    output = Path(output)
    check_output(output)
    form = form or TableFormat()
    of_squares = {"first_id": first_id, "cell_size": cell_size, "grid_height": grid_height}
    _check_arguments_of_places(sites, areas, grid_width, context, id_column, sites_crs, of_squares)
    if counter and missing_rows == "zero":
        raise ValueError("A counter without a row has not stood still: missing rows of counters cannot be zero.")
    if not 0 < scale < np.inf:
        raise ValueError(f"`scale` must be positive, but is {scale:g}.")
    table = Table(traffic, form)
    layers = context if context is None or isinstance(context, xr.Dataset) else read_context(context)
    site_table = None if sites is None else read_sites(sites, id_column, table.unit, sites_crs)
    polygons = None if areas is None else read_polygons(areas, id_column, table.unit, layers)

    with FolderInTheMaking(output) as making:
        readings = read_readings(table, making / "readings")
        places = _places(
            readings.units, site_table, areas, polygons, grid_width, first_id, cell_size, grid_height, layers
        )
        _refuse_without_place(readings, places)
        hours = Hours(readings, duplicates, counter, missing_rows)
        result = making / "result"
        (result / AREAS).mkdir(parents=True)
        writer = AreaWriter(result / AREAS, places, readings.channels)
        attributes = _attributes(table, places)
        store = HourStore(result / STORE, places, readings.channels, hours.starts, value_unit, attributes)
        facts = _write_weeks(hours, places, scale, writer, store)
        if places.zones:
            _write_context(layers, places.zones, result / CONTEXT)
        scaling = {"value_unit": value_unit, "scale": scale}
        report = {"output": str(output), **_report(hours, places, writer, scaling, facts)}
        (result / REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(result, output)
    return report


def check_output(output: Path) -> None:
    """
    Refuse a folder that cannot be made.

    Raises:
        ValueError: If it exists, or the folder around it does not, or cannot be written to.
    """
    if output.exists():
        raise ValueError(f"{output} exists already; name another folder, or delete it.")
    if not output.parent.is_dir():
        raise ValueError(f"The folder {output.parent} does not exist.")
    if not os.access(output.parent, os.W_OK):
        raise ValueError(f"The folder {output.parent} cannot be written to.")


class FolderInTheMaking:
    """A temporary folder beside the output, which is gone in the end whatever happens."""

    def __init__(self, output: Path):
        self.folder = output.with_name(f".{output.name}.{uuid.uuid4().hex}.part")

    def __enter__(self) -> Path:
        self.folder.mkdir()
        return self.folder

    def __exit__(self, *exception) -> None:
        # After a failure, threads of the reader may still create files for a moment.
        deadline = time.monotonic() + CLEANING_S
        while self.folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(self.folder, ignore_errors=True)
            if self.folder.exists():
                time.sleep(0.05)


def _check_arguments_of_places(sites, areas, grid_width, context, id_column, sites_crs, of_squares: dict) -> None:
    """Refuse arguments on the places of the units that do not belong together."""
    if sum(given is not None for given in (sites, areas, grid_width)) > 1:
        raise ValueError("Only one of sites, areas and grid_width can say where the units are.")
    if grid_width is None:
        if given := [name for name, value in of_squares.items() if value is not None]:
            raise ValueError(f"{given[0]} needs grid_width, which says that the units are squares.")
    if id_column is not None and sites is areas is None:
        raise ValueError("id_column needs sites or areas: it is their column with the id.")
    if sites_crs is not None and sites is None:
        raise ValueError("sites_crs needs sites: it says what their x and y are.")
    if (cell_size := of_squares["cell_size"]) is not None and not 0 < cell_size < np.inf:
        raise ValueError(f"`cell_size` must be positive, but is {cell_size:g}.")
    if areas is not None and context is None:
        raise ValueError("Coverage polygons need the context: its grid and its coordinate reference system.")
    if context is not None and sites is areas is grid_width is None:
        raise ValueError("With a context something must say where the units are: sites, areas or the width of a grid.")


def _places(units, sites: Sites | None, areas, polygons, width, first_id, cell_size, height, context) -> Places:
    if width is not None:
        first_id = FIRST_ID if first_id is None else first_id
        cell_size = CELL_M if cell_size is None else cell_size
        return places_of_squares(units, width, first_id, cell_size, height, context)
    if polygons is not None:
        return places_of_polygons(units, areas, *polygons, context)
    if sites is not None and context is not None:
        return places_of_sites(units, sites, context)
    return places_of_units(units, sites)


def _refuse_without_place(readings: Readings, places: Places) -> None:
    if not any(unit in places.unit_of for unit in readings.units):
        raise ValueError(
            f"None of the {len(readings.units)} units of {readings.table.path} has a place in the grid of the context:"
            f" {', '.join(readings.units[:5])} ..."
        )


def _attributes(table: Table, places: Places) -> dict:
    """Provenance, for the store."""
    return {
        "title": "Measured mobile traffic",
        "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}, from {table.path.name}",
        "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        "timezone": table.form.timezone or "unknown",
        **shared_attributes([places.context]),
    }


def _write_context(layers: xr.Dataset, zones: dict[str, np.ndarray], path: Path) -> None:
    """Write the context with its zones, each (H, W), as further layers."""
    zones = {
        name: (("y", "x"), labels, {"long_name": f"{name} that serves the cell", "grid_mapping": "spatial_ref"})
        for name, labels in zones.items()
    }
    try:
        write_netcdf(xr.DataTree(layers.assign(zones)), path)
    except RuntimeError as error:  # the NetCDF library's own errors, such as that of a full disk
        raise OSError(str(error)) from error


def _write_weeks(hours: Hours, places: Places, scale: float, writer: AreaWriter, store: HourStore) -> dict:
    """Write every week; totals and the share of hours that are known."""
    units = hours.readings.units
    index = np.array([places.unit_of.get(unit, -1) for unit in units])
    order = np.argsort(index, kind="stable")
    order = order[index[order] >= 0]
    found, starts = np.unique(index[order], return_index=True)
    channels = len(hours.readings.channels)
    totals, missed, known, count = np.zeros(channels), np.zeros(channels), 0, 0
    for week in hours.weeks():
        values = week.values * scale
        out = np.full((*values.shape[:2], len(places.names)), np.nan)
        out[..., found] = np.add.reduceat(values[..., order], starts, axis=-1)
        writer.write(week, out)
        store.write(week, out)
        totals += np.nansum(out, axis=(1, 2))
        missed += np.nansum(values[..., index < 0], axis=(1, 2))
        known += int(np.isfinite(out).all(axis=0).sum())
        count += out[0].size
    if not known:
        raise ValueError(f"No hour of {hours.readings.table.path} is complete: nothing could be written.")
    left_out = [unit for unit, place in zip(units, index) if place < 0]
    return {
        "known_hours_share": known / count,
        "totals": dict(zip(hours.readings.channels, totals.tolist())),
        "units_left_out": len(left_out),
        "first_units_left_out": left_out[:NAMES_IN_REPORT],
        "traffic_left_out": dict(zip(hours.readings.channels, missed.tolist())),
    }


def _report(hours: Hours, places: Places, writer: AreaWriter, scaling: dict, facts: dict) -> dict:
    """What was found and done, JSON-safe."""
    readings = hours.readings
    report = {
        "rows": readings.rows,
        "channels": readings.channels,
        "units_in_table": len(readings.units),
        "units": len(places.names),
        "grid": None if places.labels is None else list(places.labels.shape),
        "interval_min": readings.step / 60,
        "timezone": readings.table.form.timezone,
        "weeks": [start.isoformat() for start in hours.starts],
        "rows_for_training": writer.rows,
        **scaling,
        **shared_attributes([places.context]),
        **facts,
        "merged": places.merged,
        "clock_changes": hours.clock_changes,
    }
    return {**report, "notes": [*readings.notes, *places.notes, *_notes(hours, report, writer)]}


def _notes(hours: Hours, report: dict, writer: AreaWriter) -> list[str]:
    """What happened to the hours, in words."""
    counts, notes = hours.counts, []
    texts = {
        "identical_rows": "rows were there more than once and count once",
        "incomplete_hours": "hours of a unit lack an interval: not measured",
        "counter_resets": "times a counter fell: what it counted there is not known",
        "rows_in_doubled_hours": "rows lie in an hour that came twice: the mean is taken",
        "rows_in_skipped_hours": "rows in an hour that the clock skipped were left out: is the time zone right?",
        "silent_intervals": "intervals have no row of any unit: not measured, in place of 0",
    }
    notes += [f"{counts[name]:,} {text}" for name, text in texts.items() if counts[name]]
    if counts["different_rows"]:
        how = {"sum": "were added up", "mean": "gave their mean", "last": "gave the last one"}[hours.duplicates]
        notes.append(f"{counts['different_rows']:,} rows of the same unit and time differ and {how}")
    notes += hours.clock_changes
    if hours.readings.is_local and hours.readings.timezone is None:
        notes.append("the times were taken for local hours; without --timezone no change of the clock is known")
    if report["units_left_out"]:
        share = _share(report)
        first = ", ".join(report["first_units_left_out"][:5])
        notes.append(f"{report['units_left_out']} units with {share:.1%} of the traffic have no place: {first} ...")
    notes += writer.notes
    if writer.empty_rows:
        notes.append(f"{writer.empty_rows} areas and weeks without any complete hour were left out")
    return notes


def _share(report: dict) -> float:
    """The largest share of a channel that was left out."""
    pairs = zip(report["traffic_left_out"].values(), report["totals"].values())
    return max(missed / max(missed + total, 1e-300) for missed, total in pairs)
