# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Named checks that every traffic pipeline passes. A check takes the pipeline, two contexts and a scratch folder."""

import copy

import numpy as np
import torch
from support.tiny import seeded


# A few calls are enough where only the plumbing is looked at.
FEW = {"num_inference_steps": 8}


def assert_same_levels(first, second, rtol=1e-4, atol=1e-4):
    assert list(first) == list(second)
    for name in first:
        np.testing.assert_allclose(np.asarray(first[name]), np.asarray(second[name]), rtol=rtol, atol=atol)


def assert_consistent(levels, hierarchy, reduction="mean"):
    """Every level sums up to the one before it and nothing is negative, computed apart from the package."""
    names = list(levels)
    for name in names:
        assert levels[name].dtype == np.float32
        assert np.isfinite(levels[name]).all() and (levels[name] >= 0).all()
    for coarse, fine in zip(names, names[1:]):
        *lead, time, height, width = levels[coarse].shape
        in_time, in_height, in_width = (f // c for f, c in zip(levels[fine].shape[-3:], (time, height, width)))
        blocks = levels[fine].astype(np.float64).reshape(*lead, time, in_time, height, in_height, width, in_width)
        found = getattr(blocks, reduction)(axis=(-5, -3, -1))
        np.testing.assert_allclose(found, levels[coarse], rtol=1e-5)


def check_levels_come_in_order_with_the_right_shapes(pipe, contexts, tmp_path):
    levels = pipe(contexts[0], num_samples_per_context=3, generator=seeded(), **FEW).levels
    assert list(levels) == pipe.hierarchy.names
    height, width = np.shape(contexts[0]["population"])
    hours = len(contexts[0]["population_over_time"])
    for level in pipe.hierarchy.levels:
        expected = hours // level.temporal_factor, height // level.spatial_factor, width // level.spatial_factor
        assert levels[level.name].shape == (3, len(pipe.traffic_processor.channels), *expected)


def check_tuple_output_equals_dict_output(pipe, contexts, tmp_path):
    output = pipe(contexts[0], generator=seeded(), **FEW)
    as_tuple = pipe(contexts[0], generator=seeded(), return_dict=False, **FEW)
    assert isinstance(as_tuple, tuple)
    assert_same_levels(output.levels, as_tuple[0], rtol=0, atol=0)
    assert output["units"] == "mean" and output.start == np.datetime64("2024-01-01")


def check_levels_sum_up_and_are_not_negative(pipe, contexts, tmp_path):
    for units, reduction in (("mean", "mean"), ("sum", "sum")):
        output = pipe(contexts[0], generator=seeded(), units=units, num_samples_per_context=2, **FEW)
        assert_consistent(output.levels, pipe.hierarchy, reduction)


def check_same_seed_gives_the_same_result(pipe, contexts, tmp_path):
    first = pipe(contexts[0], generator=seeded(1), **FEW).levels
    assert_same_levels(first, pipe(contexts[0], generator=seeded(1), **FEW).levels, rtol=0, atol=0)
    assert not np.allclose(first["bs"], pipe(contexts[0], generator=seeded(2), **FEW).levels["bs"])
    torch.manual_seed(3)
    without = pipe(contexts[0], **FEW).levels
    torch.manual_seed(3)
    assert_same_levels(without, pipe(contexts[0], **FEW).levels, rtol=0, atol=0)


def check_batched_contexts_equal_single_ones(pipe, contexts, tmp_path):
    together = pipe(contexts, generator=[seeded(5), seeded(6)], **FEW).levels
    for index, context in enumerate(contexts):
        alone = pipe(context, generator=[seeded(5 + index)], **FEW).levels
        assert_same_levels({name: values[index : index + 1] for name, values in together.items()}, alone)


def check_batch_size_changes_nothing(pipe, contexts, tmp_path):
    options = {"num_samples_per_context": 3, **FEW}
    whole = pipe(contexts, generator=seeded(), batch_size=6, **options).levels
    for batch_size in (1, 4):
        assert_same_levels(whole, pipe(contexts, generator=seeded(), batch_size=batch_size, **options).levels)


def check_larger_ensemble_begins_with_the_smaller_one(pipe, contexts, tmp_path):
    small = pipe(contexts[0], num_samples_per_context=2, generator=seeded(), **FEW).levels
    large = pipe(contexts[0], num_samples_per_context=5, generator=seeded(), **FEW).levels
    assert_same_levels(small, {name: values[:2] for name, values in large.items()})
    assert not np.allclose(large["grid_50m"][0], large["grid_50m"][1])


def check_samples_of_a_context_lie_side_by_side(pipe, contexts, tmp_path):
    generators = [seeded(seed) for seed in range(4)]
    both = pipe(contexts, num_samples_per_context=2, generator=generators, **FEW).levels
    second = pipe(contexts[1], num_samples_per_context=2, generator=[seeded(2), seeded(3)], **FEW).levels
    assert_same_levels({name: values[2:] for name, values in both.items()}, second)


def check_output_types_agree(pipe, contexts, tmp_path):
    outputs = {
        output_type: pipe(contexts[0], generator=seeded(), output_type=output_type, **FEW).levels
        for output_type in ("np", "pt", "xarray", "latent")
    }
    for name, values in outputs["np"].items():
        assert torch.equal(outputs["pt"][name], torch.from_numpy(values))
        assert outputs["xarray"][name]["traffic"].dims == ("sample", "channel", "time", "y", "x")
        np.testing.assert_array_equal(outputs["xarray"][name]["traffic"].values, values)
        decoded = pipe.traffic_processor.decode(outputs["latent"][name])
        np.testing.assert_allclose(decoded.numpy(), values, rtol=1e-4, atol=1e-4)


def check_units_differ_by_the_size_of_the_unit(pipe, contexts, tmp_path):
    means = pipe(contexts[0], generator=seeded(), units="mean", **FEW).levels
    sums = pipe(contexts[0], generator=seeded(), units="sum", **FEW).levels
    for level in pipe.hierarchy.levels:
        volume = level.spatial_factor**2 * level.temporal_factor
        np.testing.assert_allclose(sums[level.name], volume * means[level.name], rtol=1e-6)


def check_callback_sees_every_step_once(pipe, contexts, tmp_path):
    seen = []

    def callback(pipeline, step, timestep, tensors):
        seen.append((step, float(timestep), tuple(tensors["latents"].shape)))
        return tensors

    pipe(contexts[0], generator=seeded(), callback_on_step_end=callback, num_inference_steps=[3, 2, 2, 1])
    assert [step for step, _, _ in seen] == list(range(8)) and pipe.num_timesteps == 8
    assert [timestep for _, timestep, _ in seen] == [float(timestep) for timestep in pipe.scheduler.timesteps]
    assert len({shape for _, _, shape in seen}) == len(pipe.hierarchy)


def check_callback_can_change_the_latents(pipe, contexts, tmp_path):
    def callback(pipeline, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 0 else {}

    plain = pipe(contexts[0], generator=seeded(), **FEW).levels
    changed = pipe(contexts[0], generator=seeded(), callback_on_step_end=callback, **FEW).levels
    assert not np.allclose(plain["bs"], changed["bs"])
    assert_consistent(changed, pipe.hierarchy)


def check_interrupted_run_returns_the_complete_levels(pipe, contexts, tmp_path):
    def callback(pipeline, step, timestep, tensors):
        pipeline._interrupt = step == 5  # 2 calls per stage: the fourth stage never begins
        return {}

    plain = pipe(contexts[0], generator=seeded(), **FEW).levels
    stopped = pipe(contexts[0], generator=seeded(), callback_on_step_end=callback, **FEW).levels
    assert list(stopped) == pipe.hierarchy.names[:3]
    assert_same_levels(stopped, {name: plain[name] for name in stopped}, rtol=0, atol=0)
    assert list(pipe(contexts[0], generator=seeded(), **FEW).levels) == pipe.hierarchy.names


def check_save_and_load_give_the_same_result(pipe, contexts, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    loaded = type(pipe).from_pretrained(tmp_path / "saved")
    loaded.set_progress_bar_config(disable=True)
    for name, values in pipe.unet.state_dict().items():
        assert torch.equal(values, loaded.unet.state_dict()[name])
    expected = pipe(contexts[0], generator=seeded(), **FEW).levels
    assert_same_levels(expected, loaded(contexts[0], generator=seeded(), **FEW).levels, rtol=1e-5, atol=1e-5)


def check_scheduler_can_be_swapped(pipe, contexts, tmp_path):
    original = pipe.scheduler
    for solver in ("ddim", "ddpm", "dpmsolver++"):
        pipe.scheduler = type(original).from_config(original.config, solver=solver)
        assert pipe.scheduler.config.solver == solver
        assert_consistent(pipe(contexts[0], generator=seeded(), **FEW).levels, pipe.hierarchy)
    pipe.scheduler = original


def check_bfloat16_weights_give_float32_levels_that_sum_up(pipe, contexts, tmp_path):
    unet = copy.deepcopy(pipe.unet)
    half = type(pipe)(**pipe.components | {"unet": unet}).to(torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    assert half.dtype == torch.bfloat16 and pipe.unet.dtype == torch.float32
    assert_consistent(half(contexts[0], generator=seeded(), **FEW).levels, pipe.hierarchy)


def check_guidance_of_one_is_no_guidance(pipe, contexts, tmp_path):
    plain = pipe(contexts[0], generator=seeded(), **FEW).levels
    assert_same_levels(plain, pipe(contexts[0], generator=seeded(), guidance_scale=1.0, **FEW).levels, rtol=0, atol=0)
    guided = pipe(contexts[0], generator=seeded(), guidance_scale=3.0, **FEW).levels
    assert pipe.guidance_scale == 3.0 and pipe.do_classifier_free_guidance
    assert not np.allclose(plain["grid_50m"], guided["grid_50m"])
    assert_consistent(guided, pipe.hierarchy)


def check_inputs_are_not_changed(pipe, contexts, tmp_path):
    before = copy.deepcopy(contexts[0])
    traffic = pipe(contexts[0], generator=seeded(), **FEW).levels["cell"]
    traffic[..., 0] = np.nan
    given = traffic.copy()
    pipe.refine(traffic, "cell", contexts[0], generator=seeded(), **FEW)
    np.testing.assert_array_equal(traffic, given)
    for name, values in before.items():
        np.testing.assert_array_equal(values, contexts[0][name])


def check_progress_bar_names_the_level(pipe, contexts, tmp_path):
    path = tmp_path / "progress.txt"
    with open(path, "w") as file:
        pipe.set_progress_bar_config(file=file, mininterval=0)
        pipe(contexts[0], generator=seeded(), **FEW)
    pipe.set_progress_bar_config(disable=True)
    text = path.read_text()
    assert all(name in text for name in pipe.hierarchy.names) and "8/8" in text


PIPELINE_CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
