# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From tables of traffic larger than memory to checked readings on disk, Parquet files by week."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl


UNIT_COLUMNS = ("unit", "unit_id", "id", "cell", "cell_id", "sector", "station", "station_id", "site", "site_id")
TIME_COLUMNS = ("time", "timestamp", "datetime", "date_time", "date")
VALUE_COLUMNS = ("traffic", "value")
MISSING_TEXTS = ["NA", "na", "N/A", "n/a", "NaN", "nan", "NAN", "NULL", "null", "None", "none", "-"]
TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%Y%m%d %H:%M:%S",
    "%Y%m%d %H:%M",
)
DIRECTIVE = re.compile("%[-_0]?(.)")  # of a format: its letter; %% is one too
YEARS = (1990, 2200)
WEEK_S, DAY_S, HOUR_S = 604_800, 86_400, 3600
WRITE_ERRORS = ("os error", "transport error")  # such as a full disk, while data or the end of a file are written
BAD_UNIT, BAD_TIME, BAD_VALUE, NEGATIVE = 1, 2, 4, 8


@dataclass(frozen=True)
class TableFormat:
    """
    How to read a long table: one row per unit and interval, with one column per channel.

    Args:
        unit (`str`, *optional*), time (`str`, *optional*), values (`tuple[str, ...]`):
            Names of the columns. Default: those of `UNIT_COLUMNS`, `TIME_COLUMNS` and `VALUE_COLUMNS` that are there.
        names (`tuple[str, ...]`): Names of all columns of a text file without a header line.
        key (`str`, *optional*): A further column that tells rows of one unit and interval apart, which are added up.
        time_format (`str`, *optional*): Of texts, such as `%d/%m/%Y %H:%M`; with `%z` or `%#z` (which also reads
            `+02`) for an offset.
        timezone (`str`, *optional*): Local time of the place, such as `Europe/Rome`.
        interval (`int`, *optional*): Seconds from row to row of a unit. Default: the most common one.
        empty_is_zero (`bool`): Whether an empty value stands for 0.
    """

    unit: str | None = None
    time: str | None = None
    values: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    key: str | None = None
    time_format: str | None = None
    timezone: str | None = None
    interval: int | None = None
    empty_is_zero: bool = False


@dataclass(frozen=True)
class Readings:
    """
    Checked readings of a table.

    Args:
        folder (`Path`): Parquet files by 7 days: by day, writing them would take three times the memory.
        days (`list[int]`): Days since 1970 on the axis of the readings.
        units (`list[str]`): Ids of all units with a row, sorted.
        channels (`list[str]`): Names of the values, which are the columns `value_0`, `value_1` ...
        step (`int`): Seconds of an interval; divides an hour.
        first (`int`), last (`int`): Start of the first and the last interval, in seconds since 1970 on the axis.
        timezone (`ZoneInfo`, *optional*): Local time, if it is known.
        is_local (`bool`): The axis is local time; else UTC plus `shift`.
        shift (`int`): Seconds that bring the full hours of the local time to full hours of the axis.
        rows (`int`): Rows of the table.
        table ([`Table`]): For messages.
        notes (`list[str]`): What had to be done, in words.
    """

    folder: Path
    days: list[int]
    units: list[str]
    channels: list[str]
    step: int
    first: int
    last: int
    timezone: ZoneInfo | None
    is_local: bool
    shift: int
    rows: int
    table: "Table"
    notes: list[str] = field(default_factory=list)

    def of_day(self, day: int) -> pl.DataFrame:
        """
        Rows of a day: `row`, `unit`, `key` if there is one, `time` in seconds, the values, and `others`, a number that
        differs where the remaining columns of the table differ.
        """
        rows = pl.scan_parquet(self.folder / f"week_{day * DAY_S // WEEK_S}_*.parquet").drop("bad")
        return rows.filter(pl.col("time") // DAY_S == day).collect(engine="streaming")


class Table:
    """
    The files of a table, with what their first lines tell.

    Args:
        path (`str` or `os.PathLike`): A file (.csv, .tsv, .txt, also .gz; .parquet), or a folder of such files.
        form ([`TableFormat`]): How to read it.

    Raises:
        ValueError: If there is no such file, or the columns are not there, or the time zone is unknown.
    """

    def __init__(self, path, form: TableFormat):
        self.path, self.form = Path(path), form
        self.files = _files(self.path)
        self.is_text = self.files[0].suffix != ".parquet"
        if self.is_text:
            self.header = "" if form.names else _first_line(self.files[0])
            for file in self.files[1:]:
                if not form.names and _first_line(file) != self.header:
                    raise ValueError(
                        f"The files of a table must have the same first line, but {file} has not the one of"
                        f" {self.files[0]}: {self.header[:80]!r}."
                    )
            self.separator = "\t" if form.names else max(",;\t", key=self.header.count)
        try:
            self.schema = self.scan().drop("row").collect_schema()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ValueError(f"{self.files[0]} is no readable table ({_short(error)}).") from error
        self.unit = self._column("unit", form.unit, UNIT_COLUMNS)
        self.time = self._column("time", form.time, TIME_COLUMNS)
        self.values = [self._column("value", name, ()) for name in form.values]
        self.values = self.values or [self._column("value", None, VALUE_COLUMNS)]
        repeated = {name for name in self.values if self.values.count(name) > 1} | set(self.values) & {
            self.unit,
            self.time,
        }
        if repeated:
            raise ValueError(f"The columns {sorted(repeated)} are named for two things.")
        self.timezone = None if form.timezone is None else _timezone(form.timezone)

    def scan(self) -> pl.LazyFrame:
        """All columns and the number of the `row`, from 0 over all files; of a text file as texts."""
        if not self.is_text:
            return pl.scan_parquet(self.files, row_index_name="row")
        names = dict.fromkeys(self.form.names, pl.String)
        return pl.scan_csv(
            self.files,
            separator=self.separator,
            has_header=not names,
            schema=names or None,
            infer_schema=False,
            null_values=MISSING_TEXTS,
            row_index_name="row",
            truncate_ragged_lines=False,
        )

    def place_of(self, row: int) -> str:
        """File and line of a row, in words."""
        for file in self.files:
            one = pl.scan_parquet(file) if not self.is_text else self._scan_lines(file)
            rows = one.select(pl.len()).collect().item()
            if row < rows:
                break
            row -= rows
        where = f"line {row + 1 + (not self.form.names)}" if self.is_text else f"row {row + 1}"
        return f"{where} of {file.name}"

    def text_at(self, row: int, column: str) -> str:
        """What stands in a column of a row."""
        return str(self.scan().filter(pl.col("row") == row).select(column).collect().item())

    def _scan_lines(self, file: Path) -> pl.LazyFrame:
        return pl.scan_csv(
            file, separator=self.separator, has_header=not self.form.names, infer_schema=False, raise_if_empty=False
        )

    def _column(self, what: str, name: str | None, known: tuple[str, ...]) -> str:
        columns = list(self.schema)
        if name is not None:
            if name not in columns:
                raise ValueError(f"{self.files[0]} has no column {name!r}; it has {columns}.")
            return name
        by_lower = {column.strip().lower(): column for column in columns}
        found = next((by_lower[one] for one in known if one in by_lower), None)
        if found is None:
            raise ValueError(
                f"{self.files[0]} has the columns {columns}. Which of them is the {what}? Give --{what}-column, or"
                f" name it {' or '.join(known)}."
            )
        return found


def read_readings(table: Table, folder: Path) -> Readings:
    """
    Read a table once, in constant memory, and write its readings to a folder by day.

    Args:
        table ([`Table`]): The files.
        folder (`Path`): A folder to make; it will need less space than the table.

    Raises:
        ValueError: For rows without a unit, times and values that are none, negative values, intervals that do not
            divide an hour; the message counts them and names the first one.
    """
    try:
        return _read(table, folder)
    except pl.exceptions.PolarsError as error:
        if any(text in str(error).lower() for text in WRITE_ERRORS):
            raise OSError(_short(error)) from error
        raise ValueError(f"{table.path} cannot be read: {_short(error)}.") from error


def _read(table: Table, folder: Path) -> Readings:
    form = table.form
    folder.mkdir()
    sample = _first(table, pl.col(table.time))
    if sample is None:
        raise ValueError(f"{table.path} has no row with a time.")
    instant, is_local = _time_expression(table, sample)
    if not is_local and table.timezone is None:
        raise ValueError(
            f"The times of {table.path}, such as {sample}, are moments and not local hours. Give the time zone of the"
            " place, such as --timezone Europe/Rome."
        )
    shift = 0 if is_local else _shift(table, instant)
    _normalised(table, instant, shift).sink_parquet(
        pl.PartitionBy(folder, key="week", include_key=False, file_path_provider=_name_of_part),
        # Folders that it makes itself could come back after a failure, when they have been cleaned up.
        mkdir=False,
        compression="lz4",
        maintain_order=False,
    )
    rows = pl.scan_parquet(folder / "*.parquet")
    count = len(table.values)
    facts = rows.select(
        pl.len().alias("rows"),
        *(
            expression.alias(f"{name}_{bit}")
            for bit in (BAD_UNIT, BAD_TIME, BAD_VALUE, NEGATIVE)
            for name, expression in (
                ("count", (pl.col("bad") & bit > 0).sum()),
                ("row", pl.col("row").filter(pl.col("bad") & bit > 0).min()),
            )
        ),
        *(pl.col(f"value_{index}").is_null().sum().alias(f"empty_{index}") for index in range(count)),
    ).collect(engine="streaming")
    facts = facts.row(0, named=True)
    _refuse_bad_rows(table, facts)
    notes = [
        f"{facts[f'empty_{index}']:,} of {facts['rows']:,} values of {name} are empty: not measured"
        for index, name in enumerate(table.values)
        if facts[f"empty_{index}"]
    ]
    times = np.sort(rows.select(pl.col("time").unique()).collect(engine="streaming")["time"].to_numpy())
    step = form.interval or _common_step(times)
    if step > HOUR_S or HOUR_S % step:
        raise ValueError(
            f"The times of {table.path} are {step / 60:g} min apart; needed are hours or equal parts of an hour."
            + ("" if form.interval else " If that is not so, give --interval in minutes.")
        )
    if (off := np.count_nonzero(times % step)) > 0:
        notes.append(
            f"{off:,} of {len(times):,} times do not lie on full intervals of {step / 60:g} min and were rounded down"
        )
    units = rows.select(pl.col("unit").unique()).collect(engine="streaming")["unit"].sort().to_list()
    return Readings(
        folder=folder,
        days=np.unique(times // DAY_S).tolist(),
        units=units,
        channels=list(table.values),
        step=int(step),
        first=int(times[0] // step * step),
        last=int(times[-1] // step * step),
        timezone=table.timezone,
        is_local=is_local,
        shift=shift,
        rows=facts["rows"],
        table=table,
        notes=notes,
    )


def _name_of_part(part) -> str:
    return f"week_{part.partition_keys.item()}_{part.index_in_partition}.parquet"


def _normalised(table: Table, instant: pl.Expr, shift: int) -> pl.LazyFrame:
    """Rows with common types: a bit of `bad` is set for each thing that is wrong with one."""
    unit = pl.col(table.unit).cast(pl.String).str.strip_chars()
    time = (instant.dt.epoch("s") + shift).alias("time")
    low, high = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in YEARS)
    values, wrong = zip(*(_value_expression(table, name) for name in table.values))
    values = [
        (value.fill_null(0.0) if table.form.empty_is_zero else value).alias(f"value_{index}")
        for index, value in enumerate(values)
    ]
    key = [] if table.form.key is None else [pl.col(table.form.key).alias("key")]
    read = {table.unit, table.time, table.form.key, *table.values}
    others = [name for name in table.schema if name not in read]
    # Their hash stands for them: they only have to tell rows apart, and may be many.
    others = (pl.struct(others).hash() if others else pl.lit(0, pl.UInt64)).alias("others")
    wrong = pl.any_horizontal(wrong).fill_null(False).alias("wrong")
    frame = table.scan().select("row", unit.alias("unit"), *key, time, *values, others, wrong)
    negative = pl.any_horizontal([pl.col(f"value_{index}") < 0 for index in range(len(values))]).fill_null(False)
    flags = {
        BAD_UNIT: (pl.col("unit").fill_null("") == ""),
        BAD_TIME: ~pl.col("time").is_between(low, high).fill_null(False),
        BAD_VALUE: pl.col("wrong"),
        NEGATIVE: negative,
    }
    bad = sum((flag.cast(pl.UInt8) * bit for bit, flag in flags.items()), start=pl.lit(0, pl.UInt8))
    return frame.with_columns(
        bad.cast(pl.UInt8).alias("bad"),
        # Rows without a usable time are counted and refused afterwards; until then they have to lie somewhere.
        week=pl.when(flags[BAD_TIME]).then(0).otherwise(pl.col("time") // WEEK_S),
    ).drop("wrong")


def _value_expression(table: Table, name: str) -> tuple[pl.Expr, pl.Expr]:
    """A value as a number, null where it is missing; and whether it is neither."""
    if table.schema[name] == pl.String:
        text = pl.col(name).str.strip_chars()
        plain = text.str.replace(",", ".", literal=True) if table.is_text and table.separator == ";" else text
        number = plain.cast(pl.Float64, strict=False).fill_nan(None)
        wrong = number.is_null() & (text.str.len_bytes() > 0)
        if not table.is_text:  # the reader of text files has left these out
            wrong &= ~text.is_in(MISSING_TEXTS)
    else:
        number = pl.col(name).cast(pl.Float64, strict=False).fill_nan(None)
        wrong = pl.lit(False)
    return number, wrong | number.is_infinite()


def _time_expression(table: Table, sample) -> tuple[pl.Expr, bool]:
    """The time column as a date and time without a zone, and whether that is local time; else it is UTC."""
    column, kind = pl.col(table.time), table.schema[table.time]
    if isinstance(kind, pl.Datetime):
        if kind.time_zone is None:
            return column, True
        return column.dt.convert_time_zone("UTC").dt.replace_time_zone(None), False
    if kind == pl.Date:
        return column.cast(pl.Datetime("us")), True
    form = table.form.time_format
    if form is None and (kind.is_integer() or str(sample).strip().isdigit()):
        digits = len(str(sample).strip())
        if not 9 <= digits <= 14 or digits == 12:
            raise ValueError(
                f"The time {str(sample)!r} of {table.path} is neither in seconds nor in milliseconds since 1970; give"
                " --time-format."
            )
        number = (column.str.strip_chars() if kind == pl.String else column).cast(pl.Int64, strict=False)
        if digits < 12:
            return pl.from_epoch(number, time_unit="s").cast(pl.Datetime("us")), False
        return pl.from_epoch(number, time_unit="ms").cast(pl.Datetime("us")), False
    if kind != pl.String:
        raise ValueError(f"The column {table.time!r} of {table.path} holds {kind}, which is no time.")
    text = column.str.strip_chars()
    if form is not None:
        parsed = text.str.to_datetime(form, strict=False, time_unit="us")
        kind = table.scan().select(parsed).collect_schema()[table.time]
        # Of a text with an offset, however the format writes it, polars makes UTC; of seconds since 1970 too.
        is_local = kind.time_zone is None and "s" not in DIRECTIVE.findall(form)
        return parsed.dt.replace_time_zone(None), is_local
    text = text.str.replace(r"\s*(?:Z|UTC)$", "+0000").str.replace(r"(\d)T(\d)", "${1} ${2}")
    example = pl.DataFrame({table.time: [str(sample)]})
    for form in TIME_FORMATS:
        for suffix in ("%#z", ""):
            parsed = text.str.to_datetime(form + suffix, strict=False, time_unit="us")
            parsed = parsed.dt.replace_time_zone(None) if suffix else parsed
            if example.select(parsed).item() is not None:
                return parsed, not suffix
    raise ValueError(
        f"The time {str(sample)!r} of {table.path} is written in no known way; give --time-format, such as"
        " '%d/%m/%Y %H:%M'."
    )


def _shift(table: Table, instant: pl.Expr) -> int:
    """Seconds by which full hours of the local time differ from those of UTC, where the table begins."""
    first = _first(table, instant)
    if first is None:
        return 0
    return int(first.replace(tzinfo=UTC).astimezone(table.timezone).utcoffset().total_seconds()) % HOUR_S


def _first(table: Table, expression: pl.Expr):
    """The first value that is not missing; reads no further."""
    found = table.scan().select(expression.alias("value")).filter(pl.col("value").is_not_null()).head(1).collect()
    return None if found.is_empty() else found.item()


def _common_step(times: np.ndarray) -> int:
    """The most common difference of successive times in s, the smallest of several; an hour for a single time."""
    if len(times) < 2:
        return HOUR_S
    steps, counts = np.unique(np.diff(times), return_counts=True)
    return int(steps[counts.argmax()])


def _refuse_bad_rows(table: Table, facts: dict) -> None:
    kinds = {
        BAD_UNIT: ("have no unit", table.unit),
        BAD_TIME: (f"have no time between {YEARS[0]} and {YEARS[1]}", table.time),
        BAD_VALUE: ("have a value that is no number", None),
        NEGATIVE: ("have a negative value", None),
    }
    for bit, (what, column) in kinds.items():
        if facts[f"count_{bit}"]:
            row = facts[f"row_{bit}"]
            found = {name: table.text_at(row, name) for name in ([column] if column else table.values)}
            shown = ", ".join(f"{name} = {text[:40]!r}" for name, text in found.items())
            raise ValueError(
                f"{facts[f'count_{bit}']:,} of {facts['rows']:,} rows of {table.path} {what}; the first is"
                f" {table.place_of(row)}: {shown}."
            )


def _files(path: Path) -> list[Path]:
    endings = (".csv", ".tsv", ".txt", ".gz", ".parquet")
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in endings and not file.name.startswith("."))
        if not files:
            raise ValueError(f"The folder {path} has no file that ends in {', '.join(endings)}.")
    elif path.is_file():
        files = [path]
        if path.suffix not in endings:
            raise ValueError(f"{path} must end in {', '.join(endings)}.")
    else:
        raise ValueError(f"There is no file or folder {path}.")
    if len({file.suffix == ".parquet" for file in files}) > 1:
        raise ValueError(f"The folder {path} has both Parquet and text files; give one kind.")
    if empty := [file for file in files if file.stat().st_size == 0]:
        raise ValueError(f"{empty[0]} is empty.")
    return files


def _first_line(file: Path) -> str:
    import gzip

    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as stream:
        line = stream.readline(100_000)
    try:
        return line.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text. In a spreadsheet, save it as CSV UTF-8.") from error


def _timezone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone; expected one such as Europe/Rome or UTC.") from error


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
