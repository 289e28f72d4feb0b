# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The diffusion baselines: they learn a law that is known, on levels of any shape."""

import numpy as np
import pytest
import scoringrules
import torch
from diffusers import DDPMScheduler
from support.toy_windows import NOISE, fair_crps, toy_mean, toy_windows

from benchmarks.baselines import denoising
from benchmarks.baselines.base import Budget
from benchmarks.baselines.csdi import CSDI
from benchmarks.baselines.denoising import add_noise, denoise, patch_size, patchify, unpatchify, weighted_mean
from benchmarks.baselines.diffusion_ts import DiffusionTS, spectral_error, strongest_frequencies
from benchmarks.baselines.dit import DiT
from benchmarks.baselines.kstdiff import KSTDiff
from benchmarks.baselines.netdiffus import NetDiffus, SeriesImages, gramian_angular_field, series_of_field
from benchmarks.datasets import LevelWindows


TRAINING_STEPS = {CSDI: 60, DiT: 60, DiffusionTS: 100, KSTDiff: 60, NetDiffus: 120}
BASELINES = list(TRAINING_STEPS)
SCHEDULES = {
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "csdi": {"num_train_timesteps": 50, "beta_start": 1e-4, "beta_end": 0.5, "beta_schedule": "scaled_linear"},
}


def fitted(baseline, dataset, max_steps, width=16):
    return baseline().fit(dataset, Budget(600.0, width, max_steps=max_steps))


def with_gaps(dataset):
    """One step in ten is not measured: its weight is zero and its traffic wrong."""
    measured = torch.rand(dataset.weight.shape[:3], generator=torch.Generator().manual_seed(2)) > 0.1
    measured = measured[..., None, None].expand(dataset.weight.shape)
    return LevelWindows(torch.where(measured, dataset.traffic, 2.0), measured.float(), dataset.context)


@pytest.mark.parametrize("baseline", BASELINES)
def test_it_learns_a_law_that_depends_on_place_and_hour(baseline):
    train, test = with_gaps(toy_windows(seed=0)), toy_windows(num_windows=8, seed=1)
    untrained = fair_crps(fitted(baseline, train, 1).sample(test.context, 8), test.traffic)
    samples = fitted(baseline, train, TRAINING_STEPS[baseline]).sample(test.context, 8)
    assert fair_crps(samples, test.traffic) < 0.6 * untrained
    expected = toy_mean(test.context.static, test.context.hours)
    assert np.corrcoef(samples.mean(0).flatten(), expected.flatten())[0, 1] > 0.8
    assert samples.mean().item() == pytest.approx(expected.mean().item(), abs=0.15)  # what is wrong was not learned
    assert NOISE / 2 < samples.std(0).mean() < 2 * NOISE


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize(
    "shape",
    [
        {"channels": 2, "steps": 14, "height": 3, "width": 2, "static": 5, "temporal": 1},
        {"channels": 1, "steps": 7, "height": 1, "width": 1, "static": 0},
        {"channels": 1, "steps": 42, "height": 2, "width": 5, "static": 0, "temporal": 1},
        {"channels": 1, "steps": 84, "height": 4, "width": 6, "static": 3},
    ],
)
def test_samples_of_any_level_have_its_shape(baseline, shape):
    dataset = toy_windows(num_windows=3, **shape)
    model = fitted(baseline, dataset, 2)
    samples = model.sample(dataset.context[:2], 3, seed=1)
    assert samples.shape == (3, 2, *dataset.traffic.shape[1:])
    assert samples.dtype == torch.float32 and samples.isfinite().all()
    assert model.num_parameters > 1000


@pytest.mark.parametrize("baseline", BASELINES)
def test_samples_depend_on_the_seed_and_not_on_the_chunks(baseline, monkeypatch):
    dataset = toy_windows(num_windows=3, channels=2, height=1)
    model = fitted(baseline, dataset, 3)
    samples = model.sample(dataset.context, 3, seed=1)
    assert torch.equal(samples, model.sample(dataset.context, 3, seed=1))
    assert (samples - model.sample(dataset.context, 3, seed=2)).abs().mean() > 0.1
    assert (samples[0] - samples[1]).abs().mean() > 0.1
    first = model.sample(dataset.context[:2], 3, seed=1)
    assert (first - samples[:, :2]).abs().mean() < 0.02  # but for bfloat16
    monkeypatch.setattr(denoising, "CHUNK_VALUES", 400)
    assert (model.sample(dataset.context, 3, seed=1) - samples).abs().mean() < 0.02


def test_the_score_of_the_toy_is_that_of_scoringrules():
    samples, truth = torch.randn(6, 4, 3), torch.randn(4, 3)
    expected = scoringrules.crps_ensemble(truth.numpy(), samples.numpy(), m_axis=0, estimator="fair").mean()
    assert fair_crps(samples, truth) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "shape, patch",
    [((7, 1, 1), (1, 1, 1)), ((42, 2, 2), (1, 1, 1)), ((84, 4, 4), (6, 1, 1)), ((168, 8, 8), (12, 2, 2))],
)
def test_patches_of_the_paper_s_levels(shape, patch):
    assert patch_size(shape) == patch


@pytest.mark.parametrize("shape", [(14, 3, 2), (167, 8, 8), (168, 16, 16), (168, 5, 7), (960, 1, 1)])
def test_patches_divide_any_level(shape):
    patch = patch_size(shape)
    assert all(size % part == 0 for size, part in zip(shape, patch))
    values = torch.arange(2 * 3 * np.prod(shape)).reshape(2, 3, *shape)
    tokens = patchify(values, patch)
    assert tokens.shape == (2, *(size // part for size, part in zip(shape, patch)), 3 * np.prod(patch))
    corner = values[:, :, : patch[0], : patch[1], : patch[2]]
    assert torch.equal(tokens[:, 0, 0, 0], corner.flatten(1))
    assert torch.equal(unpatchify(tokens, patch), values)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("deviation", [0.3, 1.0])
def test_the_solver_keeps_mean_and_spread_of_a_gaussian(schedule, prediction_type, deviation):
    """With the exact denoiser of N(0.5, deviation^2) the samples must follow that law."""
    scheduler = DDPMScheduler(**SCHEDULES[schedule], prediction_type=prediction_type)

    def exact(state, steps):
        signal = scheduler.alphas_cumprod[steps].reshape(-1, 1)
        gain = signal.sqrt() * deviation**2 / (signal * deviation**2 + 1 - signal)
        clean = 0.5 + gain * (state - signal.sqrt() * 0.5)
        noise = (state - signal.sqrt() * clean) / (1 - signal).sqrt()
        velocity = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        return {"epsilon": noise, "v_prediction": velocity, "sample": clean}[prediction_type]

    samples = denoise(exact, scheduler, torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0)), 20)
    assert samples.mean().item() == pytest.approx(0.5, abs=0.03)
    assert samples.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_targets_lead_back_to_the_clean_state(prediction_type):
    scheduler = DDPMScheduler(prediction_type=prediction_type)
    clean = torch.randn(8, 2, 3)
    noisy, steps, target = add_noise(scheduler, clean, torch.Generator().manual_seed(0))
    signal = scheduler.alphas_cumprod[steps].reshape(-1, 1, 1)
    found = {
        "epsilon": (noisy - (1 - signal).sqrt() * target) / signal.sqrt(),
        "v_prediction": signal.sqrt() * noisy - (1 - signal).sqrt() * target,
        "sample": target,
    }[prediction_type]
    torch.testing.assert_close(found, clean, atol=1e-3, rtol=1e-3)
    assert sorted((steps // 125).tolist()) == list(range(8))  # one step in each eighth of the chain


def test_the_weighted_mean_leaves_out_what_was_not_measured():
    values = torch.tensor([1.0, 2.0, 100.0, 5.0, 6.0, 100.0]).reshape(1, 2, 3, 1, 1)
    weight = torch.tensor([1.0, 0.5, 0.0]).reshape(1, 1, 3, 1, 1)
    assert weighted_mean(values, weight).item() == pytest.approx((1 + 1 + 5 + 3) / 3)


def test_the_gramian_field_is_the_cosine_of_the_sum_of_angles():
    series = torch.rand(3, 2, 11)
    angle = series.double().arccos()
    expected = (angle[..., :, None] + angle[..., None, :]).cos()
    torch.testing.assert_close(gramian_angular_field(series), expected.float(), atol=1e-5, rtol=0)


def test_series_come_back_from_their_images():
    series = torch.rand(4, 1, 13)
    torch.testing.assert_close(series_of_field(gramian_angular_field(series)), series, atol=1e-3, rtol=0)
    traffic = torch.randn(5, 2, 168, 2, 3)
    images = SeriesImages(traffic)
    assert (images.side, images.rows) == (12, 14)
    pictures = images.encode(traffic[..., 0, 0])
    assert pictures.shape == (5, 28, 12, 12)
    torch.testing.assert_close(images.decode(pictures), traffic[..., 0, 0], atol=1e-3, rtol=0)


def test_only_the_strongest_frequencies_are_kept():
    time = torch.arange(42) / 42
    strong = 2 * torch.sin(2 * np.pi * 6 * time) + torch.cos(2 * np.pi * 3 * time)
    weak = 0.2 * torch.sin(2 * np.pi * 11 * time) + 0.7
    found = strongest_frequencies((strong + weak)[None, :, None], 2)
    torch.testing.assert_close(found[0, :, 0], strong, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [14, 7])
def test_the_fourier_loss_sees_every_frequency_once(length):
    difference = torch.randn(2, 1, length, 3, 2)
    spectrum = np.abs(np.fft.fft(difference.numpy(), axis=2)) ** 2 / length
    found = spectral_error(difference, torch.zeros_like(difference))
    np.testing.assert_allclose(found.numpy(), spectrum[:, :, : length // 2 + 1], rtol=1e-4, atol=1e-6)
