# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Operator tables: the hours are those that pandas finds, sums are kept, and nothing is repaired in silence."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import shapely
import torch
import xarray as xr
from pyproj import CRS, Transformer
from support.operator_tables import write_telecom_italia

from zoomdiff_diffusers.data.datasets import parquet_areas
from zoomdiff_diffusers.data.operator_data import (
    TableFormat,
    build_dataset,
    build_telecom_italia,
    build_uomo,
    read_measured,
)
from zoomdiff_diffusers.data.operator_data.layouts import ACTIVITIES
from zoomdiff_diffusers.processors import ContextProcessor


SHANDONG = Path(__file__).parents[3] / "shared" / "data" / "uomo_sd"
ROME = TableFormat(timezone="Europe/Rome")
LEFT, BOTTOM, EPSG = 400_000.0, 5_000_000.0, 32632


def random_table(start, hours, minutes=15, units=3, seed=0):
    """Units, moments in UTC and whole values, out of order."""
    times = pd.date_range(start, periods=hours * 60 // minutes, freq=f"{minutes}min", tz="UTC")
    table = pd.DataFrame(
        {
            "unit": np.repeat([f"u{unit}" for unit in range(units)], len(times)),
            "moment": np.tile(times, units),
            "traffic": np.random.default_rng(seed).integers(0, 10**9, units * len(times)).astype(float),
        }
    )
    return table.sample(frac=1, random_state=seed, ignore_index=True)


def hours_by_pandas(table, timezone):
    """Sums per unit and local hour; the mean of an hour that comes twice."""
    # Hours between two full local hours: on the whole axis of moments, as the clock changes by whole hours.
    offset = table["moment"].dt.tz_convert(timezone).dt.tz_localize(None) - table["moment"].dt.tz_localize(None)
    once = table.assign(hour=(table["moment"].dt.tz_localize(None) + offset).dt.floor("h"), offset=offset)
    once = once.groupby(["unit", "hour", "offset"])["traffic"].sum().reset_index()
    return once.groupby(["hour", "unit"])["traffic"].mean().unstack("unit")


def written(folder, name="traffic.zarr"):
    return xr.open_zarr(folder / name, consolidated=False).load()


def save(table, path, time):
    table.assign(time=time).drop(columns="moment").to_csv(path, index=False)
    return path


WRITERS = {
    "milliseconds": lambda moment: moment.astype("datetime64[ms, UTC]").astype("int64"),
    "seconds": lambda moment: moment.astype("datetime64[s, UTC]").astype("int64"),
    "z": lambda moment: moment.dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "utc": lambda moment: moment.dt.strftime("%Y-%m-%d %H:%M:%S UTC"),
    "offset": lambda moment: moment.dt.tz_convert("Europe/Rome").map(lambda one: one.isoformat()),
}


@pytest.mark.parametrize("start", ["2026-10-22T22:00", "2026-03-26T23:00"], ids=["October", "March"])
@pytest.mark.parametrize("writer", WRITERS)
def test_moments_become_local_hours_also_when_the_clock_changes(tmp_path, start, writer):
    table = random_table(start, 8 * 24)
    path = save(table, tmp_path / "table.csv", WRITERS[writer](table["moment"]))
    report = build_dataset(path, tmp_path / "out", ROME, value_unit="MB", scale=0.5)
    store, expected = written(tmp_path / "out"), hours_by_pandas(table, "Europe/Rome") * 0.5
    assert store["traffic"].dims == ("channel", "time", "unit") and store["traffic"].attrs["units"] == "MB"
    assert store.sizes["time"] == 336 and store["time"].values[0] == expected.index[0].normalize()
    found = store["traffic"][0].to_pandas()[expected.columns]
    np.testing.assert_array_equal(found.loc[expected.index], expected)
    assert found.drop(expected.index).isna().all(axis=None)
    (change,) = report["clock_changes"]
    if "10-22" in start:
        assert change == "the hour 2026-10-25 02:00 came twice: their mean" and len(expected) == 191
    else:
        assert change == "the hour 2026-03-29 02:00 did not exist: not measured"
        assert pd.Timestamp("2026-03-29 02:00") not in expected.index and len(expected) == 192
    assert report["totals"]["traffic"] == expected.to_numpy().sum()
    areas = parquet_areas(str(tmp_path / "out" / "areas"), ["traffic"], [], "valid", 0)
    assert len(areas) == 6 and areas[0].start_hour == store["time"].dt.weekday.values[0] * 24
    for row, area in enumerate(areas):
        week, unit = divmod(row, 3)
        hours = store["traffic"].values[0, 168 * week : 168 * (week + 1), unit]
        np.testing.assert_array_equal(area.valid[:, 0, 0], np.isfinite(hours))
        np.testing.assert_array_equal(area.traffic[0, :, 0, 0], np.nan_to_num(hours).astype(np.float32))


@pytest.mark.parametrize("timezone", ["Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"])
def test_time_zones_of_half_hours_and_other_days(tmp_path, timezone):
    table = random_table("2026-03-01T00:00", 72)
    path = save(table, tmp_path / "table.csv", WRITERS["milliseconds"](table["moment"]))
    build_dataset(path, tmp_path / "out", TableFormat(timezone=timezone))
    expected = hours_by_pandas(table, timezone)
    found = written(tmp_path / "out")["traffic"][0].to_pandas().loc[expected.index]
    whole = table["moment"].dt.tz_convert(timezone).dt.tz_localize(None).dt.floor("h").value_counts() == 12
    np.testing.assert_array_equal(found[whole.reindex(found.index)], expected[whole.reindex(expected.index)])
    assert found[~whole.reindex(found.index)].isna().all(axis=None)


def test_parquet_files_with_times_of_their_own(tmp_path):
    table = random_table("2026-06-01T22:00", 30, minutes=60)
    (tmp_path / "parts").mkdir()
    for part in range(3):
        frame = pl.from_pandas(table[part::3].rename(columns={"moment": "time"}))
        frame.write_parquet(tmp_path / "parts" / f"{part}.parquet")
    build_dataset(tmp_path / "parts", tmp_path / "out", ROME)
    expected = hours_by_pandas(table, "Europe/Rome")
    found = written(tmp_path / "out")["traffic"][0].to_pandas()
    np.testing.assert_array_equal(found.loc[expected.index], expected)
    local = table.assign(time=table["moment"].dt.tz_localize(None)).drop(columns="moment")
    local.to_parquet(tmp_path / "local.parquet")
    report = build_dataset(tmp_path / "local.parquet", tmp_path / "out2")
    assert written(tmp_path / "out2")["time"].values[0] == np.datetime64("2026-06-01")
    assert any("taken for local hours" in note for note in report["notes"])


@pytest.mark.parametrize(
    "form, write",
    [
        ("%Y/%m/%d %H:%M%#z", lambda local: local.strftime("%Y/%m/%d %H:%M%z")[:-2]),
        ("%d.%m.%Y %H:%M %:z", lambda local: local.strftime("%d.%m.%Y %H:%M ") + local.isoformat()[-6:]),
        ("%+", lambda local: local.isoformat()),
        ("t%s", lambda local: f"t{int(local.timestamp())}"),
        (None, lambda local: local.strftime("%Y-%m-%d %H:%M:%S%z")[:-2]),
        (None, lambda local: local.strftime("%Y-%m-%d %H:%M%z")[:-2]),
    ],
)
def test_offsets_and_seconds_make_moments_however_the_format_writes_them(tmp_path, form, write):
    table = random_table("2026-06-01T22:00", 30, minutes=60)
    path = save(table, tmp_path / "table.csv", table["moment"].dt.tz_convert("Europe/Rome").map(write))
    build_dataset(path, tmp_path / "out", TableFormat(timezone="Europe/Rome", time_format=form))
    expected = hours_by_pandas(table, "Europe/Rome")
    found = written(tmp_path / "out")["traffic"][0].to_pandas()
    np.testing.assert_array_equal(found.loc[expected.index], expected)
    with pytest.raises(ValueError, match="are moments and not local hours. Give the time zone"):
        build_dataset(path, tmp_path / "none", TableFormat(time_format=form))


def test_a_percent_sign_in_a_format_makes_no_moments(tmp_path):
    (tmp_path / "table.csv").write_text("unit,time,traffic\na,%s 2026-03-02 05:00,5\n")
    build_dataset(tmp_path / "table.csv", tmp_path / "out", TableFormat(time_format="%%s %Y-%m-%d %H:%M"))
    assert written(tmp_path / "out")["traffic"].values[0, 5, 0] == 5


def test_local_times_of_the_days_on_which_the_clock_changes(tmp_path):
    lines = ["unit;time;traffic", *(f"a;25.10.2026 {hour:02}:00;{hour},5" for hour in (0, 1, 2, 3))]
    (tmp_path / "october.csv").write_text("\n".join([*lines, "a;25.10.2026 02:00;8,5"]), encoding="utf-8-sig")
    report = build_dataset(tmp_path / "october.csv", tmp_path / "october", ROME)
    assert written(tmp_path / "october")["traffic"].values[0, :4, 0].tolist() == [0.5, 1.5, 5.5, 3.5]
    assert "2 rows lie in an hour that came twice: the mean is taken" in report["notes"]
    lines = ["unit\ttime\ttraffic", *(f"a\t2026-03-29 {hour:02}:00\t{hour}" for hour in (0, 1, 2, 3))]
    (tmp_path / "march.tsv").write_text("\n".join(lines))
    report = build_dataset(tmp_path / "march.tsv", tmp_path / "march", ROME)
    np.testing.assert_array_equal(written(tmp_path / "march")["traffic"].values[0, :4, 0], [0, 1, np.nan, 3])
    assert "1 rows in an hour that the clock skipped were left out: is the time zone right?" in report["notes"]


DUPLICATES = (
    "unit,time,traffic\na,2026-03-02 00:00,5\nb,2026-03-02 00:00,7\na,2026-03-02 00:00,3\nb,2026-03-02 00:00,7\n"
)


@pytest.mark.parametrize("how, expected", [("sum", 8.0), ("mean", 4.0), ("last", 3.0)])
def test_duplicates(tmp_path, how, expected):
    (tmp_path / "table.csv").write_text(DUPLICATES)
    with pytest.raises(ValueError, match=r"2 rows .* on 2026-03-02 .*line 2 of table.csv and line 4 .*'a' at 00:00"):
        build_dataset(tmp_path / "table.csv", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    report = build_dataset(tmp_path / "table.csv", tmp_path / "out", duplicates=how)
    assert written(tmp_path / "out")["traffic"].values[0, 0].tolist() == [expected, 7.0]
    assert "1 rows were there more than once and count once" in report["notes"]
    assert any(note.startswith("2 rows of the same unit and time differ") for note in report["notes"])


GENERATIONS = (
    "unit,time,traffic,generation\na,2026-03-02 00:00,5,4G\na,2026-03-02 00:00,5,5G\na,2026-03-02 00:00,5,5G\n"
    "b,2026-03-02 00:00,7,4G\nb,2026-03-02 00:00,7,4G\n"
)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("how, expected", [("sum", 10.0), ("mean", 5.0), ("last", 5.0)])
def test_rows_of_equal_values_that_differ_in_another_column_are_not_the_same(tmp_path, kind, how, expected):
    path = tmp_path / f"table.{kind}"
    (tmp_path / "table.csv").write_text(GENERATIONS)
    if kind == "parquet":
        pl.read_csv(tmp_path / "table.csv", try_parse_dates=True).write_parquet(path)
    with pytest.raises(ValueError, match="2 rows .* are about the same unit and time but differ"):
        build_dataset(path, tmp_path / "out")
    report = build_dataset(path, tmp_path / "out", duplicates=how)
    assert written(tmp_path / "out")["traffic"].values[0, 0].tolist() == [expected, 7.0]
    assert "2 rows were there more than once and count once" in report["notes"]
    assert any(note.startswith("2 rows of the same unit and time differ") for note in report["notes"])


def test_columns_of_any_type_tell_rows_apart(tmp_path):
    others = {
        "array": pl.Series([[1, 2], [1, 2], [1, 3]], dtype=pl.Array(pl.Int64, 2)),
        "list": [["x"], ["x"], ["x", None]],
        "struct": [{"a": 1.0}, {"a": 1.0}, {"a": None}],
        "category": pl.Series(["p", "p", "q"], dtype=pl.Categorical),
        "bytes": [b"1", b"1", None],
        "nothing": [None, None, None],
    }
    rows = {"unit": ["a"] * 3, "time": pl.Series(["2026-03-02T00:00"] * 3).str.to_datetime(), "traffic": [5.0] * 3}
    for name, values in others.items():
        pl.DataFrame({**rows, name: values}).write_parquet(tmp_path / f"{name}.parquet")
        build_dataset(tmp_path / f"{name}.parquet", tmp_path / name, duplicates="sum")
        expected = 5.0 if name == "nothing" else 10.0
        assert written(tmp_path / name)["traffic"].values[0, 0, 0] == expected, name


def test_counters_give_their_increase_across_midnight_and_not_over_gaps_and_resets(tmp_path):
    random = np.random.default_rng(0)
    times = pd.date_range("2026-03-02", periods=3 * 48 + 1, freq="30min")
    increase = random.integers(0, 1000, (2, len(times) - 1)).astype(float)
    readings = np.concatenate([np.full((2, 1), 50.0), 50 + increase.cumsum(axis=1)], axis=1)
    readings[0, 60:] -= readings[0, 60] - 1  # a reset between the readings 59 and 60
    table = pd.DataFrame({"unit": np.repeat(["a", "b"], len(times)), "time": np.tile(times, 2), "c": readings.ravel()})
    table = table.drop(index=len(times) + 95)  # of b; the reading 96 is that of a midnight
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "table.csv", index=False)
    report = build_dataset(tmp_path / "table.csv", tmp_path / "out", TableFormat(values=("c",)), counter=True)
    increase[0, 59] = increase[1, 94] = increase[1, 95] = np.nan
    expected = increase.reshape(2, 72, 2).sum(axis=2).T
    np.testing.assert_array_equal(written(tmp_path / "out")["traffic"].values[0, :72], expected)
    assert np.isnan(expected).sum() == 2 and np.isnan(written(tmp_path / "out")["traffic"].values[0, 72:]).all()
    assert "1 times a counter fell: what it counted there is not known" in report["notes"]


def test_gaps_are_not_measured_or_zero(tmp_path):
    table = random_table("2026-03-02T00:00", 48, minutes=30, units=2).sort_values(
        ["unit", "moment"], ignore_index=True
    )
    table.loc[5, "traffic"] = np.nan
    expected = table.drop(index=[9, 20, 21, 96 + 20, 96 + 21])
    time = expected["moment"].dt.strftime("%Y/%m/%d %H:%M")
    path = save(expected, tmp_path / "table.csv", time)
    report = build_dataset(path, tmp_path / "gap")
    sums = table["traffic"].to_numpy().reshape(2, 48, 2).sum(axis=2).T
    gaps = sums.copy()
    gaps[[4, 10, 10], [0, 0, 1]] = np.nan
    found = written(tmp_path / "gap")["traffic"].values[0]
    np.testing.assert_array_equal(found[:48], gaps)
    assert "1 of 187 values of traffic are empty: not measured" in report["notes"]
    assert "2 hours of a unit lack an interval: not measured" in report["notes"]
    report = build_dataset(path, tmp_path / "zero", missing_rows="zero")
    zeros = np.nan_to_num(table["traffic"].where(~table.index.isin([9])).to_numpy()).reshape(2, 48, 2).sum(axis=2).T
    zeros[10] = zeros[2, 0] = np.nan  # no row of any unit, and a row with an empty value
    np.testing.assert_array_equal(written(tmp_path / "zero")["traffic"].values[0, :48], zeros)
    assert "2 intervals have no row of any unit: not measured, in place of 0" in report["notes"]


GOOD = "unit,time,traffic\na,2026-03-02 00:00,5\nb,2026-03-02 01:00,7\n"


@pytest.mark.parametrize(
    "text, form, message",
    [
        (
            GOOD + "a,2026-03-02 01:00,-2\n",
            {},
            "1 of 3 rows .* negative value; the first is line 4 of .*traffic = '-2'",
        ),
        (GOOD + "a,2026-03-02 01:00,7 GB\n", {}, "1 of 3 rows .* no number; the first is line 4 of .*'7 GB'"),
        (GOOD + "a,2026-03-02 01:00,inf\n", {}, "no number; the first is line 4"),
        (
            GOOD + "a,2026-13-02 01:00,7\n",
            {},
            "no time between 1990 and 2200; the first is line 4 .*time = '2026-13-02",
        ),
        (GOOD + "a,1926-03-02 01:00,7\n", {}, "no time between"),
        (GOOD + " ,2026-03-02 01:00,7\n", {}, "1 of 3 rows .* have no unit; the first is line 4"),
        (GOOD + "a,2026-03-02 04:00\n" + "a,2026-03-02 04:00,1,2\n", {}, "cannot be read"),
        ("unit,time,bytes\na,2026-03-02,1\n", {}, r"columns .*'bytes'.*Which of them is the value\? Give --value-col"),
        (GOOD, {"values": ("bytes",)}, "no column 'bytes'; it has"),
        (GOOD, {"values": ("time",)}, r"\['time'\] are named for two things"),
        (GOOD, {"timezone": "Europe/Roma"}, "'Europe/Roma' is no time zone"),
        (GOOD.replace("2026-03-02 00:00", "yesterday"), {}, "'yesterday' .* no known way; give --time-format"),
        (GOOD.replace("2026-03-02 0", "03.02.26 0"), {"time_format": "%d.%m.%Y %H:%M"}, "no time between"),
        ("unit,time,traffic\na,1772409600000,1\n", {}, "moments and not local hours. Give the time zone"),
        ("unit,time,traffic\na,17724,1\n", {}, "neither in seconds nor in milliseconds"),
        (GOOD.replace("01:00", "03:00"), {}, "are 180 min apart; needed are hours"),
        (GOOD, {"interval": 2400}, "are 40 min apart"),
        ("unit,time,traffic\na,2026-03-02 00:00,\n", {}, "No hour of .* is complete"),
        ("unit,time,traffic\n", {}, "no row with a time"),
        ("", {}, "is empty"),
        (b"unit,time,traffic\n\xff\xfe,2026-03-02,1\n", {}, "cannot be read"),
        (b"\xff\xfeu\x00n\x00\n", {}, "no UTF-8 text"),
    ],
)
def test_bad_tables_are_refused_and_leave_nothing(tmp_path, text, form, message):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        build_dataset(path, tmp_path / "out", TableFormat(**form))
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("channels", [("valid", "traffic"), ("traffic", "valid"), ("traffic", "start")])
def test_channels_with_the_names_of_other_columns_are_refused(tmp_path, channels):
    text = "id,time,valid,start,traffic\na,2026-03-02 00:00,5,6,7\n"
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=r"The names \['(valid|start)'\] stand for something else in the areas"):
        build_dataset(tmp_path / "table.csv", tmp_path / "out", TableFormat(values=channels))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "channels, columns, expected",
    [(("valid",), ["traffic"], [5]), (("up", "traffic"), ["up", "traffic"], [6, 7])],
)
def test_channels_are_columns_of_the_areas(tmp_path, channels, columns, expected):
    (tmp_path / "table.csv").write_text("id,time,valid,up,traffic\na,2026-03-02 00:00,5,6,7\n")
    build_dataset(tmp_path / "table.csv", tmp_path / "out", TableFormat(values=channels))
    (area,) = parquet_areas(str(tmp_path / "out" / "areas"), columns, [], "valid", 0)
    assert area.traffic[:, 0, 0, 0].tolist() == expected and area.valid.sum() == 1


def test_folders_of_different_files_are_refused(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    with pytest.raises(ValueError, match="has no file that ends in"):
        build_dataset(folder, tmp_path / "out")
    (folder / "1.csv").write_text(GOOD)
    (folder / "2.csv").write_text(GOOD.replace("unit", "cell"))
    with pytest.raises(ValueError, match="same first line, but .*2.csv"):
        build_dataset(folder, tmp_path / "out")
    (folder / "2.csv").write_text(GOOD.replace("7", "-7"))
    with pytest.raises(ValueError, match="line 3 of 2.csv"):
        build_dataset(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="There is no file or folder"):
        build_dataset(tmp_path / "none", tmp_path / "out")
    with pytest.raises(ValueError, match="exists already"):
        build_dataset(folder, folder)


def context_of(height=11, width=17, north_first=False, cell=50.0):
    """A context with three kinds of layers and one that varies over time."""
    random = np.random.default_rng(5)
    crs = CRS.from_epsg(EPSG)
    y, x = BOTTOM + cell * (np.arange(height) + 0.5), LEFT + cell * (np.arange(width) + 0.5)
    plane = ("y", "x")
    return xr.Dataset(
        {
            "aoi": (plane, random.integers(0, 3, (height, width)).astype(np.int8)),
            "poi": (("poi_category", *plane), random.poisson(1, (2, height, width)).astype(np.float32)),
            "population": (plane, random.random((height, width), dtype=np.float32)),
            "people": (("hour", *plane), random.random((24, height, width), dtype=np.float32)),
        },
        {
            "y": y[::-1] if north_first else y,
            "x": x,
            "spatial_ref": ((), np.int32(0), {**crs.to_cf(), "spatial_ref": crs.to_wkt()}),
        },
    )


def to_degrees(x, y):
    return Transformer.from_crs(EPSG, 4326, always_xy=True).transform(LEFT + np.asarray(x), BOTTOM + np.asarray(y))


def nearest(context, x, y):
    """Index of the nearest of some positions in metres from the corner, for each cell."""
    rows, columns = context["y"].values[:, None, None] - BOTTOM, context["x"].values[:, None] - LEFT
    return np.hypot(columns - np.asarray(x), rows - np.asarray(y)).argmin(axis=-1)


@pytest.mark.parametrize("north_first", [False, True])
def test_traffic_of_sites_is_shared_out_over_their_cells(tmp_path, north_first):
    context = context_of(north_first=north_first)
    context.to_netcdf(tmp_path / "city.nc")
    x, y = (
        np.array([111.0, 333.0, 620.0, 640.0, 641.0, 5000.0, 700.0]),
        np.array([99.0, 400.0, 120.0, 333.0, 334.0, 99.0, 90.0]),
    )
    longitude, latitude = to_degrees(x, y)
    names = ["a", "b", "c", "d", "twin", "far", "silent"]
    x[4], y[4] = x[3], y[3]
    longitude[4], latitude[4] = longitude[3], latitude[3]
    pd.DataFrame({"id": names, "lat": latitude, "lon": longitude}).to_csv(tmp_path / "sites.csv", index=False)
    table = random_table("2026-03-02T00:00", 200, minutes=60, units=7)
    table["unit"] = table["unit"].map(
        dict(zip([f"u{i}" for i in range(7)], ["a", "b", "c", "d", "twin", "far", "lost"]))
    )
    path = save(table, tmp_path / "table.csv", table["moment"].dt.strftime("%Y-%m-%d %H:%M"))
    report = build_dataset(
        path, tmp_path / "out", ROME, sites=tmp_path / "sites.csv", context=tmp_path / "city.nc", value_unit="B"
    )
    assert report["merged"] == {"twin": "d"} and report["first_units_left_out"] == ["far", "lost"]
    for text in ("1 of 7 sites stand outside of the grid; 0 of them", "1 of 5 units with cells have no row", "people"):
        assert any(text in note for note in report["notes"]), (text, report["notes"])

    store = written(tmp_path / "out")
    assert store["unit"].values.tolist() == ["a", "b", "c", "d", "silent"]
    truth = hours_by_pandas(table, "UTC")
    found = store["traffic"][0].to_pandas().loc[truth.index]
    for unit, members in {"a": ["a"], "b": ["b"], "c": ["c"], "d": ["d", "twin"]}.items():
        np.testing.assert_array_equal(found[unit], truth[members].sum(axis=1))
    assert found["silent"].isna().all()
    zone = store["zone"].values
    np.testing.assert_array_equal(zone, nearest(context, x[[0, 1, 2, 3, 6]], y[[0, 1, 2, 3, 6]]))
    np.testing.assert_array_equal(store["cells"], np.bincount(zone.ravel()))
    assert CRS.from_wkt(store["spatial_ref"].attrs["crs_wkt"]).to_epsg() == EPSG

    layers = ["aoi", "poi", "population", "site"]
    areas = parquet_areas(str(tmp_path / "out" / "areas"), ["traffic"], layers, "valid", 0)
    assert len(areas) == 2 and areas[0].traffic.shape == (1, 168, 11, 17)
    for name in layers[:3]:
        np.testing.assert_array_equal(areas[1].context[name], context[name])
    for week, area in enumerate(areas):
        hours = store["traffic"].values[0, 168 * week : 168 * (week + 1)]
        sums = np.stack([area.traffic[0][:, zone == unit].sum(axis=1) for unit in range(5)], axis=1)
        np.testing.assert_allclose(sums, np.nan_to_num(hours), rtol=1e-6)
        np.testing.assert_array_equal(area.valid, np.isfinite(hours)[:, zone])
        np.testing.assert_array_equal(area.context["site"], zone)
    with xr.open_dataset(tmp_path / "out" / "context.nc") as made:
        np.testing.assert_array_equal(made["site"], zone)
        np.testing.assert_array_equal(made["population"], context["population"])


def test_a_context_one_cell_away_is_another_one(tmp_path):
    context = context_of()
    sites = pd.DataFrame({"id": ["a"], "x": [LEFT + 200], "y": [BOTTOM + 200]})
    sites.to_csv(tmp_path / "sites.csv", index=False)
    (tmp_path / "table.csv").write_text("id,time,value\na,2026-03-02 00:00,5\na,2026-03-02 01:00,6\n")
    build_dataset(tmp_path / "table.csv", tmp_path / "out", sites=tmp_path / "sites.csv", context=context)
    for axis in ("y", "x"):
        rounded = context.assign_coords({axis: context[axis] + 0.1})
        assert read_measured(tmp_path / "out", rounded).values[0, :2, 0].tolist() == [5, 6]
        for distance in (1.0, 50.0):
            moved = context.assign_coords({axis: context[axis] + distance})
            with pytest.raises(ValueError, match=f"must have the same cells, but differ along {axis}"):
                read_measured(tmp_path / "out", moved)


def test_sectors_in_metres_and_twins_of_a_sector(tmp_path):
    context = context_of()
    context.to_netcdf(tmp_path / "city.nc")
    sites = pd.DataFrame(
        {
            "cell_id": ["n1", "s1", "n1_2100", "o2"],
            "site_id": [1, 1, 1, 2],
            "x": LEFT + np.array([200.0, 200.0, 200.0, 600.0]),
            "y": BOTTOM + 275.0,
            "azimuth": [0, 180, 350, None],
        }
    )
    sites["azimuth"] = [0, 180, 0, None]
    sites.to_csv(tmp_path / "sectors.csv", index=False)
    lines = [
        f"{cell},2026-03-02 {hour:02}:00,{value}"
        for hour in (0, 1)
        for cell, value in zip(sites["cell_id"], (1, 2, 4, 8))
    ]
    (tmp_path / "table.csv").write_text("\n".join(["cell_id,time,value", *lines]))
    report = build_dataset(
        tmp_path / "table.csv", tmp_path / "out", sites=tmp_path / "sectors.csv", context=tmp_path / "city.nc"
    )
    assert report["merged"] == {"n1_2100": "n1"}
    store = written(tmp_path / "out")
    assert store["traffic"].sel(unit=["n1", "s1", "o2"]).values[0, :2].tolist() == [[5, 2, 8], [5, 2, 8]]
    zone = store["unit"].values[store["zone"].values]
    assert (
        set(zone[:, 8:].ravel()) == {"o2"}
        and set(zone[6:, :7].ravel()) == {"n1"}
        and set(zone[:5, :7].ravel()) == {"s1"}
    )
    (area,) = parquet_areas(str(tmp_path / "out" / "areas"), ["traffic"], ["site", "sector"], "valid", 0)
    assert area.context["site"].max() == 1 and area.context["sector"].max() == 2


def test_coverage_polygons_and_their_repairs(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    context_of().to_netcdf(tmp_path / "city.nc")
    boxes = {
        "west": (0, 0, 425, 550),
        "east": (375, 0, 800, 550),
        "tiny": (210, 210, 220, 220),
        "away": (9000, 0, 9100, 50),
    }
    shapes = [shapely.box(a + LEFT, b + BOTTOM, c + LEFT, d + BOTTOM) for a, b, c, d in boxes.values()]
    frame = geopandas.GeoDataFrame({"id": list(boxes)}, geometry=shapes, crs=EPSG)
    frame.to_crs(4326).to_file(tmp_path / "areas.geojson")
    frame.to_parquet(tmp_path / "areas.parquet")
    lines = [
        f"{unit},2026-03-02 {hour:02}:00,{value}" for hour in (0, 1) for unit, value in zip(boxes, (34, 51, 17, 99))
    ]
    (tmp_path / "table.csv").write_text("\n".join(["id,time,value", *lines]))
    for ending in ("geojson", "parquet"):
        report = build_dataset(
            tmp_path / "table.csv", tmp_path / ending, areas=tmp_path / f"areas.{ending}", context=tmp_path / "city.nc"
        )
        assert report["merged"] == {"tiny": "west"} and report["first_units_left_out"] == ["away"]
        store = written(tmp_path / ending)
        assert store["unit"].values.tolist() == ["west", "east"] and store["traffic"].values[0, 0].tolist() == [51, 51]
        assert any("lie in several polygons" in note for note in report["notes"])
        assert any("11 of 187 cells lie in no polygon" in note for note in report["notes"])
    broken = geopandas.GeoDataFrame(
        {"id": ["west"]}, geometry=[shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])], crs=EPSG
    )
    broken.to_parquet(tmp_path / "areas.parquet")
    with pytest.raises(ValueError, match="1 of 1 are invalid"):
        build_dataset(
            tmp_path / "table.csv", tmp_path / "out", areas=tmp_path / "areas.parquet", context=tmp_path / "city.nc"
        )


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,lat,lon\nu0,4000,9\n", "no longitude and latitude"),
        ("id,lat,lon\nu0,45,9\nu0,45,9\n", "1 ids more than once, such as 'u0'"),
        ("id,lat,lon\nu0,,9\n", "row 1: lat must be a number, but is ''"),
        ("id,lat\nu0,45\n", "needed are an id"),
        ("id,lat,lon\nx0,45,9\n", "No unit of the table is in .*such as 'u0', the other 'x0'"),
        ("id,lat,lon\nu0,7.73,45.15\n", "None of the 1 sites .* they seem to be swapped"),
        ("id,x,y\nu0,1,1\n", "None of the 1 sites"),
        ("id,Lat,lat,lon\nu0,45,45,9\n", "sites.csv has several columns 'lat', upper or lower case"),
        ("id,lat,lon,azimuth\nu0,45.15,7.73,north\n", "azimuth must be a number, but is 'north'"),
    ],
)
def test_unusable_sites_are_refused(tmp_path, text, message):
    context_of().to_netcdf(tmp_path / "city.nc")
    (tmp_path / "sites.csv").write_text(text)
    table = random_table("2026-03-02T00:00", 5, minutes=60)
    path = save(table, tmp_path / "table.csv", table["moment"].dt.strftime("%Y-%m-%d %H:%M:%S"))
    with pytest.raises(ValueError, match=message):
        build_dataset(path, tmp_path / "out", sites=tmp_path / "sites.csv", context=tmp_path / "city.nc")
    assert not (tmp_path / "out").exists()


def test_a_reference_system_of_longitudes_and_latitudes_is_refused(tmp_path):
    (tmp_path / "sites.csv").write_text("id,lat,lon\na,45.15,7.73\n")
    (tmp_path / "table.csv").write_text("id,time,value\na,2026-03-02 00:00,5\n")
    with pytest.raises(ValueError, match="sites_crs 'EPSG:3003' needs x and y; .*sites.csv has lon and lat"):
        build_dataset(tmp_path / "table.csv", tmp_path / "out", sites=tmp_path / "sites.csv", sites_crs="EPSG:3003")


@pytest.mark.parametrize("north_first", [False, True])
def test_squares_are_numbered_from_the_south_west(tmp_path, north_first):
    context = context_of(3, 5, north_first, cell=235.0)
    context.to_netcdf(tmp_path / "city.nc")
    lines = [
        f"{7 + square},2026-03-02 {hour:02}:00,{square}" for hour in (0, 1) for square in range(15) if square != 11
    ]
    (tmp_path / "table.csv").write_text("\n".join(["id,time,value", *lines]))
    options = {"grid_width": 5, "first_id": 7, "cell_size": 235.0, "context": tmp_path / "city.nc"}
    build_dataset(tmp_path / "table.csv", tmp_path / "out", **options)
    store = written(tmp_path / "out").sortby("y")
    assert store["traffic"].dims == ("channel", "time", "y", "x")
    expected = np.arange(15.0).reshape(3, 5)
    expected[2, 1] = np.nan
    np.testing.assert_array_equal(store["traffic"].values[0, 1], expected)
    (area,) = parquet_areas(str(tmp_path / "out" / "areas"), ["traffic"], ["poi"], "valid", 0)
    np.testing.assert_array_equal(area.traffic[0, 0][:: -1 if north_first else 1], np.nan_to_num(expected))
    for change, message in (
        ({"grid_width": 4}, "3 x 5 cells, but the squares are 3 x 4|are no squares"),
        ({"cell_size": 50.0}, "cells of 235 m, but the squares have 50 m"),
        ({"first_id": 8}, "1 units, such as 7, are no squares of a grid of 3 x 5, which have the numbers 8 to 22"),
    ):
        with pytest.raises(ValueError, match=message):
            build_dataset(tmp_path / "table.csv", tmp_path / "out2", **options | change)


def test_squares_are_numbered_to_the_east_where_the_columns_of_the_context_fall(tmp_path):
    context = context_of(3, 5, cell=50.0).isel(x=slice(None, None, -1))
    lines = [f"{square},2026-03-02 {hour:02}:00,{square}" for hour in (0, 1) for square in range(15)]
    (tmp_path / "table.csv").write_text("\n".join(["id,time,value", *lines]))
    build_dataset(tmp_path / "table.csv", tmp_path / "out", grid_width=5, first_id=0, context=context)
    store = written(tmp_path / "out")
    np.testing.assert_array_equal(store["x"], context["x"])
    np.testing.assert_array_equal(store["traffic"].sortby("x").values[0, 1], np.arange(15.0).reshape(3, 5))


def test_a_number_that_is_no_square_does_not_ask_for_all_squares_up_to_it(tmp_path):
    lines = [f"{square},2026-03-02 00:00,1" for square in (1, 2, 4294967295)]
    (tmp_path / "table.csv").write_text("\n".join(["id,time,value", *lines]))
    message = (
        "858993459 x 5 squares, and the highest unit is 4294967295; more than 4,000,000 squares are not supported"
    )
    with pytest.raises(ValueError, match=message):
        build_dataset(tmp_path / "table.csv", tmp_path / "out", grid_width=5)
    with pytest.raises(ValueError, match="1 units, such as 4294967295, are no squares of a grid of 3 x 5"):
        build_dataset(tmp_path / "table.csv", tmp_path / "out", grid_width=5, grid_height=3)


def test_tables_of_which_no_unit_has_a_place_are_refused(tmp_path):
    longitude, latitude = to_degrees([111.0, 9000.0, 9100.0], [99.0, 99.0, 99.0])
    sites = pd.DataFrame({"id": ["silent", "far", "farther"], "lat": latitude, "lon": longitude})
    sites.to_csv(tmp_path / "sites.csv", index=False)
    lines = [f"{unit},2026-03-02 00:00,1" for unit in ("far", "farther", "unknown")]
    (tmp_path / "table.csv").write_text("\n".join(["id,time,value", *lines]))
    with pytest.raises(ValueError, match="None of the 3 units of .* has a place .*: far, farther, unknown"):
        build_dataset(tmp_path / "table.csv", tmp_path / "out", sites=tmp_path / "sites.csv", context=context_of())
    assert not (tmp_path / "out").exists()


SCHEMA = [
    {"name": "aoi", "kind": "categorical", "classes": ["none", "park", "dense housing"]},
    {"name": "poi", "kind": "count", "channels": ["shop", "school"]},
    {"name": "population", "kind": "continuous", "channels": ["people"]},
]


def test_names_and_dimensions_of_a_context_mean_in_training_what_they_mean_in_generation(tmp_path):
    context = context_of()
    context["aoi"] = xr.DataArray(
        np.array([4, 9, 7], np.int16)[context["aoi"]],
        dims=("y", "x"),
        attrs={"flag_values": np.array([9, 4, 7], np.int16), "flag_meanings": "dense_housing none park"},
    )
    context = context.assign_coords(poi_category=["school", "shop"])
    context["poi"] = context["poi"].transpose("y", "x", "poi_category")
    context["population"] = context["population"].transpose("x", "y")
    context["cover"] = (("y", "x"), np.full((11, 17), "forest"))
    context["height_of_row"] = ("y", np.arange(11.0))
    (tmp_path / "sites.csv").write_text(f"id,x,y\na,{LEFT + 200},{BOTTOM + 200}\n")
    (tmp_path / "table.csv").write_text("id,time,value\na,2026-03-02 00:00,5\na,2026-03-02 01:00,6\n")
    report = build_dataset(tmp_path / "table.csv", tmp_path / "out", sites=tmp_path / "sites.csv", context=context)
    for note in (
        "the codes of the layer aoi were replaced by their positions in flag_meanings",
        "the layer people varies over time and was left out of the areas",
        "the layer height_of_row has the dimensions y and was left out of the areas",
        "the layer cover holds <U6 and no numbers and was left out of the areas",
    ):
        assert note in report["notes"]
    layers = [layer["name"] for layer in SCHEMA]
    processor = ContextProcessor(SCHEMA)
    generated = processor(xr.load_dataset(tmp_path / "out" / "context.nc")[layers], hours=1)
    (area,) = parquet_areas(str(tmp_path / "out" / "areas"), ["traffic"], layers, "valid", 0, SCHEMA)
    assert torch.equal(processor(area.context, hours=1).static, generated.static)
    (plain,) = parquet_areas(str(tmp_path / "out" / "areas"), ["traffic"], layers, "valid", 0)
    np.testing.assert_array_equal(plain.context["aoi"], np.array([1, 0, 2])[context_of()["aoi"]])
    other = [{**SCHEMA[0], "classes": ["none", "park", "lake"]}]
    with pytest.raises(ValueError, match=r"'aoi' has the flag_meanings \['dense_housing'\], unknown to the schema"):
        parquet_areas(str(tmp_path / "out" / "areas"), ["traffic"], ["aoi"], "valid", 0, other)


def test_codes_that_a_context_does_not_name_are_refused(tmp_path):
    context = context_of()
    context["aoi"].attrs = {"flag_values": [0, 2], "flag_meanings": "none park"}
    (tmp_path / "sites.csv").write_text(f"id,x,y\na,{LEFT + 200},{BOTTOM + 200}\n")
    (tmp_path / "table.csv").write_text("id,time,value\na,2026-03-02 00:00,5\n")
    with pytest.raises(ValueError, match=r"'aoi' has the unknown categories 1. The codes are 0 \(none\), 2 \(park\)"):
        build_dataset(tmp_path / "table.csv", tmp_path / "out", sites=tmp_path / "sites.csv", context=context)


def test_telecom_italia_files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    truth = write_telecom_italia(folder, grid_width=7, grid_height=5, days=3)
    report = build_telecom_italia(folder, tmp_path / "out", grid_width=7)
    store = written(tmp_path / "out")
    assert store["channel"].values.tolist() == list(ACTIVITIES) and store["time"].values[0] == np.datetime64(
        "2013-11-01"
    )
    expected = truth.reshape(5, 72, 6, 35).sum(axis=2).reshape(5, 72, 5, 7)
    np.testing.assert_array_equal(store["traffic"].values[:, :72], expected)
    assert np.isnan(store["traffic"].values[:, 72:]).all()
    assert list(report["totals"].values()) == truth.sum(axis=(1, 2)).tolist()
    (area,) = parquet_areas(str(tmp_path / "out" / "areas"), list(ACTIVITIES), [], "valid", 0)
    np.testing.assert_array_equal(area.traffic[:, :72], expected.astype(np.float32))
    assert area.start_hour == 96 and area.valid.sum() == 72 * 35


def test_squares_of_telecom_italia_files_have_the_side_that_is_given(tmp_path):
    (tmp_path / "files").mkdir()
    write_telecom_italia(tmp_path / "files", grid_width=7, grid_height=5, days=1)
    for side, given in ((235.0, None), (1000.0, 1000.0)):
        out = tmp_path / f"{side:g}"
        build_telecom_italia(tmp_path / "files", out, grid_width=7, cell_size=given)
        assert written(out)["x"].values.tolist() == [(column + 0.5) * side for column in range(7)]
    with pytest.raises(ValueError, match="cell_size needs grid_width: .* those of Milan, 235 m"):
        build_telecom_italia(tmp_path / "files", tmp_path / "out", cell_size=1000.0)


@pytest.mark.skipif(not SHANDONG.is_dir(), reason=f"the measured tiles of Shandong are not in {SHANDONG}")
def test_uomo_tiles(tmp_path):
    report = build_uomo(SHANDONG, tmp_path / "out")
    areas = parquet_areas(str(tmp_path / "out" / "areas"), ["traffic", "users"], ["poi"], "valid", 0)
    assert len(areas) == 33 == report["rows_for_training"]
    with np.load(SHANDONG / "tiles.npz") as tiles:
        valid = tiles["valid_hours"]
        for place, area in enumerate(areas):
            np.testing.assert_array_equal(area.traffic[0][valid], tiles["traffic"][place][valid])
            np.testing.assert_array_equal(area.traffic[1][valid], tiles["users"][place][valid])
            np.testing.assert_array_equal(area.context["poi"], tiles["poi"][place])
            np.testing.assert_array_equal(area.valid.all(axis=(1, 2)), valid)
    assert written(tmp_path / "out").sizes == {
        "area": 33,
        "channel": 2,
        "time": 168,
        "y": 4,
        "x": 4,
        "poi_category": 22,
    }
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report


def test_a_training_reads_what_was_made(tmp_path):
    from zoomdiff_diffusers.training.arguments import parse_arguments
    from zoomdiff_diffusers.training.trainer import Trainer

    context_of(16, 24).to_netcdf(tmp_path / "city.nc")
    longitude, latitude = to_degrees(np.array([200.0, 700.0, 1000.0]), np.array([300.0, 500.0, 200.0]))
    pd.DataFrame({"id": ["u0", "u1", "u2"], "lat": latitude, "lon": longitude}).to_csv(
        tmp_path / "sites.csv", index=False
    )
    table = random_table("2026-03-02T00:00", 200, minutes=60)
    path = save(table, tmp_path / "table.csv", table["moment"].dt.strftime("%Y-%m-%d %H:%M:%S"))
    build_dataset(path, tmp_path / "out", sites=tmp_path / "sites.csv", context=tmp_path / "city.nc", value_unit="B")
    layers = [{"name": "aoi", "kind": "categorical", "classes": ["a", "b", "c"]}]
    words = ["--config", str(Path(__file__).parents[2] / "configs" / "tiny.yaml"), "--layers", json.dumps(layers)]
    words += ["--dataset", str(tmp_path / "out" / "areas"), "--output_dir", str(tmp_path / "run")]
    words += ["--max_train_steps", "2", "--regression_steps", "2", "--validation_areas", "0", "--crop_hours", "48"]
    summary = Trainer(parse_arguments(words)).train()
    assert summary["steps"] == 2 and (tmp_path / "run" / "model_index.json").is_file()
