# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import copy

import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.tiny import HEIGHT, HOURS, LAYERS, WIDTH, random_context

from zoomdiff_diffusers import ContextProcessor


def fitted(count=3):
    return ContextProcessor(LAYERS).fit([random_context(seed) for seed in range(count)])


def as_dataset(context):
    dims = {"poi": ("poi_class", "y", "x"), "population_over_time": ("hour", "y", "x")}
    return xarray.Dataset({name: (dims.get(name, ("y", "x")), values) for name, values in context.items()})


def test_layer_specs_describe_the_tensors():
    processor = fitted()
    assert processor.layer_specs == [
        {"name": "surface", "channels": 3, "temporal": False},
        {"name": "poi", "channels": 2, "temporal": False},
        {"name": "population", "channels": 1, "temporal": False},
        {"name": "population_over_time", "channels": 1, "temporal": True},
    ]
    tensors = processor([random_context(0), random_context(1)], HOURS)
    assert tensors.static.shape == (2, 6, HEIGHT, WIDTH) and tensors.static.dtype == torch.float32
    assert tensors.temporal.shape == (2, 1, HOURS, HEIGHT, WIDTH)
    assert torch.equal(tensors.present, torch.ones(2, 4)) and len(tensors) == 2


def test_categories_become_one_hot_in_the_order_of_the_classes():
    context = {"surface": random_context()["surface"]}
    static = fitted()(context, HOURS).static[0]
    for code in range(3):
        np.testing.assert_array_equal(static[code].numpy(), context["surface"] == code)


def test_fractions_pass_unchanged_and_one_hot_equals_codes():
    codes = random_context()["surface"]
    fractions = np.stack([codes == code for code in range(3)]).astype(float)
    processor = fitted()
    from_codes = processor({"surface": codes}, HOURS).static
    assert torch.equal(processor({"surface": fractions}, HOURS).static, from_codes)
    half = processor({"surface": 0.5 * fractions}, HOURS).static
    assert torch.equal(half, 0.5 * from_codes)


def test_fitted_layers_have_zero_mean_and_unit_variance():
    contexts = [random_context(seed) for seed in range(4)]
    tensors = ContextProcessor(LAYERS).fit(contexts)(contexts, HOURS)
    rest = tensors.static[:, 3:]
    torch.testing.assert_close(rest.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(rest.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(tensors.temporal.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_fit_sees_all_contexts_as_one_sample_of_any_sizes():
    contexts = [random_context(0), random_context(1, height=16, width=24)]
    values = np.log1p(np.concatenate([context["population"].ravel() for context in contexts]))
    statistics = ContextProcessor(LAYERS).fit(contexts).config.statistics["population"]
    np.testing.assert_allclose([statistics["mean"][0], statistics["std"][0]], [values.mean(), values.std()])


def test_absent_layers_are_zero_and_marked():
    context = random_context()
    del context["poi"], context["population_over_time"]
    tensors = fitted()([context, random_context()], HOURS)
    assert tensors.present.tolist() == [[1, 0, 1, 0], [1, 1, 1, 1]]
    assert (tensors.static[0, 3:5] == 0).all() and (tensors.temporal[0] == 0).all()
    assert (tensors.static[1, 3:5] != 0).any() and (tensors.temporal[1] != 0).any()


def test_schema_without_temporal_layers_has_no_temporal_tensor():
    tensors = ContextProcessor(LAYERS[:3])({"surface": random_context()["surface"]}, HOURS)
    assert tensors.temporal is None
    assert tensors.to(dtype=torch.float64)[:1].repeat_interleave(2).temporal is None


def test_tensors_are_sliced_repeated_and_converted_together():
    tensors = fitted()([random_context(0), random_context(1)], HOURS)
    repeated = tensors.repeat_interleave(2)
    assert len(repeated) == 4
    for name in ("static", "temporal", "present"):
        values = getattr(tensors, name)
        assert torch.equal(getattr(repeated, name)[:2], values[:1].repeat(2, *[1] * (values.ndim - 1)))
        assert torch.equal(getattr(tensors[1:], name), values[1:])
        assert getattr(tensors.to("cpu", torch.bfloat16), name).dtype == torch.bfloat16
        assert not getattr(tensors.absent(), name).any()


def test_dataset_equals_dict_whatever_the_order_of_dimensions():
    context = random_context()
    expected = fitted()(context, HOURS)
    dataset = as_dataset(context)
    for variant in (dataset, dataset.transpose("x", "hour", "y", "poi_class")):
        tensors = fitted()(variant, HOURS)
        assert torch.equal(tensors.static, expected.static) and torch.equal(tensors.temporal, expected.temporal)
    assert torch.equal(fitted().fit(dataset)(dataset, HOURS).static, fitted().fit(context)(context, HOURS).static)


def test_dataset_with_coordinates_alone_is_a_context_without_layers():
    tensors = fitted()(xarray.Dataset(coords={"y": np.arange(8), "x": np.arange(16)}), HOURS)
    assert tensors.static.shape == (1, 6, 8, 16) and not tensors.present.any()


def test_size_is_told_where_no_layer_tells_it():
    tensors = ContextProcessor([]).fit([{}])([{}, {}], hours=24, size=(3, 5))
    assert tensors.static.shape == (2, 0, 3, 5) and tensors.temporal is None and tensors.present.shape == (2, 0)
    processor = ContextProcessor([{"name": "a", "kind": "count", "channels": ["b"]}])
    assert processor({"a": np.ones((3, 5))}, hours=24, size=(1, 1)).static.shape == (1, 1, 3, 5)


def test_saved_and_loaded_equals_the_original(tmp_path):
    processor = fitted()
    processor.save_pretrained(tmp_path)
    expected = processor(random_context(7), HOURS)
    for other in (ContextProcessor.from_pretrained(tmp_path), ContextProcessor.from_config(processor.config)):
        assert torch.equal(other(random_context(7), HOURS).static, expected.static)
        assert torch.equal(other(random_context(7), HOURS).temporal, expected.temporal)


@settings(deadline=None, max_examples=40)
@given(arrays(np.float64, (4, 6), elements=st.floats(0, 1e300)), st.integers(1, 50), st.sampled_from([3.0, 10.0]))
def test_any_counts_and_magnitudes_give_finite_bounded_tensors(values, times, limit):
    common = {"population": values / 1e300, "poi": np.stack([values // 1e299] * 2)}
    processor = ContextProcessor(LAYERS[1:3], largest_deviation=limit).fit([common])
    tensors = processor({"population": values, "poi": np.stack([values, times * (values > 1)])}, HOURS)
    assert torch.isfinite(tensors.static).all() and tensors.static.abs().max() <= limit


@settings(deadline=None, max_examples=40)
@given(arrays(np.int64, (2, 3), elements=st.integers(-3, 5)))
def test_codes_are_accepted_exactly_if_they_are_known(codes):
    processor = ContextProcessor(LAYERS[:1])
    if ((codes >= 0) & (codes < 3)).all():
        assert (processor({"surface": codes}, HOURS).static.sum(1) == 1).all()
    else:
        with pytest.raises(ValueError, match="unknown categories"):
            processor({"surface": codes}, HOURS)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rivers": np.zeros((8, 16))}, r"layers \['rivers'\]"),
        ({"poi": np.zeros((2, 8, 12))}, "share height and width"),
        ({"poi": np.zeros((3, 8, 16))}, r"'poi' must have the shape \(2, 8, 16\), but has \(3, 8, 16\)"),
        ({"poi": np.zeros((8, 16))}, "'poi' must have the shape"),
        ({"poi": np.full((2, 8, 16), -1)}, "'poi' must not be negative"),
        ({"population": np.full((8, 16), np.nan)}, "'population' has 128 missing"),
        ({"population": np.full((8, 16), np.inf)}, "'population' has 128 missing or infinite"),
        ({"population": np.full((8, 16), -0.5)}, "'population' must not be negative"),
        ({"population": np.full((8, 16), "many")}, "'population' must be numbers"),
        ({"population": np.float64(3)}, "'population' must be numbers on a grid"),
        ({"surface": np.full((8, 16), 0.5)}, "unknown categories"),
        ({"surface": np.full((3, 8, 16), 0.5)}, "sum to at most 1"),
        ({"surface": np.zeros((2, 8, 16))}, "'surface' must have the shape"),
        ({"population_over_time": np.zeros((24, 8, 16))}, r"must have the shape \(1, 48, 8, 16\)"),
    ],
)
def test_bad_layers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fitted()(random_context() | change, HOURS)


def test_bad_calls_are_refused():
    processor = fitted()
    with pytest.raises(ValueError, match="empty"):
        processor([], HOURS)
    with pytest.raises(ValueError, match="needs at least one of the layers"):
        processor({}, HOURS)
    with pytest.raises(TypeError, match="dict of arrays"):
        processor("Berlin", HOURS)
    with pytest.raises(ValueError, match="same height and width"):
        processor([random_context(), random_context(height=16)], HOURS)
    with pytest.raises(ValueError, match="dimensions y and x"):
        processor(as_dataset(random_context()).rename(x="lon"), HOURS)


@pytest.mark.parametrize(
    "layer",
    [
        {"name": "a"},
        {"name": "a", "kind": "picture"},
        {"name": "a", "kind": "categorical", "channels": ["x"]},
        {"name": "a", "kind": "categorical", "classes": []},
        {"name": "a", "kind": "count", "channels": ["x"], "log": True},
        {"name": "a", "kind": "continuous", "channels": ["x"], "colour": "red"},
    ],
)
def test_bad_schemas_are_refused(layer):
    with pytest.raises(ValueError, match="but one is"):
        ContextProcessor([layer])


def test_repeated_names_and_foreign_statistics_are_refused():
    with pytest.raises(ValueError, match="different names"):
        ContextProcessor([LAYERS[0], LAYERS[0]])
    with pytest.raises(ValueError, match="`statistics`"):
        ContextProcessor(LAYERS, {"rivers": {"mean": [0.0], "std": [1.0]}})
    with pytest.raises(ValueError, match="`statistics`"):
        ContextProcessor(LAYERS, {"poi": {"mean": [0.0, 0.0], "std": [1.0, 0.0]}})


def test_schema_given_by_the_user_is_not_shared():
    layers = copy.deepcopy(LAYERS)
    processor = ContextProcessor(layers)
    layers[0]["classes"].append("water")
    assert processor.layer_specs[0]["channels"] == 3


def test_named_channels_may_come_in_any_order_but_not_by_other_names():
    context, processor = as_dataset(random_context()), fitted()
    named = context.assign_coords(poi_class=["shop", "school"])
    expected = processor(named, HOURS)
    assert torch.equal(processor(named.isel(poi_class=[1, 0]), HOURS).static, expected.static)
    assert torch.equal(processor(context, HOURS).static, expected.static)
    with pytest.raises(ValueError, match=r"must have the channels \['shop', 'school'\], but has \['shop', 'cinema'\]"):
        processor(context.assign_coords(poi_class=["shop", "cinema"]), HOURS)


def test_codes_that_are_named_count_by_their_names():
    codes, processor = random_context()["surface"], fitted()  # positions in building, road, green
    expected = processor({"surface": codes}, HOURS).static
    flags = {"flag_values": np.array([7, 2, 4], np.int8), "flag_meanings": "green building road"}
    named = xarray.Dataset({"surface": (("y", "x"), np.array([2, 4, 7])[codes], flags)})
    assert torch.equal(processor(named, HOURS).static, expected)
    of_two = named["surface"].where(named["surface"] != 4, 2)
    of_two.attrs = {"flag_values": [7, 2], "flag_meanings": "green building"}
    assert torch.equal(processor({"surface": of_two}, HOURS).static[:, 1], torch.zeros(1, HEIGHT, WIDTH))
    from_zero = xarray.Dataset({"surface": (("y", "x"), 2 - codes, {"flag_meanings": "green road building"})})
    assert torch.equal(processor(from_zero, HOURS).static, expected)
    for attributes, message in (
        (flags | {"flag_meanings": "green building lake"}, r"'surface' has the flag_meanings \['lake'\], unknown"),
        (flags | {"flag_values": np.array([7, 2])}, "number in flag_values for each of its 3 flag_meanings"),
        (flags | {"flag_values": np.array([7, 2, 2])}, "all different"),
        (flags | {"flag_values": np.array([7, 2, 3])}, r"categories 4. The codes are 2 \(building\), 3 \(road\), 7"),
    ):
        with pytest.raises(ValueError, match=message):
            processor({"surface": named["surface"].assign_attrs(attributes)}, HOURS)


def test_zones_are_numbered_without_gaps_and_are_no_input_of_the_network():
    zones = np.array([[7, 7, 3], [9, 3, 3]])
    processor = ContextProcessor([*LAYERS, {"name": "site", "kind": "zones"}])
    assert processor.zone_layers == ["site"] and [layer["name"] for layer in processor.layers] == [
        layer["name"] for layer in LAYERS
    ]
    tensors = processor([{"site": zones}, {"site": zones.T.reshape(2, 3)}], HOURS)
    assert tensors.static.shape[1] == ContextProcessor(LAYERS)({}, HOURS, (2, 3)).static.shape[1]
    assert tensors.zones["site"][0].tolist() == [[1, 1, 0], [2, 0, 0]]
    assert tensors.absent().zones is tensors.zones and tensors[:1].zones["site"].shape == (1, 2, 3)
    assert tensors.to(dtype=torch.bfloat16).zones["site"].dtype == torch.int64
    for wrong in (zones - 4, zones + 0.5, zones[None]):
        with pytest.raises(ValueError, match="Layer 'site' must be whole numbers from 0 on"):
            processor({"site": wrong}, HOURS, (2, 3))
    with pytest.raises(ValueError, match="nothing but a `name` and its `kind`"):
        ContextProcessor([{"name": "site", "kind": "zones", "channels": ["a"]}])
