# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Training areas as Parquet, and the hours as a Zarr store, written a week at a time."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import xarray as xr

from ...processors.context_processor import channel_names, ordered, positional
from ..datasets import NAMES
from .hours import HOURS_PER_WEEK, Week
from .places import Places


UNITS_PER_CHUNK, CELLS_PER_CHUNK = 4096, 128
TEMPORAL = ("hour", "time")
RESERVED = {"area", "unit", "start_hour", "start", "valid"}


class AreaWriter:
    """
    Writes weeks of local hours as areas for training, one Parquet file per week.

    Args:
        folder (`Path`): An existing folder.
        places ([`Places`]): The units.
        channels (`list[str]`): Names of the channels; a single one becomes the column `traffic`.
    """

    def __init__(self, folder: Path, places: Places, channels: list[str]):
        self.folder, self.places = folder, places
        self.columns = ["traffic"] if len(channels) == 1 else list(channels)
        self.layers, self.names, self.notes = layers_of(places)
        of_layers = {*self.columns, *RESERVED, "traffic", *self.names} & set(self.layers)
        if taken := sorted(of_layers | RESERVED & set(self.columns)):
            raise ValueError(f"The names {taken} stand for something else in the areas: rename them.")
        self.rows = self.empty_rows = 0

    def write(self, week: Week, values: np.ndarray) -> None:
        """Write one week of `values`, (channel, 168, unit) sums with NaN where they are not known."""
        grids = self.places.labels is not None
        known = np.isfinite(values).all(axis=0)
        areas = np.array([0]) if grids else np.arange(len(self.places.names))
        kept = areas[[known.any()] if grids else known.any(axis=0)]
        self.empty_rows += len(areas) - len(kept)
        if not len(kept):
            return
        columns = {
            "area": pa.array(kept),
            "start": pa.array([week.start.isoformat()] * len(kept)),
            "start_hour": pa.array([week.start.weekday() * 24] * len(kept)),
        }
        for name, channel in zip(self.columns, values):
            columns[name] = nested(self._areas(np.where(known, channel, 0), kept).astype(np.float32))
        columns["valid"] = nested(self._areas(known, kept, shared=False))
        columns |= {name: nested(layer[None]) for name, layer in self.layers.items()}
        columns |= {name: pa.array([texts] * len(kept)) for name, texts in self.names.items()}
        if not grids:
            columns["unit"] = pa.array([self.places.names[unit] for unit in kept])
        write_parquet(self.folder / f"week-{week.start:%Y-%m-%d}.parquet", columns)
        self.rows += len(kept)

    def _areas(self, hours: np.ndarray, kept: np.ndarray, shared: bool = True) -> np.ndarray:
        """Hours (168, unit) as areas (row, 168, H, W); the sum of a zone is shared out over its cells."""
        labels = self.places.labels
        if labels is None:
            return np.ascontiguousarray(hours[:, kept].T)[..., None, None]
        cells = np.bincount(labels.ravel(), minlength=len(self.places.names)) if shared else 1
        return (hours / cells if shared else hours)[None][:, :, labels]


class HourStore:
    """
    Writes local hours as a Zarr store: (channel, time, unit), or (channel, time, y, x) where units are squares.

    Args:
        path (`Path`): The store to make.
        places ([`Places`]): The units.
        channels (`list[str]`): Names of the channels.
        starts (`list[datetime]`): The weeks.
        value_unit (`str`): Unit of the values.
        attributes (`dict`): Of the store: provenance.
    """

    def __init__(self, path: Path, places: Places, channels: list[str], starts: list, value_unit: str, attributes):
        import zarr

        self.places, self.starts = places, starts
        hours = len(starts) * HOURS_PER_WEEK
        times = np.datetime64(starts[0], "ns") + np.arange(hours) * np.timedelta64(1, "h")
        time_attributes = {"axis": "T", "standard_name": "time", "long_name": "start of the hour, local time"}
        coordinates = {"channel": channels_of(channels), "time": ("time", times, time_attributes)}
        context, variables = places.context, {}
        coordinates |= {name: context[name] for name in ("y", "x", "spatial_ref") if name in context.coords}
        reference = {"grid_mapping": "spatial_ref"} if "spatial_ref" in context.coords else {}
        dims, shape, chunks = ("unit",), (len(places.names),), (min(len(places.names), UNITS_PER_CHUNK),)
        if places.squares:
            dims, shape = ("y", "x"), places.labels.shape
            chunks = tuple(min(size, CELLS_PER_CHUNK) for size in shape)
        else:
            coordinates["unit"] = ("unit", np.array(places.names, dtype=object))
            coordinates |= {name: ("unit", values) for name, values in places.positions.items()}
            if places.labels is not None:
                cells = np.bincount(places.labels.ravel(), minlength=len(places.names)).astype(np.int32)
                coordinates["cells"] = ("unit", cells, {"long_name": "cells that the unit serves"})
                text = {"long_name": "position on the axis unit of what serves the cell", **reference}
                variables["zone"] = (("y", "x"), places.labels, text)
                text = {"units": "m", "long_name": "distance of the cell to what serves it", **reference}
                variables["distance"] = (("y", "x"), places.distance.astype(np.float32), text)
        dataset = xr.Dataset(variables, coordinates, {"Conventions": "CF-1.11", **attributes})
        dataset.to_zarr(path, mode="w", zarr_format=3, consolidated=False)
        self.traffic = zarr.open_group(path, mode="r+").create_array(
            "traffic",
            shape=(len(channels), hours, *shape),
            chunks=(1, HOURS_PER_WEEK, *chunks),
            dtype="float64",
            fill_value=float("nan"),
            dimension_names=["channel", "time", *dims],
            attributes={
                "units": value_unit,
                "long_name": f"traffic per {'square' if places.squares else 'unit'} and hour",
                "cell_methods": "time: sum",
                "coordinates": " ".join(name for name in ("cells", *places.positions) if name in coordinates),
                **(reference if places.squares else {}),
            },
        )

    def write(self, week: Week, values: np.ndarray) -> None:
        """Write one week of `values`, (channel, 168, unit)."""
        start = self.starts.index(week.start) * HOURS_PER_WEEK
        for channel, hours in enumerate(values):
            hours = hours[:, self.places.labels] if self.places.squares else hours
            self.traffic[channel, start : start + HOURS_PER_WEEK] = hours


def channels_of(names: list[str]) -> tuple:
    """The coordinate `channel`; texts of a fixed length have no specification in Zarr v3."""
    return "channel", np.array(names, dtype=object)


def layers_of(places: Places) -> tuple[dict[str, np.ndarray], dict[str, list[str]], list[str]]:
    """
    What training can read of the context.

    Args:
        places ([`Places`]): With the context and the zones.

    Returns:
        `tuple[dict[str, np.ndarray], dict[str, list[str]], list[str]]`: layers and zones by name, each (H, W) or
        (n, H, W); by `<layer>_names` the classes that named codes (H, W) count from 0, or the names of the channels;
        and in words what became of other codes and which layers were left out.

    Raises:
        ValueError: If a layer has codes that it does not name.
    """
    layers, names, notes = {}, {}, []
    for name, values in places.context.data_vars.items():
        if values.ndim == 0:  # no layer: it describes the coordinate reference system
            continue
        if reason := _why_not(values):
            notes.append(f"the layer {name} {reason} and was left out of the areas")
            continue
        name, values = str(name), ordered(values)
        layers[name] = values.to_numpy()
        meanings, channels = str(values.attrs.get("flag_meanings", "")).split(), channel_names(values)
        if values.ndim == 2 and meanings:
            layers[name] = positional({"name": name, "kind": "categorical", "classes": meanings}, values)
            names[name + NAMES] = meanings
            if not np.array_equal(layers[name], values, equal_nan=True):
                notes.append(f"the codes of the layer {name} were replaced by their positions in flag_meanings")
        elif channels is not None:
            names[name + NAMES] = channels[1]
    return layers | places.zones, names, notes


def _why_not(values: xr.DataArray) -> str | None:
    """Why a variable of a context is no layer (H, W) or (n, H, W), in words."""
    if set(TEMPORAL) & set(values.dims):
        return "varies over time"
    if not {"y", "x"} <= set(values.dims) or values.ndim > 3:
        return f"has the dimensions {', '.join(map(str, values.dims))}"
    return None if values.dtype.kind in "biuf" else f"holds {values.dtype} and no numbers"


def nested(array: np.ndarray) -> pa.Array:
    """Nested lists of an array (row, ...), one entry per row."""
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    for axis in range(array.ndim - 1, 0, -1):
        count, length = int(np.prod(array.shape[:axis])), array.shape[axis]
        values = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * length), values)
    return values


def write_parquet(path: Path, columns: dict[str, pa.Array]) -> None:
    pa.parquet.write_table(pa.table(columns), path, compression="zstd")
