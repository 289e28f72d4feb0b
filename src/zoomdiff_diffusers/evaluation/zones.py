# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels whose units have any form: which levels add up to which, and means over units."""

from collections.abc import Mapping

import numpy as np
import torch

from ..hierarchy import BLOCK_AXES, repeat_blocks, split_blocks, sum_over


def as_batch(zones, levels) -> dict[str, torch.Tensor]:
    """
    The layers of zones that some levels need, as [`Hierarchy`] takes them.

    Args:
        zones (`Mapping[str, np.ndarray]` or `None`): By layer (H, W), or (B, H, W) with one entry per area.
        levels (`Iterable[Level]`): The levels.

    Raises:
        ValueError: If a layer is missing.
    """
    needed = {level.zones: level.name for level in levels if level.zones}
    missing = [layer for layer in needed if layer not in (zones or {})]
    if missing:
        raise ValueError(
            f"`zones` must have the layer {missing[0]!r}, which says where the units of {needed[missing[0]]!r} are, "
            f"but has {list(zones or {})}."
        )
    layers = {layer: torch.as_tensor(np.asarray(zones[layer])).long() for layer in needed}
    return {layer: labels.reshape(-1, *labels.shape[-2:]) for layer, labels in layers.items()}


def adds_up(fine, coarse, zones: Mapping[str, torch.Tensor]) -> bool:
    """
    Whether every unit of the level `fine` lies in one unit of the level `coarse`. Only then the values of `fine` tell
    those of `coarse`.

    Args:
        fine ([`Level`]), coarse ([`Level`]): Two levels of one hierarchy.
        zones (`Mapping[str, torch.Tensor]`): From [`as_batch`].
    """
    layers = [level.zones for level in (fine, coarse) if level.zones]
    if not layers:
        return True
    size = zones[layers[0]].shape[-2:]
    pairs = torch.broadcast_tensors(*(_units(level, size, zones) for level in (fine, coarse)))
    for of_fine, of_coarse in zip(*pairs):
        both = torch.stack([of_fine.flatten(), of_coarse.flatten()])
        if both.unique(dim=1).shape[1] > of_fine.unique().numel():
            return False
    return True


def over_units(values: np.ndarray, level, factor: int, zones: Mapping[str, torch.Tensor]) -> np.ndarray:
    """
    Means over the units of a level, on the grid of the level's arrays: float64.

    Args:
        values (`np.ndarray`): (N, H, W), of elements of `factor` finest cells along each side.
        level ([`Level`]): Its units are made of such elements.
        factor (`int`): See above.
        zones (`Mapping[str, torch.Tensor]`): From [`as_batch`], of one area.
    """
    tensor = torch.as_tensor(np.asarray(values, dtype=np.float64))
    if not level.zones:
        return split_blocks(tensor, (1, level.spatial_factor // factor)).mean(BLOCK_AXES).numpy()
    cells, labels = repeat_blocks(tensor, (1, factor)), zones[level.zones]
    return (sum_over(cells, labels) / sum_over(torch.ones_like(cells[:1]), labels)).numpy()


def _units(level, size, zones) -> torch.Tensor:
    """(B or 1, H, W) number of the unit of each finest cell."""
    if level.zones:
        return zones[level.zones]
    rows, columns = (torch.arange(count) // level.spatial_factor for count in size)
    return (rows[:, None] * size[1] + columns)[None]
