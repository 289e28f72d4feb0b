# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What an evaluation reads: traffic as `data.stores` writes it, a mask of measured hours, a map of area types."""

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import xarray as xr

from ..data.stores import DIMENSIONS
from ..hierarchy import Hierarchy, Level
from .zones import adds_up, as_batch


@dataclass(frozen=True)
class StoredTraffic:
    """
    Traffic of one area at several levels.

    Args:
        path (`Path`): Where it came from, for messages.
        levels (`dict[str, np.ndarray]`): By name, coarse to fine, each (sample, channel, time, y, x), float32: means
            per finest cell and time step, whatever the file holds.
        hierarchy (`Hierarchy`): These levels.
        channels (`list[str]`): Names of the channels.
        units (`list[str]`): Physical unit of each channel.
        start (`np.datetime64`, *optional*): First hour; `None` where the file counts hours.
        y, x (`np.ndarray`): Centres of the units of the finest level (m).
        attrs (`dict`): Provenance: the attributes of the file.
        zones (`dict[str, np.ndarray]`):
            By layer (y, x) on the finest cells, the unit of a level with zones that serves each cell, counted from 0.
    """

    path: Path
    levels: dict[str, np.ndarray]
    hierarchy: Hierarchy
    channels: list[str]
    units: list[str]
    start: np.datetime64 | None
    y: np.ndarray
    x: np.ndarray
    attrs: dict
    zones: dict[str, np.ndarray] = field(default_factory=dict)


def read_traffic(path):
    """
    Read a NetCDF file written by [`~data.stores.write_netcdf`].

    Args:
        path (`str` or `os.PathLike`): One group per level, each with `traffic` (sample, channel, time, y, x).

    Returns:
        [`StoredTraffic`].

    Raises:
        ValueError: If it is not such a file; the message says what is missing.
    """
    path = Path(path)
    with _open(path, xr.open_datatree) as tree:
        groups = {name: node.to_dataset() for name, node in tree.children.items() if "traffic" in node.data_vars}
        if not groups:
            raise ValueError(
                f"{path} holds no traffic: expected one group per level, each with the variable `traffic`; "
                f"found the groups {list(tree.children)} and the variables {list(tree.data_vars)}."
            )
        for name, dataset in groups.items():
            _check_level(path, name, dataset)
        hierarchy, zones = _hierarchy(path, groups), _zones(path, groups)
        _check_cells(path, groups, hierarchy)
        finest = list(groups.values())[-1]
        times = finest["time"].values
        return StoredTraffic(
            path=path,
            levels={name: _means(name, dataset, hierarchy, zones) for name, dataset in groups.items()},
            hierarchy=hierarchy,
            channels=[str(name) for name in finest["channel"].values],
            units=_units(finest),
            start=times[0] if np.issubdtype(times.dtype, np.datetime64) else None,
            y=finest["y"].values,
            x=finest["x"].values,
            attrs={name: _plain(value) for name, value in tree.attrs.items()},
            zones=zones,
        )


def match_truth(truth, generated, mask=None):
    """
    Bring the truth to the levels of what was generated.

    Levels that the truth lacks are aggregated from its finest one; they are unknown where its units cut theirs, as
    coverage areas and squares do. Levels finer than that cannot be judged: they are taken out of both.

    Args:
        truth ([`StoredTraffic`]): A single sample; NaN where the traffic is unknown.
        generated ([`StoredTraffic`]): The levels, the time and the place to match.
        mask (`np.ndarray`, *optional*): bool (time, y, x) of the truth's finest level, False where it is unknown.

    Returns:
        `tuple[StoredTraffic, StoredTraffic]`: truth and generated, with the same levels. Truth is NaN where unknown;
        of a coarse unit all cells and hours must be known.

    Raises:
        ValueError: If the two are not about the same levels, channels, hours and places, or their zones differ.
    """
    finest = list(truth.levels)[-1]
    if finest not in generated.levels:
        raise ValueError(
            f"The finest level of {truth.path}, {finest!r}, is not in {generated.path}, which has "
            f"{list(generated.levels)}."
        )
    names = list(generated.levels)[: list(generated.levels).index(finest) + 1]
    hierarchy = Hierarchy(
        [generated.hierarchy.levels[generated.hierarchy.index(name)] for name in names],
        cell_size=generated.hierarchy.config.cell_size,
        time_step=generated.hierarchy.config.time_step,
    )
    measured = truth.levels[finest]
    if len(measured) != 1:
        raise ValueError(f"{truth.path} must hold one sample, the truth, but holds {len(measured)}.")
    _check_zones(truth, generated, names)
    zones = {layer: generated.zones[layer] for layer in hierarchy.zone_layers}
    layers = as_batch(zones, hierarchy.levels)
    known = np.ones(measured.shape[-3:], bool) if mask is None else mask
    levels = {}
    for name, level in zip(names, hierarchy.levels):
        whole = hierarchy.aggregate(known.astype(np.float64), name, zones=layers) == 1.0
        if name in truth.levels:
            values = truth.levels[name]
        elif adds_up(hierarchy.levels[-1], level, layers):
            values = hierarchy.aggregate(measured, name, zones=layers)
        else:
            values = np.full((*measured.shape[:2], *whole.shape), np.nan)
        levels[name] = np.where(whole, values, np.nan).astype(np.float32)
    truth = replace(truth, levels=levels, hierarchy=hierarchy, zones=zones)
    levels = {name: generated.levels[name] for name in names}
    generated = replace(generated, levels=levels, hierarchy=hierarchy, zones=zones)
    _check_match(truth, generated)
    return truth, generated


def read_mask(path, shape):
    """
    Read where the traffic was measured, from a NetCDF file with the variable `valid`.

    Args:
        path (`str` or `os.PathLike`): `valid` is (time, y, x) or (time,), non-zero where the traffic was measured.
        shape (`tuple[int, int, int]`): (time, y, x) of the finest level.

    Returns:
        `np.ndarray`: bool, of that shape.

    Raises:
        ValueError: If there is no such variable or its shape does not fit.
    """
    path = Path(path)
    with _open(path, xr.open_dataset) as dataset:
        valid = np.nan_to_num(_variable(path, dataset, "valid").values).astype(bool)
    if valid.shape not in (tuple(shape), tuple(shape[:1])):
        raise ValueError(
            f"`valid` of {path} must have the shape {tuple(shape)} of the finest level, or {tuple(shape[:1])}; "
            f"found {valid.shape}."
        )
    return np.broadcast_to(valid.reshape(valid.shape + (1,) * (3 - valid.ndim)), shape)


def read_area_types(path, shape):
    """
    Read the type of the area around each cell, from a NetCDF file with the variable `aoi`.

    Args:
        path (`str` or `os.PathLike`): `aoi` is (y, x), integers; its attributes `flag_values` and `flag_meanings`
            (CF conventions) name the types.
        shape (`tuple[int, int]`): (y, x) of the finest cells.

    Returns:
        `tuple[np.ndarray, dict[int, str]]`: the types, and the name of each that occurs.

    Raises:
        ValueError: If there is no such variable, its shape does not fit or the names do not match the values.
    """
    path = Path(path)
    with _open(path, xr.open_dataset) as dataset:
        variable = _variable(path, dataset, "aoi")
        types, attributes = variable.values, variable.attrs
    if types.shape != tuple(shape):
        raise ValueError(f"`aoi` of {path} must be (y, x) = {tuple(shape)}, one per finest cell; found {types.shape}.")
    if not np.isfinite(types).all() or (types != np.round(types)).any():
        raise ValueError(f"`aoi` of {path} must hold integers, one per type; found dtype {types.dtype} with others.")
    types = types.astype(int)
    meanings = str(attributes.get("flag_meanings", "")).split()
    values = np.atleast_1d(attributes.get("flag_values", np.arange(len(meanings)))).tolist()
    if len(values) != len(meanings):
        raise ValueError(f"`aoi` of {path} has {len(values)} flag_values, but {len(meanings)} flag_meanings.")
    named = {int(value): meaning.replace("_", " ") for value, meaning in zip(values, meanings)}
    return types, {int(value): named.get(int(value), f"type {value}") for value in np.unique(types)}


def position(centres):
    """
    Where an axis lies.

    Args:
        centres (`np.ndarray`): Of the units of any level along the axis (m).

    Returns:
        `tuple[float, str]`: its centre (m), which all levels share; and `"rising"` or `"falling"`, with one unit
        `"rising"`.
    """
    return float(centres.mean()), "falling" if centres[-1] < centres[0] else "rising"


@contextmanager
def _open(path, function):
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    import_module("netCDF4")  # says by name what is missing, where xarray would speak of engines
    try:
        source = function(path, engine="netcdf4")
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable NetCDF-4 file ({error}).") from error
    with source:
        try:
            yield source
        except RuntimeError as error:  # of the NetCDF library
            raise ValueError(f"{path} is damaged ({error}).") from error


def _variable(path, dataset, name):
    if name not in dataset.variables:
        raise ValueError(f"{path} has no variable `{name}`; found {list(dataset.data_vars)}.")
    return dataset[name].load()


def _check_match(truth, generated):
    for name, values in truth.levels.items():
        expected = generated.levels[name].shape[1:]
        if values.shape[1:] != expected:
            raise ValueError(
                f"Level {name!r}: (channel, time, y, x) is {values.shape[1:]} in {truth.path}, "
                f"but {expected} in {generated.path}."
            )
        if not np.isfinite(generated.levels[name]).all():
            raise ValueError(f"Level {name!r} of {generated.path} has values that are not finite.")
    for what in ("channels", "units", "start"):
        of_truth, of_generated = getattr(truth, what), getattr(generated, what)
        if of_truth != of_generated:
            raise ValueError(f"The {what} of {truth.path}: {of_truth}; those of {generated.path}: {of_generated}.")
    for axis in ("y", "x"):
        of_truth, of_generated = position(getattr(truth, axis)), position(getattr(generated, axis))
        if of_truth[1] != of_generated[1] or abs(of_truth[0] - of_generated[0]) > 0.5:
            raise ValueError(
                f"The {axis} axis of {truth.path} has its centre at {of_truth[0]:g} m, {of_truth[1]}; that of "
                f"{generated.path} at {of_generated[0]:g} m, {of_generated[1]}. They must be the same."
            )
    if not np.isfinite(list(truth.levels.values())[-1]).any():
        raise ValueError(f"Nothing in {truth.path} is known: there is nothing to score.")


def _check_level(path, name, dataset):
    if dataset["traffic"].dims != DIMENSIONS:
        raise ValueError(
            f"`traffic` of level {name!r} in {path} must be {DIMENSIONS}, found {dataset['traffic'].dims}."
        )
    needed = ("spatial_factor", "temporal_factor", "spatial_resolution_m", "temporal_resolution_h")
    missing = [attribute for attribute in needed if attribute not in dataset.attrs]
    if missing:
        raise ValueError(f"Level {name!r} in {path} lacks the attribute(s) {', '.join(missing)}.")
    for axis in ("y", "x", "time", "channel"):
        if axis not in dataset.coords:
            raise ValueError(f"Level {name!r} in {path} lacks the coordinate {axis!r}.")


def _check_cells(path, groups, hierarchy):
    sizes = {
        level.name: tuple(groups[level.name].sizes[axis] * level.raster_factor for axis in ("y", "x"))
        for level in hierarchy.levels
    }
    if len(set(sizes.values())) > 1:
        raise ValueError(f"The levels of {path} must cover the same finest cells, but have (y, x) {sizes}.")


def _check_zones(truth, generated, names):
    for name in names:
        if name not in truth.levels:
            continue
        layers = [source.hierarchy.levels[source.hierarchy.index(name)].zones for source in (truth, generated)]
        if layers[0] != layers[1]:
            units = [f"by {layer}" if layer else "squares" for layer in layers]
            raise ValueError(
                f"Level {name!r}: the units of {truth.path} are {units[0]}, those of {generated.path} {units[1]}."
            )
    for layer, labels in generated.zones.items():
        cells = _cells(truth)
        if labels.shape != cells:
            raise ValueError(f"{truth.path} has {cells} finest cells (y, x), but {generated.path} has {labels.shape}.")
        other = truth.zones.get(layer, labels)
        if not np.array_equal(other, labels):
            raise ValueError(
                f"The zones {layer!r} of {truth.path} and {generated.path} must be the same, but differ at "
                f"{int((other != labels).sum())} of {labels.size} cells."
            )


def _cells(traffic):
    """(y, x) of the finest cells."""
    finest = list(traffic.levels.values())[-1]
    return tuple(size * traffic.hierarchy.raster_factors[-1] for size in finest.shape[-2:])


def _hierarchy(path, groups):
    levels = [
        Level(
            name,
            int(dataset.attrs["spatial_factor"]),
            int(dataset.attrs["temporal_factor"]),
            str(dataset.attrs["zones"]) if "zones" in dataset.attrs else None,
        )
        for name, dataset in groups.items()
    ]
    attributes = list(groups.values())[-1].attrs
    cell_size = float(attributes["spatial_resolution_m"]) / levels[-1].spatial_factor
    time_step = float(attributes["temporal_resolution_h"]) / levels[-1].temporal_factor
    try:
        return Hierarchy(levels, cell_size=cell_size, time_step=time_step)
    except ValueError as error:
        raise ValueError(f"The levels of {path} are no hierarchy: {error}") from error


def _zones(path, groups):
    zones = {}
    for name, dataset in groups.items():
        layer = dataset.attrs.get("zones")
        if layer is None:
            continue
        if (
            "zone" not in dataset.coords
            or dataset["zone"].dims != ("y", "x")
            or dataset["zone"].dtype.kind not in "iu"
        ):
            raise ValueError(
                f"Level {name!r} in {path} has the units {layer!r}, but lacks the coordinate `zone` (y, x) of whole "
                "numbers that says which one serves each cell. A file of several areas has none: write one for each."
            )
        labels = dataset["zone"].values
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        if not np.array_equal(zones.setdefault(str(layer), labels), labels):
            raise ValueError(f"Level {name!r} in {path} must have the same `zone` as the other levels of {layer!r}.")
    return zones


def _means(name, dataset, hierarchy, zones):
    """Values as means per finest cell and time step."""
    values = dataset["traffic"].values.astype(np.float32)
    if str(dataset["traffic"].attrs.get("cell_methods", "")).endswith("sum"):
        values /= np.asarray(hierarchy.volume(name, as_batch(zones, hierarchy.levels)))
    return values


def _units(dataset):
    if "unit" in dataset.coords:
        return [str(unit) for unit in dataset["unit"].values]
    return [str(dataset["traffic"].attrs.get("units", ""))] * dataset.sizes["channel"]


def _plain(value):
    return value.item() if isinstance(value, np.generic) else str(value)
