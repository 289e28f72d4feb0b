# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import itertools
from datetime import UTC, date, datetime

import numpy as np
import pandas
import pytest
import torch
import xarray
from contracts.pipeline import FEW, PIPELINE_CHECKS, assert_consistent, assert_same_levels
from diffusers import DDIMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import (
    HEIGHT,
    HOURS,
    LAYERS,
    WIDTH,
    context_with_zones,
    random_context,
    seeded,
    tiny_pipeline,
    tiny_regressor,
    tiny_unet,
    zoned_pipeline,
)

from zoomdiff_diffusers import (
    ContextProcessor,
    DRDMScheduler,
    Hierarchy,
    Level,
    TrafficProcessor,
    ZoomDiffPipeline,
    ZoomDiffUNet,
)
from zoomdiff_diffusers.data.stores import channel_units
from zoomdiff_diffusers.pipelines.zoomdiff.inputs import expand_generators, parse_start


SCHEDULES = list(itertools.product(["segmented", "continuous"], repeat=3))
PIPELINES = {"one_channel": tiny_pipeline(), "two_channels": tiny_pipeline(channels=2)}


@pytest.fixture(scope="module")
def pipe():
    return PIPELINES["one_channel"]


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("check", PIPELINE_CHECKS, ids=lambda check: check.__name__)
def test_contract(name, check, tmp_path):
    check(PIPELINES[name], [random_context(10), random_context(11)], tmp_path)


# ------------------------------------------------------------------------------------------------------ closed forms


def silent_pipeline():
    """A network that is freshly initialised predicts 0: with `"sample"` that says "the level is the one before"."""
    pipe = tiny_pipeline()
    torch.manual_seed(0)
    config = {name: value for name, value in pipe.unet.config.items() if not name.startswith("_")}
    return ZoomDiffPipeline(
        **pipe.components | {"unet": ZoomDiffUNet(**config), "scheduler": DRDMScheduler(prediction_type="sample")}
    )


def test_network_that_predicts_no_residual_repeats_the_coarsest_level():
    pipe = silent_pipeline()
    levels = pipe(random_context(), generator=seeded(), **FEW).levels
    config = pipe.traffic_processor.config
    expected = config.offset[0] * np.expm1(config.mean[0])
    for values in levels.values():
        np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_refinement_without_residual_is_the_upsampled_input():
    pipe = silent_pipeline()
    traffic = np.random.default_rng(0).gamma(1.0, 5.0, (2, 1, 2, 1, 2)).astype(np.float32)
    levels = pipe.refine(traffic, "bs", random_context(), generator=seeded(), **FEW).levels
    for level in pipe.hierarchy.levels:
        factors = 24 // level.temporal_factor, 8 // level.spatial_factor, 8 // level.spatial_factor
        expected = traffic.repeat(factors[0], 2).repeat(factors[1], 3).repeat(factors[2], 4)
        np.testing.assert_allclose(levels[level.name], expected, rtol=1e-5)


def test_days_without_any_measurement_come_from_the_network():
    pipe = silent_pipeline()
    traffic = np.full((1, 2, 1, 2), 7.0, dtype=np.float32)
    traffic[0, 1] = np.nan
    levels = pipe.refine(traffic, "bs", random_context(), generator=seeded(), **FEW).levels
    config = pipe.traffic_processor.config
    generated = config.offset[0] * np.expm1(config.mean[0])
    np.testing.assert_allclose(levels["grid_50m"][0, 0, :24], 7.0, rtol=1e-5)
    np.testing.assert_allclose(levels["grid_50m"][0, 0, 24:], generated, rtol=1e-4)


# -------------------------------------------------------------------------------------------------------- exact sums


@settings(deadline=None, max_examples=12)
@given(gain=st.sampled_from([0.01, 0.3, 1.0, 3.0]), seed=st.integers(0, 2**32), units=st.sampled_from(["mean", "sum"]))
def test_levels_sum_up_whatever_the_network_says(gain, seed, units):
    pipe = tiny_pipeline(gain=gain)
    levels = pipe(random_context(seed), generator=seeded(seed), units=units, num_inference_steps=4).levels
    assert_consistent(levels, pipe.hierarchy, units)


@pytest.mark.parametrize("intensity, adding, denoising", SCHEDULES)
def test_levels_sum_up_for_every_combination_of_schedules(intensity, adding, denoising):
    scheduler = DRDMScheduler(intensity=intensity, adding=adding, denoising=denoising)
    spatial, temporal = zip(*(scheduler.state_factors(stage) for stage in range(4)))
    pipe = tiny_pipeline(scheduler=scheduler, spatial_factors=list(spatial), temporal_factors=list(temporal))
    levels = pipe(random_context(), generator=seeded(), **FEW).levels
    assert_consistent(levels, pipe.hierarchy)
    assert not np.allclose(levels["grid_50m"], levels["grid_50m"].mean())
    levels["cell"][..., 0] = np.nan
    refined = pipe.refine(levels["cell"], "cell", random_context(), generator=seeded(), **FEW).levels
    assert_consistent(refined, pipe.hierarchy)


@pytest.mark.parametrize(
    "prior_type, prediction_type",
    [("none", "v_prediction"), ("residual", "sample"), ("blend", "sample"), ("as_printed", "epsilon")],
)
def test_levels_sum_up_for_every_prior(prior_type, prediction_type):
    pipe = tiny_pipeline(scheduler=DRDMScheduler(prior_type=prior_type, prediction_type=prediction_type))
    assert_consistent(pipe(random_context(), generator=seeded(), **FEW).levels, pipe.hierarchy)


def test_uniform_hierarchy_of_other_factors():
    spatial, temporal = {"bs": 4, "cell": 2, "grid": 1}, [2, 1]
    hierarchy = Hierarchy.from_resolutions(spatial, temporal, rgp="uniform")
    scheduler = DRDMScheduler(400, list(spatial.values()), temporal, rgp="uniform")
    components = tiny_pipeline().components | {"scheduler": scheduler, "hierarchy": hierarchy}
    layers = components["context_processor"].layer_specs
    components["unet"] = tiny_unet(
        layers, spatial_factors=hierarchy.spatial_factors, temporal_factors=hierarchy.temporal_factors
    )
    pipe = ZoomDiffPipeline(**components)
    pipe.set_progress_bar_config(disable=True)
    levels = pipe(random_context(hours=6, height=4, width=12), generator=seeded(), num_inference_steps=8).levels
    assert {name: values.shape[2:] for name, values in levels.items()} == {
        "bs": (3, 1, 3),
        "cell_2h": (3, 2, 6),
        "cell_1h": (6, 2, 6),
        "grid": (6, 4, 12),
    }
    assert_consistent(levels, hierarchy)


# -------------------------------------------------------------------------------------------------------- refinement


@pytest.mark.parametrize("level", ["bs", "cell", "grid_100m"])
@pytest.mark.parametrize("units", ["mean", "sum"])
def test_complete_traffic_is_kept_and_refined(pipe, level, units):
    given = pipe(random_context(), generator=seeded(1), num_samples_per_context=2, units=units, **FEW).levels[level]
    levels = pipe.refine(given, level, random_context(), generator=seeded(2), units=units, **FEW).levels
    assert list(levels) == pipe.hierarchy.names[pipe.hierarchy.index(level) :]
    np.testing.assert_array_equal(levels[level], given)
    assert_consistent(levels, pipe.hierarchy, units)


@pytest.mark.parametrize("level", ["bs", "cell", "grid_100m", "grid_50m"])
@pytest.mark.parametrize("units", ["mean", "sum"])
def test_known_values_survive_among_missing_ones(pipe, level, units):
    given = pipe(random_context(), generator=seeded(1), units=units, num_samples_per_context=2, **FEW).levels[level]
    given[np.random.default_rng(0).random(given.shape) < 0.4] = np.nan
    levels = pipe.refine(given, level, random_context(), generator=seeded(2), units=units, **FEW).levels
    assert list(levels) == pipe.hierarchy.names
    known = ~np.isnan(given)
    assert known.any() and not known.all()
    np.testing.assert_array_equal(levels[level][known], given[known])
    assert_consistent(levels, pipe.hierarchy, units)


def test_nothing_known_is_ordinary_generation(pipe):
    nothing = np.full((1, HOURS // 4, HEIGHT // 4, WIDTH // 4), np.nan)
    refined = pipe.refine(nothing, "cell", random_context(), generator=seeded(), **FEW).levels
    assert_same_levels(refined, pipe(random_context(), generator=seeded(), **FEW).levels)


def test_units_without_measurement_depend_on_measured_neighbours(pipe):
    def refine(value):
        traffic = np.full((1, 2, 1, 2), value)
        traffic[..., 1] = np.nan
        return pipe.refine(traffic, "bs", random_context(), generator=seeded(), **FEW).levels["bs"][..., 1]

    assert not np.allclose(refine(0.1), refine(50.0), rtol=1e-3)


def test_each_given_tensor_gets_its_own_refinements(pipe):
    given = pipe([random_context(0), random_context(1)], generator=seeded(), num_samples_per_context=2, **FEW)
    contexts = [random_context(0), random_context(1)]
    options = {"num_samples_per_context": 3, **FEW}
    levels = pipe.refine(given.levels["bs"], 0, contexts, generator=seeded(), **options).levels
    np.testing.assert_array_equal(levels["bs"], np.repeat(given.levels["bs"], 3, axis=0))
    assert len(levels["grid_50m"]) == 12 and not np.allclose(levels["cell"][0], levels["cell"][1])


def test_refine_takes_tensors_and_data_arrays(pipe):
    given = pipe(random_context(), generator=seeded(), output_type="xarray", **FEW).levels["bs"]["traffic"]
    expected = pipe.refine(given.values, "bs", random_context(), generator=seeded(), **FEW).levels
    for traffic in (given, torch.from_numpy(given.values), given.values[0]):
        levels = pipe.refine(traffic, "bs", random_context(), generator=seeded(), **FEW).levels
        assert_same_levels(levels, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "traffic, level, message",
    [
        (np.ones((1, 2, 1, 2)), "city", "`level` must be one of"),
        (np.ones((1, 2, 1, 2)), 4, "`level` must be between"),
        (np.ones((2, 2, 1, 2)), "bs", r"\(N, 1, T, H, W\)"),
        (np.ones((2, 1, 2)), "bs", r"\(N, 1, T, H, W\)"),
        (np.ones((1, 2, 2, 2)), "bs", r"\(2, 1, 2\) on its last three axes"),
        (np.ones((1, 3, 1, 2)), "bs", r"\(1, 72, 8, 16\), but has \(48, 8, 16\)"),  # hours of the context
        (-np.ones((1, 2, 1, 2)), "bs", "finite and not negative"),
        (np.full((1, 2, 1, 2), np.inf), "bs", "finite and not negative"),
        (np.ones((1, 48, 8, 16)), "grid_50m", "`level` is the finest"),
    ],
)
def test_bad_traffic_is_refused(pipe, traffic, level, message):
    with pytest.raises(ValueError, match=message):
        pipe.refine(traffic, level, random_context(), **FEW)


# ------------------------------------------------------------------------------------------------------ start and time


@pytest.mark.parametrize(
    "start",
    [
        "2024-03-05",
        "2024-03-05T00:00",
        "2024-03-05 00:00:00",
        date(2024, 3, 5),
        datetime(2024, 3, 5),
        np.datetime64("2024-03-05"),
        np.datetime64("2024-03-05T00:00", "ns"),
        pandas.Timestamp("2024-03-05"),
    ],
)
def test_every_kind_of_date_is_understood(start):
    assert parse_start(start, Hierarchy()) == datetime(2024, 3, 5)


@pytest.mark.parametrize(
    "start, message",
    [
        ("2024-03-05T01:00", "24 h after midnight"),
        ("2024-03-05T00:00:01", "24 h after midnight"),
        ("yesterday", "must be a date"),
        (7, "must be a date"),
        (np.datetime64("NaT"), "must be a date"),
        ("2024-03-05T00:00+01:00", "time zone"),
        (datetime(2024, 3, 5, tzinfo=UTC), "time zone"),
    ],
)
def test_bad_dates_are_refused(start, message):
    with pytest.raises(ValueError, match=message):
        parse_start(start, Hierarchy())


def test_finer_coarsest_levels_may_start_within_the_day():
    hierarchy = Hierarchy([{"name": "a", "spatial_factor": 2, "temporal_factor": 6}])
    assert parse_start("2024-03-05T18:00", hierarchy).hour == 18
    with pytest.raises(ValueError, match="6 h after midnight"):
        parse_start("2024-03-05T04:00", hierarchy)


def test_half_an_hour_matters():
    hierarchy = Hierarchy([Level("block", 2, 1), Level("cell", 1, 1)], time_step=0.5)
    pipe = tiny_pipeline(regression=True, hierarchy=hierarchy)
    starts = [f"2026-03-02T{time}" for time in ("00:00", "00:30", "01:00", "00:30")]
    made = [
        pipe(random_context(), start, num_inference_steps=4, generator=seeded()).levels["cell"] for start in starts
    ]
    assert np.array_equal(made[1], made[3])
    assert all(not np.allclose(first, second, rtol=1e-3) for first, second in itertools.combinations(made[:3], 2))


def test_weekday_matters_and_week_does_not(pipe):
    def generate(start):
        return pipe(random_context(), start=start, generator=seeded(), **FEW)

    monday = generate(None)
    assert monday.start == np.datetime64("2024-01-01") and monday.start.item().weekday() == 0
    assert_same_levels(monday.levels, generate("2024-03-11").levels, rtol=0, atol=0)
    assert not np.allclose(monday.levels["grid_50m"], generate("2024-03-16").levels["grid_50m"])


def test_length_is_one_week_unless_layers_vary_over_time(pipe):
    still = {name: values for name, values in random_context().items() if name != "population_over_time"}
    assert pipe(still, generator=seeded(), **FEW).levels["grid_50m"].shape[2] == 168
    assert pipe(still, num_hours=24, generator=seeded(), **FEW).levels["bs"].shape[2] == 1
    assert pipe(random_context(hours=72), generator=seeded(), **FEW).levels["bs"].shape[2] == 3


# ----------------------------------------------------------------------------------------------------- other arguments


def test_generators_are_expanded_one_per_sample():
    given = [seeded(1), seeded(2)]
    assert expand_generators(given, 2) == given
    seeds = [generator.initial_seed() for generator in expand_generators(seeded(), 5)]
    assert len(set(seeds)) == 5
    assert [generator.initial_seed() for generator in expand_generators(seeded(), 2)] == seeds[:2]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_samples_per_context": 0}, "`num_samples_per_context`"),
        ({"num_samples_per_context": 1.5}, "`num_samples_per_context`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"output_type": "pil"}, "`output_type`"),
        ({"units": "median"}, "`units`"),
        ({"guidance_scale": float("nan")}, "`guidance_scale`"),
        ({"callback_on_step_end_tensor_inputs": ["weather"]}, "weather"),
        ({"generator": [seeded(), seeded()]}, "`generator`"),
        ({"num_hours": 30}, "multiple of 24, but is 30; 24 or 48 would fit|must have the shape"),
        ({"num_hours": 0.5}, "`num_hours`"),
        ({"num_inference_steps": 3}, "`num_inference_steps`"),
        ({"num_inference_steps": [2, 2]}, "`num_inference_steps`"),
        ({"start": "2024-01-01T05:00"}, "`start`"),
    ],
)
def test_bad_arguments_are_refused_before_any_network_call(pipe, arguments, message):
    calls = []
    handle = pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(ValueError, match=message):
            pipe(random_context(), **FEW | arguments)
    finally:
        handle.remove()
    assert not calls


def test_city_must_fit_the_hierarchy(pipe):
    with pytest.raises(ValueError, match="`width` must be a multiple of 8, but is 12; 8 or 16 would fit"):
        pipe(random_context(width=12))


def test_calls_can_be_given_per_stage(pipe):
    steps = []
    pipe(
        random_context(),
        num_inference_steps=[4, 3, 2, 1],
        callback_on_step_end=lambda pipeline, step, timestep, tensors: steps.append(tensors) or {},
        callback_on_step_end_tensor_inputs=[],
    )
    assert pipe.num_timesteps == len(steps) == 10 and steps[0] == {}


def test_default_is_a_few_steps(pipe):
    pipe(random_context(), generator=seeded())
    assert 4 <= pipe.num_timesteps <= 28


def test_absent_layers_change_the_result_but_not_its_form(pipe):
    context = random_context()
    full = pipe(context, generator=seeded(), **FEW).levels
    del context["poi"], context["population"]
    partial = pipe(context, generator=seeded(), **FEW).levels
    assert_consistent(partial, pipe.hierarchy)
    assert not np.allclose(full["grid_50m"], partial["grid_50m"])


def test_coordinates_of_the_context_reach_the_output(pipe):
    context = random_context()
    dims = {"poi": ("poi_class", "y", "x"), "population_over_time": ("hour", "y", "x")}
    coords = {"y": 5000.0 - 50 * np.arange(HEIGHT), "x": 300.0 + 50 * np.arange(WIDTH)}
    dataset = xarray.Dataset(
        {name: (dims.get(name, ("y", "x")), values) for name, values in context.items()}, coords=coords
    )
    tree = pipe(dataset, start="2024-03-05", generator=seeded(), output_type="xarray", units="sum", **FEW).levels
    expected = pipe(context, start="2024-03-05", generator=seeded(), units="sum", **FEW).levels
    np.testing.assert_array_equal(tree["bs"]["traffic"].values, expected["bs"])
    np.testing.assert_allclose(tree["bs"].x, [coords["x"][:8].mean(), coords["x"][8:].mean()])
    np.testing.assert_allclose(tree["grid_50m"].y, coords["y"])
    assert pandas.DatetimeIndex(tree["bs"].time).equals(pandas.DatetimeIndex(["2024-03-05", "2024-03-06"]))
    assert tree["bs"]["traffic"].attrs["units"] == "MB"


def test_every_channel_has_its_unit_in_the_output():
    tree = PIPELINES["two_channels"](random_context(), output_type="xarray", **FEW).levels
    assert all(channel_units(level["traffic"]) == ["MB", "1"] for level in tree.children.values())


def test_coordinates_of_levels_that_all_are_coarser_than_the_context():
    pipe = tiny_pipeline(hierarchy=Hierarchy([Level("block", 8, 24), Level("square", 2, 1)]))
    x = 1000 + 50.0 * np.arange(WIDTH)
    levels = pipe(located(east=1000.0), **(FEW | {"num_inference_steps": 4}), output_type="xarray").levels
    assert levels["square"]["x"].values.tolist() == x.reshape(-1, 2).mean(axis=1).tolist()
    assert levels["block"]["x"].values.tolist() == x.reshape(-1, 8).mean(axis=1).tolist()


def test_network_that_returns_nan_is_reported():
    pipe = tiny_pipeline()
    pipe.unet.proj_out[2].bias.data[:] = torch.nan
    with pytest.raises(RuntimeError, match="NaN at level 'grid_100m'"):
        pipe(random_context(), **FEW)


# ---------------------------------------------------------------------------------------------------------- regression


def forecasting_pipeline(channels=1) -> ZoomDiffPipeline:
    """A denoiser that always answers "no residual": layers that start at zero, and the sample is predicted."""
    pipe = tiny_pipeline(channels=channels, regression=True)
    scheduler = DRDMScheduler(coarsest_prior=True, prediction_type="sample")
    unet = ZoomDiffUNet.from_config(pipe.unet.config)
    return ZoomDiffPipeline(**pipe.components | {"unet": unet, "scheduler": scheduler})


def test_without_a_residual_the_pipeline_returns_the_sums_of_the_forecast():
    pipe = forecasting_pipeline(channels=2)
    contexts = [random_context(seed) for seed in range(2)]
    levels = pipe(contexts, start="2026-03-04", num_samples_per_context=2, output_type="pt", **FEW).levels
    tensors = pipe.context_processor(contexts, HOURS)
    with torch.no_grad():
        finest = pipe.traffic_processor.decode(pipe.regressor(tensors, HOURS, 2 * 24))
    for level, name in enumerate(pipe.hierarchy.names):
        expected = pipe.hierarchy.aggregate(finest, level).repeat_interleave(2, dim=0)
        assert torch.allclose(levels[name], expected, rtol=1e-4, atol=1e-4)


def test_refining_without_a_residual_shares_out_in_proportion_to_the_forecast():
    pipe = forecasting_pipeline()
    given = torch.rand(1, 1, 2, 1, 2, generator=seeded()) * 100
    given[0, 0, 0, 0, 0] = 0
    refined = pipe.refine(given, "bs", random_context(), output_type="pt", **FEW).levels["grid_50m"]
    with torch.no_grad():
        forecast = pipe.traffic_processor.decode(
            pipe.regressor(pipe.context_processor(random_context(), HOURS), HOURS)
        )
    total = pipe.hierarchy.upsample(pipe.hierarchy.aggregate(forecast, "bs"), "bs", "grid_50m")
    expected = forecast / total * pipe.hierarchy.upsample(given, "bs", "grid_50m")
    assert torch.allclose(refined, expected, rtol=1e-4, atol=1e-4)


def test_the_regressor_moves_the_samples_and_they_stay_consistent():
    pipe = tiny_pipeline(regression=True)
    levels = pipe(random_context(), generator=seeded(), **FEW).levels
    assert_consistent(levels, pipe.hierarchy)
    pipe.regressor.proj_out.bias.data += 1.0
    assert pipe(random_context(), generator=seeded(), **FEW).levels["bs"].mean() > 1.5 * levels["bs"].mean()


def test_a_denoiser_may_know_the_context_by_its_forecast_only():
    pipe = tiny_pipeline(regression=True)
    unet = tiny_unet([])
    pipe = ZoomDiffPipeline(**pipe.components | {"unet": unet})
    levels, others = (pipe(random_context(seed), generator=seeded(), **FEW).levels for seed in (0, 1))
    assert not np.allclose(levels["grid_50m"], others["grid_50m"])
    with pytest.raises(ValueError, match="`unet` and `context_processor`"):
        ZoomDiffPipeline(**tiny_pipeline().components | {"unet": unet})


def test_a_denoiser_that_does_not_see_the_context_has_no_guidance():
    pipe = tiny_pipeline(regression=True)
    pipe = ZoomDiffPipeline(**pipe.components | {"unet": tiny_unet([])})
    pipe.set_progress_bar_config(disable=True)
    plain, neutral = (
        pipe(random_context(), generator=seeded(), guidance_scale=scale, **FEW).levels for scale in (None, 1.0)
    )
    assert_same_levels(plain, neutral, rtol=0, atol=0)
    for scale in (2.0, 0.0):
        with pytest.raises(ValueError, match=f"`guidance_scale` must be None or 1, .* but is {scale}"):
            pipe(random_context(), guidance_scale=scale, **FEW)
        with pytest.raises(ValueError, match=f"`guidance_scale` must be None or 1, .* but is {scale}"):
            pipe.refine(plain["bs"], "bs", random_context(), guidance_scale=scale, **FEW)


# ------------------------------------------------------------------------------------------------------------- batches


def unbatched(pipe) -> ZoomDiffPipeline:
    """The same with a denoiser that always answers 0: how its calls are batched does not even change rounding."""
    unet = ZoomDiffUNet.from_config(pipe.unet.config)
    scheduler = DRDMScheduler.from_config(pipe.scheduler.config, prediction_type="sample")
    pipe = ZoomDiffPipeline(**pipe.components | {"unet": unet, "scheduler": scheduler})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("zones", [False, True])
@pytest.mark.parametrize("regression", [False, True])
def test_a_batch_bounds_what_is_worked_on_at_once_and_changes_no_bit(regression, zones, gaps, monkeypatch):
    pipe = unbatched(zoned_pipeline(regression) if zones else tiny_pipeline(regression=regression))
    context = context_with_zones() if zones else random_context()
    level = pipe.hierarchy.names[2]
    size = pipe.hierarchy.shapes(HOURS, *context["population"].shape)[2]
    given = np.random.default_rng(0).gamma(1.0, 5.0, (5, 1, *size)).astype(np.float32)
    if gaps:
        given[..., size[-1] // 2 :] = np.nan
    options = {"generator": [seeded(seed) for seed in range(5)], **FEW}
    whole = pipe.refine(given, level, context, batch_size=5, **options).levels
    found = {}

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(self, *arguments, **named):
            sizes = [len(values) for values in (*arguments, *named.values()) if isinstance(values, torch.Tensor)]
            found[name] = max([found.get(name, 0), *sizes])
            return original(self, *arguments, **named)

        monkeypatch.setattr(owner, name, watched)

    watch(Hierarchy, "reconcile")
    watch(TrafficProcessor, "decode")
    watch(TrafficProcessor, "encode_prior")
    parts = pipe.refine(given, level, context, batch_size=2, **options).levels
    assert found == {"reconcile": 2, "decode": 2, "encode_prior": 2}
    for name, values in whole.items():
        np.testing.assert_array_equal(parts[name], values)
        assert not np.array_equal(values[0], values[4])


# ---------------------------------------------------------------------------------------------------------- components


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scheduler": DRDMScheduler(spatial_factors=[4, 2, 1, 1])}, "`scheduler` and `hierarchy` do not belong"),
        ({"scheduler": DRDMScheduler(spatial_factors=[8, 1], temporal_factors=[24, 1])}, "`hierarchy` do not belong"),
        ({"scheduler": DRDMScheduler(adding="continuous")}, "`unet` and `scheduler`"),
        ({"traffic_processor": TrafficProcessor(["traffic", "users"])}, "`unet` and `traffic_processor`"),
        (
            {"context_processor": ContextProcessor([{"name": "a", "kind": "count", "channels": ["b"]}])},
            "`unet` and `context_processor` .* another schema",
        ),
        ({"scheduler": DRDMScheduler(coarsest_prior=True)}, "`scheduler` and `regressor` .* prior at stage 0"),
        ({"regressor": tiny_regressor([])}, "`regressor` and `context_processor` .* context layers"),
        (
            {
                "regressor": tiny_regressor(ContextProcessor(LAYERS).layer_specs, channels=2),
                "scheduler": DRDMScheduler(coarsest_prior=True),
            },
            "`regressor` and `unet` .* channels",
        ),
    ],
)
def test_components_that_do_not_fit_are_refused(pipe, change, message):
    with pytest.raises(ValueError, match=message):
        ZoomDiffPipeline(**pipe.components | change)


def test_scheduler_that_does_not_fit_is_refused_after_a_swap():
    pipe = tiny_pipeline()
    pipe.scheduler = DRDMScheduler(spatial_factors=[8, 1], temporal_factors=[24, 1])
    with pytest.raises(ValueError, match="`scheduler` and `hierarchy`"):
        pipe(random_context())
    pipe.scheduler = DDIMScheduler()
    with pytest.raises(ValueError, match="must be a DRDMScheduler.* but is a DDIMScheduler.*solver='ddim'"):
        pipe(random_context())


# ------------------------------------------------------------------------------------ hours and places of a context


def located(first="2026-03-04", east=0.0, hours=HOURS):
    layers = random_context(3, hours)
    people = (("hour", "y", "x"), layers["population_over_time"])
    time = pandas.date_range(first, periods=hours, freq="h")
    return xarray.Dataset({"population_over_time": people}, {"hour": time, "x": east + 50.0 * np.arange(WIDTH)})


def test_the_start_comes_from_the_hours_of_the_context(pipe):
    output = pipe(located(), generator=seeded(), **FEW)
    assert output.start == np.datetime64("2026-03-04T00:00")
    assert_same_levels(output.levels, pipe(located(), start="2026-03-04", generator=seeded(), **FEW).levels, 0, 0)
    with pytest.raises(ValueError, match="`start` is 2026-03-05T00:00:00, but the coordinate `hour`"):
        pipe(located(), start="2026-03-05")
    with pytest.raises(ValueError, match="must begin at the same hour"):
        pipe([located(), located("2026-03-05")])
    with pytest.raises(ValueError, match="has 48 time steps, and 24 are to be generated"):
        pipe(located(), num_hours=24)


def test_hours_of_the_context_must_be_those_of_the_model(pipe, tmp_path):
    whole = located(hours=96)
    quarters = located().assign_coords(hour=pandas.date_range("2026-03-04", periods=HOURS, freq="15min"))
    days = whole.isel(hour=[*range(24), *range(48, 72)])  # without the second one
    for context, before, after in (
        (quarters, "2026-03-04T00:00:00", "2026-03-04T00:15:00"),
        (days, "2026-03-04T23:00:00", "2026-03-06T00:00:00"),
        (located().isel(hour=slice(None, None, -1)), "2026-03-05T23:00:00", "2026-03-05T22:00:00"),
    ):
        message = f"context 1 must be 1 h apart.* but {before} is followed by {after}"
        with pytest.raises(ValueError, match=message):
            pipe([located(), context], **FEW)
        given = np.ones((2, 1, 2, 1, 2))
        with pytest.raises(ValueError, match=message):
            pipe.refine(given, "bs", [located(), context], **FEW)
        with pytest.raises(ValueError, match=message.replace("context 1", "context 0")):
            pipe.generate_city(context.assign_coords(y=50.0 * np.arange(HEIGHT)), tmp_path / "city.zarr")
    rounded = located()["hour"].values + np.random.default_rng(0).integers(-50, 50, HOURS).astype("timedelta64[us]")
    rounded[0] = np.datetime64("2026-03-04")
    assert pipe(located().assign_coords(hour=rounded), **FEW).start == np.datetime64("2026-03-04")
    halves = tiny_pipeline(hierarchy=Hierarchy([Level("block", 2, 1), Level("cell", 1, 1)], time_step=0.5))
    with pytest.raises(ValueError, match="must be 0.5 h apart"):
        halves(located(), num_inference_steps=4)


def test_coordinates_that_contexts_do_not_share_are_left_out(pipe):
    shared = pipe([located(), located()], output_type="xarray", **FEW).levels["grid_50m"]
    assert shared["x"].values[-1] == 50 * (WIDTH - 1)
    apart = pipe([located(), located(east=800.0)], output_type="xarray", **FEW).levels["grid_50m"]
    assert apart["x"].values[-1] == 50 * (WIDTH - 0.5)


def test_cells_of_another_size_are_refused(pipe):
    with pytest.raises(ValueError, match="cells of 100 m, but the model was made for 50 m"):
        pipe(located().assign_attrs(cell_size_m=100.0))
    assert pipe(located().assign_attrs(cell_size_m=50.0), **FEW).start == np.datetime64("2026-03-04")


def test_a_number_is_no_generator(pipe):
    with pytest.raises(TypeError, match="`generator` must be a torch.Generator"):
        pipe(located(), generator=0)
