# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The ordered levels of mobile traffic, coarse to fine, and the moves between them."""

from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from math import lcm

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config

from .configuration import ConfigurableComponent


BLOCK_AXES = (-5, -3, -1)  # the children of one coarse unit, after `_blocks`


@dataclass(frozen=True)
class Level:
    """
    One member of the hierarchy.

    Args:
        name (`str`): Unique name, e.g. `"bs"`.
        spatial_factor (`int`): Finest cells along each side of one unit of this level.
        temporal_factor (`int`): Finest time steps in one time step of this level.
    """

    name: str
    spatial_factor: int
    temporal_factor: int


def _check_factors(name: str, factors: list[int]) -> None:
    if not factors or any(not isinstance(factor, int) or factor < 1 for factor in factors):
        raise ValueError(f"`{name}` must be a non-empty list of positive integers, coarse to fine, but is {factors}.")
    for coarse, fine in zip(factors, factors[1:]):
        if coarse % fine:
            raise ValueError(f"`{name}` must be nested, coarse to fine, but {factors} has {fine} after {coarse}.")


def resolve_stages(spatial_factors: list[int], temporal_factors: list[int], rgp: str = "fine"):
    """
    Combine S spatial scales and T temporal resolutions into K stages (Resolution Greediness Preference, Sec. IV-D).

    Args:
        spatial_factors (`list[int]`): The S spatial factors, coarse to fine.
        temporal_factors (`list[int]`): The T temporal factors, coarse to fine.
        rgp (`str`, defaults to `"fine"`):
            `"fine"` and `"coarse"` give K = max(S, T) even stages, where the shorter list repeats its finest or its
            coarsest entry; `"uniform"` splits the trajectory evenly into S and into T parts and takes every cut.

    Returns:
        `list[tuple[int, int, float]]`: per stage (spatial factor, temporal factor, N_k / N), where N_k is the
        diffusion step at which the stage ends; the last is 0.
    """
    spatial, temporal = list(spatial_factors), list(temporal_factors)
    _check_factors("spatial_factors", spatial)
    _check_factors("temporal_factors", temporal)
    if rgp == "uniform":
        parts = len(spatial), len(temporal)
        cuts = sorted({Fraction(i, n) for n in parts for i in range(1, n + 1)})
        starts = [Fraction(0), *cuts[:-1]]
        return [
            (spatial[int(start * len(spatial))], temporal[int(start * len(temporal))], float(1 - end))
            for start, end in zip(starts, cuts)
        ]
    if rgp not in ("fine", "coarse"):
        raise ValueError(f"`rgp` must be 'fine', 'coarse' or 'uniform', but is {rgp!r}.")
    num_stages = max(len(spatial), len(temporal))
    for factors in (spatial, temporal):
        missing = num_stages - len(factors)
        factors[:] = factors + [factors[-1]] * missing if rgp == "fine" else [factors[0]] * missing + factors
    return [(spatial[k], temporal[k], float(1 - Fraction(k + 1, num_stages))) for k in range(num_stages)]


class Hierarchy(ConfigurableComponent):
    """
    The levels of a traffic hierarchy, coarse to fine. The default is the paper's S4T4.

    Traffic arrays have the axes (..., time, height, width), torch or numpy. Inside the package every level holds the
    mean per finest cell and time step, so that nearest-neighbour upsampling is exact.

    Args:
        levels (`list[dict | Level]`, *optional*):
            Coarse to fine; each level's factors must divide those of the level before. Defaults to base stations at
            1 day, cells at 4 h, 100 m at 2 h and 50 m at 1 h.
        cell_size (`float`, defaults to 50.0): Side of a finest cell in metres.
        time_step (`float`, defaults to 1.0): Finest time step in hours.
    """

    config_name = "hierarchy_config.json"

    @register_to_config
    def __init__(self, levels: list | None = None, cell_size: float = 50.0, time_step: float = 1.0):
        if levels is None:
            levels = [Level("bs", 8, 24), Level("cell", 4, 4), Level("grid_100m", 2, 2), Level("grid_50m", 1, 1)]
        self.levels = [level if isinstance(level, Level) else _level(level) for level in levels]
        self.update_config(levels=[asdict(level) for level in self.levels])
        _check_factors("levels (spatial factors)", self.spatial_factors)
        _check_factors("levels (temporal factors)", self.temporal_factors)
        if len(set(self.names)) < len(self):
            raise ValueError(f"`levels` must have unique names, but has {self.names}.")
        for name, value in (("cell_size", cell_size), ("time_step", time_step)):
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, but is {value}.")

    @classmethod
    def from_resolutions(cls, spatial: dict[str, int], temporal: list[int], rgp: str = "fine", **kwargs):
        """
        Build the levels from spatial scales {name: factor} and temporal factors, both coarse to fine, and an RGP (see
        [`resolve_stages`]). A spatial scale that occurs in several levels gets its hours as a suffix (`"cell_2h"`).
        """
        stages = resolve_stages(list(spatial.values()), temporal, rgp)
        name_of = {factor: name for name, factor in spatial.items()}
        if len(name_of) < len(spatial):
            raise ValueError(f"`spatial` must have distinct factors, but is {spatial}.")
        used = [stage[0] for stage in stages]
        levels = []
        for spatial_factor, temporal_factor, _ in stages:
            hours = temporal_factor * kwargs.get("time_step", 1.0)
            suffix = f"_{hours:g}h" if used.count(spatial_factor) > 1 else ""
            levels.append(Level(name_of[spatial_factor] + suffix, spatial_factor, temporal_factor))
        return cls(levels, **kwargs)

    @property
    def names(self) -> list[str]:
        return [level.name for level in self.levels]

    @property
    def spatial_factors(self) -> list[int]:
        return [level.spatial_factor for level in self.levels]

    @property
    def temporal_factors(self) -> list[int]:
        return [level.temporal_factor for level in self.levels]

    def __len__(self) -> int:
        return len(self.levels)

    def index(self, level: str | int) -> int:
        """Position of a level, given by name or (possibly negative) position."""
        if isinstance(level, str):
            if level not in self.names:
                raise ValueError(f"`level` must be one of {self.names}, but is {level!r}.")
            return self.names.index(level)
        if not -len(self) <= level < len(self):
            raise ValueError(f"`level` must be between {-len(self)} and {len(self) - 1}, but is {level}.")
        return level % len(self)

    def shapes(self, time: int, height: int, width: int) -> list[tuple[int, int, int]]:
        """(time, height, width) of every level, for a finest grid of the given size."""
        multiples = {
            "time": lcm(*self.temporal_factors),
            "height": lcm(*self.spatial_factors),
            "width": lcm(*self.spatial_factors),
        }
        for (name, multiple), size in zip(multiples.items(), (time, height, width)):
            if size < 1 or size % multiple:
                below, above = size // multiple * multiple, (size // multiple + 1) * multiple
                fitting = f"{below} or {above}" if below > 0 else f"{above}"
                raise ValueError(f"`{name}` must be a multiple of {multiple}, but is {size}; {fitting} would fit.")
        return [
            (time // level.temporal_factor, height // level.spatial_factor, width // level.spatial_factor)
            for level in self.levels
        ]

    def _ratios(self, coarse: int, fine: int) -> tuple[int, int]:
        coarse, fine = self.levels[coarse], self.levels[fine]
        return coarse.temporal_factor // fine.temporal_factor, coarse.spatial_factor // fine.spatial_factor

    def aggregate(self, values, target: str | int, source: str | int = -1, reduction: str = "mean"):
        """
        Bring `values` (..., T, H, W) of the level `source` (the finest by default) to the coarser level `target`, as
        the `"mean"` or the `"sum"` over each coarse unit.
        """
        source, target = self.index(source), self.index(target)
        if target > source:
            raise ValueError(f"`target` must not be finer than `source`, but is {self.names[target]!r}.")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"`reduction` must be 'mean' or 'sum', but is {reduction!r}.")
        tensor = torch.as_tensor(values)
        blocks = _blocks(tensor.double(), self._ratios(target, source))
        result = blocks.mean(BLOCK_AXES) if reduction == "mean" else blocks.sum(BLOCK_AXES)
        return _like(values, result)

    def upsample(self, values, source: str | int, target: str | int):
        """Repeat every unit of `values` (..., T, H, W) of `source` on the finer level `target`: exact for means."""
        source, target = self.index(source), self.index(target)
        if target < source:
            raise ValueError(f"`target` must not be coarser than `source`, but is {self.names[target]!r}.")
        return _like(values, _repeat(torch.as_tensor(values), self._ratios(source, target)))

    def pyramid(self, finest) -> list:
        """All levels, coarse to fine, as means of the finest values (..., T, H, W)."""
        return [self.aggregate(finest, level) for level in range(len(self))]

    def reconcile(self, values, coarse, level: str | int, mask=None):
        """
        Scale non-negative `values` so that they aggregate exactly to the coarser level that guided them.

        Every group of children is multiplied by parent / mean(children). Where all children are zero under a positive
        parent, the children share it evenly. Both arguments hold means per finest cell and time step; sums are taken
        in float64.

        Args:
            values (`torch.Tensor` or `np.ndarray`): (..., T, H, W) of `level`, non-negative.
            coarse (`torch.Tensor` or `np.ndarray`): (..., T', H', W') of the level before it, non-negative.
            level (`str` or `int`): The level of `values`; not the coarsest.
            mask (*optional*):
                Broadcastable to `values`, True where a unit exists. The others become zero and count as zeros.

        Raises:
            `ValueError`: for negative or non-finite input, and for a positive parent none of whose children exists.
        """
        level = self.index(level)
        if level == 0:
            raise ValueError(f"`level` must have a coarser one, but {self.names[0]!r} is the coarsest.")
        ratios = self._ratios(level - 1, level)
        fine, parent = torch.as_tensor(values).double(), torch.as_tensor(coarse).double()
        for name, tensor in (("values", fine), ("coarse", parent)):
            if not bool(((tensor >= 0) & tensor.isfinite()).all()):
                raise ValueError(f"`{name}` must be finite and non-negative; its smallest value is {tensor.min()}.")
        exists = torch.ones_like(fine) if mask is None else torch.as_tensor(mask).to(fine).expand_as(fine)
        fine = fine * exists
        total, count = (_blocks(tensor, ratios).sum(BLOCK_AXES) for tensor in (fine, exists))
        if parent.shape != total.shape:
            raise ValueError(f"`coarse` must have the shape {tuple(total.shape)}, but has {tuple(parent.shape)}.")
        if bool(((count == 0) & (parent > 0)).any()):
            raise ValueError("`mask` must leave a child to every positive unit of `coarse`.")
        parent_sum = parent * (ratios[0] * ratios[1] ** 2)
        share = torch.where(_repeat(total > 0, ratios), fine, exists)
        weight = torch.where(total > 0, total, count.clamp(min=1))
        return _like(values, share / _repeat(weight, ratios) * _repeat(parent_sum, ratios))


def _level(values: dict) -> Level:
    expected = [field.name for field in fields(Level)]
    if not isinstance(values, dict) or sorted(values) != sorted(expected):
        raise ValueError(f"Each of `levels` must be a Level or a dict with {expected}, but one is {values!r}.")
    return Level(**values)


def _blocks(tensor: torch.Tensor, ratios: tuple[int, int]) -> torch.Tensor:
    *batch, time, height, width = tensor.shape
    in_time, in_space = ratios
    if time % in_time or height % in_space or width % in_space:
        raise ValueError(
            f"`values` must have sizes divisible by {(in_time, in_space, in_space)} on its last three axes, "
            f"but has {(time, height, width)}."
        )
    sizes = (time // in_time, in_time, height // in_space, in_space, width // in_space, in_space)
    return tensor.reshape(*batch, *sizes)


def _repeat(tensor: torch.Tensor, ratios: tuple[int, int]) -> torch.Tensor:
    *batch, time, height, width = tensor.shape
    in_time, in_space = ratios
    expanded = tensor.reshape(*batch, time, 1, height, 1, width, 1)
    expanded = expanded.expand(*batch, time, in_time, height, in_space, width, in_space)
    return expanded.reshape(*batch, time * in_time, height * in_space, width * in_space)


def _like(values, result: torch.Tensor):
    """Return `result` in the kind (torch or numpy) and the floating dtype of `values`."""
    dtype = torch.as_tensor(values).dtype
    if dtype.is_floating_point:
        result = result.to(dtype)
    return result.numpy() if isinstance(values, np.ndarray) else result
