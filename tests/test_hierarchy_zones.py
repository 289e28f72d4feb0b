# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels whose units are coverage areas: nested in each other, and across the squares of the other levels."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoomdiff_diffusers.hierarchy import Hierarchy, Level


HIERARCHIES = {
    "areas, then squares": [
        Level("bs", 4, 6, "site"),
        Level("cell", 2, 2, "sector"),
        Level("grid_2", 2, 2),
        Level("grid", 1, 1),
    ],
    "squares, then areas": [Level("district", 4, 6), Level("cell", 2, 3, "sector"), Level("grid", 1, 1)],
    "areas that are not nested": [Level("bs", 4, 6, "other"), Level("cell", 2, 3, "sector"), Level("grid", 1, 1)],
}
TIME, HEIGHT, WIDTH = 12, 8, 12


def random_zones(seed: int, batch: int = 2, count: int = 9) -> dict[str, torch.Tensor]:
    """Sectors nested in sites, and other areas across them; numbers without order, different in each area."""
    random = np.random.default_rng(seed)
    sector = random.integers(count, size=(batch, HEIGHT, WIDTH))
    sector = np.stack([np.unique(labels, return_inverse=True)[1].reshape(labels.shape) for labels in sector])
    zones = {"sector": sector, "site": sector // 3, "other": random.integers(3, size=(batch, HEIGHT, WIDTH))}
    return {name: torch.as_tensor(labels) for name, labels in zones.items()}


def traffic(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=generator, dtype=torch.float64).pow(4) * 1e6
    return values * (torch.rand(shape, generator=generator) > 0.6)


def means_of_units(values: np.ndarray, labels: np.ndarray, in_time: int) -> np.ndarray:
    """(T, H, W) -> (T / in_time, H, W): the mean of each cell's unit, one at a time."""
    result = np.empty((len(values) // in_time, *labels.shape))
    for step in range(len(result)):
        for unit in np.unique(labels):
            result[step, labels == unit] = values[step * in_time : (step + 1) * in_time, labels == unit].mean()
    return result


def generated(hierarchy: Hierarchy, zones, seed: int) -> tuple[list, list]:
    """Fields and levels as a generator makes them: random levels, each reconciled with the field before."""
    fields, levels = [], []
    for position, shape in enumerate(hierarchy.shapes(TIME, HEIGHT, WIDTH)):
        values = hierarchy.over_units(traffic(seed + position, 2, 1, *shape), position, zones)
        if fields:
            values = hierarchy.reconcile(values, fields[-1], position, zones=zones)
        fields.append(values)
        levels.append(hierarchy.level_of(values, position, zones))
    return fields, levels


def test_arrays_of_a_level_with_zones_lie_on_the_finest_grid():
    hierarchy = Hierarchy(HIERARCHIES["areas, then squares"])
    assert hierarchy.shapes(TIME, HEIGHT, WIDTH) == [(2, 8, 12), (6, 8, 12), (6, 4, 6), (12, 8, 12)]
    assert hierarchy.raster_factors == [1, 1, 2, 1] and hierarchy.spatial_factors == [4, 2, 2, 1]
    assert hierarchy.zone_layers == ["site", "sector"]
    with pytest.raises(ValueError, match="`height` must be a multiple of 4"):
        hierarchy.shapes(TIME, 6, WIDTH)


def test_configuration_round_trip(tmp_path):
    hierarchy = Hierarchy(HIERARCHIES["areas, then squares"])
    hierarchy.save_pretrained(tmp_path)
    loaded = Hierarchy.from_pretrained(tmp_path)
    assert loaded.levels == hierarchy.levels
    assert "zones" not in Hierarchy().config.levels[0]  # as in checkpoints without zones


@pytest.mark.parametrize("name", HIERARCHIES)
def test_levels_are_means_over_their_units(name):
    hierarchy, zones, finest = Hierarchy(HIERARCHIES[name]), random_zones(0), traffic(1, 2, 1, TIME, HEIGHT, WIDTH)
    for level, values in zip(hierarchy.levels, hierarchy.pyramid(finest, zones)):
        for place in range(2):
            source = finest[place, 0].numpy()
            if level.zones:
                expected = means_of_units(source, zones[level.zones][place].numpy(), level.temporal_factor)
            else:
                side, steps = level.spatial_factor, level.temporal_factor
                sizes = (TIME // steps, steps, HEIGHT // side, side, WIDTH // side, side)
                expected = source.reshape(sizes).mean((1, 3, 5))
            assert np.allclose(values[place, 0], expected)


@pytest.mark.parametrize("name", HIERARCHIES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_sums_are_exact_across_all_levels(name, seed):
    hierarchy, zones = Hierarchy(HIERARCHIES[name]), random_zones(seed)
    _, levels = generated(hierarchy, zones, seed)
    assert min(level.min() for level in levels) >= 0
    total = levels[0].mean().item()
    for position, values in enumerate(levels):
        # The sums of every unit of a level are met by the finest one, whatever lies across it in between.
        again = hierarchy.aggregate(levels[-1], position, zones=zones)
        assert torch.allclose(again, values, rtol=1e-9, atol=1e-9 * total)


def test_the_next_level_alone_cannot_tell_the_sums_of_areas_across_it():
    """Which is why fields exist: squares on both sides of a border hold a part of each area."""
    hierarchy, zones = Hierarchy(HIERARCHIES["areas, then squares"]), random_zones(3)
    fields, levels = generated(hierarchy, zones, 3)
    squares = hierarchy.upsample(levels[2], 2, 3)
    assert not torch.allclose(hierarchy.aggregate(squares, 1, zones=zones), levels[1], rtol=0.01)
    cells = torch.nn.functional.interpolate(fields[2], scale_factor=(2, 1, 1))  # on the finest grid already
    assert torch.allclose(hierarchy.aggregate(cells, 1, zones=zones), levels[1])


def test_children_that_are_all_zero_share_evenly():
    hierarchy, zones = Hierarchy(HIERARCHIES["squares, then areas"]), random_zones(4)
    parent = torch.zeros(2, 1, 2, 2, 3, dtype=torch.float64)
    parent[0, 0, 1, 0, 2] = 5.0
    field = hierarchy.reconcile(torch.zeros(2, 1, 4, HEIGHT, WIDTH, dtype=torch.float64), parent, "cell", zones=zones)
    assert torch.equal(field[0, 0, 2:, :4, 8:], torch.full((2, 4, 4), 5.0, dtype=torch.float64))
    assert field.sum() == 5.0 * 2 * 16


def test_cells_that_do_not_exist_stay_empty():
    hierarchy, zones = Hierarchy(HIERARCHIES["areas that are not nested"]), random_zones(5)
    fields, levels = generated(hierarchy, zones, 5)
    mask = torch.rand(2, 1, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) > 0.1
    # No traffic where no cell is left of a part: of the cells with one site and sector.
    part = 100 * zones["other"] + zones["sector"]
    alive = torch.stack([torch.isin(parts, parts[kept]) for parts, kept in zip(part, mask[:, 0, 0])])
    assert not alive.all() and mask.float().mean() < 0.95
    children = fields[1] * alive[:, None, None]
    finest = hierarchy.reconcile(levels[2], children, 2, mask=mask, zones=zones)
    assert (finest[~mask.expand_as(finest)] == 0).all()
    assert torch.allclose(finest.sum((2, 3, 4)), children.sum((2, 3, 4)) * 3)
    with pytest.raises(ValueError, match="`mask` must leave a child"):
        hierarchy.reconcile(levels[2], fields[1] + 1, 2, mask=mask, zones=zones)


def test_volumes_turn_means_into_sums():
    hierarchy, zones, finest = (
        Hierarchy(HIERARCHIES["areas, then squares"]),
        random_zones(7),
        traffic(8, 2, 1, TIME, HEIGHT, WIDTH),
    )
    for position, means in enumerate(hierarchy.pyramid(finest, zones)):
        sums = hierarchy.aggregate(finest, position, reduction="sum", zones=zones)
        assert torch.allclose(means * hierarchy.volume(position, zones), sums)
    site = zones["site"][1] == zones["site"][1, 0, 0]
    daily = hierarchy.aggregate(finest, 0, reduction="sum", zones=zones)[1, 0, 0, 0, 0]
    assert daily == pytest.approx(finest[1, 0, :6, site].sum().item())


def test_noise_of_units_is_standard_normal_and_one_number_per_unit():
    hierarchy, zones = Hierarchy(HIERARCHIES["areas, then squares"]), random_zones(9, batch=1)
    noise = torch.randn(1, 1, 20_000, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    of_units = hierarchy.noise_over_units(noise, "bs", zones)
    site = zones["site"][0]
    first = [(site == unit).nonzero()[0] for unit in range(3)]
    values = torch.stack([of_units[0, 0, :, y, x] for y, x in first])
    covariance = torch.cov(values)
    assert torch.allclose(covariance, torch.eye(3), atol=0.05)  # five standard errors
    spread_in_units = torch.stack([of_units[0, 0, :10, site == unit].std(dim=-1).max() for unit in range(3)])
    assert spread_in_units.max() < 1e-5
    assert torch.equal(hierarchy.noise_over_units(noise, "grid", zones), noise)


def test_what_does_not_fit_is_refused():
    hierarchy = Hierarchy(HIERARCHIES["areas, then squares"])
    finest = traffic(0, 2, 1, TIME, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="must have the layer 'site'.*but has \\[\\]"):
        hierarchy.pyramid(finest)
    with pytest.raises(ValueError, match=r"`zones` must be \(2 or 1, 8, 12\), but are \(2, 12, 8\)"):
        hierarchy.pyramid(finest, {name: labels.mT for name, labels in random_zones(0).items()})
    with pytest.raises(ValueError, match="maybe \\['zones'\\]"):
        Hierarchy([{"name": "bs", "spatial_factor": 1, "temporal_factor": 1, "zone": "site"}])


def test_a_square_across_a_border_is_split_by_the_profile():
    """Without it, a dry corner of a square that belongs to another area would get the mean of the square."""
    levels = [Level("bs", 2, 1, "site"), Level("square", 2, 1), Level("cell", 1, 1)]
    hierarchy = Hierarchy(levels)
    zones = {"site": torch.tensor([[[0, 0, 0, 1], [0, 0, 1, 1]]])}
    cells = torch.tensor([[4.0, 4.0, 0.0, 8.0], [4.0, 4.0, 2.0, 6.0]], dtype=torch.float64)[None, None, None]
    site, square, _ = hierarchy.pyramid(cells, zones)
    even = hierarchy.reconcile(square, site, "square", zones=zones)
    split = hierarchy.reconcile(square, site, "square", zones=zones, profile=3 * cells)
    assert even[0, 0, 0, 0, 2] > 3 and split[0, 0, 0, 0, 2] == 0
    torch.testing.assert_close(split[0, 0, 0, :, 2:], torch.tensor([[0.0, 16 / 3], [16 / 3, 16 / 3]]).double())
    torch.testing.assert_close(hierarchy.level_of(split, "square", zones), square)
    found = hierarchy.reconcile(cells, split, "cell", zones=zones, profile=cells)
    torch.testing.assert_close(found, cells)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**20), name=st.sampled_from(list(HIERARCHIES)))
def test_sums_are_exact_with_any_profile(seed, name):
    hierarchy, zones = Hierarchy(HIERARCHIES[name]), random_zones(seed)
    profile = traffic(seed + 99, 2, 1, TIME, HEIGHT, WIDTH)
    field, levels = None, []
    for position, shape in enumerate(hierarchy.shapes(TIME, HEIGHT, WIDTH)):
        values = hierarchy.over_units(traffic(seed + position, 2, 1, *shape), position, zones)
        if field is not None:
            values = hierarchy.reconcile(values, field, position, zones=zones, profile=profile)
        field = values
        levels.append(hierarchy.level_of(field, position, zones))
    for position, values in enumerate(levels):
        again = hierarchy.aggregate(field, position, zones=zones)
        assert torch.allclose(again, values, rtol=1e-9, atol=1e-6)
