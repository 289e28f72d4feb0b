# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Named checks that every DRDM scheduler passes. A check takes the scheduler and a scratch folder."""

import json

import torch

from zoomdiff_diffusers.hierarchy import Hierarchy, Level


TIME, HEIGHT, WIDTH = 1, 2, 3  # units of the coarsest level: odd and not square
PRIOR_SIGN = {"residual": -1.0, "none": 0.0, "blend": 0.0, "as_printed": 1.0}


def hierarchy_of(scheduler) -> Hierarchy:
    levels = [Level(f"level_{k}", spatial, temporal) for k, (spatial, temporal) in enumerate(scheduler.stages)]
    return Hierarchy(levels)


def random_pyramid(scheduler, batch=2, seed=0) -> list[torch.Tensor]:
    spatial, temporal = scheduler.stages[0]
    shape = (batch, 1, TIME * temporal, HEIGHT * spatial, WIDTH * spatial)
    finest = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return hierarchy_of(scheduler).pyramid(finest)


def clean_and_prior(scheduler, levels, stage):
    """What a stage noises and its z, both in the shape of the state."""
    hierarchy, state, target = hierarchy_of(scheduler), scheduler.state_level(stage), scheduler.target_level(stage)
    prior = hierarchy.upsample(levels[stage - 1], stage - 1, state) if stage else None
    return hierarchy.upsample(levels[target], target, state), prior


def diffused(scheduler, level, stage, prior):
    """y = (x + c z) / std, written down a second time."""
    offset = PRIOR_SIGN[scheduler.config.prior_type] * prior if prior is not None else 0.0
    return (level + offset) / scheduler.data_std[stage]


def output_for(scheduler, clean, sample, timestep, stage, prior):
    """The network output that stands for the clean diffused quantity, derived independently of the scheduler."""
    signal, sigma = (value.item() for value in scheduler.signal_and_noise(timestep))
    noise = (sample - signal * clean) / sigma
    if scheduler.config.prediction_type == "v_prediction":
        return signal * noise - sigma * clean
    guide = prior / scheduler.data_std[stage] if prior is not None else torch.zeros_like(clean)
    if scheduler.config.prediction_type == "sample":
        blend = scheduler.config.prior_type == "blend" and stage > 0
        weight = scheduler.config.prior_weight if blend else 0.0
        return (clean - weight * guide) / (1 - weight)
    return noise - signal / sigma * guide if scheduler.config.prior_type == "as_printed" else noise


def arbitrary_network(sample, timestep):
    return torch.sin(sample) * 0.3 + 0.001 * float(timestep)


def generators(seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def run(scheduler, levels, network, seeds, dtype=torch.float64):
    """Every stage with the true coarser level as z; returns the output of the last call of each."""
    random, state, results = generators(seeds), None, []
    for stage in range(len(scheduler.stages)):
        clean, prior = clean_and_prior(scheduler, levels, stage)
        clean, prior = clean.to(dtype), None if prior is None else prior.to(dtype)
        state = scheduler.begin_stage(stage, clean.shape, prior, random, dtype=dtype, sample=state)
        for timestep in scheduler.stage_timesteps(stage):
            model_input = scheduler.scale_model_input(state, timestep)
            output = network(model_input, timestep, stage, clean, prior)
            result = scheduler.step(output, timestep, state, generator=random)
            state = result.prev_sample
        results.append(result)
    return results


def check_is_a_diffusers_scheduler(scheduler, tmp_path):
    sample = torch.ones(1, 1, 2, 3, 4)
    assert scheduler.order == 1 and scheduler.init_noise_sigma == 1.0
    assert len(scheduler) == scheduler.config.num_train_timesteps
    assert torch.equal(scheduler.scale_model_input(sample, scheduler.timesteps[0]), sample)


def check_config_survives_json(scheduler, tmp_path):
    scheduler.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "scheduler_config.json").read_text())
    loaded = type(scheduler).from_pretrained(tmp_path)
    public = {name: value for name, value in scheduler.config.items() if not name.startswith("_")}
    assert {name: stored[name] for name in public} == public
    assert {name: loaded.config[name] for name in public} == public
    scheduler.set_timesteps()
    loaded.set_timesteps()
    assert torch.equal(scheduler.timesteps, loaded.timesteps)


def check_every_respacing_hits_every_boundary(scheduler, tmp_path):
    num_stages = len(scheduler.stages)
    for calls in (None, num_stages, 5 * num_stages + 1, list(range(1, num_stages + 1))):
        scheduler.set_timesteps(calls)
        assert len(scheduler.timesteps) == scheduler.num_inference_steps
        assert bool((scheduler.timesteps.diff() < 0).all())
        assert torch.equal(scheduler.stage_of(scheduler.timesteps), scheduler.stage_of_timesteps)
        levels = random_pyramid(scheduler, batch=1)
        finished, state = [], None
        for stage in range(num_stages):
            clean, prior = clean_and_prior(scheduler, levels, stage)
            state = scheduler.begin_stage(stage, clean.shape, prior, dtype=torch.float64, sample=state)
            for timestep in scheduler.stage_timesteps(stage):
                result = scheduler.step(arbitrary_network(state, timestep), timestep, state)
                state = result.prev_sample
                finished.append(result.level is not None)
                assert result.stage == stage
        last_of_stage = scheduler.stage_of_timesteps.diff(append=torch.tensor([num_stages])) > 0
        assert finished == last_of_stage.tolist()


def check_exact_denoiser_recovers_every_level(scheduler, tmp_path):
    levels, hierarchy = random_pyramid(scheduler), hierarchy_of(scheduler)

    def network(sample, timestep, stage, clean, prior):
        return output_for(scheduler, diffused(scheduler, clean, stage, prior), sample, timestep, stage, prior)

    scheduler.set_timesteps()
    for stage, result in enumerate(run(scheduler, levels, network, seeds=[5, 6])):
        level = hierarchy.aggregate(result.level, stage, source=scheduler.state_level(stage))
        torch.testing.assert_close(level, levels[stage], rtol=0, atol=1e-9)


def check_boundary_state_carries_no_noise(scheduler, tmp_path):
    if scheduler.config.intensity == "continuous":  # these boundaries carry noise, by definition, except the last
        first, last = len(scheduler.stages) - 1, len(scheduler.stages)
    else:
        first, last = 0, len(scheduler.stages)
    for stage in range(first, last):
        end = scheduler.boundaries[stage] - 1
        signal, noise = scheduler.signal_and_noise(end, torch.tensor([stage]))
        assert signal.item() == 1 and noise.item() == 0


def check_batch_may_be_split(scheduler, tmp_path):
    levels = random_pyramid(scheduler, batch=3)
    scheduler.set_timesteps()

    def network(sample, timestep, stage, clean, prior):
        return arbitrary_network(sample, timestep)

    together = run(scheduler, levels, network, seeds=[1, 2, 3], dtype=torch.float32)
    parts = [
        run(scheduler, [level[rows] for level in levels], network, seeds, dtype=torch.float32)
        for rows, seeds in ((slice(0, 2), [1, 2]), (slice(2, 3), [3]))
    ]
    for stage, whole in enumerate(together):
        assert torch.equal(whole.level, torch.cat([part[stage].level for part in parts]))


def check_tuple_output_equals_dict_output(scheduler, tmp_path):
    scheduler.set_timesteps()
    sample, timestep = torch.randn(2, 1, 2, 3, 4), scheduler.timesteps[0]
    scheduler.begin_stage(0, sample.shape)
    as_output = scheduler.step(0.5 * sample, timestep, sample, generator=torch.Generator().manual_seed(0))
    scheduler.begin_stage(0, sample.shape)
    random = torch.Generator().manual_seed(0)
    as_tuple = scheduler.step(0.5 * sample, timestep, sample, generator=random, return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], as_output.prev_sample)
    assert torch.equal(as_tuple[1], as_output.pred_original_sample)


def check_target_stands_for_the_clean_quantity(scheduler, tmp_path):
    levels = random_pyramid(scheduler, batch=4)
    for stage in range(len(scheduler.stages)):
        clean, prior = clean_and_prior(scheduler, levels, stage)
        timesteps = scheduler.sample_timesteps(stage, 4, torch.Generator().manual_seed(3))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4), dtype=clean.dtype)
        noisy = scheduler.add_noise(clean, noise, timesteps, prior)
        target = scheduler.get_target(clean, noise, timesteps, prior)
        quantity = diffused(scheduler, clean, stage, prior)
        for row, timestep in enumerate(timesteps):
            row_prior = None if prior is None else prior[row]
            expected = output_for(scheduler, quantity[row], noisy[row], timestep, stage, row_prior)
            torch.testing.assert_close(target[row], expected, rtol=1e-7, atol=1e-6)
        recovered = scheduler.predict_original(target, timesteps, noisy, prior)
        torch.testing.assert_close(recovered, quantity, rtol=1e-7, atol=1e-6)


def check_stages_may_be_mixed_in_a_batch(scheduler, tmp_path):
    num_stages = len(scheduler.stages)
    timesteps = torch.cat(
        [scheduler.sample_timesteps(k, 1, torch.Generator().manual_seed(k)) for k in range(num_stages)]
    )
    assert scheduler.stage_of(timesteps).tolist() == list(range(num_stages))
    clean, noise, prior = torch.randn(3, num_stages, 1, 4, 3, 2, generator=torch.Generator().manual_seed(7))
    noisy = scheduler.add_noise(clean, noise, timesteps, prior)
    target = scheduler.get_target(clean, noise, timesteps, prior)
    for k in range(num_stages):
        one = slice(k, k + 1)
        alone = prior[one] if k else None  # the coarsest stage has no z, whatever the batch carries there
        torch.testing.assert_close(noisy[one], scheduler.add_noise(clean[one], noise[one], timesteps[one], alone))
        torch.testing.assert_close(target[one], scheduler.get_target(clean[one], noise[one], timesteps[one], alone))


def check_type_of_sample_is_kept(scheduler, tmp_path):
    scheduler.set_timesteps()
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        state = scheduler.begin_stage(0, (2, 1, 3, 2, 1), dtype=dtype)
        assert state.dtype == dtype
        for timestep in scheduler.stage_timesteps(0):
            result = scheduler.step(0.1 * state, timestep, state)
            state = result.prev_sample
            assert state.dtype == dtype and bool(torch.isfinite(state).all())
        assert result.level.dtype == dtype


SCHEDULER_CHECKS = [
    check_is_a_diffusers_scheduler,
    check_config_survives_json,
    check_every_respacing_hits_every_boundary,
    check_exact_denoiser_recovers_every_level,
    check_boundary_state_carries_no_noise,
    check_batch_may_be_split,
    check_tuple_output_equals_dict_output,
    check_target_stands_for_the_clean_quantity,
    check_stages_may_be_mixed_in_a_batch,
    check_type_of_sample_is_kept,
]
