# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Tables of traffic as operators keep them, for tests: long CSV files, and the files of the Telecom Italia challenge.

As a program it writes either: python tests/support/operator_tables.py telecom-italia FOLDER --grid-width 7
"""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np


ACTIVITIES = 5


def write_telecom_italia(folder, grid_width=7, grid_height=5, days=2, start="2013-10-31T23:00", seed=0):
    """
    Write one file per day: square, interval of 10 minutes (ms, UTC), country, and five activities, with tabs.

    Some squares have several countries, some rows and values are left out, as in the real files.

    Returns:
        `np.ndarray`: (activity, interval, square) sums, the truth.
    """
    random = np.random.default_rng(seed)
    squares, intervals = grid_width * grid_height, days * 144
    truth = np.zeros((ACTIVITIES, intervals, squares))
    first = datetime.fromisoformat(start).replace(tzinfo=UTC)
    for day in range(days):
        lines = []
        for interval in range(day * 144, (day + 1) * 144):
            time = int((first + timedelta(minutes=10 * interval)).timestamp() * 1000)
            for square in range(squares):
                for country in (0, 39, 33)[: random.integers(0, 4)]:
                    values = random.integers(0, 4096, ACTIVITIES) / 64
                    present = random.random(ACTIVITIES) < 0.7
                    truth[:, interval, square] += values * present
                    cells = (repr(float(value)) if there else "" for value, there in zip(values, present))
                    lines.append("\t".join([str(square + 1), str(time), str(country), *cells]))
        random.shuffle(lines)
        name = f"sms-call-internet-mi-{first + timedelta(days=day, hours=1):%Y-%m-%d}.txt"
        Path(folder, name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return truth


def write_long_csv(path, units=100, days=14, minutes=15, start="2026-03-01T23:00", seed=0):
    """Write a long CSV file of base stations, unit after unit, with times in ms."""
    random = np.random.default_rng(seed)
    first = int(datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp() * 1000)
    times = first + np.arange(days * 24 * 60 // minutes) * minutes * 60_000
    with open(path, "w", encoding="utf-8") as file:
        file.write("unit,time,traffic\n")
        for unit in range(units):
            values = random.integers(0, 10**9, len(times))
            file.write("".join(f"site_{unit:05d},{time},{value}\n" for time, value in zip(times, values)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["telecom-italia", "long"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--grid-width", type=int, default=100)
    parser.add_argument("--grid-height", type=int, default=100)
    parser.add_argument("--units", type=int, default=100)
    parser.add_argument("--days", type=int, default=7)
    words = parser.parse_args()
    if words.kind == "long":
        write_long_csv(words.path, words.units, words.days)
    else:
        words.path.mkdir(parents=True, exist_ok=True)
        write_telecom_italia(words.path, words.grid_width, words.grid_height, words.days)
