# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from support.toy_windows import NOISE, fair_crps, toy_windows
from torch import nn

from benchmarks.baselines.adversarial import SLOPE_STEP, shaken, squared_slope, train_adversarially
from benchmarks.baselines.base import Budget
from benchmarks.baselines.fivegt_gan import FiveGTGAN
from benchmarks.baselines.kegan import KeGAN
from benchmarks.baselines.series import (
    block_length,
    draw_noise,
    from_blocks,
    place_context,
    place_windows,
    sample_places,
    to_blocks,
)
from benchmarks.baselines.timegan import TimeGAN, week_order
from benchmarks.datasets import LevelContext, LevelWindows


CONDITIONAL = [FiveGTGAN, KeGAN]
ALL = [*CONDITIONAL, TimeGAN]


def budget(max_steps: int) -> Budget:
    return Budget(seconds=600, width=16, batch_size=8, max_steps=max_steps)


@pytest.mark.parametrize("baseline, steps", [(FiveGTGAN, 200), (KeGAN, 100)])
def test_a_conditional_gan_learns_what_the_context_says(baseline, steps):
    train, test = toy_windows(64, seed=0), toy_windows(16, seed=1)
    untrained, trained = (baseline().fit(train, budget(count)).sample(test.context, 8) for count in (1, steps))
    crps = fair_crps(trained, test.traffic)
    assert crps < 0.6 * fair_crps(untrained, test.traffic)
    assert crps < 2 * NOISE / math.sqrt(math.pi)  # the law itself has 1
    level = test.context.static[:, 0].flatten()
    generated = trained.mean((0, 2, 3)).flatten()
    assert torch.corrcoef(torch.stack([level, generated]))[0, 1] > 0.9
    assert trained.std(0).mean() > NOISE / 3  # it has not collapsed


def test_timegan_learns_the_marginal_distribution():
    train, test = toy_windows(64, steps=42, seed=0), toy_windows(16, steps=42, seed=1)
    untrained, trained = (TimeGAN().fit(train, budget(count)).sample(test.context, 8) for count in (3, 300))
    probabilities = torch.linspace(0.01, 0.99, 99)

    def distance(samples):  # between quantiles: the Wasserstein distance
        return (
            (samples.flatten().quantile(probabilities) - test.traffic.flatten().quantile(probabilities)).abs().mean()
        )

    assert distance(trained) < 0.4 * distance(untrained)
    daily = test.traffic.mean((0, 1, 3, 4))
    assert torch.corrcoef(torch.stack([daily, trained.mean((0, 1, 2, 4, 5))]))[0, 1] > 0.9


@pytest.mark.parametrize("baseline", ALL)
@pytest.mark.parametrize(
    "shape",
    [
        {"channels": 2, "static": 5, "temporal": 1, "steps": 14, "height": 3, "width": 2},
        {"channels": 1, "static": 0, "temporal": 0, "steps": 42, "height": 1, "width": 3},
        {"channels": 1, "static": 2, "temporal": 0, "steps": 1, "height": 1, "width": 1},
    ],
)
def test_samples_have_the_shape_of_the_traffic(baseline, shape):
    windows = toy_windows(3, **shape)
    fitted = baseline().fit(windows, budget(2))
    samples = fitted.sample(windows.context, 2)
    assert samples.shape == (2, *windows.traffic.shape) == (2, *windows.context.shape)
    assert samples.dtype == torch.float32 and samples.device.type == "cpu" and samples.isfinite().all()
    assert fitted.num_parameters > 0


@pytest.mark.parametrize("baseline", ALL)
def test_the_seed_decides_the_samples(baseline):
    windows = toy_windows(2)
    fitted = baseline().fit(windows, budget(2))
    first, again, other = (fitted.sample(windows.context, 2, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other) and not torch.allclose(first[0], first[1])


@pytest.mark.parametrize("baseline", CONDITIONAL)
def test_what_was_not_measured_is_not_learned(baseline):
    windows = toy_windows(4)
    weight = (torch.rand(windows.weight.shape, generator=torch.Generator().manual_seed(2)) > 0.3).float()
    spoilt = torch.where(weight > 0, windows.traffic, 1e3)
    samples = []
    for traffic in (windows.traffic, spoilt):
        fitted = baseline().fit(LevelWindows(traffic, weight, windows.context), budget(3))
        samples.append(fitted.sample(windows.context, 1))
    assert torch.allclose(*samples)


@pytest.mark.parametrize("steps, length", [(168, 24), (84, 12), (42, 6), (14, 2), (7, 1), (1, 1), (15, 3), (31, 31)])
def test_blocks_divide_the_series(steps, length):
    assert block_length(steps) == length


def test_blocks_hold_consecutive_steps_and_can_be_undone():
    values = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    blocks = to_blocks(values, 4)
    assert blocks.shape == (2, 2, 12)
    assert blocks[0, 1].tolist() == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]
    assert torch.equal(from_blocks(blocks, 3), values)


def test_places_keep_their_values_and_know_their_neighbours():
    windows = toy_windows(2, channels=2, static=3, temporal=1, height=4, width=3)
    places = place_windows(windows)
    row, column = 1, 2
    place = (1 * 4 + row) * 3 + column
    assert torch.equal(places.traffic[place, ..., 0, 0], windows.traffic[1, :, :, row, column])
    assert torch.equal(places.context.temporal[place, ..., 0, 0], windows.context.temporal[1, :, :, row, column])
    assert torch.equal(places.context.hours[place], windows.context.hours[1])
    around = windows.context.static[1, :, 0:3, 1:3].mean((1, 2))
    expected = torch.cat([windows.context.static[1, :, row, column], around])
    assert torch.allclose(places.context.static[place, :, 0, 0], expected)


def test_sampling_in_chunks_puts_every_series_in_its_place(monkeypatch):
    windows = toy_windows(2, static=1, temporal=1, height=3, width=2)
    monkeypatch.setattr("benchmarks.baselines.series.CHUNK_VALUES", 5 * 14)

    def generate(places: LevelContext, random: torch.Generator) -> torch.Tensor:
        assert len(places) <= 5
        return to_blocks(places.temporal.flatten(2), 2)[None]

    samples = sample_places(generate, windows.context, 3, seed=0)
    assert torch.equal(samples, windows.context.temporal.expand(3, -1, -1, -1, -1, -1))


def test_half_of_the_noise_lasts():
    context = place_context(toy_windows(20, height=1, width=1).context)
    noise = draw_noise(context, 2, 5, torch.Generator().manual_seed(0), versions=3)
    assert noise.shape == (3, 20, 7, 10)
    assert (noise[..., :5].std(2) == 0).all() and (noise[..., 5:].std(2) > 0).all()


def test_weeks_are_turned_to_monday():
    hours = (torch.tensor([[48], [0]]) + 4 * torch.arange(42)) % 168
    order = week_order(hours)
    assert torch.equal(hours.gather(1, order), 4 * torch.arange(42).expand(2, -1))
    assert week_order(hours[:, :14]) is None  # less than a week has no common clock


def test_squared_slope_is_that_of_a_linear_discriminator():
    random = torch.Generator().manual_seed(0)
    slope = torch.tensor([3.0, -4.0])
    series = torch.randn(20_000, 2, generator=random)
    moved = shaken(series, random)
    assert abs((moved - series).std().item() / SLOPE_STEP - 1) < 0.02
    assert abs(squared_slope(series @ slope, moved @ slope).item() - 25) < 1


def test_adversarial_training_finds_the_mean():
    """A generator of a shift against a linear critic: they rest only where the shift is that of the data, 0.7."""
    windows = toy_windows(32, static=0, steps=1, height=1, width=1)
    windows = LevelWindows(torch.full_like(windows.traffic, 0.7), windows.weight, windows.context)
    shift, critic = nn.Linear(1, 1), nn.Linear(1, 1)

    def generate():
        return shift(torch.zeros(1, 1))

    def critic_loss(batch, random):
        slope = critic.weight.square().sum()
        return (critic(generate().detach()) - critic(batch.traffic.flatten(1))).mean() + slope

    def shift_loss(batch, random):
        return -critic(generate()).mean()

    steps = train_adversarially(shift, critic, shift_loss, critic_loss, windows, budget(300), 2e-2, 3)
    assert steps == 300 and not shift.training
    assert abs(generate().item() - 0.7) < 0.05


@pytest.mark.parametrize("baseline", ALL)
def test_names_are_those_of_the_tables(baseline):
    assert baseline.name in ("5GT-GAN", "keGAN", "TimeGAN") and baseline.has_distribution
