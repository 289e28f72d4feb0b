# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels as GeoParquet tables."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from ..stores import replace_file
from .level_statistics import LevelStatistics, open_level
from .report import licence_of, report
from .rows import num_rows, tables_of


def export_geoparquet(path, output, level=None, statistics=("mean",), time="each", threshold=None, crs=None) -> dict:
    """
    Write one level as GeoParquet: a row per unit with its square, and per channel and time step if there are several.
    Where units are no squares, it is the area that a unit serves.

    The columns are those of the CSV file, and `geometry`. For the arguments and errors see [`export_geotiff`].
    """
    with open_level(path, level, statistics, time, threshold) as (root, source):
        system, (y_edges, x_edges) = source.crs(crs), source.edges()
        replace_file(Path(output), lambda file: _write_geoparquet(file, source, system, y_edges, x_edges, root))
        return report(source, output, crs=system.to_string(), rows=num_rows(source), **licence_of(root))


def _write_geoparquet(file: Path, source: LevelStatistics, crs, y_edges, x_edges, root: xr.DataTree):
    import pyarrow
    import pyarrow.parquet
    import shapely

    box = [float(bound) for bound in (x_edges.min(), y_edges.min(), x_edges.max(), y_edges.max())]
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon" if source.zones is None else "MultiPolygon"],
        "crs": crs.to_json_dict(),
        "orientation": "counterclockwise",
        "bbox": box,
    }
    metadata = {"geo": json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}})}
    metadata |= licence_of(root)
    polygons = None if source.zones is None else shapely.to_wkb(source.zones.polygons(y_edges, x_edges))
    writer, place, outlines = None, None, None
    try:
        for time, rows, columns, table in tables_of(source):
            if (rows, columns) != place:
                place = rows, columns
                if polygons is None:
                    outlines = shapely.to_wkb(
                        _squares(y_edges[rows.start : rows.stop + 1], x_edges[columns.start : columns.stop + 1])
                    )
                else:
                    outlines = polygons[source.zones.index[rows, columns][source.zones.first[rows, columns]]]
                outlines = pyarrow.array(outlines, pyarrow.binary())
            if "time" in table:
                table["time"] = table["time"].astype(source.times.dtype)
            table = pyarrow.Table.from_pandas(table, preserve_index=False)
            repeated = outlines.take(np.tile(np.arange(len(outlines)), len(table) // len(outlines)))
            table = table.append_column("geometry", repeated).replace_schema_metadata(metadata)
            writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _squares(y_edges: np.ndarray, x_edges: np.ndarray) -> np.ndarray:
    """The units between these edges as polygons, row by row."""
    import shapely

    south, north = np.sort([y_edges[:-1], y_edges[1:]], axis=0)
    west, east = np.sort([x_edges[:-1], x_edges[1:]], axis=0)
    south, north = (np.repeat(it, len(west)) for it in (south, north))
    west, east = (np.tile(it, len(y_edges) - 1) for it in (west, east))
    return shapely.box(west, south, east, north)
