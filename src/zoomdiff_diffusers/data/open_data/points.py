# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Points of interest from a table."""

import csv
import math
from collections import Counter

import numpy as np
from pyproj import Transformer

from ..simulated_context import POI_CATEGORIES
from .grid import WGS84, Grid, parse_crs
from .tags import poi_category


ROWS_AT_ONCE = 100_000
LONGITUDE, LATITUDE = ("lon", "longitude", "lng"), ("lat", "latitude")


def read_points(path, grid: Grid, crs: str | None = None) -> tuple[np.ndarray, Counter, Counter]:
    """
    Count the points of interest of a table in every cell.

    The first line names the columns: `lon` and `lat` in degrees, or `x` and `y` in `crs`; `category`, one of
    `POI_CATEGORIES` or an OpenStreetMap tag such as `amenity=cafe`. Others are ignored. Commas, semicolons or tabs
    separate the columns; with the last two, a decimal comma is understood too. Rows with another category, and
    rows outside of the grid, are counted and left out.

    Args:
        path (`str` or `os.PathLike`): The file, UTF-8.
        grid ([`Grid`]): The cells.
        crs (`str`, *optional*): Coordinate reference system of `x` and `y`, such as `EPSG:3067`.

    Returns:
        `tuple[np.ndarray, Counter, Counter]`: counts (9, H, W), unknown categories, and rows `inside` and `outside`.

    Raises:
        ValueError: If the table is not like this, the message names the line; or if no row is usable.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read(file, path, grid, crs)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text. In a spreadsheet, save it as CSV UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV text: {error}.") from error


def _read(file, path, grid, crs):
    header = file.readline()
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    x, y = _coordinate_columns(names, path, crs)
    if "category" not in names:
        raise ValueError(f"{path} lacks the column category. Its first line is {header[:80].strip()!r}.")
    project = Transformer.from_crs(WGS84 if crs is None else parse_crs(crs), grid.epsg, always_xy=True).transform
    counts = np.zeros((len(POI_CATEGORIES), *grid.shape))
    unknown, rows, swapped, waiting = Counter(), Counter(inside=0, outside=0), 0, []

    def add():
        nonlocal swapped
        first, second = (np.array([row[axis] for row in waiting]) for axis in (0, 1))
        row, column, inside = grid.rows_and_columns(*project(first, second))
        swapped += int(grid.rows_and_columns(*project(second, first))[2].sum())
        codes = np.array([row[2] for row in waiting])
        np.add.at(counts, (codes[inside], row[inside], column[inside]), 1)
        rows.update(inside=int(inside.sum()), outside=int((~inside).sum()))
        waiting.clear()

    for line, cells in enumerate(csv.reader(file, delimiter=delimiter, strict=True), start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(names):
            raise ValueError(f"{path}, line {line}: {len(cells)} columns, but the first line names {len(names)}.")
        text = cells[names.index("category")].strip()
        code = _category(text)
        if code is None:
            unknown[text[:40]] += 1
            continue
        texts = [cells[column] if delimiter == "," else cells[column].replace(",", ".") for column in (x, y)]
        waiting.append((*(_number(text, names[axis], path, line) for text, axis in zip(texts, (x, y))), code))
        if len(waiting) == ROWS_AT_ONCE:
            add()
    if waiting:
        add()
    if sum(rows.values()) == 0:
        raise ValueError(
            f"{path} has no point of a known category; found {_most_common(unknown)}. Known are {POI_CATEGORIES} and"
            " OpenStreetMap tags such as amenity=cafe."
        )
    if rows["inside"] == 0:
        hint = (
            f" With {names[x]} and {names[y]} exchanged {swapped} would: they seem to be swapped." if swapped else ""
        )
        raise ValueError(f"None of the {rows['outside']} points of {path} lies in the area.{hint}")
    return counts, unknown, rows


def _coordinate_columns(names: list[str], path, crs: str | None) -> tuple[int, int]:
    if crs is not None:
        if not {"x", "y"} <= set(names):
            raise ValueError(f"{path} lacks the columns x and y, which a coordinate reference system is given for.")
        return names.index("x"), names.index("y")
    found = [next((names.index(name) for name in known if name in names), None) for known in (LONGITUDE, LATITUDE)]
    if None in found:
        hint = " For x and y give their coordinate reference system too." if {"x", "y"} <= set(names) else ""
        raise ValueError(f"{path} lacks the columns lon and lat; it has {names}.{hint}")
    return tuple(found)


def _category(text: str) -> int | None:
    name = text.lower()
    if "=" in name:
        key, value = name.split("=", 1)
        name = poi_category({key.strip(): value.strip()})
    return POI_CATEGORIES.index(name) if name in POI_CATEGORIES else None


def _number(text: str, name: str, path, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{path}, line {line}: {name} must be a number, but is {text[:40]!r}.")
    limit = 180 if name in LONGITUDE else 90 if name in LATITUDE else math.inf
    if abs(value) > limit:
        raise ValueError(
            f"{path}, line {line}: {name} must lie between -{limit} and {limit}, but is {value:g}."
            " Are longitude and latitude swapped?"
        )
    return value


def _most_common(unknown: Counter) -> str:
    return ", ".join(f"{text!r} ({count})" for text, count in unknown.most_common(5)) or "no rows"
