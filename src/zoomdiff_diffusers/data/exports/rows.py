# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Rows of the exports that are tables: a unit, with its statistics."""

import numpy as np

from ..tables import level_table, time_texts
from .level_statistics import LevelStatistics, parts
from .zones import Zones


ROWS_PER_GROUP = 2**19


def tables_of(source: LevelStatistics, as_text=False):
    """Time steps, rows and columns, and the table of their values, for one part of a level after the other."""
    times = time_texts(source.times) if as_text and source.times is not None else source.times
    centres = None if source.zones is None else source.zones.centres(source.y, source.x)
    shares = ["1"] * len(source.channels)
    units = next((each for each in source.units if each != shares), shares)
    for time, rows, columns in source.blocks():
        if source.zones is not None and not source.zones.first[rows, columns].any():
            continue
        values = source.values(time, rows, columns)
        cells = values[0, :, 0].size
        for steps in parts(values.shape[2], max(1, ROWS_PER_GROUP // cells)):
            part = slice(time.start + steps.start, time.start + steps.stop)
            table = level_table(
                source.name,
                source.channels,
                units,
                None if times is None else times[part],
                source.y[rows],
                source.x[columns],
                dict(zip(source.columns, values[:, :, steps])),
                as_text,
            )
            if source.zones is not None:
                table = _rows_of_zones(table, source.zones, rows, columns, centres)
            yield part, rows, columns, table


def num_rows(source: LevelStatistics) -> int:
    """Rows of all tables of [`tables_of`] together."""
    units = len(source.y) * len(source.x) if source.zones is None else len(source.zones.names)
    return len(source.channels) * source.num_times * units


def _rows_of_zones(table, zones: Zones, rows: slice, columns: slice, centres):
    """Of a table of cells, one row for each area that has its first cell there."""
    first = zones.first[rows, columns].ravel()
    repeats = len(table) // first.size
    table = table[np.tile(first, repeats)].reset_index(drop=True)
    index = np.tile(zones.index[rows, columns].ravel()[first], repeats)
    table["y"], table["x"] = (positions[index] for positions in centres)
    table.insert(table.columns.get_loc("y"), "zone", zones.names[index])
    return table
