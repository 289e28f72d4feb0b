# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import itertools
import math

import numpy as np
import pytest
import torch
from contracts.scheduler import SCHEDULER_CHECKS, arbitrary_network, output_for
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from zoomdiff_diffusers.schedulers import DRDMScheduler


COMBINATIONS = [
    dict(zip(("intensity", "adding", "denoising"), choice))
    for choice in itertools.product(("segmented", "continuous"), repeat=3)
]
SMALL = {"num_train_timesteps": 90, "spatial_factors": [4, 2, 1], "temporal_factors": [6, 3, 1]}
CONFIGS = [
    *COMBINATIONS,
    *({"solver": solver, "timestep_spacing": "even", "noise_shape": "linear"} for solver in ("ddim", "ddpm")),
    {"solver": "ddpm", "intensity": "continuous", "noise_shape": "linear"},
    {"solver": "dpmsolver++", "timestep_spacing": "even"},
    {"noise_shape": "quadratic", "data_std": [0.5, 2.0, 0.1]},
    {"noise_shape": "quadratic", "zero_terminal_snr": False, "solver": "ddim"},
    {"noise_shape": "quadratic", "intensity": "continuous", "prior_type": "none"},
    {"prediction_type": "epsilon", "data_std": [3.0, 2.0, 1.0]},
    {"prediction_type": "sample", "prior_type": "none"},
    {"prediction_type": "sample", "prior_type": "blend", "prior_weight": 0.3, "data_std": [1.0, 2.0, 0.5]},
    {"prediction_type": "epsilon", "prior_type": "as_printed", "data_std": [1.0, 0.7, 0.5]},
    {"denoising": "continuous", "intensity": "continuous", "data_std": [1.0, 0.7, 0.5]},
    {"rgp": "uniform", "temporal_factors": [6, 1]},
    {"boundaries": [77, 20, 0]},
    {"boundaries": [87, 45, 0], "intensity": "continuous"},
]
CANONICAL = {"spatial_factors": [1], "temporal_factors": [1], "prior_type": "none"} | COMBINATIONS[-1]


@pytest.mark.parametrize("check", SCHEDULER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))
def test_contract(check, config, tmp_path):
    check(DRDMScheduler(**SMALL | config), tmp_path)


@pytest.mark.parametrize(
    ("spatial", "temporal", "steps", "rgp", "boundaries", "stages"),
    [
        ([4, 2, 1], [2, 1], 400, "uniform", [267, 200, 133, 0], [(4, 2), (2, 2), (2, 1), (1, 1)]),
        ([4, 2, 1], [2, 1], 400, "coarse", [267, 133, 0], [(4, 2), (2, 2), (1, 1)]),
        ([4, 2, 1], [2, 1], 400, "fine", [267, 133, 0], [(4, 2), (2, 1), (1, 1)]),
        ([4, 2, 1], [24, 4, 2, 1], 600, "fine", [450, 300, 150, 0], [(4, 24), (2, 4), (1, 2), (1, 1)]),
    ],
)
def test_boundaries_of_the_paper(spatial, temporal, steps, rgp, boundaries, stages):
    factors = {"spatial_factors": spatial, "temporal_factors": temporal}
    scheduler = DRDMScheduler(num_train_timesteps=steps, rgp=rgp, **factors)
    assert scheduler.boundaries == boundaries and scheduler.stages == stages


def test_changing_the_number_of_steps_moves_the_boundaries():
    scheduler = DRDMScheduler.from_config(DRDMScheduler().config, num_train_timesteps=1000)
    assert scheduler.boundaries == [750, 500, 250, 0]


@pytest.mark.parametrize("intensity", ["segmented", "continuous"])
def test_noise_levels_have_their_closed_forms(intensity):
    timesteps = torch.tensor([-0.5, 3.25, 149.0, 149.5, 300.7, 599.0], dtype=torch.float64)
    ends, lengths = torch.tensor([0, 0, 0, 150, 300, 450]), 150
    if intensity == "continuous":
        ends, lengths = torch.zeros(6), 600
    fraction = (timesteps - ends + 1) / lengths
    expected = {"linear": 1 - fraction, "cosine": torch.cos(0.5 * math.pi * fraction) ** 2}
    for noise_shape, alpha_bar in expected.items():
        signal, noise = DRDMScheduler(intensity=intensity, noise_shape=noise_shape).signal_and_noise(timesteps)
        torch.testing.assert_close(signal**2, alpha_bar)
        torch.testing.assert_close(signal**2 + noise**2, torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize("noise_shape", ["linear", "cosine", "quadratic"])
@pytest.mark.parametrize("num_train_timesteps", [60, 1000, 20000])
@pytest.mark.parametrize("power", [1.0, 0.8])
def test_log_snr_grid_is_that_power_of_an_even_grid(noise_shape, num_train_timesteps, power):
    limits = {"min_alpha_bar": 0.0067, "max_alpha_bar": 0.999, "log_snr_power": power}
    scheduler = DRDMScheduler(num_train_timesteps=num_train_timesteps, noise_shape=noise_shape, **limits)
    scheduler.set_timesteps([3, 4, 5, 6])
    for stage in range(4):
        signal, noise = scheduler.signal_and_noise(scheduler.stage_timesteps(stage))
        log_snr = (signal / noise).log()
        share = (log_snr - log_snr[0]) / (log_snr[-1] - log_snr[0])
        expected = torch.linspace(0, 1, len(share), dtype=torch.float64) ** power
        torch.testing.assert_close(share, expected, rtol=0.05, atol=1e-6)
        torch.testing.assert_close(signal[[0, -1]] ** 2, torch.tensor([0.0067, 0.999]).double(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("zero_terminal_snr", [True, False])
def test_quadratic_shape_is_that_of_scaled_linear_betas(zero_terminal_snr):
    options = {"beta_schedule": "scaled_linear", "beta_end": 0.05, "rescale_betas_zero_snr": zero_terminal_snr}
    oracle = DDPMScheduler(num_train_timesteps=150, **options)
    scheduler = DRDMScheduler(noise_shape="quadratic", beta_end=0.05, zero_terminal_snr=zero_terminal_snr)
    for stage, end in enumerate(scheduler.boundaries):
        signal, _ = scheduler.signal_and_noise(torch.arange(end, end + 150))
        torch.testing.assert_close(signal**2, oracle.alphas_cumprod.double(), rtol=0, atol=1e-5)
        assert scheduler.stage_of([end, end + 149]).tolist() == [stage, stage]


def trained_betas(scheduler) -> list[float]:
    signal, _ = scheduler.signal_and_noise(torch.arange(len(scheduler)))
    return (1 - signal**2 / torch.cat([torch.ones(1), signal[:-1] ** 2])).tolist()


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpmsolver++"])
@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("noise_shape", ["linear", "cosine", "quadratic"])
@pytest.mark.parametrize("calls", [12, 120])
def test_one_continuous_stage_is_diffusers_scheduler(solver, prediction_type, noise_shape, calls):
    zero_terminal_snr = solver != "dpmsolver++"  # Diffusers' solver divides by an abar of 0
    scheduler = DRDMScheduler(
        **CANONICAL,
        num_train_timesteps=120,
        noise_shape=noise_shape,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        solver=solver,
        timestep_spacing="even",
    )
    options = {"num_train_timesteps": 120, "trained_betas": trained_betas(scheduler), "timestep_spacing": "trailing"}
    options["prediction_type"] = prediction_type
    if solver == "dpmsolver++":
        oracle = DPMSolverMultistepScheduler(**options, algorithm_type="dpmsolver++", final_sigmas_type="zero")
    else:
        oracle = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}[solver](**options, clip_sample=False)
    scheduler.set_timesteps(calls)
    oracle.set_timesteps(calls)
    assert scheduler.timesteps.tolist() == oracle.timesteps.tolist()

    shape = (2, 1, 3, 5, 4)
    state = scheduler.begin_stage(0, shape, generator=torch.Generator().manual_seed(0))
    expected = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for timestep in scheduler.timesteps:
        random = {} if solver == "ddim" else {"generator": theirs}
        state = scheduler.step(arbitrary_network(state, timestep), timestep, state, generator=ours).prev_sample
        expected = oracle.step(arbitrary_network(expected, timestep), timestep, expected, **random).prev_sample
        torch.testing.assert_close(state, expected, rtol=1e-4, atol=1e-4)


def test_forward_process_of_one_stage_is_diffusers():
    scheduler = DRDMScheduler(**CANONICAL, num_train_timesteps=120, noise_shape="quadratic", zero_terminal_snr=False)
    oracle = DDPMScheduler(num_train_timesteps=120, trained_betas=trained_betas(scheduler))
    sample, noise = torch.randn(2, 3, 2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0, 57, 119])
    for method in ("add_noise", "get_velocity"):
        found, expected = (getattr(each, method)(sample, noise, timesteps) for each in (scheduler, oracle))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_continuous_stages_are_one_diffusion(solver):
    """[CN, CA, CD] with three stages and nothing known at their boundaries is a single chain on the finest level."""
    options = {"num_train_timesteps": 90, "solver": solver, "timestep_spacing": "even"}
    staged = DRDMScheduler(
        **SMALL | CANONICAL | {"spatial_factors": [4, 2, 1], "temporal_factors": [6, 3, 1]} | options
    )
    single = DRDMScheduler(**CANONICAL | options)
    staged.set_timesteps(45)
    single.set_timesteps(45)
    assert torch.equal(staged.timesteps, single.timesteps)
    shape, ends = (2, 1, 6, 4, 8), []
    for scheduler in (staged, single):
        generator, state = torch.Generator().manual_seed(0), None
        for stage in range(len(scheduler.stages)):
            state = scheduler.begin_stage(stage, shape, generator=generator, sample=state)
            for timestep in scheduler.stage_timesteps(stage):
                output = arbitrary_network(state, timestep)
                state = scheduler.step(output, timestep, state, generator=generator).prev_sample
        ends.append(state)
    torch.testing.assert_close(ends[0], ends[1])


def gaussian_level(scheduler, stage, start, mean, std, prior=None, generator=None, carried=None):
    """Sample a stage from the given noise with the exact denoiser of x ~ N(mean, std^2); returns the last output."""
    prior = None if prior is None else torch.full_like(start, prior)
    state = scheduler.begin_stage(stage, start.shape, prior, dtype=start.dtype, sample=carried)
    state = start if carried is None else state
    offset = {"residual": -1, "as_printed": 1}.get(scheduler.config.prior_type, 0)
    scale = scheduler.data_std[stage]
    mean, std = (mean + offset * (0.0 if prior is None else prior)) / scale, std / scale
    for timestep in scheduler.stage_timesteps(stage):
        signal, sigma = (value.item() for value in scheduler.signal_and_noise(timestep))
        clean = mean + signal * std**2 / (signal**2 * std**2 + sigma**2) * (state - signal * mean)
        output = output_for(scheduler, clean, state, timestep, stage, prior)
        result = scheduler.step(output, timestep, state, generator=generator)
        state = result.prev_sample
    return result


def mean_and_spread(scheduler, stage, mean, std, prior=None):
    """Mean and standard deviation of a level sampled by a deterministic solver, which is affine in the noise."""
    start = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    level = gaussian_level(scheduler, stage, start, mean, std, prior).level.flatten()
    return level[0].item(), (level[1] - level[0]).item()


PRIORS = [
    {"prior_type": "none"},
    {"prior_type": "residual"},
    {"prior_type": "residual", "data_std": [1.0, 0.4]},
    {"prior_type": "residual", "prediction_type": "epsilon"},
    {"prior_type": "blend", "prediction_type": "sample", "prior_weight": 0.7},
    {"prior_type": "as_printed", "prediction_type": "epsilon"},
    {"prior_type": "as_printed", "prediction_type": "epsilon", "data_std": [1.0, 2.5]},
]
TWO_LEVELS = {"spatial_factors": [2, 1], "temporal_factors": [2, 1], "num_train_timesteps": 800}


@pytest.mark.parametrize("config", PRIORS, ids=str)
@pytest.mark.parametrize("noise_shape", ["linear", "cosine", "quadratic"])
@pytest.mark.parametrize("std", [0.3, 1.0])
def test_every_prior_samples_the_right_gaussian(config, noise_shape, std):
    scheduler = DRDMScheduler(**TWO_LEVELS, **config, noise_shape=noise_shape)
    scheduler.set_timesteps(200)
    mean, spread = mean_and_spread(scheduler, 1, mean=1.0, std=std, prior=0.8)
    assert mean == pytest.approx(1.0, abs=0.005)
    assert spread == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("config", PRIORS, ids=str)
def test_every_prior_samples_the_right_gaussian_by_ancestral_sampling(config):
    spacing = {"timestep_spacing": "even", "min_alpha_bar": 1e-5}
    scheduler = DRDMScheduler(**TWO_LEVELS, **config, **spacing, solver="ddpm")
    scheduler.set_timesteps(800)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4000, 1, 1, 1, 1, generator=generator, dtype=torch.float64)
    level = gaussian_level(scheduler, 1, start, mean=1.0, std=0.5, prior=0.8, generator=generator).level
    assert level.mean().item() == pytest.approx(1.0, abs=4 * 0.5 / math.sqrt(4000))
    assert level.std().item() == pytest.approx(0.5, rel=0.05)


def test_as_printed_holds_x_plus_z_until_z_is_subtracted():
    scheduler = DRDMScheduler(**TWO_LEVELS, prior_type="as_printed", prediction_type="epsilon")
    scheduler.set_timesteps(200)
    result = gaussian_level(scheduler, 1, torch.zeros(1, 1, 1, 1, 1).double(), mean=1.0, std=0.3, prior=0.8)
    assert result.prev_sample.item() == pytest.approx(1.8, abs=0.005)
    assert result.level.item() == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("noise_shape", ["linear", "cosine", "quadratic"])
@pytest.mark.parametrize("config", PRIORS[:2] + PRIORS[3:6], ids=str)
@pytest.mark.parametrize("std", [0.1, 0.3, 1.0])
def test_default_few_steps_keep_the_spread(noise_shape, config, std):
    scheduler = DRDMScheduler(**config, noise_shape=noise_shape)
    scheduler.set_timesteps()
    assert scheduler.num_inference_steps <= 28
    for stage in range(4):
        mean, spread = mean_and_spread(scheduler, stage, mean=0.8, std=std, prior=0.5 if stage else None)
        assert mean == pytest.approx(0.8, abs=0.01 * std)
        assert spread == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("calls", [6, 7, 8, 10, 12, 20, 50])
@pytest.mark.parametrize("std", [0.1, 0.2, 0.3, 0.6, 1.0, 1.3])
def test_six_or_more_calls_keep_the_spread_on_the_wider_grid(calls, std):
    grid = {"min_alpha_bar": 0.0067, "max_alpha_bar": 0.99995, "log_snr_power": 0.9}
    scheduler = DRDMScheduler(spatial_factors=[1], temporal_factors=[1], **grid)
    scheduler.set_timesteps(calls)
    mean, spread = mean_and_spread(scheduler, 0, mean=0.8, std=std)
    assert mean == pytest.approx(0.8, abs=0.01 * std)
    assert spread == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("calls", [7, 8, 10, 12, 20, 50])
@pytest.mark.parametrize("std", [0.1, 0.2, 0.3, 0.6, 1.0, 1.3])
def test_seven_or_more_calls_keep_the_spread(calls, std):
    scheduler = DRDMScheduler(spatial_factors=[1], temporal_factors=[1])
    scheduler.set_timesteps(calls)
    mean, spread = mean_and_spread(scheduler, 0, mean=0.8, std=std)
    assert mean == pytest.approx(0.8, abs=0.01 * std)
    assert spread == pytest.approx(std, rel=0.04)


def test_carried_state_samples_the_right_gaussian():
    """[CN, CA, CD] under the residual prior: the carried state is moved to the new z and stays on the right law."""
    names = ("intensity", "adding", "denoising")
    scheduler = DRDMScheduler(**TWO_LEVELS, **dict.fromkeys(names, "continuous"), data_std=[1.0, 0.7])
    scheduler.set_timesteps(200)
    start = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1, 1)
    coarse = gaussian_level(scheduler, 0, start, mean=1.0, std=0.5)
    fine = gaussian_level(scheduler, 1, start, mean=1.0, std=0.5, prior=0.8, carried=coarse.prev_sample)
    mean, end = fine.level.flatten().tolist()
    assert mean == pytest.approx(1.0, abs=0.01)
    assert end - mean == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    ("prior_type", "prediction_type", "multiple"),
    [("none", "sample", 1), ("blend", "sample", 1), ("as_printed", "epsilon", 2)],
)
def test_fresh_noise_in_a_continuous_intensity_is_laid_over_z(prior_type, prediction_type, multiple):
    scheduler = DRDMScheduler(
        **TWO_LEVELS, intensity="continuous", prior_type=prior_type, prediction_type=prediction_type, data_std=[1, 0.5]
    )
    shape, first = (3, 1, 2, 4, 6), scheduler.boundaries[0] - 1
    signal, sigma = (value.item() for value in scheduler.signal_and_noise(first))
    prior = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    state = scheduler.begin_stage(1, shape, prior, torch.Generator().manual_seed(0))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    guess = multiple * prior / 0.5
    if prior_type == "none":
        guess = torch.zeros_like(prior)
    torch.testing.assert_close(state, signal * guess + sigma * noise)


@pytest.mark.parametrize("start_stage", [1, 3])
def test_start_at_any_stage(start_stage):
    scheduler = DRDMScheduler()
    scheduler.set_timesteps([9, 8, 7, 6])
    expected = torch.cat([scheduler.stage_timesteps(stage) for stage in range(start_stage, 4)])
    scheduler.set_timesteps([9, 8, 7, 6], start_stage=start_stage)
    assert torch.equal(scheduler.timesteps, expected)
    assert len(scheduler.stage_timesteps(0)) == 0
    mean, spread = mean_and_spread(scheduler, start_stage, mean=1.0, std=0.3, prior=0.8)
    assert mean == pytest.approx(1.0, abs=0.003) and spread == pytest.approx(0.3, rel=0.05)


def test_a_total_is_shared_with_the_rest_to_the_coarse_stages():
    scheduler = DRDMScheduler()
    scheduler.set_timesteps(22)
    assert [len(scheduler.stage_timesteps(stage)) for stage in range(4)] == [6, 6, 5, 5]
    scheduler.set_timesteps(9, start_stage=2)
    assert [len(scheduler.stage_timesteps(stage)) for stage in range(4)] == [0, 0, 5, 4]


def test_training_timesteps_are_stratified_over_the_stage():
    scheduler = DRDMScheduler(boundaries=[500, 350, 100, 0])
    for stage, (start, end) in enumerate([(600, 500), (500, 350), (350, 100), (100, 0)]):
        timesteps = scheduler.sample_timesteps(stage, 50, torch.Generator().manual_seed(stage))
        position = (timesteps - end + 1) / (start - end)
        assert sorted((50 * (1 - position)).floor().clamp(max=49).tolist()) == list(range(50))
        assert scheduler.stage_of(timesteps).tolist() == [stage] * 50


def test_history_is_forgotten_at_the_start_of_a_stage():
    scheduler = DRDMScheduler()
    scheduler.set_timesteps()
    first = mean_and_spread(scheduler, 0, mean=0.5, std=0.4)
    half_way = scheduler.stage_timesteps(0)[:4]
    state = scheduler.begin_stage(0, (2, 1, 1, 1, 1), dtype=torch.float64)
    for timestep in half_way:
        state = scheduler.step(state, timestep, state).prev_sample
    assert mean_and_spread(scheduler, 0, mean=0.5, std=0.4) == first


def test_epsilon_never_meets_an_empty_signal():
    signal, _ = DRDMScheduler(prediction_type="epsilon").signal_and_noise([149, 299, 599])
    torch.testing.assert_close(signal**2, torch.full((3,), 0.005, dtype=torch.float64))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"intensity": "smooth"}, r"`intensity` must be one of .*'smooth'"),
        ({"solver": "heun"}, r"`solver` must be one of .*'heun'"),
        ({"rgp": "greedy"}, r"`rgp` must be .*'greedy'"),
        ({"spatial_factors": [8, 3, 1]}, r"`spatial_factors` must be nested"),
        ({"temporal_factors": [1, 2]}, r"`temporal_factors` must be nested"),
        ({"temporal_factors": []}, r"`temporal_factors` must be a non-empty"),
        ({"boundaries": [450, 300, 0]}, r"`boundaries` must be 4 integers.*\[450, 300, 0\]"),
        ({"boundaries": [450, 300, 300, 0]}, r"`boundaries` must be 4 integers"),
        ({"boundaries": [600, 300, 150, 0]}, r"`boundaries` must be 4 integers"),
        ({"boundaries": [450, 300, 150, 1]}, r"`boundaries` must be 4 integers"),
        ({"num_train_timesteps": 3}, r"`num_train_timesteps` \(3\)"),
        ({"data_std": [1.0, 1.0]}, r"`data_std` must be 4 positive"),
        ({"data_std": [1.0, 1.0, 0.0, 1.0]}, r"`data_std` must be 4 positive"),
        ({"prior_type": "blend"}, r"`prediction_type` must be 'sample'.*'v_prediction'"),
        ({"prior_type": "as_printed"}, r"`prediction_type` must be 'epsilon'"),
        ({"prior_type": "blend", "prediction_type": "sample", "prior_weight": 1.0}, r"`prior_weight` must be in"),
        ({"beta_start": 0.1, "beta_end": 0.01}, r"`beta_start` and `beta_end` must"),
        ({"min_alpha_bar": 0.0}, r"`min_alpha_bar` and `max_alpha_bar` must"),
        ({"noise_shape": "quadratic", "boundaries": [450, 300, 299, 0]}, r"`boundaries` must leave 2 steps"),
    ],
)
def test_bad_configurations_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        DRDMScheduler(**config)


def test_calls_may_be_counted_by_numpy():
    schedulers = [DRDMScheduler(), DRDMScheduler()]
    for scheduler, count in zip(schedulers, (12, np.int64(12))):
        scheduler.set_timesteps(count)
    assert torch.equal(schedulers[0].timesteps, schedulers[1].timesteps)


def test_bad_calls_are_refused():
    scheduler, shape = DRDMScheduler(), (2, 1, 4, 3, 5)
    with pytest.raises(ValueError, match=r"`num_inference_steps` must give at least one call to each of 4 stages.*3"):
        scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match=r"`num_inference_steps` .*\[5, 5\]"):
        scheduler.set_timesteps([5, 5])
    with pytest.raises(
        ValueError, match=r"`num_inference_steps` must not put two calls on one timestep.*\[151, 1, 1, 1\]"
    ):
        DRDMScheduler(timestep_spacing="even").set_timesteps([151, 1, 1, 1])
    with pytest.raises(ValueError, match=r"`start_stage` must be between 0 and 3, but is 4"):
        scheduler.set_timesteps(start_stage=4)
    scheduler.set_timesteps()
    with pytest.raises(ValueError, match=r"`stage` must be between 0 and 3, but is -1"):
        scheduler.begin_stage(-1, shape)
    with pytest.raises(ValueError, match=r"`prior` must have the shape \(2, 1, 4, 3, 5\) of the sample, but is None"):
        scheduler.begin_stage(1, shape)
    with pytest.raises(ValueError, match=r"`prior` must have the shape .*\(2, 1, 4, 3, 4\)"):
        scheduler.begin_stage(1, shape, prior=torch.zeros(2, 1, 4, 3, 4))
    with pytest.raises(ValueError, match=r"`generator` must have one entry per sample, 2, but has 1"):
        scheduler.begin_stage(0, shape, generator=[torch.Generator()])
    with pytest.raises(ValueError, match=r"`timestep` must be one of `timesteps`, but is 12.5"):
        scheduler.step(torch.zeros(shape), 12.5, torch.zeros(shape))
    with pytest.raises(ValueError, match=r"`timesteps` must be in \(-1, 599\]"):
        scheduler.add_noise(torch.zeros(shape), torch.zeros(shape), torch.tensor([0.0, 600.0]))


def test_a_carried_state_must_be_handed_on():
    scheduler = DRDMScheduler(denoising="continuous")
    scheduler.set_timesteps()
    with pytest.raises(ValueError, match=r"`sample` must be the `prev_sample` of the last call"):
        scheduler.begin_stage(1, (1, 1, 2, 3, 4), prior=torch.zeros(1, 1, 2, 3, 4))


def test_the_coarsest_stage_may_have_a_prior():
    scheduler = DRDMScheduler(coarsest_prior=True, data_std=[0.5, 1.0, 1.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    clean, noise, prior = (torch.randn(2, 1, 2, 1, 3, generator=generator) for _ in range(3))
    timesteps = torch.tensor([590.0, 470.0])
    noisy = scheduler.add_noise(clean, noise, timesteps, prior)
    signal, sigma = (part.float().reshape(2, 1, 1, 1, 1) for part in scheduler.signal_and_noise(timesteps))
    assert torch.allclose(noisy, signal * (clean - prior) / 0.5 + sigma * noise, atol=1e-6)
    scheduler.set_timesteps(8)
    state = scheduler.begin_stage(0, clean.shape, prior, generator)
    for timestep in scheduler.stage_timesteps(0):  # a perfect denoiser
        velocity = (signal_at(scheduler, timestep) * state - (clean - prior) / 0.5) / noise_at(scheduler, timestep)
        result = scheduler.step(velocity, timestep, state)
        state = result.prev_sample
    assert torch.allclose(result.level, clean, atol=1e-4)
    with pytest.raises(ValueError, match="`prior` must have the shape"):
        scheduler.begin_stage(0, clean.shape)


def signal_at(scheduler, timestep):
    return scheduler.signal_and_noise(timestep)[0].item()


def noise_at(scheduler, timestep):
    return scheduler.signal_and_noise(timestep)[1].item()
