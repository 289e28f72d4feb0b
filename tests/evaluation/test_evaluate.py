# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json

import numpy as np
import pytest
import scoringrules
from support.traffic_files import area_types, finest_traffic, pyramid

from zoomdiff_diffusers.evaluation.evaluate import evaluate
from zoomdiff_diffusers.hierarchy import Hierarchy


@pytest.fixture(scope="module")
def generated():
    return pyramid(finest_traffic(4, seed=1, channels=2))


@pytest.fixture(scope="module")
def truth():
    return {name: values[0] for name, values in pyramid(finest_traffic(1, seed=2, channels=2)).items()}


CHANNELS = ["traffic", "users"]


def test_scores_are_in_units_of_the_mean_truth(generated, truth):
    result = evaluate(generated, truth, Hierarchy(), CHANNELS)
    assert (result["samples"], result["levels"]) == (4, Hierarchy().names)
    assert result["resolutions"]["cell"] == {"metres": 200.0, "hours": 4.0}
    for index, channel in enumerate(CHANNELS):
        scores = result["channels"][channel]
        assert scores["mean"] == pytest.approx(truth["grid_50m"][index].mean(dtype=np.float64))
        for name in ("bs", "grid_100m"):
            members = np.moveaxis(generated[name][:, index], 0, -1).astype(np.float64)
            expected = scoringrules.crps_ensemble(truth[name][index], members, estimator="fair").mean()
            assert scores["levels"][name]["crps"] == pytest.approx(expected / scores["mean"], rel=1e-6)
        assert "cross_level_error" not in scores["levels"]["bs"]
        assert scores["levels"]["grid_50m"]["cross_level_error"] < 1e-5
        assert list(scores["rv"]) == list(scores["decomposition"]) == ["all"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_change_of_unit_changes_nothing(generated, truth):
    scaled = [
        {name: values[..., :1, :, :, :] * 1e6 for name, values in levels.items()} for levels in (generated, truth)
    ]
    cut = [{name: values[..., :1, :, :, :] for name, values in levels.items()} for levels in (generated, truth)]
    first, second = (evaluate(*levels, Hierarchy())["channels"]["traffic"]["levels"] for levels in (cut, scaled))
    for name, scores in first.items():
        for key, value in scores.items():
            if value is not None and key != "cross_level_error":
                assert second[name][key] == pytest.approx(value, rel=1e-4, abs=1e-3), (name, key)


def test_a_perfect_ensemble_scores_perfectly(truth):
    ensemble = {name: np.stack([values, values]) for name, values in truth.items()}
    result = evaluate(ensemble, truth, Hierarchy(), CHANNELS, area_types(), {1: "offices"})["channels"]["users"]
    for scores in result["levels"].values():
        assert scores["mean_ratio"] == pytest.approx(1.0)
        for key in ("crps", "mae_of_sample", "wasserstein", "jsd", "autocorrelation_error", "peak_value_error"):
            assert scores[key] == pytest.approx(0.0, abs=1e-6), key
    assert set(result["rv"]) == {"all", "type 0", "offices"}
    assert set(result["decomposition"]) == {"type 0", "offices"}
    np.testing.assert_allclose(result["rv"]["offices"]["truth"], result["rv"]["offices"]["generated"], rtol=1e-9)


def test_what_is_unknown_is_not_looked_at(generated, truth):
    gap = {name: values[:1].copy() for name, values in truth.items()}
    one = {name: values[:, :1].copy() for name, values in generated.items()}
    for name, level in zip(gap, Hierarchy().levels):
        gap[name][:, :, : 8 // level.spatial_factor] = np.nan
        one[name][:, :, :, : 8 // level.spatial_factor] = 1e9
    rest = [
        {name: values[..., values.shape[-2] // 2 :, :] for name, values in levels.items()} for levels in (one, gap)
    ]
    masked, expected = (evaluate(*levels, Hierarchy())["channels"]["traffic"] for levels in ((one, gap), rest))
    assert masked["mean"] == expected["mean"]
    for name in gap:
        for key in ("crps", "spread_skill", "wasserstein", "peak_value_error", "mean_ratio", "count"):
            assert masked["levels"][name][key] == pytest.approx(expected["levels"][name][key], rel=1e-9), (name, key)


def test_a_level_of_which_nothing_is_known_has_no_scores(generated, truth):
    gap = {**truth, "bs": np.full_like(truth["bs"], np.nan)}
    result = evaluate(generated, gap, Hierarchy(), CHANNELS)["channels"]["traffic"]
    assert result["levels"]["bs"] is None and result["levels"]["cell"]["crps"] > 0
    assert result["rv"] == {}


def test_a_single_sample_has_an_error_but_no_spread(generated, truth):
    single = {name: values[:1] for name, values in generated.items()}
    scores = evaluate(single, truth, Hierarchy(), CHANNELS)["channels"]["traffic"]["levels"]["cell"]
    assert scores["crps"] == pytest.approx(scores["mae_of_mean"])
    assert scores["spread_skill"] is None and scores["rank_histogram"] is None


def test_arguments_that_do_not_fit(generated, truth):
    with pytest.raises(ValueError, match=r"`generated` must hold the levels \['bs'.* found \['bs'\]"):
        evaluate({"bs": generated["bs"]}, truth, Hierarchy(), CHANNELS)
    with pytest.raises(ValueError, match=r"Level 'bs' must be .* with 1 channel"):
        evaluate(generated, truth, Hierarchy())
    with pytest.raises(ValueError, match=r"`area_types` must be \(16, 24\)"):
        evaluate(generated, truth, Hierarchy(), CHANNELS, area_types().T)
    zero = {name: np.zeros_like(values) for name, values in truth.items()}
    with pytest.raises(ValueError, match="'traffic' is zero everywhere"):
        evaluate(generated, zero, Hierarchy(), CHANNELS)
