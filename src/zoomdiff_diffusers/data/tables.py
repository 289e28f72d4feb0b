# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic of one level as a table (CSV): to a spreadsheet, and from one."""

import csv
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path

import numpy as np

from .exports import LevelStatistics
from .exports.csv import write_rows
from .stores import replace_file


YEARS = (1900, 2200)


def write_csv(tree, path, level):
    """
    Write one level of a tree as a table for spreadsheets, all or nothing.

    The rows and columns are those of [`~data.exports.export_csv`] with the statistic `samples`: one row per channel,
    time step and unit. A single sample is called `value`, as [`read_csv`] expects it, several `sample_0`, `sample_1`
    ... A text that a spreadsheet would take for a formula is written with an apostrophe before it.

    Args:
        tree (`xarray.DataTree`): From [`~data.stores.levels_to_datatree`].
        path (`str` or `os.PathLike`): Target file. An existing file is replaced.
        level (`str`): Name of the level.

    Raises:
        FileNotFoundError: If the folder of `path` does not exist.
        ValueError: If the tree has no such level.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Cannot write {path}: the folder {path.parent} does not exist.")
    levels = {name: node.to_dataset() for name, node in tree.children.items()}
    source = LevelStatistics("`tree`", levels, level, ["samples"])
    names = {"sample_0": "value"} if source.num_samples == 1 else {}
    replace_file(path, lambda temporary: write_rows(temporary, source, names))


def read_csv(
    path, hierarchy, level, height, width, channels=("traffic",), y=None, x=None, max_rows=None, max_hours=None
):
    """
    Read traffic of one level from a table, such as measurements of base stations.

    The first line names the columns: `y` and `x`, a position inside the unit (m); `time` or `date`, the start of the
    interval, such as `2026-03-02` or `2026-03-02 18:00`; `value`, at least 0. With several channels also `channel`.
    Other columns are ignored. Columns are separated by commas, or by semicolons, in which case a decimal comma is
    understood too. What has no row, or an empty value, is missing.

    Args:
        path (`str` or `os.PathLike`): The file, UTF-8.
        hierarchy ([`Hierarchy`]): The levels.
        level (`str`): The level of the values.
        height (`int`), width (`int`): Finest cells of the area.
        channels (`Sequence[str]`, defaults to `("traffic",)`): Names of the channels.
        y (`np.ndarray`, *optional*), x (`np.ndarray`, *optional*):
            Centres of the finest cells, evenly spaced. Default: metres from the corner of the first cell.
        max_rows (`int`, *optional*): Refuse longer tables.
        max_hours (`int`, *optional*): Refuse longer periods.

    Returns:
        `tuple[np.ndarray, np.datetime64]`: (channel, time, y, x) in float32, NaN where missing, and the first hour.
        The time runs in whole steps of the coarsest level from the first to the last row.

    Raises:
        ValueError: If the table is not like this; the message names the line. Also if the units of the level are no
            squares.
    """
    level, coarsest = hierarchy.levels[hierarchy.index(level)], hierarchy.levels[0]
    if level.zones:
        raise ValueError(
            f"`level` must have square units, but those of {level.name!r} are areas, {level.zones!r}, which a position"
            " does not tell. `zoomdiff refine --traffic` reads tables of such units by their id."
        )
    _, rows, columns = hierarchy.shapes(coarsest.temporal_factor, height, width)[hierarchy.index(level.name)]
    axes = {"y": _axis("y", y, height, rows, hierarchy), "x": _axis("x", x, width, columns, hierarchy)}
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            found = _read_rows(file, axes, list(channels), max_rows)
        except UnicodeDecodeError as error:
            raise ValueError("The table is no UTF-8 text. In a spreadsheet, save it as CSV UTF-8.") from error
        except csv.Error as error:
            raise ValueError(f"The table is no CSV text: {error}.") from error
    step, whole = (
        timedelta(hours=factor * hierarchy.config.time_step)
        for factor in (level.temporal_factor, coarsest.temporal_factor)
    )
    first, last = min(key[1] for key in found), max(key[1] for key in found)
    midnight = datetime.combine(first, time())
    start = midnight + (first - midnight) // whole * whole
    length = ((last - start) // whole + 1) * whole
    if max_hours is not None and length > timedelta(hours=max_hours):
        raise ValueError(f"The table goes from {first} to {last}, which is more than {max_hours / 24:g} days.")
    values = np.full((len(channels), length // step, rows, columns), np.nan, dtype=np.float32)
    for (channel, when, row, column), (value, line) in found.items():
        if (when - start) % step:
            hours = step / timedelta(hours=1)
            raise ValueError(
                f"Line {line}: {when} is not the start of an interval of {hours:g} h, counted from {start}."
            )
        values[channel, (when - start) // step, row, column] = value
    return values, np.datetime64(start, "s")


@dataclass(frozen=True)
class _Axis:
    """The units of a level along y or x."""

    name: str
    edge: float  # of the first unit, m
    side: float  # of a unit, m; negative where the coordinate falls
    count: int

    def unit_at(self, text, line, decimal_comma):
        """Number of the unit in which a coordinate lies; `line` is for the message if it lies in none."""
        position = _number(text, self.name, line, decimal_comma)
        index = (position - self.edge) / self.side
        if not 0 <= index < self.count:
            low, high = sorted((self.edge, self.edge + self.side * self.count))
            raise ValueError(
                f"Line {line}: {self.name} is {position:g} m, outside of the area, which goes from {low:.10g} to"
                f" {high:.10g} m."
            )
        return int(index)


def _axis(name, centres, size, count, hierarchy):
    if centres is None:
        return _Axis(name, 0.0, hierarchy.config.cell_size * size / count, count)
    centres = np.asarray(centres, dtype=np.float64)
    if centres.shape != (size,):
        raise ValueError(f"`{name}` must have the shape ({size},), one per finest cell, but has {centres.shape}.")
    step = (centres[-1] - centres[0]) / (size - 1) if size > 1 else hierarchy.config.cell_size
    if not np.allclose(np.diff(centres), step) or step == 0:
        raise ValueError(f"`{name}` must be evenly spaced, but its steps go from {np.diff(centres).min()} m upwards.")
    return _Axis(name, float(centres[0] - step / 2), float(step * size / count), count)


def _read_rows(file, axes, channels, max_rows):
    """`{(channel, time, row, column): (value, line)}` of a table."""
    header = file.readline()
    semicolons = header.count(";") > header.count(",")
    delimiter = ";" if semicolons else ","
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    needed = {"y": ["y"], "x": ["x"], "time": ["time", "date"], "value": ["value"]}
    if len(channels) > 1:
        needed["channel"] = ["channel"]
    missing = [" or ".join(accepted) for accepted in needed.values() if not set(accepted) & set(names)]
    if missing:
        raise ValueError(
            f"The table lacks the column(s) {', '.join(missing)}. Its first line is {header[:80].strip()!r}."
        )
    position = {key: next(names.index(name) for name in accepted if name in names) for key, accepted in needed.items()}
    found = {}
    for line, cells in enumerate(csv.reader(file, delimiter=delimiter, strict=True), start=2):
        if max_rows is not None and line > max_rows + 1:
            raise ValueError(f"The table has more than {max_rows} rows.")
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) <= max(position.values()):
            raise ValueError(f"Line {line} has {len(cells)} column(s), but the first line names {len(names)}.")
        row = {key: cells[index].strip() for key, index in position.items()}
        y, x = (axes[name].unit_at(row[name], line, semicolons) for name in ("y", "x"))
        key = (_channel(row.get("channel"), channels, line), _time(row["time"], line), y, x)
        if key in found:
            raise ValueError(
                f"Lines {found[key][1]} and {line} are about the same unit and time. Add them up: a unit has one value"
                " per time step."
            )
        found[key] = _value(row["value"], line, semicolons), line
    if not any(np.isfinite(value) for value, _ in found.values()):
        raise ValueError("The table holds no value.")
    return found


def _number(text, what, line, decimal_comma):
    try:
        return float(text.replace(",", ".") if decimal_comma else text)
    except ValueError as error:
        raise ValueError(f"Line {line}: {what} must be a number, but is {text[:40]!r}.") from error


def _value(text, line, decimal_comma):
    if text.lower() in ("", "nan", "na"):
        return np.nan
    value = _number(text, "value", line, decimal_comma)
    if not 0 <= value <= np.finfo(np.float32).max:
        raise ValueError(f"Line {line}: value must be finite and not negative, but is {text[:40]!r}.")
    return value


def _time(text, line):
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"Line {line}: the time must be written as 2026-03-02 or 2026-03-02 18:00, but is {text[:40]!r}."
        ) from error
    if when.tzinfo is not None or not YEARS[0] <= when.year <= YEARS[1]:
        raise ValueError(
            f"Line {line}: the time must be local, without a time zone, and between {YEARS[0]} and {YEARS[1]}, but is"
            f" {text[:40]!r}."
        )
    return when


def _channel(name, channels, line):
    if len(channels) == 1:
        return 0
    if name not in channels:
        raise ValueError(f"Line {line}: the channel must be one of {channels}, but is {name[:40]!r}.")
    return channels.index(name)
