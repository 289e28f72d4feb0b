# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic that was measured, with gaps: at one level, or in areas of its own such as those of base stations."""

from copy import copy

import numpy as np
import torch

from ...hierarchy import BLOCK_AXES, Hierarchy, repeat_blocks, split_blocks, sum_over


class MeasuredTraffic:
    """
    Known values of one level, seen from that level and every coarser one.

    A coarse unit is known if all of its parts are. Of a partly known unit, the known parts count as measured and the
    rest as generated; so no generated total contradicts a measurement by being less than the sum of its known parts.

    Args:
        traffic (`torch.Tensor`): (N, C, T, H, W), means of `level`, NaN where nothing is known.
        level (`int`): The level of `traffic`.
        hierarchy ([`Hierarchy`]): The levels.
        zones (`dict[str, torch.Tensor]`, *optional*): Those of each of the N, if the hierarchy has any.
    """

    def __init__(self, traffic: torch.Tensor, level: int, hierarchy: Hierarchy, zones: dict | None = None):
        self.level, self.zones = level, zones
        measured = (~traffic.isnan()).to(traffic.dtype)
        filled = traffic.nan_to_num(nan=0.0)
        self.fraction = [hierarchy.aggregate(measured, k, source=level, zones=zones) for k in range(level + 1)]
        total = [hierarchy.aggregate(filled, k, source=level, zones=zones) for k in range(level + 1)]
        self.mean = [part / share.masked_fill(share == 0, 1.0) for part, share in zip(total, self.fraction)]
        self.hierarchy = hierarchy

    def __getitem__(self, index: slice) -> "MeasuredTraffic":
        """Those of some of the N tensors."""
        part = copy(self)
        part.fraction = [values[index] for values in self.fraction]
        part.mean = [values[index] for values in self.mean]
        part.zones = None if self.zones is None else {name: labels[index] for name, labels in self.zones.items()}
        return part

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return bool((self.fraction[-1] == 1).all())

    def known(self, level: int) -> torch.Tensor:
        """Return where `level` is wholly known."""
        return self.fraction[level] == 1

    def combine(self, values: torch.Tensor, coarse: torch.Tensor | None, level: int) -> torch.Tensor:
        """
        Bring generated values of a level together with the measurements.

        Args:
            values (`torch.Tensor`): Means of `level` as generated.
            coarse (`torch.Tensor`, *optional*): Field of the level before it. Its units without any measurement are
                met exactly; a partly known unit follows from its parts instead.
            level (`int`): The level of `values`.

        Returns:
            `torch.Tensor`: the field of the level.
        """
        if coarse is not None:
            reconciled = self.hierarchy.reconcile(values, coarse, level, zones=self.zones)
            reconciled = self.hierarchy.level_of(reconciled, level, self.zones)
            unmeasured = self.hierarchy.upsample(self.fraction[level - 1], level - 1, level) == 0
            values = torch.where(unmeasured, reconciled, values)
        fraction = self.fraction[level]
        mixed = fraction * self.mean[level] + (1 - fraction) * values
        return self.hierarchy.field_of(torch.where(self.known(level), self.mean[level], mixed), level)

    def complete_levels(self, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Recompute the levels before the measured one, or before the last that is finished, by aggregation."""
        anchor = min(self.level, len(levels) - 1)
        coarse = [self.hierarchy.aggregate(levels[anchor], k, source=anchor, zones=self.zones) for k in range(anchor)]
        return coarse + levels[anchor:]


class MeasuredZones:
    """
    Totals of coverage areas that need not be units of any level, at any time step that fits the levels.

    Of a time step in which an area is partly known, the known part counts as measured and the rest as generated.

    Args:
        traffic (`np.ndarray`): (C, T, Z), at least 0: totals of Z areas per time step. NaN where nothing is known.
        labels (`np.ndarray`): (H, W) whole numbers below Z, the area that serves each finest cell; -1 for none.
        temporal_factor (`int`): Finest time steps in one of `traffic`.
        hierarchy ([`Hierarchy`]): The levels.

    Raises:
        ValueError: If these do not fit together, a value is negative or infinite, or an area without any cell has
            traffic.
    """

    def __init__(self, traffic: np.ndarray, labels: np.ndarray, temporal_factor: int, hierarchy: Hierarchy):
        traffic, labels = np.asarray(traffic, dtype=np.float64), np.asarray(labels)
        if traffic.ndim != 3 or traffic.shape[-1] == 0:
            raise ValueError(f"`traffic` must have the shape (C, T, Z), one entry per area, but has {traffic.shape}.")
        if (traffic < 0).any() or np.isinf(traffic).any():
            raise ValueError("`traffic` must be finite and not negative; write NaN where a value is missing.")
        if (
            labels.ndim != 2
            or labels.dtype.kind not in "iu"
            or not -1 <= labels.min() <= labels.max() < len(traffic.T)
        ):
            raise ValueError(
                f"`zones` must be whole numbers (H, W) from -1 to {len(traffic.T) - 1}, the areas of `traffic`, but"
                f" are {labels.dtype} of shape {labels.shape} from {labels.min()} to {labels.max()}."
            )
        factors = hierarchy.temporal_factors
        if factors[0] % temporal_factor or any(step % temporal_factor and temporal_factor % step for step in factors):
            raise ValueError(
                f"A time step of `traffic` is {temporal_factor} of the finest ones; it must divide those of every"
                f" level, {factors}, or be a multiple of them, but not longer than those of the first."
            )
        cells = np.bincount(labels[labels >= 0], minlength=traffic.shape[-1])
        lost = (cells == 0) & (np.nan_to_num(traffic).sum(axis=(0, 1)) > 0)
        if lost.any():
            raise ValueError(
                f"{int(lost.sum())} areas have traffic but no cell, the first is number {lost.argmax()}: add it to"
                " that of an area that has."
            )
        self.hierarchy, self.temporal_factor, self.labels = hierarchy, temporal_factor, labels
        self.known = ~np.isnan(traffic)
        self.mean = np.nan_to_num(traffic) / np.maximum(cells, 1) / temporal_factor  # per finest cell and time step

    @property
    def num_steps(self) -> int:
        """Length in finest time steps."""
        return self.mean.shape[1] * self.temporal_factor

    def combine(self, field: torch.Tensor, level: int, part: tuple[slice, slice, slice]) -> torch.Tensor:
        """
        Scale what was generated in every area to what was measured there.

        Areas that reach beyond the part are not met, since their traffic outside is not known here.

        Args:
            field (`torch.Tensor`): (1, C, T_k, H_k, W_k) means of a level, or its field, in a part of the map.
            level (`int`): The level.
            part (`tuple[slice, slice, slice]`): Finest time steps, rows and columns of the part.

        Returns:
            `torch.Tensor`: like `field`; where areas and units overlap, the mean over each unit.
        """
        steps, rows, columns = part
        labels = self.labels[rows, columns]
        places, index = np.unique(labels, return_inverse=True)
        index = torch.from_numpy(index.reshape(1, *labels.shape)).to(field.device)
        factor, in_level = self.hierarchy.field_factor(level), self.hierarchy.temporal_factors[level]
        first, last = steps.start // self.temporal_factor, -(-steps.stop // self.temporal_factor)
        target, known = (values[:, first:last][..., places] for values in (self.mean, self.known))
        known = known & (places >= 0)
        target = np.where(known, target, 0.0)
        values = repeat_blocks(field.double(), (1, factor))
        count = max(1, in_level // self.temporal_factor)  # measured time steps in one of the level
        if count > 1:
            target, known = (x.reshape(len(x), -1, count, len(places)).mean(axis=2) for x in (target, known))
        else:
            known = known.astype(np.float64)
        # On the map, (1, C, T, H, W).
        target, known = (torch.from_numpy(x).to(values)[:, :, index[0]][None] for x in (target, known))
        ratio = max(1, self.temporal_factor // in_level)  # time steps of the level in a measured one
        blocks = split_blocks(values, (ratio, 1)).mean(BLOCK_AXES)
        generated = sum_over(blocks, index) / sum_over(torch.ones_like(blocks[:, :1, :1]), index)
        wanted = target + (1 - known) * generated
        scale = repeat_blocks(wanted / generated.where(generated > 0, 1.0), (ratio, 1))
        empty = repeat_blocks(generated == 0, (ratio, 1))
        scaled = torch.where(empty, repeat_blocks(wanted, (ratio, 1)), values * scale)
        return split_blocks(scaled, (1, factor)).mean(BLOCK_AXES).to(field.dtype)
