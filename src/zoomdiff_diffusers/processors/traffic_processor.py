# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The reversible transform between physical traffic and the space in which the network works."""

from collections.abc import Iterable

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config

from ..configuration import ConfigurableComponent, as_json
from ..hierarchy import Hierarchy


# Above this, exp() leaves the range of float32 once hours and cells are summed up.
LARGEST_LOG_VALUE = 60.0


class TrafficProcessor(ConfigurableComponent):
    r"""
    Maps traffic $x \ge 0$ to $y = (\log(1 + x / o) - \mu) / \sigma$ per channel, and back.

    Traffic is the mean per finest cell and hour at every level, so one set of statistics serves all levels. The
    logarithm tames the heavy tail and keeps zeros finite; what `decode` returns is never negative and never above
    `margin` times the largest value seen by `fit`.

    Args:
        channels (`list[str]`, *optional*): Names of the traffic channels. `["traffic"]` by default.
        unit (`str` or `list[str]`, defaults to `"MB"`): Unit of the values, one for all channels or one per channel.
        offset (`list[float]`, *optional*): $o$, where the transform turns from linear to logarithmic. Ones by default.
        mean (`list[float]`, *optional*): $\mu$ per channel. Zeros by default.
        std (`list[float]`, *optional*): $\sigma$ per channel. Ones by default.
        maximum (`list[float]`, *optional*): Largest value per channel in the training data. Unbounded by default.
        margin (`float`, defaults to 2.0): How far `decode` may exceed `maximum`.
    """

    config_name = "traffic_processor_config.json"

    @register_to_config
    def __init__(
        self,
        channels: list[str] | None = None,
        unit: str | list[str] = "MB",
        offset: list[float] | None = None,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        maximum: list[float] | None = None,
        margin: float = 2.0,
    ):
        channels = ["traffic"] if channels is None else channels
        if isinstance(channels, str) or len(channels) == 0 or len(set(channels)) != len(channels):
            raise ValueError(f"`channels` must be a list of different names, but is {channels!r}.")
        count = len(channels)
        statistics = {"offset": offset, "mean": mean, "std": std, "maximum": maximum}
        for name, values in statistics.items():
            if values is not None and (len(values) != count or not np.isfinite(values).all()):
                raise ValueError(f"`{name}` must hold {count} finite number(s), one per channel, but is {values}.")
            if values is not None and name != "mean" and min(values) <= 0:
                raise ValueError(f"`{name}` must be positive, but is {values}.")
        if not isinstance(unit, str) and len(unit) != count:
            raise ValueError(f"`unit` must be a string or {count} strings, one per channel, but is {unit!r}.")
        if not margin >= 1:
            raise ValueError(f"`margin` must be at least 1, but is {margin}.")
        self.update_config(channels=list(channels))
        self._set_statistics(offset or [1.0] * count, mean or [0.0] * count, std or [1.0] * count, maximum)

    def _set_statistics(self, offset, mean, std, maximum):
        self._offset, self._mean, self._std = (_column(values) for values in (offset, mean, std))
        self._limit = torch.full_like(self._offset, LARGEST_LOG_VALUE)
        if maximum is not None:
            self._limit = self._limit.minimum(torch.log1p(self.config.margin * _column(maximum) / self._offset))

    @property
    def channels(self) -> list[str]:
        return list(self.config.channels)

    @property
    def units(self) -> list[str]:
        """The unit of each channel."""
        unit = self.config.unit
        return [unit] * len(self.channels) if isinstance(unit, str) else list(unit)

    def fit(self, traffic, mask=None, relative_offset: float = 0.1) -> "TrafficProcessor":
        """
        Set offset, mean, standard deviation and maximum from finest-level traffic.

        Args:
            traffic (`torch.Tensor`, `np.ndarray` or an iterable of them): (..., C, T, H, W), at least 0, in `unit`.
            mask (like `traffic`, *optional*): (..., T, H, W), true where a value was measured.
            relative_offset (`float`, defaults to 0.1):
                The offset in units of the mean positive value: smaller ones stay in the linear part, peaks in the
                logarithmic one.
        """
        if not relative_offset > 0:
            raise ValueError(f"`relative_offset` must be positive, but is {relative_offset}.")
        pieces = list(_pieces(traffic, mask, len(self.channels)))
        offset, mean, std, maximum = [], [], [], []
        for channel in range(len(self.channels)):
            values = np.concatenate([piece[channel] for piece in pieces])
            if values.size == 0:
                raise ValueError(f"`traffic` holds no measured value of channel {self.channels[channel]!r}.")
            positive = values[values > 0]
            offset.append(float(relative_offset * positive.mean()) if positive.size else 1.0)
            logarithms = np.log1p(values / offset[-1])
            mean.append(float(logarithms.mean()))
            std.append(float(logarithms.std()) if logarithms.std() > 1e-6 else 1.0)
            maximum.append(float(values.max()) if positive.size else 1.0)
        self.update_config(**as_json({"offset": offset, "mean": mean, "std": std, "maximum": maximum}))
        self._set_statistics(offset, mean, std, maximum)
        return self

    def encode(self, traffic: torch.Tensor) -> torch.Tensor:
        """
        Bring physical traffic into the network's space.

        Args:
            traffic (`torch.Tensor`): (..., C, T, H, W), mean per finest cell and hour, at least 0; NaN stays NaN.

        Returns:
            `torch.Tensor` of the same shape: about zero mean and unit variance at the finest level.
        """
        self._check_channels(traffic, "traffic")
        if (traffic < 0).any():
            raise ValueError(f"`traffic` must not be negative, but its smallest value is {traffic.min().item():g}.")
        values = traffic if traffic.dtype == torch.float64 else traffic.float()
        offset, mean, std, _ = self._constants(values)
        return ((torch.log1p(values / offset) - mean) / std).to(traffic.dtype)

    def decode(self, sample: torch.Tensor) -> torch.Tensor:
        """
        Bring a sample of the network back to physical traffic.

        Args:
            sample (`torch.Tensor`): (..., C, T, H, W) in the network's space.

        Returns:
            `torch.Tensor` of the same shape, float32 (float64 for float64), between 0 and `margin * maximum`.
        """
        self._check_channels(sample, "sample")
        values = sample if sample.dtype == torch.float64 else sample.float()
        offset, mean, std, limit = self._constants(values)
        logarithm = (values * std + mean).clamp(min=0).minimum(limit)
        # An encoded zero comes back as rounding error of `mean`; below that resolution nothing can be told from zero.
        resolution = 4 * torch.finfo(values.dtype).eps * (1 + mean.abs())
        return torch.where(logarithm < resolution, 0.0, offset * torch.expm1(logarithm))

    def encode_prior(
        self,
        hierarchy: Hierarchy,
        stage: int,
        state_level: int,
        coarse: torch.Tensor | None,
        forecast: torch.Tensor | None = None,
        zones: dict[str, torch.Tensor] | None = None,
        profile: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """
        z, from which a stage starts: the level before it in the shape of the stage's state, encoded.

        With a forecast of the stage's own level, every coarse value is shared out in proportion to it instead of
        evenly, and the coarsest level starts from its forecast.

        Args:
            hierarchy ([`Hierarchy`]): The levels.
            stage (`int`): 0 is the coarsest.
            state_level (`int`): The level whose shape the stage's state has; that of the stage, with a forecast.
            coarse (`torch.Tensor`):
                (B, C, T', H', W') field of the level before, as physical means; none for stage 0.
            forecast (`torch.Tensor`, *optional*): (B, C, T, H, W) of the stage's level, as physical means.
            zones (`dict[str, torch.Tensor]`, *optional*): Those of the area, if the hierarchy has any.
            profile (`torch.Tensor`, *optional*): The forecast of the finest level, for `Hierarchy.reconcile`.
        """
        if stage == 0:
            return None if forecast is None else self.encode(forecast)
        if forecast is None:
            return self.encode(hierarchy.upsample(coarse, stage - 1, state_level, field=True))
        shared = hierarchy.reconcile(forecast, coarse, stage, zones=zones, profile=profile)
        return self.encode(hierarchy.level_of(shared, stage, zones))

    def _constants(self, values: torch.Tensor) -> list[torch.Tensor]:
        return [x.to(values.device, values.dtype) for x in (self._offset, self._mean, self._std, self._limit)]

    def _check_channels(self, values: torch.Tensor, argument: str):
        if values.ndim < 4 or values.shape[-4] != len(self.channels):
            raise ValueError(
                f"`{argument}` must have the shape (..., C, T, H, W) with C = {len(self.channels)}"
                f" ({', '.join(self.channels)}), but has {tuple(values.shape)}."
            )


def _column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def _pieces(traffic, mask, channels: int) -> Iterable[list[np.ndarray]]:
    """Yield the measured values of each array: a list with one flat float64 array per channel."""
    single = isinstance(traffic, (torch.Tensor, np.ndarray))
    arrays = [traffic] if single else traffic
    masks = [mask] if single or mask is None else mask
    masks = iter(masks) if mask is not None else None
    for array in arrays:
        array = np.asarray(array, dtype=np.float64)
        if array.ndim < 4 or array.shape[-4] != channels:
            raise ValueError(f"`traffic` must have the shape (..., {channels}, T, H, W), but has {array.shape}.")
        array = np.moveaxis(array, -4, 0)
        measured = np.ones(array.shape[1:], dtype=bool)
        if masks is not None:
            measured = np.broadcast_to(np.asarray(next(masks), dtype=bool), array.shape[1:])
        values = array[:, measured]
        if not np.isfinite(values).all() or (values < 0).any():
            raise ValueError("`traffic` must be finite and not negative wherever `mask` is true.")
        yield list(values)
