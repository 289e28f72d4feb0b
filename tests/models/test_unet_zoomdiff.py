# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from contracts.model import MODEL_CHECKS

from zoomdiff_diffusers import ContextTensors, ZoomDiffUNet
from zoomdiff_diffusers.models.embeddings import TemporalPositionalEncoding, patchify, unpatchify


LAYERS = [
    {"name": "surface", "channels": 3, "temporal": False},
    {"name": "population_over_time", "channels": 1, "temporal": True},
    {"name": "poi", "channels": 2, "temporal": False},
]
SPATIAL, TEMPORAL = [8, 4, 2, 1], [24, 4, 2, 1]


def tiny_unet(**kwargs) -> ZoomDiffUNet:
    torch.manual_seed(0)
    config = {
        "block_channels": [8, 12],
        "embedding_dim": 16,
        "context_dim": 8,
        "fusion_dim": 4,
        "context_layers": LAYERS,
    }
    model = ZoomDiffUNet(**config | kwargs).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():  # zero-initialised layers would hide everything behind them
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def stage_inputs(model, level, batch=2, days=2, height=16, width=24, seed=2):
    generator = torch.Generator().manual_seed(seed)
    spatial, temporal = model.config.spatial_factors, model.config.temporal_factors
    hours = days * temporal[0]
    shape = (batch, model.config.channels, hours // temporal[level], height // spatial[level], width // spatial[level])
    return {
        "forward": {
            "sample": torch.randn(shape, generator=generator),
            "timestep": torch.tensor([7.25, 130.0])[:batch],
            "level": level,
            "prior": torch.randn(shape, generator=generator) if level else None,
            "hour_of_week": torch.tensor([0, 48])[:batch],
        },
        "context": ContextTensors(
            static=torch.randn(batch, 5, height, width, generator=generator),
            temporal=torch.randn(batch, 1, hours, height, width, generator=generator),
            present=torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]])[:batch],
        ),
    }


def run(model, stage):
    with torch.no_grad():
        embedding = model.encode_context(stage["context"], stage["forward"]["level"])
        return model(**stage["forward"], context_embedding=embedding).sample


@pytest.mark.parametrize("check", MODEL_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("channels", [1, 2])
def test_contract(check, channels, tmp_path):
    model = tiny_unet(channels=channels)
    check(model, [stage_inputs(model, level) for level in range(4)], tmp_path)


def test_base_configuration_has_about_half_a_million_parameters():
    assert 0.4e6 < ZoomDiffUNet(context_layers=LAYERS).num_parameters() < 0.7e6


@pytest.mark.parametrize(
    "time, space, shape", [(3, 2, (2, 2, 6, 4, 10)), (1, 1, (1, 3, 5, 3, 7)), (5, 3, (1, 1, 15, 9, 3))]
)
def test_patchify_round_trip(time, space, shape):
    values = torch.randn(shape)
    tokens = patchify(values, time, space)
    assert tokens.shape == (
        shape[0],
        shape[2] // time,
        shape[3] // space,
        shape[4] // space,
        shape[1] * time * space**2,
    )
    assert torch.equal(unpatchify(tokens, shape[1], time, space), values)
    first = values[0, :, :time, :space, :space]
    assert torch.equal(tokens[0, 0, 0, 0], first.flatten())


def test_temporal_encoding_follows_equation_6_and_the_week():
    encoding = TemporalPositionalEncoding(128)(torch.tensor([0.0, 5.0, 173.0]))
    index = torch.arange(64)
    expected = torch.cat([torch.sin(5 / 10000 ** (2 * index / 128)), torch.cos(5 / 10000 ** (2 * index / 128))])
    torch.testing.assert_close(encoding[1], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(encoding[1], encoding[2])  # 173 = 168 + 5


@pytest.mark.parametrize("axis, distance", [(2, 3), (3, 2), (4, 2)], ids=["hour", "row", "column"])
@pytest.mark.parametrize("level", [1, 3])
def test_one_value_changes_others_in_time_and_space(axis, distance, level):
    model = tiny_unet()
    stage = stage_inputs(model, level)
    before = run(model, stage)
    stage["forward"]["sample"][:, :, 0, 0, 0] += 1.0
    changed = (run(model, stage) - before).abs().amax(dim=[a for a in range(5) if a != axis])
    assert changed[distance:].max() > 1e-6


def test_shifted_area_gives_shifted_output():
    """Away from the border, an area moved by one coarsest unit gives the same values: windows can be joined."""
    model = tiny_unet()
    stage = stage_inputs(model, 3, batch=1, height=16, width=88)
    wide = run(model, stage)
    stage["forward"] = {
        name: value[..., 8:] if isinstance(value, torch.Tensor) and value.ndim == 5 else value
        for name, value in stage["forward"].items()
    }
    context = stage["context"]
    stage["context"] = ContextTensors(context.static[..., 8:], context.temporal[..., 8:], context.present)
    torch.testing.assert_close(run(model, stage)[..., 32:], wide[..., 40:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["context", "prior", "timestep", "hour_of_week", "level"])
def test_every_input_matters(change):
    model = tiny_unet()
    stage = stage_inputs(model, 2)
    before = run(model, stage)
    forward = stage["forward"]
    if change == "context":
        stage["context"] = ContextTensors(
            stage["context"].static + 1, stage["context"].temporal, stage["context"].present
        )
    elif change == "level":
        # The same tensor at another stage of equal shape.
        model = tiny_unet(spatial_factors=[8, 2, 2, 1], temporal_factors=[24, 2, 2, 1])
        stage = stage_inputs(model, 2)
        before = run(model, stage)
        stage["forward"]["level"] = 1
    else:
        forward[change] = forward[change] + 1
    assert (run(model, stage) - before).abs().max() > 1e-5


def test_absent_layer_hides_its_values():
    model = tiny_unet()
    stage = stage_inputs(model, 3)
    context = stage["context"]
    hidden = context.present.clone()
    hidden[:, 2] = 0
    outputs = []
    for shift in (0.0, 5.0):
        static = context.static.clone()
        static[:, 3:] += shift  # the two POI channels
        stage["context"] = ContextTensors(static, context.temporal, hidden)
        outputs.append(run(model, stage))
    assert torch.equal(*outputs)
    stage["context"] = context
    assert (run(model, stage) - outputs[0]).abs().max() > 1e-5


def test_missing_temporal_tensor_equals_absent_temporal_layers():
    model = tiny_unet()
    stage = stage_inputs(model, 1)
    context = stage["context"]
    absent = context.present.clone()
    absent[:, 1] = 0
    stage["context"] = ContextTensors(context.static, context.temporal, absent)
    expected = run(model, stage)
    stage["context"] = ContextTensors(context.static, None, context.present)
    torch.testing.assert_close(run(model, stage), expected)


def test_odd_hierarchy_and_area():
    model = tiny_unet(spatial_factors=[3, 3, 1], temporal_factors=[6, 3, 1])
    for level in range(3):
        stage = stage_inputs(model, level, days=5, height=9, width=15)
        assert run(model, stage).shape == stage["forward"]["sample"].shape


def test_states_of_the_finest_shape_keep_the_patches_of_the_finest_stage():
    """With continuous adding or denoising all stages have the finest shape."""
    model = tiny_unet(spatial_factors=[1, 1], temporal_factors=[1, 1], coarsest_unit=[24, 8])
    assert model.patch_sizes == [[12, 2], [12, 2]] == tiny_unet().patch_sizes[-1:] * 2
    assert model(torch.zeros(1, 1, 24, 8, 16), 3.0, 0).sample.shape == (1, 1, 24, 8, 16)
    with pytest.raises(ValueError, match="coarsest_unit"):
        tiny_unet(coarsest_unit=[12, 8])


def test_shapes_and_configurations_that_do_not_fit_are_refused():
    model = tiny_unet()
    with pytest.raises(ValueError, match=r"stage 3.*divisible by 24.*\(1, 1, 25, 8, 8\)"):
        model(torch.zeros(1, 1, 25, 8, 8), 0.0, 3)
    with pytest.raises(ValueError, match="1 channel"):
        model(torch.zeros(1, 2, 24, 8, 8), 0.0, 3)
    with pytest.raises(ValueError, match="same stages"):
        ZoomDiffUNet(spatial_factors=[2, 1], temporal_factors=[1])
    with pytest.raises(ValueError, match=r"patch_sizes\[1\]"):
        tiny_unet(patch_sizes=[[1, 1], [5, 1], [6, 2], [12, 2]])
    with pytest.raises(ValueError, match="one entry per stage"):
        tiny_unet(patch_sizes=[[1, 1]])
