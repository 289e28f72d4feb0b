# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""One split for all systems: what they see, what is held out, and in which units."""

import numpy as np
import pytest
import torch
from support.places import FAULTY_HOUR, HEIGHT, HOURS, PLACES, WIDTH, write_places

from benchmarks.datasets import DATASETS, load
from zoomdiff_diffusers.data.datasets import make_area, select_region
from zoomdiff_diffusers.training.arguments import parse_arguments


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    words = write_places(tmp_path_factory.mktemp("places"))
    return load("places", words, train_windows=7), np.load(words[1])


def test_the_held_out_windows_tile_the_held_out_place(places):
    data, arrays = places
    traffic = np.stack([arrays["traffic"][4], arrays["users"][4]]).astype(np.float32)
    truth, known = data.test_truth(-1)
    assert truth.shape == (2, 2, 48, HEIGHT, WIDTH)
    measured = np.arange(HOURS) % 24 != FAULTY_HOUR
    np.testing.assert_array_equal(known[:, 0, :, 0, 0].ravel(), measured)
    for window, hours in enumerate((slice(0, 48), slice(48, 96))):
        here = measured[hours]
        np.testing.assert_allclose(truth[window][:, here], traffic[:, hours][:, here], rtol=1e-6)


def test_a_partly_measured_day_is_the_mean_of_its_measured_hours(places):
    data, arrays = places
    truth, known = data.test_truth(0)
    hours = np.arange(24, 48) != 24 + FAULTY_HOUR
    corner = arrays["users"][4, 24:48, 2:, 4:][hours]
    assert known.all()
    assert truth[0, 1, 1, 1, 2] == pytest.approx(corner.mean(), rel=1e-5)


def test_training_windows_never_show_the_held_out_place(places):
    data, arrays = places
    assert len(data.train_windows(0)) == 7

    def mornings(traffic):  # three hours of a cell tell a place from all others
        return {tuple(cell) for cell in np.moveaxis(traffic, -3, -1)[..., 8:11].reshape(-1, 3).tolist()}

    held_out = mornings(arrays["traffic"][4].astype(np.float32)) | mornings(
        arrays["traffic"][4, 24:].astype(np.float32)
    )
    others = mornings(arrays["traffic"][:4].astype(np.float32)) | mornings(
        arrays["traffic"][:4, 24:].astype(np.float32)
    )
    seen = mornings(data.train["traffic"][:, 0].numpy())
    assert not held_out & seen
    assert others & seen


def test_all_levels_of_a_window_share_context_and_clock(places):
    data, _ = places
    coarse, fine = data.test_context(0), data.test_context(-1)
    assert coarse.shape == (2, 2, 2, 2, 3)
    assert fine.shape == (2, 2, 48, 4, 6)
    assert coarse.hours.tolist() == [[120, 144], [0, 24]]  # Saturday and Sunday, then Monday and Tuesday
    assert fine.hours[0, :3].tolist() == [120, 121, 122]
    pooled = torch.nn.functional.avg_pool2d(fine.static, 2)
    torch.testing.assert_close(coarse.static, pooled)


def test_decoding_undoes_the_encoding_and_the_unit_is_the_training_mean(places):
    data, arrays = places
    windows = data.train_windows(0)
    means_over_all_hours = data.hierarchy.pyramid(data.train["traffic"])[0]  # traffic is 0 where it was not measured
    decoded = data.decode(windows.traffic[None])[0]
    np.testing.assert_allclose(decoded * windows.weight.numpy(), means_over_all_hours.numpy(), rtol=1e-4)
    measured = np.arange(HOURS) % 24 != FAULTY_HOUR
    means = [arrays[name][:4, measured].mean() for name in ("traffic", "users")]
    np.testing.assert_allclose(data.unit.ravel(), means, rtol=1e-5)


def test_the_context_for_a_pipeline_belongs_to_the_same_window(places):
    data, arrays = places
    for index, (area, place) in enumerate(zip(data.test_areas, data.test_places)):
        np.testing.assert_array_equal(area.traffic, data.test["traffic"][index].numpy())
        assert place == (0, (48 * index, 0, 0))
        assert area.start_hour == int(data.test["hour_of_week"][index])
        np.testing.assert_array_equal(area.context["population"], arrays["population"][4])


def test_every_place_is_held_out_in_one_fold():
    dataset = DATASETS["shandong"]
    held_out = []
    for fold in range(dataset.folds):
        data = parse_arguments(dataset.words_of_fold(fold)).data
        train, validation = (
            [area.start_hour for area in select_region(_numbered(), region, "region")]
            for region in (data.train_region, data.validation_region)
        )
        assert sorted(train + validation) == list(range(33))
        held_out += validation
    assert sorted(held_out) == list(range(33))


def test_a_side_of_bonn_is_held_out_whole():
    dataset = DATASETS["bonn_sides"]
    assert dataset.folds == len(dataset.regions)
    rows, columns = np.indices((25, 28))
    city = make_area("Bonn", np.stack([rows, columns])[:, None].astype(np.float32), {})
    sides = []
    for fold in range(dataset.folds):
        data = parse_arguments(dataset.words_of_fold(fold)).data
        train, held_out = (
            select_region([city], region, "region")[0].traffic.astype(int)
            for region in (data.train_region, data.validation_region)
        )
        seen = np.zeros((25, 28), int)
        for part in (train, held_out):
            np.add.at(seen, (part[0].ravel(), part[1].ravel()), 1)
        assert (seen == 1).all()
        sides.append((held_out[0].mean(), held_out[1].mean()))
    (_, west), (north, _), (south, _) = sides
    assert west < 4 and north < 4 and south > 20


def _numbered():
    return [make_area("place", np.ones((1, 1, 1)), {}, start_hour=number) for number in range(33)]


def test_fewer_held_out_windows_are_spread_evenly(tmp_path):
    data = load("places", [*write_places(tmp_path), "--crop_hours", "24"], train_windows=1, test_windows=3)
    assert [place[1][0] for place in data.test_places] == [0, 48, 72]
    assert PLACES == 5
