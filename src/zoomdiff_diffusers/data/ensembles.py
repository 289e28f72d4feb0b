# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From the samples of a large area to maps of the mean, the spread, quantiles and the chance of an overload."""

import os
import shutil
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr


def summarise_ensemble(
    store: str | os.PathLike,
    output: str | os.PathLike,
    quantiles: Sequence[float] = (0.1, 0.5, 0.9),
    thresholds: Mapping[str, float] | None = None,
) -> Path:
    """
    Statistics over the samples of a store, chunk by chunk: memory does not grow with the area.

    Args:
        store (`str` or `os.PathLike`): Zarr store of [`ZoomDiffPipeline.generate_city`].
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
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with xr.open_datatree(store, engine="zarr", consolidated=False) as tree:
        levels = {name: node.to_dataset() for name, node in tree.children.items() if "traffic" in node.data_vars}
        if not levels:
            raise ValueError(
                f"`store` must have levels with the variable `traffic`; {store} has {list(tree.children)}."
            )
        if unknown := sorted(set(thresholds) - set(levels)):
            raise ValueError(f"`thresholds` must name levels out of {list(levels)}, but names {unknown}.")
        coordinates = {
            f"/{name}": level.drop_vars(["traffic", "sample"]).assign_coords(quantile=list(quantiles))
            for name, level in levels.items()
        }
        root = xr.Dataset(attrs=dict(tree.attrs))
        empty = xr.DataTree.from_dict({"/": root, **coordinates})
        empty.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    source, target = zarr.open_group(store, mode="r"), zarr.open_group(partial, mode="r+")
    for name, level in levels.items():
        _summarise_level(source[name]["traffic"], target[name], level, list(quantiles), thresholds.get(name))
    os.replace(partial, output)
    return output


def _summarise_level(samples, group, level: xr.Dataset, quantiles: list[float], threshold: float | None):
    """Fill one level's group from its samples (sample, channel, time, y, x)."""
    shape, chunks = samples.shape[1:], samples.chunks[1:]
    attributes, dimensions = dict(level["traffic"].attrs), level["traffic"].dims[1:]

    def array(name, text, lead=(), dims=(), **changes):
        return group.create_array(
            name,
            shape=(*lead, *shape),
            chunks=(*lead, *chunks),
            dtype="float32",
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
        values = samples[(slice(None), *part)].astype(np.float64)
        statistics["mean"][part] = values.mean(axis=0)
        statistics["std"][part] = values.std(axis=0, ddof=1) if len(values) > 1 else 0.0
        statistics["quantiles"][(slice(None), *part)] = np.quantile(values, quantiles, axis=0)
        if threshold is not None:
            statistics["exceedance"][part] = (values > threshold).mean(axis=0)
