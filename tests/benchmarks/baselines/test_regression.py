# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Climatology, boosted trees, the transformer and the CorrDiff scheme, on windows whose law is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.toy_windows import NOISE, fair_crps, toy_mean, toy_windows

from benchmarks.baselines import denoising
from benchmarks.baselines.base import Budget
from benchmarks.baselines.boosted_trees import BoostedTrees, even_rows, row_features
from benchmarks.baselines.climatology import HourlyClimatology
from benchmarks.baselines.corrdiff import CorrDiff
from benchmarks.baselines.transformer import Transformer, cell_contexts, cell_values
from benchmarks.datasets import LevelContext, LevelWindows
from zoomdiff_diffusers import TrafficProcessor


SYSTEMS = (HourlyClimatology, BoostedTrees, Transformer, CorrDiff)
TINY = Budget(seconds=60.0, width=16, max_steps=2)
LAW_MAE, LAW_CRPS = NOISE * math.sqrt(2 / math.pi), NOISE / math.sqrt(math.pi)


def make(system, channels=1):
    if system not in (HourlyClimatology, BoostedTrees):
        return system()
    names = [f"channel_{index}" for index in range(channels)]
    # The encoded values of the toy become positive traffic.
    return system(TrafficProcessor(names, mean=[3.0] * channels, std=[0.4] * channels))


def mae(forecast, truth):
    return (forecast - truth).abs().mean().item()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(
    "sizes", [{}, {"static": 0, "temporal": 1}, {"channels": 2, "static": 5, "height": 1, "width": 1, "steps": 7}]
)
def test_shapes_and_seeds(system, sizes):
    dataset = toy_windows(num_windows=6, **sizes)
    model = make(system, dataset.context.channels).fit(dataset, TINY)
    context = dataset.context[[4, 1, 3]]
    samples = model.sample(context, 2, seed=1)
    assert samples.shape == (2, *context.shape) and samples.dtype == torch.float32
    assert samples.isfinite().all()
    assert model.num_parameters > 0
    torch.testing.assert_close(model.sample(context, 2, seed=1), samples)
    assert torch.equal(samples[0], samples[1]) != model.has_distribution
    assert torch.equal(samples, model.sample(context, 2, seed=2)) != model.has_distribution


def test_rows_come_evenly_from_places_that_windows_show_more_or_less_often():
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(12, 3, generator=generator)
    shown = torch.randint(12, (400, 2, 5), generator=generator).clamp(max=8)  # the ninth is in a third of the cells
    shown[:, 0, 0] = shown[:, 0, 0].clamp(min=1)
    static = places[shown].movedim(-1, 1)
    weight = torch.ones(400, 1, 6, 2, 5)
    weight[::2, :, 3] = 0
    hours = torch.arange(6).expand(400, 6)
    windows = LevelWindows(weight.clone(), weight, LevelContext(static, torch.zeros(400, 0, 6, 2, 5), hours, 1))
    rows = even_rows(windows, seed=1)
    assert sorted(rows.tolist()) == weight.flatten().nonzero()[:, 0].tolist()
    assert not torch.equal(rows, even_rows(windows, seed=2)) and torch.equal(rows, even_rows(windows, seed=1))
    place = shown[:, None].expand(-1, 6, -1, -1).flatten()[rows[:2700]]
    assert torch.bincount(place, minlength=9).float().sub(300).abs().max() < 5 * 300**0.5
    without = LevelWindows(weight, weight, LevelContext(static[:, :0], torch.zeros(400, 0, 6, 2, 5), hours, 1))
    assert len(even_rows(without, seed=1)) == len(rows)


@pytest.mark.parametrize(("system", "steps"), [(BoostedTrees, 150), (Transformer, 150)])
def test_regressors_come_close_to_the_conditional_mean(system, steps):
    train, test = toy_windows(96, temporal=1), toy_windows(32, temporal=1, seed=1)
    budget = Budget(seconds=60.0, width=16, max_steps=steps)
    trained = make(system).fit(train, budget).sample(test.context, 1)[0]
    untrained = make(system).fit(train, replace(budget, max_steps=1)).sample(test.context, 1)[0]
    assert mae(trained, test.traffic) < 1.25 * LAW_MAE
    assert mae(untrained, test.traffic) > 2 * LAW_MAE


def test_corrdiff_learns_mean_and_spread():
    train, test = toy_windows(96, steps=7), toy_windows(16, steps=7, seed=1)
    budget = Budget(seconds=60.0, width=16, max_steps=150)
    samples = CorrDiff().fit(train, budget).sample(test.context, 12)
    untrained = CorrDiff().fit(train, replace(budget, max_steps=1)).sample(test.context, 12)
    assert fair_crps(samples, test.traffic) < 1.2 * LAW_CRPS
    assert fair_crps(untrained, test.traffic) > 2 * LAW_CRPS
    assert samples.std(dim=0).mean().item() == pytest.approx(NOISE, rel=0.2)
    expected = toy_mean(test.context.static, test.context.hours)
    assert np.corrcoef(samples.mean(0).flatten(), expected.flatten())[0, 1] > 0.97


def test_corrdiff_without_training_draws_gaussians_of_the_residual_spread():
    # The skip connection of EDM alone is the exact denoiser of Gaussian data, and the network starts at zero.
    dataset = toy_windows(8, channels=2, static=0)
    dataset = replace(dataset, traffic=dataset.traffic * torch.tensor([1.0, 3.0]).reshape(-1, 1, 1, 1))
    model = CorrDiff().fit(dataset, replace(TINY, max_steps=1))
    samples = model.sample(dataset.context, 64)
    spread, expected = (
        values.square().mean((0, 2, 3, 4)).sqrt() for values in (samples.flatten(0, 1), dataset.traffic)
    )
    torch.testing.assert_close(spread, expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("system", [Transformer, CorrDiff])
def test_samples_of_a_window_do_not_depend_on_chunks_or_on_later_windows(system, monkeypatch):
    dataset = toy_windows(num_windows=5)
    model = system().fit(dataset, TINY)
    whole = model.sample(dataset.context, 3)
    monkeypatch.setattr(f"{system.__module__}.CHUNK_VALUES", 2 * dataset.traffic[0].numel())
    assert denoising.CHUNK_VALUES > dataset.traffic.numel()
    torch.testing.assert_close(model.sample(dataset.context[:2], 3), whole[:, :2], rtol=0.02, atol=0.02)


def test_climatology_is_the_mean_of_measured_physical_traffic_per_hour_of_the_week():
    processor = TrafficProcessor(["traffic", "users"], mean=[1.0, 2.0], std=[0.5, 0.25])
    dataset = toy_windows(num_windows=2, channels=2, steps=3, height=1, width=2)
    physical = torch.arange(1.0, 25.0).reshape(2, 2, 3, 1, 2)
    weight = torch.ones(2, 1, 3, 1, 2)
    weight[1, 0, 0, 0, 1] = 0.5  # half of this hour was measured
    weight[:, :, 2] = 0.0  # hour 58 never was
    hours = torch.tensor([[34, 35, 58]]).expand(2, 3)  # 58 is 34 a day later
    dataset = replace(
        dataset,
        traffic=processor.encode(physical),
        weight=weight,
        context=replace(dataset.context, hours=hours),
    )
    model = HourlyClimatology(processor).fit(dataset, TINY)
    asked = replace(dataset.context[:1], hours=torch.tensor([[34, 58, 100]]))
    forecast = processor.decode(model.sample(asked, 1))[0, 0]
    values = physical.numpy()
    at_34 = [(values[0, c, 0].sum() + values[1, c, 0, 0, 0] + 0.5 * values[1, c, 0, 0, 1]) / 3.5 for c in (0, 1)]
    at_35 = values[:, :, 1].mean(axis=(0, 2, 3))
    of_all = (3.5 * np.array(at_34) + 4 * at_35) / 7.5
    np.testing.assert_allclose(forecast[:, 0].numpy(), np.array(at_34)[:, None, None].repeat(2, 2), rtol=1e-5)
    np.testing.assert_allclose(forecast[:, 1, 0, 0].numpy(), at_34, rtol=1e-5)  # the same hour of the day
    np.testing.assert_allclose(forecast[:, 2, 0, 0].numpy(), of_all, rtol=1e-5)


def test_a_row_of_the_trees_is_one_cell_and_hour():
    context = toy_windows(num_windows=3, steps=4, height=2, width=5, static=2, temporal=1).context
    shape = (3, 4, 2, 5)
    rows = torch.tensor([np.ravel_multi_index((2, 1, 0, 3), shape), np.ravel_multi_index((0, 3, 1, 4), shape)])
    features = row_features(context, rows)
    hour = context.hours[2, 1].item()
    expected = [
        *context.static[2, :, 0, 3].tolist(),
        context.temporal[2, 0, 1, 0, 3].item(),
        math.sin(2 * math.pi * hour / 24),
        math.cos(2 * math.pi * hour / 24),
        hour % 24,
        hour // 24,
        hour // 24 >= 5,
    ]
    np.testing.assert_allclose(features[0], expected, atol=1e-6)
    assert features.shape == (2, 8)


def test_trees_predict_the_median_of_what_was_measured_without_context():
    processor = TrafficProcessor()
    dataset = toy_windows(num_windows=40, static=0)
    physical = torch.rand(dataset.traffic.shape, generator=torch.Generator().manual_seed(2)).square()
    physical[:, :, ::2] = 1e3  # nonsense where nothing was measured
    weight = torch.ones_like(dataset.weight)
    weight[:, :, ::2] = 0
    dataset = replace(dataset, traffic=processor.encode(physical), weight=weight)
    forecast = processor.decode(
        BoostedTrees(processor).fit(dataset, Budget(60.0, max_steps=100)).sample(dataset.context, 1)
    )
    assert forecast.mean().item() == pytest.approx(0.25, abs=0.06)


def test_trees_stop_when_time_is_up():
    dataset = toy_windows(num_windows=8)
    few = make(BoostedTrees).fit(dataset, Budget(seconds=1e-6))
    many = make(BoostedTrees).fit(dataset, Budget(seconds=60.0, max_steps=20))
    assert 0 < few.num_parameters < many.num_parameters / 10


def test_cells_of_the_transformer_are_windows_of_one_cell():
    dataset = toy_windows(num_windows=2, channels=2, height=3, width=4, static=2, temporal=1)
    cells = torch.tensor([5, 11])  # (1, 1) and (2, 3)
    context = cell_contexts(dataset.context, cells)
    assert context.shape == (4, 2, 14, 1, 1)
    torch.testing.assert_close(context.static[2, :2, 0, 0], dataset.context.static[1, :, 1, 1])
    torch.testing.assert_close(context.static[2, 2:, 0, 0], dataset.context.static[1, :, :3, :3].mean((1, 2)))
    torch.testing.assert_close(context.static[1, 2:, 0, 0], dataset.context.static[0, :, 1:, 2:].mean((1, 2)))
    torch.testing.assert_close(context.temporal[3, :, :, 0, 0], dataset.context.temporal[1, :, :, 2, 3])
    torch.testing.assert_close(context.hours[2:], dataset.context.hours[1].expand(2, -1))
    torch.testing.assert_close(cell_values(dataset.traffic, cells)[2, :, :, 0, 0], dataset.traffic[1, :, :, 1, 1])


def test_the_transformer_sees_its_cell_and_those_around():
    dataset = toy_windows(num_windows=16, height=1, width=5, static=2)
    model = Transformer().fit(dataset, replace(TINY, max_steps=20))
    context = dataset.context[:1]
    static = context.static.clone()
    static[..., 4] += 3.0
    changed = model.sample(replace(context, static=static), 1) - model.sample(context, 1)
    assert changed[..., :3].abs().max() == 0
    assert changed[..., 3].abs().max() > 0 and changed[..., 4].abs().max() > 0
