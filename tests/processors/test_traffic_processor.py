# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zoomdiff_diffusers import TrafficProcessor


SHAPE = (2, 1, 3, 2, 5)
traffic_arrays = arrays(
    np.float32, SHAPE, elements=st.floats(0, 1e6, width=32) | st.just(0.0) | st.floats(0, np.float32(1e-6), width=32)
)
latents = arrays(np.float32, SHAPE, elements=st.floats(allow_nan=False, width=32))


def random_traffic(seed=0, channels=1):
    random = np.random.default_rng(seed)
    traffic = random.lognormal(1.0, 2.0, (4, channels, 6, 3, 5)) * (random.random((4, channels, 6, 3, 5)) > 0.3)
    return torch.from_numpy(traffic).float()


def test_encode_is_the_documented_formula():
    processor = TrafficProcessor(["a", "b"], offset=[2.0, 0.5], mean=[1.0, 0.0], std=[3.0, 2.0])
    traffic = random_traffic(channels=2)
    values = traffic.double().numpy()
    expected = np.stack([(np.log(1 + values[:, 0] / 2) - 1) / 3, np.log(1 + values[:, 1] / 0.5) / 2], axis=1)
    np.testing.assert_allclose(processor.encode(traffic).numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(processor.encode(traffic.double()).numpy(), expected, rtol=1e-13)


def test_fit_standardises_each_channel():
    traffic = random_traffic(channels=2)
    traffic[:, 1] *= 1000
    encoded = TrafficProcessor(["a", "b"]).fit(traffic).encode(traffic)
    torch.testing.assert_close(encoded.mean((0, 2, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded.std((0, 2, 3, 4), correction=0), torch.ones(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("relative_offset", [0.1, 0.7])
def test_offset_is_relative_to_the_mean_positive_value(relative_offset):
    traffic = torch.tensor([0.0, 0.0, 2.0, 4.0]).reshape(1, 4, 1, 1)
    processor = TrafficProcessor().fit(traffic, relative_offset=relative_offset)
    assert processor.config.offset == pytest.approx([3 * relative_offset])
    with pytest.raises(ValueError, match="relative_offset"):
        processor.fit(traffic, relative_offset=0.0)


def test_statistics_of_scaled_traffic_give_the_same_encoding():
    traffic = random_traffic()
    one = TrafficProcessor().fit(traffic).encode(traffic)
    torch.testing.assert_close(TrafficProcessor().fit(1000 * traffic).encode(1000 * traffic), one)


def test_fit_ignores_what_the_mask_hides_and_takes_pieces():
    traffic = random_traffic()
    mask = np.ones((4, 6, 3, 5), dtype=bool)
    mask[:, :2] = False
    hidden = traffic.clone()
    hidden[:, :, :2] = torch.nan
    fitted = TrafficProcessor().fit(hidden, mask).config
    assert fitted["mean"] == TrafficProcessor().fit(traffic[:, :, 2:]).config["mean"]
    assert fitted["maximum"] == [traffic[:, :, 2:].max().item()]
    np.testing.assert_allclose(TrafficProcessor().fit(list(hidden), list(mask)).config["std"], fitted["std"])


@settings(deadline=None, max_examples=60)
@given(traffic_arrays, st.integers(0, 3))
def test_round_trip_is_exact_to_float_and_keeps_zeros(values, seed):
    processor = TrafficProcessor().fit(random_traffic(seed) + torch.tensor(1e6 * (seed == 3)))
    traffic = torch.from_numpy(values).clamp(max=processor.config.maximum[0])
    decoded = processor.decode(processor.encode(traffic))
    resolution = 1e-5 * (traffic + processor.config.offset[0])
    assert ((decoded - traffic).abs() <= resolution).all()
    assert (decoded[traffic == 0] == 0).all()


@settings(deadline=None, max_examples=60)
@given(latents, st.booleans())
def test_whatever_is_decoded_is_finite_not_negative_and_bounded(values, fitted):
    processor = TrafficProcessor().fit(random_traffic()) if fitted else TrafficProcessor()
    decoded = processor.decode(torch.from_numpy(values))
    assert torch.isfinite(decoded).all() and (decoded >= 0).all()
    if fitted:
        assert decoded.max() <= 1.0001 * processor.config.margin * processor.config.maximum[0]


def test_decode_is_monotone():
    processor = TrafficProcessor().fit(random_traffic())
    sample = torch.linspace(-5, 5, 300).reshape(1, 300, 1, 1)
    assert (processor.decode(sample).diff(dim=1) >= 0).all()


def test_no_traffic_at_all_can_be_fitted():
    processor = TrafficProcessor().fit(torch.zeros(1, 1, 2, 3, 4))
    assert (processor.decode(processor.encode(torch.zeros(1, 1, 2, 3, 4))) == 0).all()


def test_half_precision_is_decoded_in_float32():
    processor = TrafficProcessor().fit(random_traffic())
    assert processor.decode(torch.zeros(1, 1, 2, 3, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert processor.encode(random_traffic().bfloat16()).dtype == torch.bfloat16


def test_missing_values_stay_missing_in_encode():
    traffic = random_traffic()
    traffic[0, 0, 0] = torch.nan
    assert torch.equal(TrafficProcessor().encode(traffic).isnan(), traffic.isnan())


def test_saved_and_loaded_equals_the_original(tmp_path):
    processor = TrafficProcessor(["traffic", "users"], unit=["MB", "1"]).fit(random_traffic(channels=2))
    processor.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["traffic_processor_config.json"]
    traffic = random_traffic(1, channels=2)
    for other in (
        TrafficProcessor.from_pretrained(tmp_path),
        TrafficProcessor.from_config(processor.config),
        TrafficProcessor.from_config(json.loads(processor.to_json_string())),
    ):
        assert torch.equal(other.encode(traffic), processor.encode(traffic))
        assert other.channels == ["traffic", "users"] and other.units == ["MB", "1"]


@pytest.mark.parametrize(
    "config, message",
    [
        ({"channels": []}, "`channels`"),
        ({"channels": ["a", "a"]}, "`channels`"),
        ({"channels": "traffic"}, "`channels`"),
        ({"channels": ["a", "b"], "mean": [1.0]}, "`mean` must hold 2"),
        ({"std": [0.0]}, "`std` must be positive"),
        ({"offset": [-1.0]}, "`offset` must be positive"),
        ({"mean": [float("nan")]}, "`mean`"),
        ({"margin": 0.5}, "`margin`"),
        ({"unit": ["MB", "GB"]}, "`unit`"),
    ],
)
def test_bad_configuration_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        TrafficProcessor(**config)


def test_bad_values_are_refused():
    processor = TrafficProcessor()
    with pytest.raises(ValueError, match="C = 1"):
        processor.encode(torch.zeros(2, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="negative, but its smallest value is -1"):
        processor.encode(torch.full((1, 1, 2, 2, 2), -1.0))
    for bad in (torch.full((1, 1, 2, 2, 2), -1.0), torch.full((1, 1, 2, 2, 2), torch.nan)):
        with pytest.raises(ValueError, match="finite and not negative"):
            processor.fit(bad)
    with pytest.raises(ValueError, match="no measured value"):
        processor.fit(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2))
