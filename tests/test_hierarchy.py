# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoomdiff_diffusers.hierarchy import Hierarchy, Level, resolve_stages


SMALL = [Level("area", 6, 4), Level("cell", 3, 2), Level("grid", 1, 1)]
TIME, HEIGHT, WIDTH = 8, 6, 18  # odd ratios, not square


def finest_traffic(seed=0, batch=(2, 3)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand((*batch, TIME, HEIGHT, WIDTH), generator=generator).pow(4) * 1e6
    return values * (torch.rand(values.shape, generator=generator) > 0.6)  # heavy-tailed, many exact zeros


def block_means(values: np.ndarray, in_time: int, in_space: int) -> np.ndarray:
    """Means over blocks, one at a time."""
    time, height, width = values.shape
    result = np.empty((time // in_time, height // in_space, width // in_space))
    for t, y, x in np.ndindex(result.shape):
        block = values[
            t * in_time : (t + 1) * in_time, y * in_space : (y + 1) * in_space, x * in_space : (x + 1) * in_space
        ]
        result[t, y, x] = block.astype(np.float64).mean()
    return result


@pytest.mark.parametrize(
    ("spatial", "temporal", "rgp", "expected"),
    [
        ([4, 2, 1], [2, 1], "uniform", [(4, 2, 2 / 3), (2, 2, 1 / 2), (2, 1, 1 / 3), (1, 1, 0)]),
        ([4, 2, 1], [2, 1], "coarse", [(4, 2, 2 / 3), (2, 2, 1 / 3), (1, 1, 0)]),
        ([4, 2, 1], [2, 1], "fine", [(4, 2, 2 / 3), (2, 1, 1 / 3), (1, 1, 0)]),
        ([4, 2, 1], [24, 4, 2, 1], "fine", [(4, 24, 3 / 4), (2, 4, 1 / 2), (1, 2, 1 / 4), (1, 1, 0)]),
        ([4, 2, 1], [24, 4, 2, 1], "coarse", [(4, 24, 3 / 4), (4, 4, 1 / 2), (2, 2, 1 / 4), (1, 1, 0)]),
        ([8, 4, 2, 1], [24, 4, 2, 1], "uniform", [(8, 24, 3 / 4), (4, 4, 1 / 2), (2, 2, 1 / 4), (1, 1, 0)]),
        ([1], [1], "uniform", [(1, 1, 0)]),
    ],
)
def test_stages_of_the_paper(spatial, temporal, rgp, expected):
    stages = resolve_stages(spatial, temporal, rgp)
    assert [stage[:2] for stage in stages] == [stage[:2] for stage in expected]
    assert [stage[2] for stage in stages] == pytest.approx([stage[2] for stage in expected])


def test_default_is_s4t4():
    hierarchy = Hierarchy()
    assert hierarchy.names == ["bs", "cell", "grid_100m", "grid_50m"]
    assert hierarchy.shapes(168, 8, 16) == [(7, 1, 2), (42, 2, 4), (84, 4, 8), (168, 8, 16)]
    assert len(hierarchy) == 4 and hierarchy.index("grid_50m") == hierarchy.index(-1) == 3


@pytest.mark.parametrize(
    ("rgp", "names"),
    [
        ("uniform", ["bs", "cell_2h", "cell_1h", "grid_100m"]),
        ("coarse", ["bs", "cell", "grid_100m"]),
        ("fine", ["bs", "cell", "grid_100m"]),
    ],
)
def test_levels_from_resolutions(rgp, names):
    spatial, temporal = {"bs": 4, "cell": 2, "grid_100m": 1}, [2, 1]
    hierarchy = Hierarchy.from_resolutions(spatial, temporal, rgp, cell_size=100.0)
    assert hierarchy.names == names and hierarchy.config.cell_size == 100.0
    stages = resolve_stages(list(spatial.values()), temporal, rgp)
    assert [(level.spatial_factor, level.temporal_factor) for level in hierarchy.levels] == [s[:2] for s in stages]


def test_repeated_names_carry_physical_hours():
    hierarchy = Hierarchy.from_resolutions({"cell": 2, "grid": 1}, [12, 4, 2], "fine", time_step=0.5)
    assert hierarchy.names == ["cell", "grid_2h", "grid_1h"]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, np.float32])
def test_aggregate_takes_block_means_and_sums(kind):
    hierarchy, finest = Hierarchy(SMALL), finest_traffic()
    values = finest.to(kind) if isinstance(kind, torch.dtype) else finest.numpy()
    for level, (in_time, in_space) in enumerate([(4, 6), (2, 3), (1, 1)]):
        expected = np.stack([[block_means(one, in_time, in_space) for one in item] for item in finest.numpy()])
        mean, total = hierarchy.aggregate(values, level), hierarchy.aggregate(values, level, reduction="sum")
        assert type(mean) is type(values) and mean.dtype == values.dtype
        np.testing.assert_allclose(np.asarray(mean), expected, rtol=1e-6)
        np.testing.assert_allclose(np.asarray(total), expected * in_time * in_space**2, rtol=1e-6)


def test_aggregation_composes():
    hierarchy, finest = Hierarchy(SMALL), finest_traffic().double()
    in_two_steps = hierarchy.aggregate(hierarchy.aggregate(finest, "cell"), "area", source="cell")
    torch.testing.assert_close(in_two_steps, hierarchy.aggregate(finest, "area"))
    coarse_to_fine = hierarchy.pyramid(finest)
    assert [tuple(level.shape[-3:]) for level in coarse_to_fine] == hierarchy.shapes(TIME, HEIGHT, WIDTH)


@pytest.mark.parametrize("as_numpy", [False, True])
def test_upsampling_is_undone_by_aggregation(as_numpy):
    hierarchy = Hierarchy(SMALL)
    coarse = hierarchy.aggregate(finest_traffic(), "area")
    coarse = coarse.numpy() if as_numpy else coarse
    fine = hierarchy.upsample(coarse, "area", "grid")
    assert fine.shape[-3:] == (TIME, HEIGHT, WIDTH) and isinstance(fine, type(coarse))
    assert (fine[..., 5, 4, 13] == coarse[..., 1, 0, 2]).all()
    np.testing.assert_allclose(hierarchy.aggregate(fine, "area"), coarse, rtol=1e-6)


def test_reconciled_levels_add_up_and_keep_proportions():
    hierarchy, values = Hierarchy(SMALL), finest_traffic(seed=1)
    coarse = hierarchy.aggregate(finest_traffic(seed=2), "cell")
    fine = hierarchy.reconcile(values, coarse, "grid")
    assert fine.dtype == values.dtype and bool((fine >= 0).all())
    np.testing.assert_allclose(hierarchy.aggregate(fine, "cell"), coarse, rtol=1e-6)
    block, original = fine[0, 0, :2, :3, :3].double(), values[0, 0, :2, :3, :3].double()
    torch.testing.assert_close(block * original.sum(), original * block.sum())


def test_reconciling_what_adds_up_changes_nothing():
    hierarchy, values = Hierarchy(SMALL), finest_traffic()
    torch.testing.assert_close(
        hierarchy.reconcile(values, hierarchy.aggregate(values, 1), 2), values, rtol=1e-6, atol=0
    )


def test_empty_children_share_evenly():
    hierarchy = Hierarchy(SMALL)
    coarse = torch.tensor([[[0.0, 5.0, 7.0]]])
    fine = hierarchy.reconcile(torch.zeros(2, 2, 6), coarse, 1)
    assert fine[0, 0].tolist() == [0.0, 0.0, 5.0, 5.0, 7.0, 7.0]


def test_units_that_do_not_exist_stay_empty():
    hierarchy = Hierarchy(SMALL)
    values = finest_traffic(seed=3, batch=(2,))
    mask = torch.ones(TIME, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, ::2, 1::3] = False
    coarse = hierarchy.aggregate(finest_traffic(seed=4, batch=(2,)), "cell")
    for candidate in (values, torch.zeros_like(values)):
        fine = hierarchy.reconcile(candidate, coarse, "grid", mask=mask)
        assert not fine[:, ~mask].any()
        np.testing.assert_allclose(hierarchy.aggregate(fine, "cell"), coarse, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 2.0**100, width=32, allow_subnormal=False), min_size=8, max_size=8),
    st.floats(0, 2.0**100, width=32, allow_subnormal=False),
    st.sampled_from([np.float32, np.float64]),
)
def test_any_non_negative_children_are_reconciled(children, parent, dtype):
    hierarchy = Hierarchy([Level("coarse", 2, 2), Level("fine", 1, 1)])
    fine = hierarchy.reconcile(np.array(children, dtype).reshape(2, 2, 2), np.full((1, 1, 1), parent, dtype), 1)
    assert np.isfinite(fine).all() and (fine >= 0).all()
    # an absolute part only for values that float32 cannot tell from 0 with full precision
    np.testing.assert_allclose(fine.astype(np.float64).mean(), parent, rtol=1e-5, atol=1e-37)


def test_config_survives_json(tmp_path):
    hierarchy = Hierarchy(SMALL, cell_size=25.0, time_step=0.25)
    hierarchy.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "hierarchy_config.json").read_text())
    assert stored["levels"][1] == {"name": "cell", "spatial_factor": 3, "temporal_factor": 2}
    loaded = Hierarchy.from_pretrained(tmp_path)
    assert loaded.levels == hierarchy.levels and loaded.config.time_step == 0.25
    default = Hierarchy()
    assert Hierarchy.from_config(default.config).levels == default.levels


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((168, 12, 16), r"`height` must be a multiple of 8, but is 12; 8 or 16 would fit"),
        ((168, 8, 3), r"`width` must be a multiple of 8, but is 3; 8 would fit"),
        ((25, 8, 8), r"`time` must be a multiple of 24, but is 25; 24 or 48 would fit"),
        ((0, 8, 8), r"`time` must be a multiple of 24, but is 0; 24 would fit"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        Hierarchy().shapes(*size)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], r"`levels \(spatial factors\)` must be a non-empty list"),
        ([Level("a", 3, 2), Level("b", 2, 1)], r"`levels \(spatial factors\)` must be nested.*\[3, 2\] has 2 after 3"),
        ([Level("a", 2, 1), Level("b", 1, 2)], r"`levels \(temporal factors\)` must be nested"),
        ([Level("a", 0, 1)], r"positive integers"),
        ([Level("a", 2, 1), Level("a", 1, 1)], r"`levels` must have unique names.*\['a', 'a'\]"),
    ],
)
def test_bad_levels_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        Hierarchy(levels)


def test_bad_calls_are_refused():
    hierarchy, finest = Hierarchy(SMALL), finest_traffic()
    coarse = hierarchy.aggregate(finest, "cell")
    with pytest.raises(ValueError, match=r"`cell_size` must be positive, but is 0"):
        Hierarchy(cell_size=0)
    with pytest.raises(ValueError, match=r"`rgp` must be .*'greedy'"):
        resolve_stages([2, 1], [2, 1], "greedy")
    with pytest.raises(ValueError, match=r"`spatial` must have distinct factors"):
        Hierarchy.from_resolutions({"a": 2, "b": 2}, [2, 1])
    with pytest.raises(ValueError, match=r"`level` must be one of .*'bs'"):
        hierarchy.index("bs")
    with pytest.raises(ValueError, match=r"`level` must be between -3 and 2, but is 3"):
        hierarchy.index(3)
    with pytest.raises(ValueError, match=r"`target` must not be finer than `source`, but is 'grid'"):
        hierarchy.aggregate(coarse, "grid", source="cell")
    with pytest.raises(ValueError, match=r"`target` must not be coarser than `source`, but is 'area'"):
        hierarchy.upsample(coarse, "cell", "area")
    with pytest.raises(ValueError, match=r"`reduction` must be 'mean' or 'sum', but is 'max'"):
        hierarchy.aggregate(finest, "area", reduction="max")
    with pytest.raises(ValueError, match=r"sizes divisible by \(4, 6, 6\).*\(8, 6, 17\)"):
        hierarchy.aggregate(finest[..., 1:], "area")
    with pytest.raises(ValueError, match=r"`level` must have a coarser one"):
        hierarchy.reconcile(finest, coarse, "area")
    with pytest.raises(ValueError, match=r"`coarse` must have the shape .*but has"):
        hierarchy.reconcile(finest, coarse[..., 1:], "grid")
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"`values` must be finite and non-negative"):
            hierarchy.reconcile(torch.full_like(finest, bad), coarse, "grid")
        with pytest.raises(ValueError, match=r"`coarse` must be finite and non-negative"):
            hierarchy.reconcile(finest, torch.full_like(coarse, bad), "grid")
    with pytest.raises(ValueError, match=r"`mask` must leave a child to every positive unit of `coarse`"):
        hierarchy.reconcile(finest, coarse + 1, "grid", mask=torch.zeros(TIME, HEIGHT, WIDTH, dtype=torch.bool))


@pytest.mark.parametrize("levels", [[{"name": "bs"}], ["bs"], [{"name": "bs", "spatial_factor": 1, "time": 1}]])
def test_a_level_without_all_that_it_needs_is_refused(levels):
    with pytest.raises(ValueError, match="Each of `levels` must be a Level or a dict with"):
        Hierarchy(levels)
