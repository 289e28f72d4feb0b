# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Rows of the exports that are tables: a unit, with its statistics."""

import numpy as np
import pandas as pd

from .level_statistics import LevelStatistics, parts
from .zones import Zones


ROWS_PER_GROUP = 2**19
# A spreadsheet takes a cell that starts with one of these for a formula, which may run commands.
FORMULA_STARTS = ("=", "+", "-", "@")


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
            table = _level_table(
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


def time_texts(times: np.ndarray) -> np.ndarray:
    """Times as `2026-03-02 18:00`; numbers of hours as they are."""
    if np.issubdtype(times.dtype, np.datetime64):
        return np.char.replace(np.datetime_as_string(times, unit="m"), "T", " ")
    return times


def _level_table(level, channels, units, times, y, x, values, as_text=False) -> pd.DataFrame:
    """
    Values of a level as a table: one row per channel, time step and unit.

    Args:
        level (`str`): Its name.
        channels (`Sequence[str]`), units (`Sequence[str]`): Of the values.
        times (`np.ndarray`, *optional*): The time steps; without, the table has no column `time`.
        y (`np.ndarray`), x (`np.ndarray`): Centres of the rows and the columns.
        values (`dict[str, np.ndarray]`): Columns, each (channel, time, y, x).
        as_text (`bool`, defaults to `False`): For spreadsheets: no text is taken for a formula.
    """
    count, height, width = 1 if times is None else len(times), len(y), len(x)
    texts = {"level": [level], "channel": channels, "unit": units}
    if as_text:
        texts = {name: [_plain_text(text) for text in column] for name, column in texts.items()}
    rows, cells = len(channels) * count, height * width
    columns = {
        "level": _repeated(texts["level"], rows * cells),
        "channel": _repeated(texts["channel"], count * cells),
    }
    if times is not None:
        columns["time"] = _repeated(times, cells, rounds=len(channels))
    columns |= {
        "y": np.tile(np.repeat(y, width), rows),
        "x": np.tile(x, rows * height),
        "unit": _repeated(texts["unit"], count * cells),
    }
    return pd.DataFrame(columns | {name: column.ravel() for name, column in values.items()})


def _rows_of_zones(table, zones: Zones, rows: slice, columns: slice, centres):
    """Of a table of cells, one row for each area that has its first cell there."""
    first = zones.first[rows, columns].ravel()
    repeats = len(table) // first.size
    table = table[np.tile(first, repeats)].reset_index(drop=True)
    index = np.tile(zones.index[rows, columns].ravel()[first], repeats)
    table["y"], table["x"] = (positions[index] for positions in centres)
    table.insert(table.columns.get_loc("y"), "zone", zones.names[index])
    return table


def _plain_text(text):
    # Line breaks and tabs too would begin a new cell in some spreadsheets.
    text = " ".join(str(text).split())
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _repeated(labels, times, rounds=1):
    """Every label `times` times in a row, all of that `rounds` times, without a copy of the text for each row."""
    labels = np.asarray(labels)
    categories, codes = np.unique(labels, return_inverse=True)
    return pd.Categorical.from_codes(np.tile(np.repeat(codes, times), rounds), categories=categories)
