# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From a city's raw layers (urban environment context) to the tensors that the network reads."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray
from diffusers.configuration_utils import register_to_config

from ..configuration import ConfigurableComponent, as_json


KINDS = ("categorical", "count", "continuous", "temporal", "zones")
AXES = ("hour", "time", "y", "x")  # dimensions of a layer that are not its channels


@dataclass
class ContextTensors:
    """
    The context of B cities, channels concatenated in the order of the schema.

    Args:
        static (`torch.Tensor`): (B, Cs, H, W), layers that do not change over time.
        temporal (`torch.Tensor` or `None`): (B, Ct, T, H, W); `None` where the schema has no temporal layer.
        present (`torch.Tensor`): (B, L), 1 for each given layer, 0 for each absent one, whose channels are 0.
        zones (`dict[str, torch.Tensor]` or `None`):
            Per layer of zones (B, H, W) whole numbers, the unit that serves each cell; `None` without such a layer.
    """

    static: torch.Tensor
    temporal: torch.Tensor | None
    present: torch.Tensor
    zones: dict[str, torch.Tensor] | None = None

    def __len__(self) -> int:
        return self.present.shape[0]

    def __getitem__(self, index: slice) -> "ContextTensors":
        return self._map(lambda tensor: tensor[index])

    def to(self, device=None, dtype=None) -> "ContextTensors":
        return self._map(
            lambda tensor: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else tensor.dtype)
        )

    def repeat_interleave(self, repeats: int) -> "ContextTensors":
        """Repeat every city `repeats` times, the copies side by side."""
        return self._map(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def absent(self) -> "ContextTensors":
        """Return tensors of the same shapes in which every layer is absent: the condition-free case of guidance."""
        return replace(self._map(torch.zeros_like), zones=self.zones)

    def _map(self, function) -> "ContextTensors":
        temporal = None if self.temporal is None else function(self.temporal)
        zones = None if self.zones is None else {name: function(labels) for name, labels in self.zones.items()}
        return ContextTensors(function(self.static), temporal, function(self.present), zones)


class ContextProcessor(ConfigurableComponent):
    """
    Checks and normalises raw context layers according to a schema; any layer may be absent from a given city.

    Args:
        layers (`list[dict]`): The schema. Each layer has a `name`, a `kind` and what the kind asks for:
            - `categorical` with `classes`: codes (H, W) that index `classes`, or area fractions (n, H, W). Where an
              `xarray.DataArray` names its codes by `flag_values` and `flag_meanings` (CF conventions), these count;
            - `count` with `channels`: (n, H, W) counts, which become log1p(count), standardised;
            - `continuous` with `channels` and optionally `log`: (n, H, W), or (H, W) for one channel, standardised;
            - `temporal` with `channels` and optionally `log`: (n, T, H, W), or (T, H, W) for one channel;
            - `zones`: whole numbers (H, W) from 0 on, the unit of a level (a site, a sector) that serves each cell.
              The network does not see it, and it must not be absent.
        statistics (`dict`, *optional*): Per layer `{"mean": [...], "std": [...]}`, set by `fit`. Standardised with 0
            and 1 by default.
        largest_deviation (`float`, defaults to 10.0):
            Standardised values are cut at so many standard deviations: rare points of interest would reach hundreds.
    """

    config_name = "context_processor_config.json"

    @register_to_config
    def __init__(self, layers: list[dict], statistics: dict | None = None, largest_deviation: float = 10.0):
        if not largest_deviation > 0:
            raise ValueError(f"`largest_deviation` must be positive, but is {largest_deviation}.")
        for layer in layers:
            _check_layer(layer)
        names = [layer["name"] for layer in layers]
        if len(set(names)) != len(names):
            raise ValueError(f"`layers` must have different names, but are named {names}.")
        for name, values in (statistics or {}).items():
            if name not in names or min(values["std"]) <= 0:
                raise ValueError(f"`statistics` must hold positive `std` of layers in {names}; {name!r} is {values}.")
        self.update_config(layers=as_json(layers), statistics=as_json(statistics or {}))

    @property
    def layers(self) -> list[dict]:
        """The layers that the network sees."""
        return [layer for layer in self.config.layers if layer["kind"] != "zones"]

    @property
    def zone_layers(self) -> list[str]:
        """The names of the layers of zones."""
        return [layer["name"] for layer in self.config.layers if layer["kind"] == "zones"]

    @property
    def layer_specs(self) -> list[dict]:
        """What the network's `context_layers` must be: name, number of channels and temporal or not, per layer."""
        return [
            {"name": layer["name"], "channels": len(_channels(layer)), "temporal": layer["kind"] == "temporal"}
            for layer in self.layers
        ]

    def __call__(self, contexts, hours: int, size: tuple[int, int] | None = None) -> ContextTensors:
        """
        Turn raw contexts into tensors.

        Args:
            contexts (`dict`, `xarray.Dataset` or a list of them): Raw layers by name, all on one grid (H, W). In a
                dataset the dimensions are named `y`, `x` and `hour`; a layer may have one more, its channels.
            hours (`int`): T, the number of hours that temporal layers must have.
            size (`tuple[int, int]`, *optional*): H and W where a context has no layer that would tell them.

        Returns:
            [`ContextTensors`] in float32 with B = the number of contexts.

        Raises:
            ValueError: For unknown layers, wrong shapes, missing values, unknown classes and negative counts.
        """
        contexts = contexts if isinstance(contexts, (list, tuple)) else [contexts]
        if len(contexts) == 0:
            raise ValueError("`contexts` is empty; at least one context is needed.")
        sizes = [self.grid_size(context, size) for context in contexts]
        if len(set(sizes)) > 1:
            raise ValueError(f"All contexts of one call must have the same height and width, but have {sizes}.")
        encoded = [self._encode(context, sizes[0], hours) for context in contexts]
        static = [[x for x, layer in zip(e, self.layers) if layer["kind"] != "temporal"] for e in encoded]
        temporal = [[x for x, layer in zip(e, self.layers) if layer["kind"] == "temporal"] for e in encoded]
        present = [[layer["name"] in context for layer in self.layers] for context in contexts]
        empty = np.zeros((0, *sizes[0]))
        return ContextTensors(
            static=_stack([np.concatenate([empty, *arrays]) for arrays in static]),
            temporal=_stack([np.concatenate(arrays) for arrays in temporal]) if temporal[0] else None,
            present=_stack(present),
            zones=self.zones(contexts, sizes[0]),
        )

    def fit(self, contexts: list) -> "ContextProcessor":
        """
        Set the mean and standard deviation of every count, continuous and temporal layer, channel by channel.

        Args:
            contexts (`list` of `dict` or `xarray.Dataset`): Raw contexts of any sizes; layers may be absent from some.
        """
        sums = {}
        for context in contexts if isinstance(contexts, (list, tuple)) else [contexts]:
            if len(context) == 0:
                continue
            size = self.grid_size(context)
            for layer in self.layers:
                if layer["kind"] != "categorical" and layer["name"] in context:
                    values = _transformed(layer, _checked(layer, context[layer["name"]], size))
                    flat = values.reshape(len(values), -1)
                    moments = np.stack([np.full(len(flat), flat.shape[1]), flat.sum(1), (flat**2).sum(1)])
                    sums[layer["name"]] = sums.get(layer["name"], 0) + moments
        statistics = {}
        for name, (count, total, squares) in sums.items():
            mean = total / count
            std = np.sqrt(np.maximum(squares / count - mean**2, 0))
            statistics[name] = {"mean": mean.tolist(), "std": np.where(std > 1e-6, std, 1.0).tolist()}
        self.update_config(statistics=as_json(statistics))
        return self

    def grid_size(self, context, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """
        Return the height and width of a raw context after checking that all its layers are known and agree; `size` for
        a context without any.
        """
        if not isinstance(context, (Mapping, xarray.Dataset)):
            raise TypeError(f"A context must be a dict of arrays or an xarray.Dataset, but is a {type(context)}.")
        known = [layer["name"] for layer in self.config.layers]
        unknown = [str(name) for name in context if name not in known]
        if unknown:
            raise ValueError(f"The context has the layers {unknown}, unknown to the schema. It knows {known}.")
        sizes = {name: _as_array(context[name], name).shape[-2:] for name in context}
        if isinstance(context, xarray.Dataset) and {"y", "x"} <= set(context.sizes):
            sizes["the dataset"] = (context.sizes["y"], context.sizes["x"])
        if not sizes and size is None:
            raise ValueError(
                f"The context is empty. It needs at least one of the layers {known}, or must be an xarray.Dataset"
                " whose coordinates `y` and `x` tell the size."
            )
        if not sizes:
            return tuple(size)
        if len(set(sizes.values())) > 1:
            raise ValueError(f"All layers of a context must share height and width, but have {sizes}.")
        return tuple(next(iter(sizes.values())))

    def num_time_steps(self, contexts: list) -> int | None:
        """Return the length of the first temporal layer that any of the contexts has; `None` if there is none."""
        temporal = [layer["name"] for layer in self.layers if layer["kind"] == "temporal"]
        arrays = [_as_array(context[name], name) for context in contexts for name in temporal if name in context]
        return next((array.shape[-3] for array in arrays if array.ndim >= 3), None)

    def zones(self, contexts: list, size: tuple[int, int]) -> dict[str, torch.Tensor] | None:
        """Return per layer of zones their numbers (B, H, W), without gaps in each context; `None` without a layer."""
        zones = {}
        for name in self.zone_layers:
            arrays = []
            for position, context in enumerate(contexts):
                if name not in context:
                    raise ValueError(f"Context {position} has no layer {name!r}, but a level has these units.")
                arrays.append(_checked_zones(name, context[name], size))
            zones[name] = torch.from_numpy(np.stack(arrays))
        return zones or None

    def _encode(self, context, size: tuple[int, int], hours: int) -> list[np.ndarray]:
        """Return one array (channels, [T,] H, W) per layer of the schema, zeros for absent layers."""
        arrays = []
        for layer in self.layers:
            if layer["name"] not in context:
                time = (hours,) if layer["kind"] == "temporal" else ()
                arrays.append(np.zeros((len(_channels(layer)), *time, *size)))
                continue
            values = _checked(layer, context[layer["name"]], size, hours)
            if layer["kind"] == "categorical":
                arrays.append(values)
                continue
            count = len(values)
            statistics = self.config.statistics.get(layer["name"], {"mean": [0.0] * count, "std": [1.0] * count})
            mean, std = (np.reshape(statistics[key], (-1,) + (1,) * (values.ndim - 1)) for key in ("mean", "std"))
            standardised = (_transformed(layer, values) - mean) / std
            limit = self.config.largest_deviation
            arrays.append(standardised.clip(-limit, limit))
        return arrays


def positional(layer: dict, values) -> np.ndarray:
    """
    A raw layer as a plain array, in the order of the schema by what its dimensions, channels and codes are called.

    Args:
        layer (`dict`): Its entry in the schema, of any kind but `zones`.
        values (`np.ndarray` or `xarray.DataArray`): Raw layer of one context, as `ContextProcessor` takes it.

    Returns:
        `np.ndarray`: (..., [T,] H, W), with the channels in the order of the schema. Named codes are replaced by
        positions in its classes, NaN stays. What is not named is as it was.

    Raises:
        ValueError: If y or x is no dimension, names of channels or classes are not those of the schema, or a layer
            that names its codes has others too.
    """
    array = _as_array(_in_order(layer, values), layer["name"])
    if layer["kind"] != "categorical" or array.ndim != 2 or "flag_meanings" not in getattr(values, "attrs", {}):
        return array
    codes, missing = _codes(layer, values), np.isnan(array)
    _check_codes(layer, array[~missing], codes)
    positions = (array == codes[:, None, None]).argmax(axis=0)
    return np.where(missing, array, positions) if missing.any() else positions


def ordered(values: xarray.DataArray) -> xarray.DataArray:
    """The same array with its dimensions y and x last and `hour`, or else `time`, before them, if it has these."""
    time = "hour" if "hour" in values.dims else "time"
    return values.transpose(..., time, "y", "x", missing_dims="ignore")


def channel_names(values) -> tuple[str, list[str]] | None:
    """The dimension of a named array whose coordinate is texts, and these; `None` unless there is exactly one."""
    coordinates = {dim: values[dim] for dim in getattr(values, "dims", ()) if dim in values.coords and dim not in AXES}
    named = [dim for dim, coordinate in coordinates.items() if coordinate.dtype.kind in "UOS"]
    return (named[0], [str(name) for name in coordinates[named[0]].values]) if len(named) == 1 else None


def _check_layer(layer: dict):
    if not {"name", "kind"} <= set(layer) or layer["kind"] not in KINDS:
        raise ValueError(f"Each of `layers` needs a `name` and a `kind` out of {KINDS}, but one is {layer}.")
    if layer["kind"] == "zones":
        if set(layer) != {"name", "kind"}:
            raise ValueError(f"A layer of zones has nothing but a `name` and its `kind`, but one is {layer}.")
        return
    needed = "classes" if layer["kind"] == "categorical" else "channels"
    optional = {"log"} if layer["kind"] in ("continuous", "temporal") else set()
    if not layer.get(needed) or not set(layer) <= {"name", "kind", needed} | optional:
        raise ValueError(f"A {layer['kind']} layer needs `{needed}`, may have {sorted(optional)}, but one is {layer}.")


def _channels(layer: dict) -> list[str]:
    return layer["classes"] if layer["kind"] == "categorical" else layer["channels"]


def _transformed(layer: dict, values: np.ndarray) -> np.ndarray:
    return np.log1p(values) if layer["kind"] == "count" or layer.get("log", False) else values


def _as_array(values, name: str) -> np.ndarray:
    if isinstance(values, xarray.DataArray):
        if not {"y", "x"} <= set(values.dims):
            raise ValueError(f"Layer {name!r} must have the dimensions y and x, but has {values.dims}.")
        values = ordered(values)
    array = np.asarray(values)
    if array.ndim < 2 or array.dtype.kind not in "biuf":
        raise ValueError(f"Layer {name!r} must be numbers on a grid, but is {array.dtype} of shape {array.shape}.")
    return array


def _in_order(layer: dict, values):
    """A named array whose channels have names, with these in the order of the schema."""
    named = channel_names(values)
    if named is None:
        return values
    (dim, found), expected = named, list(_channels(layer))
    if sorted(found) != sorted(expected):
        raise ValueError(f"Layer {layer['name']!r} must have the channels {expected}, but has {found}.")
    return values.isel({dim: [found.index(name) for name in expected]})


def _checked(layer: dict, values, size: tuple[int, int], hours: int | None = None) -> np.ndarray:
    """Return the layer as a float64 array (channels, [T,] H, W); refuse whatever the schema does not allow."""
    name, count = layer["name"], len(_channels(layer))
    array = _as_array(_in_order(layer, values), name).astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(
            f"Layer {name!r} has {np.count_nonzero(~np.isfinite(array))} missing or infinite value(s)."
            " Fill them, or leave the whole layer out."
        )
    if layer["kind"] == "categorical":
        return _fractions(layer, array, size, _codes(layer, values))
    temporal = layer["kind"] == "temporal"
    if temporal and hours is None and array.ndim >= 3:
        hours = array.shape[-3]
    expected = (count, hours, *size) if temporal else (count, *size)
    if count == 1 and array.shape == expected[1:]:
        array = array[None]
    if array.shape != expected:
        hint = ""
        if temporal and array.ndim >= 3 and array.shape[-3] != hours:
            hint = f" It has {array.shape[-3]} time steps, and {hours} are to be generated: cut one to the other."
        raise ValueError(f"Layer {name!r} must have the shape {expected}, but has {array.shape}.{hint}")
    if (layer["kind"] == "count" or layer.get("log", False)) and (array < 0).any():
        raise ValueError(f"Layer {name!r} must not be negative, but its smallest value is {array.min():g}.")
    return array


def _checked_zones(name: str, values, size: tuple[int, int]) -> np.ndarray:
    array = _as_array(values, name)
    if array.shape != size or not np.isfinite(array).all() or (array < 0).any() or (array != np.floor(array)).any():
        raise ValueError(
            f"Layer {name!r} must be whole numbers from 0 on of the shape {size}, one for each cell, but is"
            f" {array.dtype} of shape {array.shape} between {array.min()} and {array.max()}."
        )
    return np.unique(array, return_inverse=True)[1].reshape(size)


def _codes(layer: dict, values) -> np.ndarray:
    """The code of each class: its position, or what the layer names so; NaN for a class that it does not name."""
    attributes, classes = getattr(values, "attrs", {}), list(layer["classes"])
    names = str(attributes.get("flag_meanings", "")).split()
    if not names:
        return np.arange(len(classes))
    codes = np.ravel(attributes.get("flag_values", np.arange(len(names))))
    if len(codes) != len(names) or codes.dtype.kind not in "iuf" or len(set(codes)) < len(codes):
        raise ValueError(
            f"Layer {layer['name']!r} must have a number in flag_values for each of its {len(names)} flag_meanings,"
            f" all different, but has {codes.tolist()}."
        )
    # A name in flag_meanings holds no blank.
    expected = [name.replace(" ", "_") for name in classes]
    if unknown := [name for name in names if name not in expected]:
        raise ValueError(
            f"Layer {layer['name']!r} has the flag_meanings {unknown}, unknown to the schema. It knows {expected}."
        )
    named = dict(zip(names, codes))
    return np.array([named.get(name, np.nan) for name in expected])


def _fractions(layer: dict, array: np.ndarray, size: tuple[int, int], codes: np.ndarray) -> np.ndarray:
    """Turn codes (H, W) into one-hot fractions (n, H, W), and check fractions that are given as such."""
    name, classes = layer["name"], layer["classes"]
    if array.shape == (len(classes), *size):
        if (array < 0).any() or (array.sum(axis=0) > 1 + 1e-3).any():
            raise ValueError(f"Layer {name!r}: area fractions must be at least 0 and sum to at most 1 in each cell.")
        return array
    if array.shape != size:
        expected = f"{size} or {(len(classes), *size)}"
        raise ValueError(f"Layer {name!r} must have the shape {expected}, but has {array.shape}.")
    _check_codes(layer, array, codes)
    return (array == codes[:, None, None]).astype(np.float64)


def _check_codes(layer: dict, array: np.ndarray, codes: np.ndarray) -> None:
    unknown = np.setdiff1d(array, codes)
    if unknown.size:
        known = [f"{code:g} ({name})" for code, name in zip(codes, layer["classes"]) if np.isfinite(code)]
        raise ValueError(
            f"Layer {layer['name']!r} has the unknown categories {', '.join(f'{code:g}' for code in unknown[:5])}."
            f" The codes are {', '.join(known)}."
        )


def _stack(arrays: list) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(array, dtype=np.float32) for array in arrays]))
