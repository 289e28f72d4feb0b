# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import csv
import io

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoomdiff_diffusers.data.exports import export_csv
from zoomdiff_diffusers.data.stores import levels_to_datatree, write_netcdf
from zoomdiff_diffusers.data.tables import read_csv, write_csv
from zoomdiff_diffusers.hierarchy import Hierarchy, Level


START = "2026-03-04"  # a Wednesday
HEIGHT, WIDTH = 16, 24
HEADER = "date,y,x,value\n"


@pytest.fixture(scope="module")
def hierarchy():
    return Hierarchy()


def make_tree(hierarchy, samples=1, channels=("traffic",), unit="MB", **place):
    finest = np.random.default_rng(0).gamma(0.5, size=(samples, len(channels), 48, HEIGHT, WIDTH)).astype(np.float32)
    levels = dict(zip(hierarchy.names, hierarchy.pyramid(finest)))
    return levels_to_datatree(levels, hierarchy, START, list(channels), unit, "sum", **place), levels


def read_text(text, hierarchy, tmp_path, level="bs", **options):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_csv(path, hierarchy, level, HEIGHT, WIDTH, **options)


def test_another_library_reads_the_same_numbers_at_the_same_places(hierarchy, tmp_path):
    tree, levels = make_tree(hierarchy, samples=3, channels=("traffic", "users"), unit=["MB", "1"])
    write_csv(tree, tmp_path / "cell.csv", "cell")
    table = pd.read_csv(tmp_path / "cell.csv")
    assert list(table.columns) == ["level", "channel", "time", "y", "x", "unit", "sample_0", "sample_1", "sample_2"]
    frame = tree["cell"]["traffic"].to_dataframe()["traffic"]
    table["time"] = pd.to_datetime(table["time"])
    for sample in range(3):
        found = table.set_index(["channel", "time", "y", "x"])[f"sample_{sample}"].astype(np.float32)
        expected = frame.loc[sample]
        np.testing.assert_array_equal(found.reindex(expected.index), expected)
    assert dict(zip(table["channel"], table["unit"])) == {"traffic": "MB", "users": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["cell.csv"]


@pytest.mark.parametrize("falling", [False, True])
def test_what_was_written_comes_back_to_the_last_bit(hierarchy, tmp_path, falling):
    north = 5_600_000.0 + 50 * np.arange(HEIGHT)
    place = {"y": north[::-1] if falling else north, "x": 367_000.0 + 50 * np.arange(WIDTH)}
    tree, levels = make_tree(hierarchy, channels=("traffic", "users"), **place)
    write_csv(tree, tmp_path / "bs.csv", "bs")
    values, start = read_csv(
        tmp_path / "bs.csv", hierarchy, "bs", HEIGHT, WIDTH, channels=("traffic", "users"), **place
    )
    np.testing.assert_array_equal(values, levels["bs"][0])
    assert start == np.datetime64("2026-03-04T00:00:00")


def test_areas_that_are_no_squares_have_a_row_each_as_in_exports(tmp_path):
    labels = np.random.default_rng(1).integers(0, 9, (4, 6)).repeat(4, 0).repeat(4, 1)
    labels[:, :3], labels[5, 7] = 20, 30  # a strip, and a single cell
    hierarchy = Hierarchy([Level("site", 8, 24, "sites"), Level("grid_50m", 1, 1)])
    finest = np.random.default_rng(0).gamma(0.5, size=(2, 1, 48, HEIGHT, WIDTH)).astype(np.float32)
    fields = hierarchy.pyramid(finest, {"sites": torch.from_numpy(labels)[None]})
    cells = np.unique(labels, return_inverse=True, return_counts=True)[2][np.unique(labels, return_inverse=True)[1]]
    levels = {"site": fields[0] * cells.reshape(labels.shape) * 24, "grid_50m": fields[1]}
    tree = levels_to_datatree(levels, hierarchy, START, ["traffic"], "MB", "sum", zones={"sites": labels})
    write_csv(tree, tmp_path / "site.csv", "site")
    table = pd.read_csv(tmp_path / "site.csv")
    assert len(table) == 2 * len(np.unique(labels)) and set(table["zone"]) == set(np.unique(labels))
    samples = table[["sample_0", "sample_1"]].sum()
    np.testing.assert_allclose(samples, finest.sum(axis=(1, 2, 3, 4), dtype=np.float64), rtol=1e-5)
    write_netcdf(tree, tmp_path / "traffic.nc")
    export_csv(tmp_path / "traffic.nc", tmp_path / "export.csv", "site", ["samples"])
    assert (tmp_path / "export.csv").read_bytes() == (tmp_path / "site.csv").read_bytes()
    with pytest.raises(ValueError, match="`level` must have square units, but those of 'site' are areas, 'sites'"):
        read_csv(tmp_path / "site.csv", hierarchy, "site", HEIGHT, WIDTH)


def test_hours_without_a_date_are_written_as_numbers(hierarchy, tmp_path):
    tree, _ = make_tree(hierarchy)
    finest = {"grid_50m": tree["grid_50m"]["traffic"].values}
    write_csv(levels_to_datatree(finest, hierarchy, None, ["traffic"], "MB", "mean"), tmp_path / "t.csv", "grid_50m")
    assert pd.read_csv(tmp_path / "t.csv")["time"].iloc[-1] == 47.0


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12))
def test_no_text_cell_can_be_taken_for_a_formula(tmp_path_factory, name):
    hierarchy, path = Hierarchy(), tmp_path_factory.mktemp("csv") / "bs.csv"
    values = {"bs": np.ones((1, 2, 1, 1, 1), np.float32)}
    tree = levels_to_datatree(values, hierarchy, START, [f"={name}", name], f"@{name}", "mean")
    write_csv(tree, path, "bs")
    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert len(rows) == 2
    for row in rows:
        for column in ("level", "channel", "time", "unit"):
            assert not row[column].startswith(("=", "+", "-", "@")) and not set(row[column]) & set("\t\r\n")
    assert rows[0]["channel"].removeprefix("'=").split() == name.split()
    assert rows[1]["channel"].removeprefix("'").split() == name.removeprefix("'").split()


def test_a_failed_write_leaves_nothing(hierarchy, tmp_path):
    tree, _ = make_tree(hierarchy)
    with pytest.raises(ValueError, match="must be one of"):
        write_csv(tree, tmp_path / "x.csv", "street")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_csv(tree, tmp_path / "missing" / "x.csv", "bs")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_csv(tree, tmp_path / "taken", "bs")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_positions_anywhere_in_a_unit_gaps_and_extra_columns(hierarchy, tmp_path):
    text = "Station;X;Y;Date;Value\nA;401,5;10;2026-03-05;1,5\n\nB;0;799.9;2026-03-07;\nC;1199;0;2026-03-07;2\n"
    values, start = read_text(text, hierarchy, tmp_path)
    assert values.shape == (1, 3, 2, 3) and start == np.datetime64("2026-03-05")
    assert values[0, 0, 0, 1] == 1.5 and values[0, 2, 0, 2] == 2.0
    assert np.isnan(values).sum() == values.size - 2


def test_hours_are_counted_from_the_start_of_the_coarsest_step(hierarchy, tmp_path):
    text = "time,y,x,value\n2026-03-05 18:00,25,25,7\n2026-03-06T03:00,25,75,8\n"
    values, start = read_text(text, hierarchy, tmp_path, level="grid_50m")
    assert values.shape == (1, 48, HEIGHT, WIDTH) and start == np.datetime64("2026-03-05")
    assert values[0, 18, 0, 0] == 7 and values[0, 27, 0, 1] == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"lacks the column\(s\) y, x, time or date, value"),
        ("date,y,x\n", r"lacks the column\(s\) value"),
        (HEADER, "holds no value"),
        (HEADER + "2026-03-05,0,0,\n", "holds no value"),
        (HEADER + "2026-03-05,0,0\n", "Line 2 has 3 column"),
        (HEADER + "05.03.2026,0,0,1\n", "Line 2: the time must be written as"),
        (HEADER + "2026-03-05T00:00+01:00,0,0,1\n", "Line 2: the time must be local"),
        (HEADER + "0001-03-05,0,0,1\n", "between 1900 and 2200"),
        (HEADER + "2026-03-05 07:00,0,0,1\n", "Line 2: .* is not the start of an interval of 24 h"),
        (HEADER + "2026-03-05,0,0,-1\n", "not negative, but is '-1'"),
        (HEADER + "2026-03-05,0,0,inf\n", "must be finite"),
        (HEADER + "2026-03-05,0,0,=1+1\n", "value must be a number, but is '=1"),
        (HEADER + "2026-03-05,north,0,1\n", "Line 2: y must be a number"),
        (HEADER + "2026-03-05,nan,0,1\n", "outside of the area"),
        (HEADER + "2026-03-05,800,0,1\n", "y is 800 m, outside of the area, which goes from 0 to 800 m"),
        (HEADER + "2026-03-05,0,0,1\n2026-03-05,399,399,1\n", "Lines 2 and 3 are about the same unit and time"),
        (HEADER + "2026-03-05,0,0,1\n2026-06-05,0,0,1\n", "more than 14 days"),
        (HEADER + "2026-03-05,0,0,1\n2026-03-06,0,0,1\n2026-03-07,0,0,1\n", "more than 2 rows"),
        (HEADER + '2026-03-05,0,0,"1\n', "no CSV text"),
        (HEADER.encode("utf-16"), "no UTF-8 text"),
    ],
)
def test_bad_tables_are_refused_with_the_line(hierarchy, tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_text(text, hierarchy, tmp_path, max_rows=2, max_hours=14 * 24)


def test_an_unknown_channel_is_named(hierarchy, tmp_path):
    text = "channel,date,y,x,value\nusers,2026-03-05,0,0,1\nvoice,2026-03-05,0,0,1\n"
    with pytest.raises(ValueError, match="Line 3: the channel must be one of .* but is 'voice'"):
        read_text(text, hierarchy, tmp_path, channels=("traffic", "users"))


cells = st.one_of(
    st.sampled_from(["2026-03-05", "2026-03-06 00:00", "0", "399.5", "1e400", "-1", "", '"', "'", ";", "=1", "nan"]),
    st.text(max_size=6),
)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([HEADER, "", "value;x;y;time\n", "date,y,x,value,value\n", "\ufeff" + HEADER]),
    st.lists(st.lists(cells, max_size=6).map(",".join), max_size=5).map("\n".join),
    st.binary(max_size=6),
)
def test_any_bytes_give_a_table_or_a_message(tmp_path_factory, header, body, tail):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(header.encode() + body.encode("utf-8", "surrogatepass") + tail)
    try:
        values, _ = read_csv(path, Hierarchy(), "bs", HEIGHT, WIDTH, max_rows=100, max_hours=14 * 24)
    except ValueError as error:
        assert str(error) and len(str(error)) < 400
    else:
        assert values.shape[2:] == (2, 3) and values.shape[1] <= 14 and np.nanmin(values) >= 0
