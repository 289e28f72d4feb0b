# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from support.tiny import tiny_regressor

from zoomdiff_diffusers import ContextTensors, ZoomDiffRegressor


LAYERS = [
    {"name": "surface", "channels": 3, "temporal": False},
    {"name": "population_over_time", "channels": 1, "temporal": True},
    {"name": "poi", "channels": 2, "temporal": False},
]
HOURS, HEIGHT, WIDTH = 31, 3, 5  # two whole tokens and a part of one


def make_context(batch=2, hours=HOURS, seed=0) -> ContextTensors:
    generator = torch.Generator().manual_seed(seed)
    return ContextTensors(
        static=torch.randn(batch, 5, HEIGHT, WIDTH, generator=generator),
        temporal=torch.randn(batch, 1, hours, HEIGHT, WIDTH, generator=generator),
        present=torch.ones(batch, 3),
    )


@torch.no_grad()
def run(regressor, context, hours=HOURS, **options):
    return regressor(context, hours, **options)


@pytest.mark.parametrize("channels", [1, 2])
def test_shape_and_start(channels):
    regressor = ZoomDiffRegressor(LAYERS, channels=channels)
    forecast = run(regressor, make_context(), hour_of_week=torch.tensor([0, 40]))
    assert forecast.shape == (2, channels, HOURS, HEIGHT, WIDTH)
    assert forecast.abs().max() == 0  # the mean of the encoded traffic, before any training


def test_every_cell_is_forecast_from_its_own_context():
    regressor, context = tiny_regressor(LAYERS), make_context()
    forecast = run(regressor, context)
    order = torch.randperm(HEIGHT * WIDTH, generator=torch.Generator().manual_seed(1))
    shuffled = ContextTensors(
        *(part.flatten(-2)[..., order].reshape(part.shape) for part in (context.static, context.temporal)),
        context.present,
    )
    expected = forecast.flatten(-2)[..., order].reshape(forecast.shape)
    assert torch.allclose(run(regressor, shuffled), expected, atol=1e-6)


def test_a_value_over_time_matters_for_the_hours_of_its_token_only():
    regressor, context = tiny_regressor(LAYERS), make_context()
    before = run(regressor, context)
    context.temporal[1, 0, 14, 2, 3] += 5
    changed = (run(regressor, context) != before).nonzero()
    assert {tuple(place) for place in changed[:, [0, 3, 4]].tolist()} == {(1, 2, 3)}
    assert set(changed[:, 2].tolist()) == set(range(12, 24))


def test_absent_layers_are_not_read_but_known_to_be_absent():
    regressor, context = tiny_regressor(LAYERS), make_context()
    before = run(regressor, context)
    context.present[:, 1:] = 0
    absent = run(regressor, context)
    assert (absent != before).any()
    context.static[:, 3:] += 1
    context.temporal += 1
    assert torch.equal(run(regressor, context), absent)


def test_weeks_repeat_and_a_later_start_shifts_the_forecast():
    regressor, context = tiny_regressor(LAYERS), make_context(hours=48)
    context.temporal.zero_()
    forecast = run(regressor, context, 48)
    assert torch.equal(run(regressor, context, 48, hour_of_week=168), forecast)
    assert torch.allclose(run(regressor, context, 48, hour_of_week=12)[:, :, :36], forecast[:, :, 12:], atol=1e-6)
    starts = torch.tensor([0, 12])
    each = [run(regressor, context, 48, hour_of_week=int(start))[row] for row, start in enumerate(starts)]
    assert torch.allclose(run(regressor, context, 48, hour_of_week=starts), torch.stack(each), atol=1e-6)


@pytest.mark.parametrize("time_step", [0.5, 1.0, 2.0])
def test_an_hour_has_the_same_forecast_wherever_the_window_begins(time_step):
    regressor, context = tiny_regressor(LAYERS, time_step=time_step), make_context(hours=48)
    forecast = run(regressor, context, 48)
    for first in (5, 12, 19):
        context.temporal = make_context(hours=48).temporal[:, :, first:]
        later = run(regressor, context, 48 - first, hour_of_week=torch.tensor([first * time_step]))
        known = -first % 12  # before, the first token lacks the context of the hours before the window
        assert torch.allclose(later[:, :, known:36], forecast[:, :, first + known : first + 36], atol=1e-5)
        assert first == 12 or not torch.allclose(later[:, :, :known], forecast[:, :, first : first + known], atol=1e-3)


def test_tokens_of_which_a_week_has_no_whole_number_are_refused():
    with pytest.raises(ValueError, match="`token_length` must divide a week .* 336 .* is 10"):
        ZoomDiffRegressor(LAYERS, token_length=10, time_step=0.5)


def test_half_precision_knows_the_hour_of_the_week():
    encoding = ZoomDiffRegressor(LAYERS).tpe
    hours = torch.arange(168)
    exact = encoding(hours)
    assert torch.equal(encoding.to(torch.bfloat16)(hours), exact)
    angles = hours.double()[:, None] / 10000.0 ** (2 * torch.arange(64, dtype=torch.float64) / 128)
    torch.testing.assert_close(exact.double(), torch.cat([angles.sin(), angles.cos()], -1), atol=2e-5, rtol=0)


def test_a_cell_beyond_all_others_counts_as_the_most_extreme_one():
    forecasts = {}
    for bounded in (True, False):
        regressor, context = tiny_regressor(LAYERS, bounded_context=bounded), make_context()
        for value in (3.0, 40.0, 4000.0):
            context.static[:, 1] = value
            forecasts[bounded, value] = run(regressor, context)
        assert not torch.allclose(forecasts[bounded, 3.0], forecasts[bounded, 40.0], atol=1e-3)
    assert torch.equal(forecasts[True, 40.0], forecasts[True, 4000.0])
    assert not torch.allclose(forecasts[False, 40.0], forecasts[False, 4000.0], atol=1e-3)


def test_without_any_layer_it_forecasts_the_hour_of_the_week():
    context = ContextTensors(torch.zeros(2, 0, HEIGHT, WIDTH), None, torch.zeros(2, 0))
    forecast = run(tiny_regressor([]), context)
    assert forecast.shape == (2, 1, HOURS, HEIGHT, WIDTH)
    assert torch.allclose(forecast, forecast[:1, :, :, :1, :1].expand_as(forecast), atol=1e-6)
    assert forecast[0, 0, :, 0, 0].std() > 0


def test_save_and_load(tmp_path):
    regressor = tiny_regressor(LAYERS, channels=2)
    regressor.save_pretrained(tmp_path)
    loaded = ZoomDiffRegressor.from_pretrained(tmp_path)
    assert torch.equal(run(loaded, make_context()), run(regressor, make_context()))
