# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From the samples of a large area to maps of the mean, the spread, quantiles and the chance of an overload."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from .stores import open_levels


def quantile_of(statistic: str) -> float | None:
    """0.9 for `q90`; `None` for what is no quantile."""
    match = re.fullmatch(r"q(\d+(?:\.\d+)?)", statistic)
    quantile = float(match[1]) / 100 if match else None
    return quantile if quantile is not None and quantile <= 1 else None


def over_samples(values: np.ndarray, statistic: str, threshold: float | None = None) -> np.ndarray:
    """
    A statistic over the first axis of `values`, the samples.

    Args:
        values (`np.ndarray`): (sample, ...).
        statistic (`str`):
            `mean`; `std`, with n - 1, zero for one sample; a quantile such as `q90`, interpolated linearly; or
            `exceedance`, the share of the samples above `threshold`.
        threshold (`float`, *optional*): Only for `exceedance`.
    """
    if statistic == "mean":
        return values.mean(axis=0, dtype=np.float64)
    if statistic == "std":
        return values.std(axis=0, ddof=1, dtype=np.float64) if len(values) > 1 else np.zeros(values.shape[1:])
    if statistic == "exceedance":
        return (values > threshold).mean(axis=0)
    return np.quantile(values, quantile_of(statistic), axis=0)


def summarise_ensemble(
    store: str | os.PathLike,
    output: str | os.PathLike,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    thresholds: Mapping[str, float] | None = None,
) -> Path:
    """
    Statistics over the samples of a store, chunk by chunk: memory does not grow with the area.

    Args:
        store (`str` or `os.PathLike`):
            Zarr store of [`ZoomDiffPipeline.generate_city`], or NetCDF file of levels.
        output (`str` or `os.PathLike`): Zarr store to make, with the same levels. Each has `mean` and `std` (with
            n - 1; zero for one sample) over (channel, time, y, x), `quantiles` with one more axis in front, and
            `exceedance`, the share of the samples above the level's threshold.
        quantiles (`Sequence[float]`, defaults to `(0.1, 0.5, 0.9)`): Between 0 and 1, interpolated linearly.
        thresholds (`Mapping[str, float]`, *optional*): Level -> value in the units of the store, such as a capacity.

    Returns:
        `Path`: the new store.

    Raises:
        ValueError: If the store has no levels, a quantile or a threshold is impossible, or `output` exists.
    """
    import zarr

    store, output, thresholds = Path(store), Path(output).absolute(), dict(thresholds or {})
    if output.suffix != ".zarr" or output.exists():
        raise ValueError(f"`output` must end in .zarr and not exist yet, but is {str(output)!r}.")
    if not all(0 <= quantile <= 1 for quantile in quantiles):
        raise ValueError(f"`quantiles` must lie between 0 and 1, but are {list(quantiles)}.")
    partial = output.with_name(f".{output.name}.summary")  # not the name of an unfinished `generate_city`
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with open_levels(store) as (tree, levels):
            levels = {name: level for name, level in levels.items() if "traffic" in level.data_vars}
            if not levels:
                raise ValueError(
                    f"`store` must have levels with the variable `traffic`; {store} has {list(tree.children)}."
                )
            if unknown := sorted(set(thresholds) - set(levels)):
                raise ValueError(f"`thresholds` must name levels out of {list(levels)}, but names {unknown}.")
            coordinates = {f"/{name}": _coordinates(level, list(quantiles)) for name, level in levels.items()}
            root = xr.Dataset(attrs={**tree.attrs, "levels": list(levels)})
            empty = xr.DataTree.from_dict({"/": root, **coordinates})
            empty.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
            target = zarr.open_group(partial, mode="r+")
            for name, level in levels.items():
                _summarise_level(level["traffic"], target[name], list(quantiles), thresholds.get(name))
        os.replace(partial, output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return output


def _coordinates(level: xr.Dataset, quantiles: list[float]) -> xr.Dataset:
    level = level.drop_vars([*level.data_vars, "sample"]).assign_coords(quantile=quantiles)
    # Texts of a fixed length have no specification in Zarr v3.
    return level.assign_coords({name: it.astype(object) for name, it in level.coords.items() if it.dtype.kind == "U"})


def _summarise_level(traffic: xr.DataArray, group, quantiles: list[float], threshold: float | None):
    """Fill one level's group from its samples (sample, channel, time, y, x)."""
    dimensions, shape = traffic.dims[1:], traffic.shape[1:]
    in_file = traffic.encoding.get("preferred_chunks", {})
    chunks = tuple(in_file.get(axis, size) for axis, size in zip(dimensions, shape))
    attributes = dict(traffic.attrs)

    def array(name, text, lead=(), dims=(), **changes):
        return group.create_array(
            name,
            shape=(*lead, *shape),
            chunks=(*lead, *chunks),
            dtype="float32",
            fill_value=float("nan"),  # a chunk that got lost must not be read as no traffic
            dimension_names=[*dims, *dimensions],
            attributes={**attributes, "long_name": text, **changes},
        )

    unit = attributes.get("long_name", "traffic")
    statistics = {
        "mean": array("mean", f"mean over the samples: {unit}"),
        "std": array("std", f"standard deviation over the samples: {unit}"),
        "quantiles": array("quantiles", f"quantiles over the samples: {unit}", (len(quantiles),), ("quantile",)),
    }
    if threshold is not None:
        text = f"share of the samples above {threshold:g}: {unit}"
        statistics["exceedance"] = array("exceedance", text, units="1", threshold=float(threshold))
    for corner in product(*(range(0, size, step) for size, step in zip(shape, chunks))):
        part = tuple(slice(start, start + step) for start, step in zip(corner, chunks))
        values = traffic[(slice(None), *part)].values.astype(np.float64)
        statistics["mean"][part] = over_samples(values, "mean")
        statistics["std"][part] = over_samples(values, "std")
        statistics["quantiles"][(slice(None), *part)] = np.quantile(values, quantiles, axis=0)
        if threshold is not None:
            statistics["exceedance"][part] = over_samples(values, "exceedance", threshold)
