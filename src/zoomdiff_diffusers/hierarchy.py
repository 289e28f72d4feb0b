# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The ordered levels of mobile traffic, coarse to fine, and the moves between them."""

from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from math import lcm

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config

from .configuration import ConfigurableComponent


BLOCK_AXES = (-5, -3, -1)  # the children of one coarse unit, after `split_blocks`


@dataclass(frozen=True)
class Level:
    """
    One member of the hierarchy.

    A level whose units are real coverage areas has `zones`. Its values lie on the finest grid, every cell with that of
    the area that serves it.

    Args:
        name (`str`): Unique name, e.g. `"bs"`.
        spatial_factor (`int`):
            Finest cells along each side of one unit of this level; with `zones`, of a typical one.
        temporal_factor (`int`): Finest time steps in one time step of this level.
        zones (`str`, *optional*): Layer of the context that says which unit serves each cell; squares by default.
    """

    name: str
    spatial_factor: int
    temporal_factor: int
    zones: str | None = None

    @property
    def raster_factor(self) -> int:
        """Finest cells along each side of an element of the level's arrays: 1 with `zones`."""
        return 1 if self.zones else self.spatial_factor


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

    Where units of two levels overlap without one lying in the other, as squares and coverage areas do, the sums of
    both can only be met by their common parts. A *field* holds the values of a level on these parts. Without zones it
    is the level itself; after a level with zones it lies on the finest grid. `reconcile` takes and returns fields,
    `level_of` makes the level from one. Methods with the argument `zones` need it if the hierarchy has zones:
    `{layer: (B, H, W)}`, on the finest grid, the first axis like that of the values or 1.

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
        self.update_config(levels=[_as_dict(level) for level in self.levels])
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

    @property
    def raster_factors(self) -> list[int]:
        return [level.raster_factor for level in self.levels]

    @property
    def zone_layers(self) -> list[str]:
        """The layers of the context that the levels with zones need."""
        return list(dict.fromkeys(level.zones for level in self.levels if level.zones))

    def field_factor(self, level: int) -> int:
        """Finest cells along each side of an element of a level's field."""
        return min(self.raster_factors[: level + 1])

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
            (time // level.temporal_factor, height // factor, width // factor)
            for level, factor in zip(self.levels, self.raster_factors)
        ]

    def _time_ratio(self, coarse: int, fine: int) -> int:
        return self.levels[coarse].temporal_factor // self.levels[fine].temporal_factor

    def aggregate(self, values, target: str | int, source: str | int = -1, reduction: str = "mean", zones=None):
        """
        Bring `values` (..., T, H, W) of the level `source` (the finest by default) to the coarser level `target`, as
        the `"mean"` or the `"sum"` over each coarse unit.
        """
        source, target = self.index(source), self.index(target)
        if target > source:
            raise ValueError(f"`target` must not be finer than `source`, but is {self.names[target]!r}.")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"`reduction` must be 'mean' or 'sum', but is {reduction!r}.")
        tensor, in_time, factor = (
            torch.as_tensor(values),
            self._time_ratio(target, source),
            self.raster_factors[source],
        )
        if self.levels[target].zones and target != source:
            on_cells = repeat_blocks(split_blocks(tensor.double(), (in_time, 1)).mean(BLOCK_AXES), (1, factor))
            result = self._over_zones(on_cells, target, zones)
            if reduction == "sum":
                result = result * (self.volume(target, zones) / self.levels[source].temporal_factor / factor**2)
            return _like(values, result)
        blocks = split_blocks(tensor.double(), (in_time, self.raster_factors[target] // factor))
        return _like(values, blocks.mean(BLOCK_AXES) if reduction == "mean" else blocks.sum(BLOCK_AXES))

    def upsample(self, values, source: str | int, target: str | int, field: bool = False):
        """
        Repeat every unit of `values` (..., T, H, W) of `source` on the finer level `target`: exact for means.

        Args:
            field (`bool`, defaults to `False`): `values` are a field, see the class.
        """
        source, target = self.index(source), self.index(target)
        if target < source:
            raise ValueError(f"`target` must not be coarser than `source`, but is {self.names[target]!r}.")
        factor = self.field_factor(source) if field else self.raster_factors[source]
        repeated = repeat_blocks(torch.as_tensor(values), (self._time_ratio(source, target), 1))
        return _like(values, _resized(repeated, factor, self.raster_factors[target]))

    def pyramid(self, finest, zones=None) -> list:
        """All levels, coarse to fine, as means of the finest values (..., T, H, W)."""
        return [self.aggregate(finest, level, zones=zones) for level in range(len(self))]

    def reconcile(self, values, coarse, level: str | int, mask=None, zones=None, profile=None):
        """
        Scale non-negative `values` so that they aggregate exactly to the coarser level that guided them.

        Every group of children is multiplied by parent / mean(children). Where all children are zero under a positive
        parent, the children share it evenly. Both arguments hold means per finest cell and time step; sums are taken
        in float64.

        Args:
            values (`torch.Tensor` or `np.ndarray`): (..., T, H, W) of `level`, non-negative.
            coarse (`torch.Tensor` or `np.ndarray`): (..., T', H', W') field of the level before it, non-negative.
            level (`str` or `int`): The level of `values`; not the coarsest.
            mask (*optional*):
                Broadcastable to `values`, True where a unit exists. The others become zero and count as zeros.
            zones (`dict[str, torch.Tensor]`, *optional*): See the class.
            profile (`torch.Tensor`, *optional*):
                (..., T, H, W) guess of the finest level: how a unit that parents share is split among them, for
                hierarchies with zones. Evenly without it.

        Returns:
            The field of `level`, which is the level itself without zones; see `level_of`.

        Raises:
            `ValueError`: for negative or non-finite input, and for a positive parent none of whose children exists.
        """
        level = self.index(level)
        if level == 0:
            raise ValueError(f"`level` must have a coarser one, but {self.names[0]!r} is the coarsest.")
        fine, parent = torch.as_tensor(values).double(), torch.as_tensor(coarse).double()
        for name, tensor in (("values", fine), ("coarse", parent)):
            if not bool(((tensor >= 0) & tensor.isfinite()).all()):
                raise ValueError(f"`{name}` must be finite and non-negative; its smallest value is {tensor.min()}.")
        exists = torch.ones_like(fine) if mask is None else torch.as_tensor(mask).to(fine).expand_as(fine)
        factor, in_time, parts = self.field_factor(level), self._time_ratio(level - 1, level), None
        fine, exists = (_resized(tensor, self.raster_factors[level], factor) for tensor in (fine * exists, exists))
        if level < self._first_zone():  # squares in squares: the children are blocks
            in_space = self.field_factor(level - 1) // factor
            total, count = (split_blocks(tensor, (in_time, in_space)).sum(BLOCK_AXES) for tensor in (fine, exists))
            size, ratios = in_time * in_space**2, (in_time, in_space)
        else:
            parent = _resized(parent, self.field_factor(level - 1), factor)
            labels = self._parts(level - 1, fine.shape[-2:], zones)
            if profile is not None and (self.levels[level].zones or self.spatial_factors[level] > 1):
                fine = fine * self._shares(torch.as_tensor(profile).double(), level, zones)
                parts = self._parts(level, fine.shape[-2:], zones)
            totals = (split_blocks(tensor, (in_time, 1)).sum(BLOCK_AXES) for tensor in (fine, exists))
            total, count = (sum_over(tensor, labels) for tensor in totals)
            size, ratios = in_time * sum_over(torch.ones_like(fine[..., :1, :, :]), labels), (in_time, 1)
        if parent.shape != total.shape:
            raise ValueError(f"`coarse` must have the shape {tuple(total.shape)}, but has {tuple(parent.shape)}.")
        if bool(((count == 0) & (parent > 0)).any()):
            raise ValueError("`mask` must leave a child to every positive unit of `coarse`.")
        share = torch.where(repeat_blocks(total > 0, ratios), fine, exists)
        weight = torch.where(total > 0, total, count.clamp(min=1))
        field = share / repeat_blocks(weight, ratios) * repeat_blocks(parent * size, ratios)
        if parts is not None:
            field = _mean_over(field, parts)
        return _like(values, field)

    def field_of(self, values, level: str | int):
        """A field with the given level (..., T, H, W): even within each unit."""
        level = self.index(level)
        return _like(values, _resized(torch.as_tensor(values), self.raster_factors[level], self.field_factor(level)))

    def level_of(self, field, level: str | int, zones=None):
        """The level (..., T, H, W) whose field is given: its means over the level's units."""
        level = self.index(level)
        if self.levels[level].zones:
            return _like(field, self._over_zones(torch.as_tensor(field).double(), level, zones))
        factors = self.field_factor(level), self.raster_factors[level]
        return field if factors[0] == factors[1] else _like(field, _resized(torch.as_tensor(field).double(), *factors))

    def over_units(self, values, level: str | int, zones=None):
        """What a network says of every cell (..., T, H, W), as the mean over the level's units."""
        level = self.index(level)
        return _like(values, self._over_zones(values, level, zones)) if self.levels[level].zones else values

    def noise_over_units(self, noise: torch.Tensor, level: str | int, zones=None) -> torch.Tensor:
        """Standard normal noise of every cell (..., T, H, W) as standard normal noise of every unit."""
        level = self.index(level)
        if not self.levels[level].zones:
            return noise
        labels = self._labels(level, zones)
        cells = sum_over(torch.ones_like(noise[..., :1, :, :]), labels)
        return sum_over(noise, labels) / cells.sqrt()

    def volume(self, level: str | int, zones=None) -> int | torch.Tensor:
        """
        How many finest cells and time steps a value of a level stands for; for a level with zones (B, 1, 1, H, W), the
        unit's number at each of its cells.
        """
        level = self.index(level)
        temporal_factor = self.levels[level].temporal_factor
        if not self.levels[level].zones:
            return self.levels[level].spatial_factor ** 2 * temporal_factor
        labels = self._labels(level, zones)
        ones = torch.ones(len(labels), 1, 1, *labels.shape[-2:], dtype=torch.float64, device=labels.device)
        return sum_over(ones, labels) * temporal_factor

    def _shares(self, profile: torch.Tensor, level: int, zones) -> torch.Tensor:
        """What a level's units have in their cells, over their mean, by a guess of the finest level."""
        profile = _resized(profile, self.raster_factors[-1], 1)
        profile = split_blocks(profile, (self._time_ratio(level, len(self) - 1), 1)).mean(BLOCK_AXES)
        if self.levels[level].zones:
            mean = self._over_zones(profile, level, zones)
        else:
            factor = self.spatial_factors[level]
            mean = _resized(_resized(profile, 1, factor), factor, 1)
        return torch.where(mean > 0, profile / mean.where(mean > 0, 1.0), 1.0)

    def _first_zone(self) -> int:
        """Position of the first level with zones."""
        return next((position for position, level in enumerate(self.levels) if level.zones), len(self))

    def _labels(self, level: int, zones) -> torch.Tensor:
        name = self.levels[level].zones
        if zones is None or name not in zones:
            raise ValueError(
                f"`zones` must have the layer {name!r}, which says where the units of {self.names[level]!r} are, but "
                f"has {[] if zones is None else list(zones)}."
            )
        return zones[name]

    def _over_zones(self, values: torch.Tensor, level: int, zones) -> torch.Tensor:
        return _mean_over(values, self._labels(level, zones))

    def _parts(self, level: int, size: tuple[int, int], zones) -> torch.Tensor:
        """(B, H, W) numbers of the common parts of the units of all levels up to `level`, on the finest grid."""
        height, width = size
        parts = None
        for position in range(level + 1):
            if self.levels[position].zones:
                labels = self._labels(position, zones)
            else:
                factor = self.levels[position].spatial_factor
                rows, columns = torch.arange(height) // factor, torch.arange(width) // factor
                labels = (rows[:, None] * (width // factor) + columns)[None]
            if parts is None:
                parts = labels
                continue
            pairs = torch.stack(torch.broadcast_tensors(parts, labels.to(parts.device)), dim=-1)
            parts = pairs.flatten(0, -2).unique(dim=0, return_inverse=True)[1].reshape(pairs.shape[:-1])
        return parts


def _level(values: dict) -> Level:
    expected = [field.name for field in fields(Level)]
    if not isinstance(values, dict) or not {*expected[:3]} <= set(values) <= {*expected}:
        raise ValueError(
            f"Each of `levels` must be a Level or a dict with {expected[:3]} and maybe {expected[3:]}, but one is "
            f"{values!r}."
        )
    return Level(**values)


def _as_dict(level: Level) -> dict:
    """As a configuration; that of squares says nothing of zones."""
    return {name: value for name, value in asdict(level).items() if value is not None}


def split_blocks(tensor: torch.Tensor, ratios: tuple[int, int]) -> torch.Tensor:
    """(..., T, H, W) with axes of their own, `BLOCK_AXES`, for the `ratios` (time, space) of children in a unit."""
    *batch, time, height, width = tensor.shape
    in_time, in_space = ratios
    if time % in_time or height % in_space or width % in_space:
        raise ValueError(
            f"`values` must have sizes divisible by {(in_time, in_space, in_space)} on its last three axes, "
            f"but has {(time, height, width)}."
        )
    sizes = (time // in_time, in_time, height // in_space, in_space, width // in_space, in_space)
    return tensor.reshape(*batch, *sizes)


def repeat_blocks(tensor: torch.Tensor, ratios: tuple[int, int]) -> torch.Tensor:
    """(..., T, H, W) with every unit repeated for its children."""
    *batch, time, height, width = tensor.shape
    in_time, in_space = ratios
    expanded = tensor.reshape(*batch, time, 1, height, 1, width, 1)
    expanded = expanded.expand(*batch, time, in_time, height, in_space, width, in_space)
    return expanded.reshape(*batch, time * in_time, height * in_space, width * in_space)


def _resized(tensor: torch.Tensor, factor: int, target: int) -> torch.Tensor:
    """From elements of `factor` finest cells along each side to elements of `target`: repeated, or their mean."""
    if factor >= target:
        return tensor if factor == target else repeat_blocks(tensor, (1, factor // target))
    return split_blocks(tensor, (1, target // factor)).mean(BLOCK_AXES)


def sum_over(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """At every cell of `values` (B, ..., H, W) the sum over the cells with its label; `labels` are (B or 1, H, W)."""
    batch, *inner, height, width = values.shape
    if labels.shape[-2:] != (height, width) or len(labels) not in (1, batch):
        raise ValueError(f"`zones` must be ({batch} or 1, {height}, {width}), but are {tuple(labels.shape)}.")
    flat = values.reshape(batch, -1, height * width)
    index = labels.to(values.device, torch.int64).reshape(len(labels), 1, height * width).expand(flat.shape)
    sums = flat.new_zeros(batch, flat.shape[1], int(labels.max()) + 1).scatter_add_(2, index, flat)
    return sums.gather(2, index).reshape(values.shape)


def _mean_over(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return sum_over(values, labels) / sum_over(torch.ones_like(values[..., :1, :, :]), labels)


def _like(values, result: torch.Tensor):
    """Return `result` in the kind (torch or numpy) and the floating dtype of `values`."""
    dtype = torch.as_tensor(values).dtype
    if dtype.is_floating_point:
        result = result.to(dtype)
    return result.numpy() if isinstance(values, np.ndarray) else result
