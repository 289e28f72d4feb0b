# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
import xarray

from zoomdiff_diffusers.data.datasets import (
    TrafficWindows,
    array_file_areas,
    load_areas,
    make_area,
    parquet_areas,
    select_region,
    simulated_areas,
    smooth_context,
    smoothed_layers,
)
from zoomdiff_diffusers.data.simulated_city import SIMULATED_LAYERS
from zoomdiff_diffusers.processors import ContextProcessor
from zoomdiff_diffusers.training.arguments import DataArguments


HOURS, HEIGHT, WIDTH = 160, 7, 9
LAYERS = [
    {"name": "place", "kind": "continuous", "channels": ["row", "column"]},
    {"name": "people", "kind": "temporal", "channels": ["people"]},
]


def coordinate_area(start_hour=5):
    """An area whose every value tells where and when it is: traffic = hour + row / 10 + column / 100."""
    hours, rows, columns = np.meshgrid(*map(np.arange, (HOURS, HEIGHT, WIDTH)), indexing="ij")
    traffic = hours + rows / 10 + columns / 100
    context = {"place": np.stack([rows[0], columns[0]]).astype(float), "people": traffic}
    return make_area("coordinates", traffic, context, valid=(rows + hours) % 3 > 0, start_hour=start_hour)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    valid = random.random((3, 24)) > 0.2
    traffic = random.gamma(1.0, 2.0, (3, 24, 4, 6)).astype(np.float32)
    users = random.gamma(1.0, 2.0, (3, 24, 4, 6)).astype(np.float32)
    return {"traffic": traffic, "users": users, "poi": random.poisson(1.0, (3, 2, 4, 6)), "valid": valid}


@pytest.mark.parametrize("size, alignment", [((48, 4, 4), 1), ((72, 3, 5), 2)])
def test_training_windows_keep_traffic_context_mask_and_hour_together(size, alignment):
    processor = ContextProcessor(layers=LAYERS)  # not fitted: values up to 10 pass unchanged
    windows = TrafficWindows([coordinate_area()], processor, size, alignment=alignment, seed=3)
    first_cells, orientations = set(), set()
    for number in range(150):
        window = windows.draw(number)
        assert window["traffic"].shape == (1, *size) and window["mask"].shape == size
        rows, columns = window["static"].round()
        hours = (window["hour_of_week"] - 5) % 168 + torch.arange(size[0])
        assert hours[0] % 24 == 0 and hours[-1] < HOURS
        expected = hours[:, None, None] + rows / 10 + columns / 100
        valid = (rows + hours[:, None, None]) % 3 > 0
        assert torch.allclose(window["traffic"][0], torch.where(valid, expected, 0), atol=1e-4)
        assert torch.allclose(window["temporal"][0], expected.clamp(max=10), atol=1e-4)
        assert torch.equal(window["mask"], valid)
        first_cells.add((int(rows.min()), int(columns.min())))
        step_down, step_right = rows[1, 0] - rows[0, 0], columns[0, 1] - columns[0, 0]
        orientations.add((int(step_down), int(step_right), int(rows[0, 1] - rows[0, 0])))
    assert all(row % alignment == column % alignment == 0 for row, column in first_cells)
    places = ((HEIGHT - size[1]) // alignment + 1) * ((WIDTH - size[2]) // alignment + 1)
    assert len(first_cells) == places
    assert len(orientations) == (6 if size[1] == size[2] else 4)  # transposes only where they fit


def test_windows_are_a_pure_function_of_seed_and_number_and_cover_all_areas():
    areas = [coordinate_area(), *(make_area(str(n), np.full((48, 4, 4), n), {}) for n in range(1, 5))]
    processor = ContextProcessor(layers=LAYERS)
    areas = [areas[0], *(make_area(a.name, a.traffic, {"place": np.zeros((2, 4, 4))}) for a in areas[1:])]
    one, other = (TrafficWindows(areas, processor, (48, 4, 4), seed=7) for _ in range(2))
    epoch = len(one.epoch)
    assert epoch == round(HOURS * HEIGHT * WIDTH / (48 * 16)) + 4
    constants = [one.draw(number)["traffic"] for number in range(epoch)]
    assert sorted(int(x.max()) for x in constants if x.std() == 0) == [1, 2, 3, 4]  # each small area exactly once
    for number in (epoch + 3, 0, 5):  # any order of asking
        assert all(torch.equal(value, other.draw(number)[key]) for key, value in one.draw(number).items())
    following = [one.draw(epoch + number)["traffic"] for number in range(epoch)]
    assert not all(torch.equal(first, second) for first, second in zip(constants, following))


def test_windows_may_begin_within_an_hour():
    windows = TrafficWindows([coordinate_area()], ContextProcessor(layers=LAYERS), (5, 3, 4), 48, time_step=0.5)
    assert {windows[index]["hour_of_week"].item() for index in range(5)} >= {5.0, 7.5}


def test_validation_windows_tile_the_area_unchanged():
    area = coordinate_area()
    windows = TrafficWindows([area], ContextProcessor(layers=LAYERS), (80, 3, 4))
    assert len(windows) == 2 * 2 * 2
    total = sum(windows[index]["traffic"].double().sum() for index in range(len(windows)))
    assert total.item() == pytest.approx(area.traffic[..., :6, :8].astype(float).sum(), rel=1e-6)
    assert {int(windows[index]["hour_of_week"]) for index in range(8)} == {5, 85}


def test_npz_netcdf_and_parquet_give_the_same_areas(arrays, tmp_path):
    datasets = pytest.importorskip("datasets")
    np.savez(tmp_path / "data.npz", **arrays)
    dims = {"traffic": "nthw", "users": "nthw", "poi": "nchw", "valid": "nt"}
    source = {name: (list(dims[name]), values) for name, values in arrays.items()}
    xarray.Dataset(source).to_netcdf(tmp_path / "data.nc", engine="netcdf4")
    rows = [{name: values[index].tolist() for name, values in arrays.items()} for index in range(3)]
    (tmp_path / "parquet").mkdir()
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "parquet" / "train.parquet")
    data = DataArguments(traffic_variables=["traffic", "users"], start_hour=24)
    for dataset in ("data.npz", "data.nc", "parquet"):
        data.dataset = str(tmp_path / dataset)
        areas = load_areas(data, ["poi"], "train")
        assert [area.start_hour for area in areas] == [24] * 3
        for index, area in enumerate(areas):
            valid = np.broadcast_to(arrays["valid"][index][:, None, None], (24, 4, 6))
            assert (area.valid == valid).all()
            for channel, name in enumerate(("traffic", "users")):
                assert np.array_equal(area.traffic[channel], np.where(valid, arrays[name][index], 0))
            assert np.array_equal(area.context["poi"], arrays["poi"][index])


SCHEMA = [
    {"name": "use", "kind": "categorical", "classes": ["field", "town", "lake"]},
    {"name": "poi", "kind": "count", "channels": ["shop", "school"]},
    {"name": "people", "kind": "temporal", "channels": ["visitors", "residents"]},
]
FLAGS = {"flag_values": [7, 2, 4], "flag_meanings": "lake field town"}


@pytest.mark.parametrize("time", ["hour", "time"])
def test_netcdf_files_mean_in_training_what_they_mean_in_generation(tmp_path, time):
    random = np.random.default_rng(1)
    context = xarray.Dataset(
        {
            "use": (("x", "y"), random.choice([7, 2, 4], (6, 4)), FLAGS),
            "poi": (("y", "poi_class", "x"), random.poisson(1.0, (4, 2, 6))),
            "people": ((time, "y", "x", "group"), random.random((24, 4, 6, 2))),
        },
        {"poi_class": ["school", "shop"], "group": ["residents", "visitors"]},
    )
    traffic = random.random((4, 6, 24)).astype(np.float32)
    valid = random.random((4, 6, 24)) > 0.2
    dims = ("y", "x", time)
    context.assign(traffic=(dims, traffic), valid=(dims, valid)).to_netcdf(tmp_path / "city.nc", engine="netcdf4")
    (area,) = load_areas(DataArguments(dataset=str(tmp_path / "city.nc"), layers=SCHEMA), list(context), "train")
    assert np.array_equal(area.traffic[0], np.where(valid, traffic, 0).transpose(2, 0, 1))
    found, expected = (ContextProcessor(SCHEMA)(layers, hours=24) for layers in (area.context, context))
    assert torch.equal(found.static, expected.static) and torch.equal(found.temporal, expected.temporal)
    town = context["use"].transpose("y", "x").values == 4
    smooth = smooth_context(area.context, SCHEMA, [1e-3])["use_smooth_0.001"]  # so narrow that it changes nothing
    assert np.array_equal(smooth[1], town)


def test_areas_of_a_netcdf_file_obey_names_too(tmp_path):
    random = np.random.default_rng(2)
    codes = random.choice([7, 2, 4], (3, 4, 6))
    poi = random.poisson(1.0, (2, 3, 4, 6))
    xarray.Dataset(
        {
            "traffic": (("time", "city", "row", "column"), random.random((24, 3, 4, 6))),
            "use": (("city", "row", "column"), codes, FLAGS),
            "poi": (("poi_class", "city", "row", "column"), poi),
        },
        {"poi_class": ["school", "shop"], "city": ["a", "b", "c"]},
    ).transpose("city", "time", ...).to_netcdf(tmp_path / "cities.nc", engine="netcdf4")
    areas = array_file_areas(tmp_path / "cities.nc", ["traffic"], ["use", "poi"], "valid", 0, SCHEMA)
    for index, area in enumerate(areas):
        assert np.array_equal(np.array([2, 4, 7])[area.context["use"]], codes[index])
        assert np.array_equal(area.context["poi"], poi[::-1, index])
    embedding = random.random((2, 5))
    positions = {axis: ("station", random.random(5)) for axis in ("y", "x")}
    xarray.Dataset(
        {"traffic": (("time", "station"), random.random((24, 5))), "poi": (("poi_class", "station"), embedding)},
        {"poi_class": ["school", "shop"], **positions},
    ).to_netcdf(tmp_path / "stations.nc", engine="netcdf4")
    areas = array_file_areas(tmp_path / "stations.nc", ["traffic"], ["poi"], "valid", 0, SCHEMA)
    assert np.array_equal(np.stack([area.context["poi"][:, 0, 0] for area in areas], axis=1), embedding[::-1])


def test_columns_may_name_the_classes_and_channels_of_layers(tmp_path):
    datasets = pytest.importorskip("datasets")
    random = np.random.default_rng(3)
    use, poi, people = random.integers(0, 3, (4, 6)), random.random((2, 4, 6)), random.random((2, 24, 4, 6))
    row = {"traffic": np.ones((24, 4, 6)), "use": use, "poi": poi, "people": people}
    names = {"use_names": FLAGS["flag_meanings"].split(), "poi_names": ["school", "shop"]}
    names["people_names"] = ["residents", "visitors"]
    rows = [{name: values.tolist() for name, values in row.items()} | names]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    data = DataArguments(dataset=str(tmp_path), layers=SCHEMA)
    (area,) = load_areas(data, ["use", "poi", "people"], "train")
    assert np.array_equal(area.context["use"], np.array([2, 0, 1])[use])
    for name, values in (("poi", poi), ("people", people)):
        assert np.allclose(area.context[name], values[::-1])
    rows[0]["poi_names"] = ["shop"]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"`poi_names` must name the 2 channels of `poi`, found \['shop'\]"):
        load_areas(data, ["poi"], "train")


@pytest.mark.parametrize("ending", ["nc", "parquet"])
def test_a_missing_mask_means_not_measured(tmp_path, ending):
    traffic = np.arange(1.0, 25.0).reshape(6, 2, 2)
    valid = np.ones((6, 2, 2), np.int8)
    valid[0, 0, 0], valid[1, 0, 1] = 0, -1
    if ending == "nc":
        mask = xarray.DataArray(valid, dims=("time", "y", "x"), attrs={"_FillValue": np.int8(-1)})
        variables = {"traffic": (("time", "y", "x"), traffic), "valid": mask}
        xarray.Dataset(variables).to_netcdf(tmp_path / "data.nc", engine="netcdf4")
        (area,) = array_file_areas(tmp_path / "data.nc", ["traffic"], [], "valid", 0)
    else:
        datasets = pytest.importorskip("datasets")
        row = {"traffic": traffic.tolist(), "valid": np.where(valid == -1, None, valid == 1).tolist()}
        datasets.Dataset.from_list([row]).to_parquet(tmp_path / "data.parquet")
        (area,) = parquet_areas(str(tmp_path), ["traffic"], [], "valid", 0)
    assert np.array_equal(area.valid, valid == 1) and (area.traffic[0] > 0).sum() == 22


def test_one_area_and_stacked_channels(arrays, tmp_path):
    np.savez(tmp_path / "one.npz", traffic=arrays["traffic"][0], poi=arrays["poi"][0])
    (area,) = array_file_areas(tmp_path / "one.npz", ["traffic"], ["poi"], "valid", 0)
    assert area.valid is None and np.array_equal(area.traffic[0], arrays["traffic"][0])
    np.savez(tmp_path / "many.npz", traffic=np.stack([arrays["traffic"], arrays["users"]], axis=1))
    areas = array_file_areas(tmp_path / "many.npz", ["traffic"], [], "valid", 0)
    assert len(areas) == 3 and np.array_equal(areas[2].traffic[1], arrays["users"][2])


def test_base_stations_are_areas_of_one_cell(tmp_path):
    random = np.random.default_rng(0)
    traffic, embedding, height = random.random((5, 24)), random.random((5, 3)), random.random(5)
    valid = random.random((5, 24)) > 0.2
    np.savez(tmp_path / "stations.npz", traffic=traffic, embedding=embedding, height=height, valid=valid)
    areas = array_file_areas(tmp_path / "stations.npz", ["traffic"], ["embedding", "height"], "valid", 0)
    assert len(areas) == 5
    for index, area in enumerate(areas):
        assert area.traffic.shape == (1, 24, 1, 1) and np.array_equal(area.valid[:, 0, 0], valid[index])
        assert np.allclose(area.traffic[0, :, 0, 0], np.where(valid[index], traffic[index], 0))
        assert np.array_equal(area.context["embedding"][:, 0, 0], embedding[index])
        assert area.context["height"] == [[height[index]]]
    layers = [{"name": "embedding", "kind": "continuous", "channels": ["a", "b", "c"]},
              {"name": "height", "kind": "continuous", "channels": ["m"]}]  # fmt: skip
    window = TrafficWindows(areas, ContextProcessor(layers), (24, 1, 1))[3]
    assert np.allclose(window["static"][:, 0, 0], [*embedding[3], height[3]])


def test_windows_of_areas_without_context_have_no_channels():
    areas = [make_area("a", np.ones((24, 4, 6)), {}), make_area("b", np.ones((24, 2, 8)), {})]
    windows = TrafficWindows(areas, ContextProcessor([]).fit([{}]), (24, 2, 3))
    assert windows[0]["static"].shape == (0, 2, 3) and windows[0]["present"].shape == (0,)


def test_folds_are_a_partition_of_the_areas():
    areas = [make_area(str(index), np.ones((1, 2, 2)), {}) for index in range(11)]
    folds = [select_region(areas, {"areas": {"folds": 4, "only": fold}}, "x") for fold in range(4)]
    assert sorted(int(area.name) for fold in folds for area in fold) == list(range(11))
    assert [area.name for area in folds[3]] == ["3", "7"]
    for fold, held_out in enumerate(folds):
        kept = select_region(areas, {"areas": {"folds": 4, "without": fold}}, "x")
        assert len(kept) + len(held_out) == 11 and not {a.name for a in kept} & {a.name for a in held_out}
    for choice in ({"folds": 4}, {"folds": 4, "only": 4}, {"folds": 4, "only": 0, "without": 1}, {"only": 0}):
        with pytest.raises(ValueError, match="`train_region`: areas by fold"):
            select_region(areas, {"areas": choice}, "train_region")


def test_weeks_of_a_place_stay_in_one_fold(tmp_path):
    datasets = pytest.importorskip("datasets")
    places = [40, 7, 40, 12, 7, 99, 12, 7]  # rows in any order, numbers with gaps
    rows = [{"traffic": np.full((24, 1, 2), row).tolist(), "area": place} for row, place in enumerate(places)]
    datasets.Dataset.from_list(rows[:5]).to_parquet(tmp_path / "first.parquet")
    datasets.Dataset.from_list(rows[5:]).to_parquet(tmp_path / "second.parquet")
    data = DataArguments(dataset=str(tmp_path), layers=[])
    for folds, fold, held_out in ((2, 0, {7, 40}), (2, 1, {12, 99}), (3, 0, {7, 99}), (4, 2, {40})):
        data.train_region = {"areas": {"folds": folds, "without": fold}}
        data.validation_region = {"areas": {"folds": folds, "only": fold}}
        found = {split: [int(area.traffic.max()) for area in load_areas(data, [], split)] for split in
                 ("train", "validation")}  # fmt: skip
        assert {places[row] for row in found["validation"]} == held_out
        assert sorted(found["train"] + found["validation"]) == list(range(8))
        assert not {places[row] for row in found["train"]} & held_out
    data.train_region = {"areas": [6, 0]}  # lists are rows, whatever their places
    assert [int(area.traffic.max()) for area in load_areas(data, [], "train")] == [6, 0]
    data.train_region = {"areas": {"folds": 5, "without": 0}}
    with pytest.raises(ValueError, match=r"`train_region`: 4 place\(s\) cannot be split into 5 folds"):
        load_areas(data, [], "train")


@pytest.mark.parametrize("value", ["north", None, 1.5])
def test_places_that_are_no_numbers_are_refused(tmp_path, value):
    datasets = pytest.importorskip("datasets")
    traffic = np.ones((24, 1, 1)).tolist()
    datasets.Dataset.from_dict({"traffic": [traffic], "area": [value]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="row 0: the column `area` must number the place of every row"):
        parquet_areas(str(tmp_path), ["traffic"], [], "valid", 0)


def test_regions_cut_traffic_and_context():
    area = coordinate_area()
    (east,) = select_region([area], {"columns": [6, 9], "rows": [1, 6]}, "train_region")
    assert east.traffic.shape == (1, HOURS, 5, 3) and east.valid.shape == (HOURS, 5, 3)
    assert east.context["place"][1].min() == 6 and east.context["place"][0].max() == 5
    assert [
        a.name for a in select_region([make_area(n, np.ones((1, 2, 2)), {}) for n in "abc"], {"areas": [2, 0]}, "x")
    ] == [
        "c",
        "a",
    ]
    for region in ({"columns": [6, 10]}, {"areas": [1]}, {"row": [0, 1]}, {"areas": []}):
        with pytest.raises(ValueError, match="validation_region"):
            select_region([area], region, "validation_region")


def test_smoothing_is_a_gaussian_of_the_stated_width():
    schema = [
        {"name": "poi", "kind": "count", "channels": ["shop"]},
        {"name": "use", "kind": "categorical", "classes": ["field", "town"]},
    ]
    poi = np.zeros((1, 41, 31))
    poi[0, 20, 15] = 100
    use = np.zeros((41, 31), dtype=int)
    use[:, 16:] = 1
    context = smooth_context({"poi": poi, "use": use}, schema, [2.5])
    smooth = context["poi_smooth_2.5"][0]
    rows = np.arange(41)
    assert smooth.sum() == pytest.approx(np.log1p(100), rel=1e-4)  # counts are smoothed as logarithms
    assert np.sqrt((smooth.sum(1) * (rows - 20) ** 2).sum() / smooth.sum()) == pytest.approx(2.5, rel=0.01)
    assert np.allclose(context["use_smooth_2.5"].sum(0), 1, atol=1e-5)
    layers = schema + smoothed_layers(schema, [2.5])
    tensors = ContextProcessor(layers=layers).fit([context])(context, hours=24)
    assert tensors.static.shape == (1, 6, 41, 31) and tensors.present.tolist() == [[1, 1, 1, 1]]


def test_simulated_splits_share_no_city():
    data = DataArguments(train_cities=2, validation_cities=1, city_height=16, city_width=24, city_weeks=2)
    train, held_out = load_areas(data, [], "train"), load_areas(data, [], "validation")
    assert len(train) == 4 and len(held_out) == 2 and train[0].traffic.shape == (1, 168, 16, 24)
    assert train[0].context is train[1].context and not np.array_equal(train[0].traffic, train[1].traffic)
    assert not any(np.array_equal(held_out[0].context["aoi"], area.context["aoi"]) for area in train)
    again = simulated_areas(2, 16, 24, 2, 0, ["default"])
    assert all(np.array_equal(a.traffic, b.traffic) for a, b in zip(train, again))


def test_bad_data_are_refused(arrays, tmp_path):
    good = np.ones((24, 4, 6))
    holes = good.copy()
    holes[3, 1, 2] = np.nan
    assert make_area("a", holes, {}, valid=~np.isnan(holes)).traffic[0, 3, 1, 2] == 0
    for traffic, valid, context, message in (
        (holes, None, {}, "mark them as false in `valid`"),
        (-good, None, {}, "must not be negative"),
        (good[0], None, {}, r"found shape \(4, 6\)"),
        (good, good[:5], {}, "does not fit"),
        (good, None, {"poi": np.ones((2, 6, 4))}, "`poi` has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            make_area("somewhere", traffic, context, valid)
    np.savez(tmp_path / "data.npz", **arrays)
    for variables, layers, message in (
        (["trafic"], [], r"\['trafic'\]; it has"),
        (["traffic"], ["aoi"], r"\['aoi'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            array_file_areas(tmp_path / "data.npz", variables, layers, "valid", 0)
    with pytest.raises(ValueError, match="no file"):
        array_file_areas(tmp_path / "missing.npz", ["traffic"], [], "valid", 0)
    with pytest.raises(ValueError, match="smaller than a window"):
        TrafficWindows([coordinate_area()], ContextProcessor(layers=LAYERS), (24, 8, 8))
    with pytest.raises(ValueError, match="areas"):
        TrafficWindows([], ContextProcessor(layers=LAYERS), (24, 8, 8))


def test_parquet_without_a_column_is_refused(arrays, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"traffic": arrays["traffic"].tolist()}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="no column"):
        parquet_areas(str(tmp_path), ["traffic"], ["poi"], "valid", 0)


def test_windows_of_several_lengths():
    areas = simulated_areas(2, 16, 24, 1, 0, ["default"], hours=4 * 24)
    processor = ContextProcessor(SIMULATED_LAYERS).fit([area.context for area in areas])
    windows = TrafficWindows(areas, processor, (24, 8, 8), seed=3, longest=72)
    batches = [windows.draw_batch(step, 4, [0, 1, 2, 3]) for step in range(20)]
    assert {batch["traffic"].shape for batch in batches} == {(4, 1, length, 8, 8) for length in (24, 48, 72)}
    assert all(batch["temporal"].shape[2] == batch["traffic"].shape[2] for batch in batches)
    part = windows.draw_batch(7, 4, [1, 3])  # as one of several processes has it
    assert torch.equal(part["traffic"], batches[7]["traffic"][[1, 3]])
    with pytest.raises(ValueError, match="smaller than a window"):
        TrafficWindows(areas, processor, (24, 8, 8), longest=120)
