# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From readings to local hours, a week at a time: duplicates, gaps, counters, and changes of the clock."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from .readings import DAY_S, HOUR_S, Readings


HOURS_PER_WEEK = 168
DAY_H = 24


@dataclass(frozen=True)
class Week:
    """
    Local hours of one week.

    Args:
        start (`datetime`): Local time of the first hour, a midnight.
        values (`np.ndarray`): (channel, 168, unit) float64 sums, NaN where they are not known.
    """

    start: datetime
    values: np.ndarray


@dataclass
class Hours:
    """
    The local hours of readings.

    Args:
        readings ([`Readings`]): Checked readings.
        duplicates (`str`):
            What to do with rows of one unit and time that differ in any column of the table: `"error"`, `"sum"`,
            `"mean"` or `"last"`. Rows that are equal in every column count once.
        counter (`bool`):
            The values are readings of counters at the end of an interval. Traffic is their increase; over a gap, and
            where they fall, it is not known.
        missing_rows (`str`):
            `"gap"`: what has no row is not known. `"zero"`: it is 0, except in intervals without any row. An empty
            value in a row that is there is never known.
        counts (`Counter`): What happened, filled by [`Hours.weeks`].
        clock_changes (`list[str]`): Local hours that came twice, or not at all, in words.
    """

    readings: Readings
    duplicates: str = "error"
    counter: bool = False
    missing_rows: str = "gap"
    counts: Counter = field(default_factory=Counter)
    clock_changes: list[str] = field(default_factory=list)

    def __post_init__(self):
        readings = self.readings
        if self.counter and readings.first == readings.last:
            raise ValueError("Counters need at least two readings to tell how much was between them.")
        # What a counter counts after its last reading is not known.
        last = readings.last - readings.step if self.counter else readings.last
        self._first, self._last = readings.first // HOUR_S, last // HOUR_S
        self._wall = self._wall_hours()
        self._origin = int(self._wall[0] // DAY_H * DAY_H)
        self._find_clock_changes()

    @property
    def starts(self) -> list[datetime]:
        """Local midnights at which the weeks begin."""
        count = -(-(int(self._wall.max()) + 1 - self._origin) // HOURS_PER_WEEK)
        return [_local(self._origin + week * HOURS_PER_WEEK) for week in range(count)]

    def weeks(self) -> Iterator[Week]:
        """
        Read the days in order, and give every week when it is complete; one after the other is in memory.

        Raises:
            ValueError: For rows of one unit and time that differ, with `duplicates="error"`.
        """
        shape = (len(self.readings.channels), HOURS_PER_WEEK, len(self.readings.units))
        open_weeks: dict[int, list[np.ndarray]] = {}
        following = 0
        for day, hours in self._days():
            for hour in range(DAY_H):
                index = day * DAY_H + hour - self._first
                if not 0 <= index < len(self._wall):
                    continue
                week, place = divmod(int(self._wall[index]) - self._origin, HOURS_PER_WEEK)
                total, times = open_weeks.setdefault(week, [np.zeros(shape), np.zeros(shape, dtype=np.uint8)])
                known = np.isfinite(hours[:, hour])
                total[:, place][known] += hours[:, hour][known]
                times[:, place] += known
                # An hour that comes twice may belong to the day before.
                while following < week and place >= DAY_H:
                    yield self._finished(following, open_weeks)
                    following += 1
        while following < len(self.starts):
            yield self._finished(following, open_weeks)
            following += 1

    def _finished(self, week: int, open_weeks: dict) -> Week:
        start = self.starts[week]
        if week not in open_weeks:
            shape = (len(self.readings.channels), HOURS_PER_WEEK, len(self.readings.units))
            return Week(start, np.full(shape, np.nan))
        total, times = open_weeks.pop(week)
        return Week(start, np.divide(total, times, out=np.full_like(total, np.nan), where=times > 0))

    def _days(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each day of the axis that has rows, and its hours (channel, 24, unit)."""
        for day, intervals in self._increases() if self.counter else self._intervals():
            channels, slots, units = intervals.shape
            parts = intervals.reshape(channels, DAY_H, slots // DAY_H, units)
            known = np.isfinite(parts).sum(axis=2)
            self.counts["incomplete_hours"] += int(((known > 0) & (known < parts.shape[2])).sum())
            yield day, parts.sum(axis=2)

    def _increases(self) -> Iterator[tuple[int, np.ndarray]]:
        """Increase of the counters in each interval, which the reading at its end tells."""
        last_day = waiting = last = None
        for day, readings in self._intervals():
            if waiting is not None:
                if last_day == day - 1:
                    waiting[:, -1] = self._increase(last, readings[:, 0])
                yield last_day, waiting
            waiting = np.full_like(readings, np.nan)
            waiting[:, :-1] = self._increase(readings[:, :-1], readings[:, 1:])
            last_day, last = day, readings[:, -1]
        yield last_day, waiting

    def _increase(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        difference = after - before
        self.counts["counter_resets"] += int((difference < 0).sum())
        return np.where(difference < 0, np.nan, difference)

    def _intervals(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each day with rows, and the values of its intervals (channel, interval, unit), NaN where there is none."""
        readings = self.readings
        units = pl.DataFrame({"unit": readings.units}).with_row_index("number")
        values = [f"value_{index}" for index in range(len(readings.channels))]
        slots = DAY_S // readings.step
        shape = slots, len(readings.units)
        for day in readings.days:
            rows = readings.of_day(day).join(units, on="unit").drop("unit")
            rows = self._without_duplicates(self._without_clock_changes(rows), values)
            rows = rows.sort("time") if self.counter else rows
            place = rows.select((pl.col("time") % DAY_S // readings.step) * shape[1] + pl.col("number"))
            place = place.to_series().to_numpy()
            dense = np.full((len(values), slots * shape[1]), np.nan)
            for channel, name in zip(dense, values):
                known = rows[name].is_not_null().to_numpy()
                where, found = place[known], rows[name].drop_nulls().to_numpy()
                if self.counter:  # of several readings in an interval the last one counts
                    channel[where] = found
                else:
                    sums = np.bincount(where, found, minlength=len(channel))
                    channel[where] = sums[where]
            dense = dense.reshape(-1, *shape)
            if self.missing_rows == "zero":
                start = day * DAY_S + np.arange(slots) * readings.step
                inside = (readings.first <= start) & (start <= readings.last)
                has_row = np.bincount(place, minlength=slots * shape[1]).reshape(shape) > 0
                silent = inside & ~has_row.any(axis=1)
                self.counts["silent_intervals"] += int(silent.sum())
                dense[:, (inside & ~silent)[:, None] & ~has_row] = 0
            yield day, dense

    def _without_duplicates(self, rows: pl.DataFrame, values: list[str]) -> pl.DataFrame:
        """One row per unit, time and key."""
        key = [name for name in ("number", "time", "key") if name in rows.columns]
        code = pl.col("number").cast(pl.UInt64) * DAY_S + pl.col("time") % DAY_S
        if "key" in key:
            codes = pl.col("key").cast(pl.Categorical).to_physical().cast(pl.UInt64) + 1
            code = code * (rows["key"].n_unique() + 1) + codes.fill_null(0)
        repeated = rows.select(code.is_duplicated()).to_series()
        if not repeated.any():
            return rows
        once, rows = rows.filter(~repeated), rows.filter(repeated).sort("row")
        if self.readings.is_local and self._twice:
            # An hour that came twice in local time: its rows are no duplicates, and their mean is taken.
            twice = pl.col("time").floordiv(HOUR_S).is_in(list(self._twice))
            doubled, rows = rows.filter(twice), rows.filter(~twice)
            self.counts["rows_in_doubled_hours"] += len(doubled)
            means = doubled.group_by(key).agg(
                pl.col("row", "others").first(), *(pl.col(name).mean() for name in values)
            )
            once = pl.concat([once, means.select(once.columns)])
        different = rows.unique([*key, *values, "others"], keep="first", maintain_order=True)
        self.counts["identical_rows"] += len(rows) - len(different)
        several = different.filter(pl.len().over(key) > 1)
        self.counts["different_rows"] += len(several)
        if len(several) and self.duplicates == "error":
            self._refuse(several.join(several.head(1).select(key), on=key, nulls_equal=True), len(several))
        how = {
            "error": lambda name: pl.col(name).first(),
            "sum": lambda name: pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name),
            "mean": lambda name: pl.col(name).mean(),
            "last": lambda name: pl.col(name).last(),
        }[self.duplicates]
        merged = different.group_by(key, maintain_order=True).agg(pl.col("row", "others").first(), *map(how, values))
        return pl.concat([once, merged.select(once.columns)])

    def _refuse(self, rows: pl.DataFrame, count: int) -> None:
        table, time = self.readings.table, table_time(self.readings, rows["time"][0])
        places = " and ".join(table.place_of(row) for row in rows["row"][:2])
        raise ValueError(
            f"{count:,} rows of {table.path} on {time:%Y-%m-%d} are about the same unit and time but differ; the first"
            f" are {places}, unit {self.readings.units[rows['number'][0]]!r} at {time:%H:%M}. Give --duplicates sum,"
            " mean or last to add them up, to take their mean or the last one."
        )

    def _without_clock_changes(self, rows: pl.DataFrame) -> pl.DataFrame:
        if not self.readings.is_local or not self._skipped:
            return rows
        kept = rows.filter(~pl.col("time").floordiv(HOUR_S).is_in(list(self._skipped)))
        self.counts["rows_in_skipped_hours"] += len(rows) - len(kept)
        return kept

    def _wall_hours(self) -> np.ndarray:
        """Number of the local hour since 1970 of every hour of the axis."""
        axis = np.arange(self._first, self._last + 1)
        if self.readings.is_local:
            return axis
        zone, shift = self.readings.timezone, self.readings.shift
        offsets = [
            datetime.fromtimestamp(int(hour) * HOUR_S - shift, UTC).astimezone(zone).utcoffset().total_seconds()
            for hour in axis
        ]
        return (axis * HOUR_S - shift + np.array(offsets, dtype=np.int64)) // HOUR_S

    def _find_clock_changes(self) -> None:
        """Which local hours of the period came twice, and which not at all."""
        self._twice, self._skipped = set(), set()
        if self.readings.timezone is None:
            return
        if self.readings.is_local:
            for hour in self._wall:
                local = _local(int(hour)).replace(tzinfo=self.readings.timezone)
                earlier, later = local.utcoffset(), local.replace(fold=1).utcoffset()
                if earlier > later:
                    self._twice.add(int(hour))
                elif earlier < later:
                    self._skipped.add(int(hour))
            if self.counter and (self._twice or self._skipped):
                raise ValueError(
                    "The clock changes within the period. Counters need times with an offset or in UTC then, as local"
                    " times do not tell which reading came first."
                )
        else:
            hours, times = np.unique(self._wall, return_counts=True)
            self._twice = {int(hour) for hour in hours[times > 1]}
            self._skipped = set(range(int(hours[0]), int(hours[-1]) + 1)) - {int(hour) for hour in hours}
        for hours, what in ((self._twice, "came twice: their mean"), (self._skipped, "did not exist: not measured")):
            self.clock_changes += [f"the hour {_local(hour):%Y-%m-%d %H:00} {what}" for hour in sorted(hours)]


def table_time(readings: Readings, time: int) -> datetime:
    """A time of the axis as local time."""
    if readings.is_local:
        return _local(0) + timedelta(seconds=int(time))
    moment = datetime.fromtimestamp(int(time) - readings.shift, UTC)
    return moment.astimezone(readings.timezone).replace(tzinfo=None)


def _local(hour: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(hours=int(hour))
