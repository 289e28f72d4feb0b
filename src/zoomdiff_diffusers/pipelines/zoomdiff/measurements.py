# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic that was measured at one level, with gaps, and what it says about the coarser levels."""

import torch

from ...hierarchy import Hierarchy


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
