# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels as CSV tables."""

from pathlib import Path

from ..stores import replace_file
from .level_statistics import LevelStatistics, open_level
from .report import licence_of, report
from .rows import num_rows, tables_of


def export_csv(path, output, level=None, statistics=("mean",), time="each", threshold=None) -> dict:
    """
    Write one level as a table: a row per unit, and per channel and time step if there are several.

    The columns are `level`, `channel`, `time` (start of the interval), `y`, `x` (centre of the unit, m), `unit` (of
    the statistics that are no shares), and the statistics. Where units are no squares, `zone` names the area that a
    unit serves. The rows of a large area come block by block. For the arguments and errors see [`export_geotiff`].
    """
    with open_level(path, level, statistics, time, threshold) as (root, source):
        replace_file(Path(output), lambda file: write_rows(file, source))
        return report(source, output, rows=num_rows(source), **licence_of(root))


def write_rows(file: Path, source: LevelStatistics, names: dict[str, str] | None = None):
    """Write all rows of a level; `names` are other names for some of its columns."""
    with open(file, "w", encoding="utf-8", newline="") as lines:
        for number, (_, _, _, table) in enumerate(tables_of(source, as_text=True)):
            table = table.rename(columns=names or {})
            table.to_csv(lines, index=False, header=number == 0, lineterminator="\n")
