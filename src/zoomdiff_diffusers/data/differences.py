# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
What a plan changes: traffic with and without it, from the same noise, and the difference with its spread.

Sample i with the plan and sample i without it start from the same random numbers. What they have in common cancels, so
the spread of their differences is much smaller than that of the traffic itself.
"""

import hashlib
import json
import os
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from .stores import channel_units, replace_file


# Of traffic per unit and time step; and of the same over the whole period, one map per level.
STATISTICS = ("before", "after", "difference", "spread", "rising")
LONG_NAMES = {
    "before": "mean over the samples without the plan",
    "after": "mean over the samples with the plan",
    "difference": "mean over the samples of what the plan adds",
    "spread": "standard deviation over the samples of what the plan adds",
    "rising": "share of the samples in which the plan adds traffic",
}
WHOLE_PERIOD = "period_"
# A rise by less than this share of the traffic is none: far from a plan, only rounding differs.
SMALLEST_RISE = 1e-4
# Totals of each sample, of the area and of the edited cells: (sample, channel), sums.
TOTALS = ("total_before", "total_after", "edited_before", "edited_after")
REQUEST = "request.json"
ROWS_PER_DIGEST = 256


def compare_contexts(
    pipe,
    before: xr.Dataset,
    after: xr.Dataset,
    start=None,
    num_hours: int | None = None,
    num_samples: int = 8,
    seed: int = 0,
    num_inference_steps: int | list[int] | None = None,
    units: str = "mean",
    callback_on_step_end=None,
) -> xr.DataTree:
    """
    What traffic does between two contexts of one area, in memory; for whole cities see [`compare_cities`].

    Args:
        pipe ([`ZoomDiffPipeline`]): Trained.
        before (`xarray.Dataset`), after (`xarray.Dataset`):
            The same layers on the same cells, such as a context and what [`edit_context`] makes of it. A coordinate
            `edited` of `after`, (y, x) from 0 to 1, tells of which cells the totals are wanted too.
        num_samples (`int`, defaults to 8): Pairs of samples, each from the same noise.
        seed (`int`, defaults to 0): Seed of the noise.
        start, num_hours, num_inference_steps, units, callback_on_step_end: As in [`ZoomDiffPipeline.__call__`], which
            is called twice.

    Returns:
        `xr.DataTree`: A group per level with `before` and `after`, the means over the samples; `difference`, the mean
        of the paired differences; `spread`, their standard deviation (with n - 1; NaN for one sample); and `rising`,
        the share of the samples in which traffic rises by more than 0.01 %: all (channel, time, y, x). With `period_`
        before the name, the same for the mean (or sum) over the whole period: (channel, y, x). The root has
        `total_before` and `total_after`, the traffic of the whole area and period in every sample as sums
        (sample, channel), and `edited_before` and `edited_after`, those of the edited cells.

    Raises:
        ValueError: If the contexts differ in layers, cells or hours, or the arguments do not fit together.
    """
    import torch

    check_pair(before, after)
    trees = []
    for context in (before, after):
        generator = torch.Generator().manual_seed(seed)
        options = {"generator": generator, "num_samples_per_context": num_samples, "output_type": "xarray"}
        options |= {"start": start, "num_hours": num_hours, "num_inference_steps": num_inference_steps}
        trees.append(pipe(context, units=units, callback_on_step_end=callback_on_step_end, **options).levels)
    first, second = ({name: node["traffic"] for name, node in tree.children.items()} for tree in trees)
    root = xr.Dataset(attrs={**trees[0].attrs, **_attributes(seed, list(first))})
    nodes = {}
    for name, traffic in first.items():
        level = trees[0][name].to_dataset()
        statistics = _statistics(traffic.values, second[name].values)
        whole = _statistics(*(_over_period(values.values, units) for values in (traffic, second[name])))
        nodes[f"/{name}"] = _level_dataset(level, units, statistics, whole)
    finest = list(first)[-1]
    volumes = [_volume(tree[finest], units) for tree in trees]
    edited = _at_level(_edited(after), trees[0][finest])
    totals = _totals(first[finest].values, second[finest].values, edited, volumes)
    nodes["/"] = root.assign({name: (("sample", "channel"), values) for name, values in zip(TOTALS, totals)})
    return xr.DataTree.from_dict(nodes)


def compare_cities(
    pipe,
    before: xr.Dataset,
    after: xr.Dataset,
    output: str | os.PathLike,
    start=None,
    num_hours: int | None = None,
    num_samples: int = 8,
    seed: int = 0,
    num_inference_steps: int | list[int] | None = None,
    units: str = "mean",
    window: tuple[int, int, int] | None = None,
    attrs: dict | None = None,
) -> Path:
    """
    As [`compare_contexts`] for an area of any size, into a Zarr store.

    Traffic of both contexts is generated into stores of their own beside the output, which are removed in the end, and
    compared chunk by chunk: memory does not grow with the area. An interrupted run goes on when it is called
    again with the same arguments, and keeps what is finished.

    Args:
        output (`str` or `os.PathLike`): Folder to make, ending in `.zarr`.
        window: As in [`~ZoomDiffPipeline.generate_city`]. The other arguments are those of [`compare_contexts`].
        attrs (`dict`, *optional*): Further attributes of the root: provenance such as the plan.

    Returns:
        `Path`: the store, with the groups and variables of [`compare_contexts`].

    Raises:
        ValueError: If the arguments do not fit together, or an unfinished run had others.
    """
    check_pair(before, after)
    output = Path(output).absolute()
    _check_output(output)
    runs = output.with_name(f".{output.name}.runs")
    settings = [str(start), num_hours, num_samples, seed, num_inference_steps, units, window]
    request = {"fingerprint": _fingerprint(pipe, settings, before, after)}
    if (runs / REQUEST).is_file() and json.loads((runs / REQUEST).read_text(encoding="utf-8")) != request:
        raise ValueError(
            f"`output`: {runs} holds an unfinished run with other contexts, model or settings. Go on with the same"
            " ones, or remove that folder."
        )
    runs.mkdir(exist_ok=True)
    replace_file(runs / REQUEST, lambda path: path.write_text(json.dumps(request), encoding="utf-8"))
    stores = []
    for name, context in (("before", before), ("after", after)):
        stores.append(runs / f"{name}.zarr")
        if not stores[-1].exists():
            pipe.generate_city(
                context, stores[-1], start, num_hours, num_inference_steps, num_samples, seed, units, window
            )
    compare_stores(*stores, output, _edited(after), attrs)
    shutil.rmtree(runs)
    return output


def compare_stores(
    before: str | os.PathLike,
    after: str | os.PathLike,
    output: str | os.PathLike,
    edited: np.ndarray | None = None,
    attrs: dict | None = None,
) -> Path:
    """
    Differences of two stores of [`ZoomDiffPipeline.generate_city`] with one seed, chunk by chunk.

    Args:
        before (`str` or `os.PathLike`), after (`str` or `os.PathLike`): The stores without and with a plan.
        output (`str` or `os.PathLike`): Zarr store to make, with the groups and variables of [`compare_contexts`].
        edited (`np.ndarray`, *optional*): (H, W), the share of each finest cell whose totals are wanted too.
        attrs (`dict`, *optional*): Further attributes of the root, over those of the stores.

    Raises:
        ValueError: If the stores have other levels, units or seeds than each other, or `output` exists.
    """
    import zarr

    output = Path(output).absolute()
    _check_output(output)
    partial = output.with_name(f".{output.name}.difference")  # not the name of an unfinished `generate_city`
    shutil.rmtree(partial, ignore_errors=True)
    sources = [zarr.open_group(store, mode="r") for store in (before, after)]
    with xr.open_datatree(before, engine="zarr", consolidated=False) as tree:
        _check_stores(*sources, before, after)
        levels = {name: tree[name].to_dataset() for name in tree.attrs["levels"]}
        attrs = {**tree.attrs, **_attributes(tree.attrs["seed"], list(levels)), **(attrs or {})}
        coordinates = {f"/{name}": level.drop_vars(["traffic", "sample"]) for name, level in levels.items()}
        empty = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **coordinates})
        empty.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
    target = zarr.open_group(partial, mode="r+")
    finest = list(levels)[-1]
    for name, level in levels.items():
        arrays = [source[name]["traffic"] for source in sources]
        units = "sum" if "sum" in level["traffic"].attrs["cell_methods"] else "mean"
        volumes = [_volume(source[name], units) for source in sources] if name == finest else None
        totals = _compare_level(arrays, target[name], level, units, edited, volumes)
    for name, values in zip(TOTALS, totals):
        target.create_array(name, data=values, dimension_names=["sample", "channel"])
    os.replace(partial, output)
    return output


def _compare_level(
    arrays, group, level: xr.Dataset, units: str, edited: np.ndarray | None, volumes: list | None
) -> list[np.ndarray]:
    """Fill one level's group from the samples of both stores; return the totals of each sample, with `volumes`."""
    shape, chunks = arrays[0].shape[1:], arrays[0].chunks[1:]
    described = _level_dataset(level, units)
    made = {}
    for name, variable in described.data_vars.items():
        whole = name.startswith(WHOLE_PERIOD)
        made[name] = group.create_array(
            name,
            shape=(shape[0], *shape[2:]) if whole else shape,
            chunks=(chunks[0], *chunks[2:]) if whole else chunks,
            dtype="float32",
            fill_value=float("nan"),  # a chunk that got lost must not be read as no difference
            dimension_names=variable.dims,
            attributes=dict(variable.attrs),
        )
    totals = [np.zeros((arrays[0].shape[0], shape[0])) for _ in TOTALS]
    volumes = None if volumes is None else [np.broadcast_to(volume, shape[2:]) for volume in volumes]
    for corner in product(*(range(0, size, step) for size, step in zip(shape[2:], chunks[2:]))):
        place = tuple(slice(start, start + step) for start, step in zip(corner, chunks[2:]))
        inside = edited[place] if volumes is not None and edited is not None else None
        period = [0.0, 0.0]
        for first in range(0, shape[1], chunks[1]):
            part = (slice(None), slice(first, first + chunks[1]), *place)
            pair = [array[(slice(None), *part)].astype(np.float64) for array in arrays]
            for name, values in _statistics(*pair).items():
                made[name][part] = values
            period = [total + values.sum(axis=2) for total, values in zip(period, pair)]
            if volumes is not None:
                for total, values in zip(totals, _totals(*pair, inside, [volume[place] for volume in volumes])):
                    total += values
        period = [total / (shape[1] if units == "mean" else 1) for total in period]
        for name, values in _statistics(*period).items():
            made[WHOLE_PERIOD + name][(slice(None), *place)] = values
    return totals


def summarise_difference(tree: xr.DataTree) -> dict:
    """
    What a plan changes, JSON-safe: totals of the first channel, and where each level changes most.

    Args:
        tree (`xarray.DataTree`): Of [`compare_contexts`] or [`compare_cities`].

    Returns:
        `dict`: `unit`; `totals` of the area (`total`) and of the edited cells (`edited`), with `before`, `after`,
        `difference` and `spread`; and `levels`, by name the unit with the largest `rise` and `fall`, with its values
        over the whole period and its place.
    """
    names = [str(name) for name in tree.attrs["levels"]]
    result = {"unit": channel_units(tree[names[-1]]["difference"])[0], "totals": {}, "levels": {}}
    for where in ("total", "edited"):
        before, after = (tree[f"{where}_{when}"].values[:, 0] for when in ("before", "after"))
        spread = float((after - before).std(ddof=1)) if len(before) > 1 else None
        result["totals"][where] = {
            "before": float(before.mean()),
            "after": float(after.mean()),
            "difference": float((after - before).mean()),
            "spread": spread,
        }
    for name in names:
        level = tree[name].to_dataset()
        result["levels"][name] = {"rise": _extreme(level, "argmax"), "fall": _extreme(level, "argmin")}
    return result


def _extreme(level: xr.Dataset, which: str) -> dict:
    """The unit in which traffic of the whole period rises (`argmax`) or falls (`argmin`) most."""
    difference = level["period_difference"].isel(channel=0).load()
    index = getattr(difference, which)(difference.dims)
    here = level[["period_before", "period_difference", "period_spread"]].isel(channel=0).isel(index)
    spread = float(here["period_spread"])
    return {
        "before": float(here["period_before"]),
        "difference": float(here["period_difference"]),
        "spread": spread if spread == spread else None,  # NaN, of one sample
        "x": float(here["x"]),
        "y": float(here["y"]),
    }


def check_pair(before: xr.Dataset, after: xr.Dataset) -> None:
    """
    Refuse two contexts between which something else than a plan differs.

    Raises:
        ValueError: If one has a layer, a cell or an hour that the other has not.
    """
    for name, context in (("before", before), ("after", after)):
        if not isinstance(context, xr.Dataset):
            raise ValueError(f"`{name}` must be an xarray.Dataset, but is a {type(context).__name__}.")
    if lacking := sorted(set(before.data_vars) ^ set(after.data_vars)):
        raise ValueError(
            f"`before` and `after` must have the same layers, but only one has {lacking}. The difference would be"
            " partly that of knowing more: leave these layers out on both sides."
        )
    sizes = [
        {axis: context.sizes[axis] for axis in ("y", "x", "hour") if axis in context.dims}
        for context in (before, after)
    ]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"`before` and `after` must cover the same cells and hours, but have {sizes[0]} and {sizes[1]}."
        )
    for axis in ("y", "x", "hour"):
        found = [context.coords[axis].values if axis in context.coords else None for context in (before, after)]
        if not np.array_equal(*found):
            raise ValueError(f"`before` and `after` must have the same coordinate {axis!r}.")


def _check_output(output: Path) -> None:
    if output.suffix != ".zarr" or output.exists():
        raise ValueError(f"`output` must end in .zarr and not exist yet, but is {str(output)!r}.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"`output` cannot be {output}: the folder {output.parent} is missing.")


def _check_stores(first, second, before, after) -> None:
    """Refuse stores whose samples are no pairs."""
    names = [list(source.attrs.get("levels", [])) for source in (first, second)]
    if not names[0] or names[0] != names[1]:
        raise ValueError(
            f"{before} and {after} must be stores with the same levels, but have {names[0]} and {names[1]}."
        )
    seeds = [source.attrs.get("seed") for source in (first, second)]
    if seeds[0] is None or seeds[0] != seeds[1]:
        raise ValueError(f"{before} and {after} must be of one seed, so that samples are pairs, not of {seeds}.")
    for name in names[0]:
        facts = [
            (source[name]["traffic"].shape, source[name]["traffic"].attrs["long_name"], *_positions(source[name]))
            for source in (first, second)
        ]
        if facts[0] != facts[1]:
            raise ValueError(
                f"{before} and {after} must have the same samples, time, cells and units at level {name!r}."
            )


def _positions(group) -> list:
    axes = [axis for axis in ("time", "y", "x") if axis in group]
    return [(axis, group[axis][:].tobytes(), str(group[axis].attrs.get("units"))) for axis in axes]


def _fingerprint(pipe, settings: list, before: xr.Dataset, after: xr.Dataset) -> str:
    """What the result depends on."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, component in sorted(pipe.components.items()):
        if component is None:
            continue
        config = {key: value for key, value in component.config.items() if not key.startswith("_")}
        digest.update(json.dumps([name, config], sort_keys=True).encode())
        for key, values in component.state_dict().items() if hasattr(component, "state_dict") else ():
            digest.update(key.encode() + values.detach().float().cpu().numpy().tobytes())
    for context in (before, after):
        for first in range(0, context.sizes["y"], ROWS_PER_DIGEST):
            rows = context.isel(y=slice(first, first + ROWS_PER_DIGEST)).load()
            for name in sorted(map(str, rows.data_vars)):
                digest.update(name.encode() + np.ascontiguousarray(rows[name].values).tobytes())
    return digest.hexdigest()


def _attributes(seed: int, levels: list[str]) -> dict:
    return {"title": "Difference of generated mobile traffic between two contexts", "seed": seed, "levels": levels}


def _statistics(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Of pairs of samples along the first axis."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    difference = after - before
    spread = difference.std(axis=0, ddof=1) if len(difference) > 1 else np.full(difference.shape[1:], np.nan)
    rises = difference > SMALLEST_RISE * before
    values = (before.mean(axis=0), after.mean(axis=0), difference.mean(axis=0), spread, rises.mean(axis=0))
    return {name: value.astype(np.float32) for name, value in zip(STATISTICS, values)}


def _over_period(traffic: np.ndarray, units: str) -> np.ndarray:
    return traffic.mean(axis=2, dtype=np.float64) if units == "mean" else traffic.sum(axis=2, dtype=np.float64)


def _totals(before, after, edited: np.ndarray | None, volumes: list) -> list[np.ndarray]:
    """Sums over time and place of (sample, channel, time, y, x), of all cells and of the edited ones."""
    maps = [values.sum(axis=2, dtype=np.float64) * volume for values, volume in zip((before, after), volumes)]
    inside = np.zeros(maps[0].shape[-2:]) if edited is None else edited
    return [(values * weights).sum(axis=(2, 3)) for weights in (np.ones_like(inside), inside) for values in maps]


def _volume(level, units: str) -> int | np.ndarray:
    """
    What an array element of a level is multiplied with to give its part of a total.

    That is how many finest cells and time steps it stands for, unless it holds their sum. With zones an element is a
    single cell, which has the mean or the sum of its zone: of a sum, each of n cells counts for 1 / n, (y, x).

    Args:
        level: Group of a tree or a store, with the factors and `zones` as attributes.
        units (`str`): `"mean"` or `"sum"`.
    """
    temporal_factor, side = int(level.attrs["temporal_factor"]), int(level.attrs["spatial_factor"])
    if "zones" not in level.attrs:
        return 1 if units == "sum" else side**2 * temporal_factor
    if units == "mean":
        return temporal_factor
    zone = np.asarray(level["zone"][:])
    _, unit, cells = np.unique(zone, return_inverse=True, return_counts=True)
    return 1 / cells[unit].reshape(zone.shape)


def _edited(context: xr.Dataset) -> np.ndarray | None:
    return np.asarray(context.coords["edited"].values) if "edited" in context.coords else None


def _at_level(edited: np.ndarray | None, level) -> np.ndarray | None:
    """The share of each array element of a level, from those of the finest cells; with zones an element is a cell."""
    if edited is None or "zones" in level.attrs:
        return edited
    side = int(level.attrs["spatial_factor"])
    height, width = (size // side for size in edited.shape)
    return edited.reshape(height, side, width, side).mean(axis=(1, 3))


def _level_dataset(
    level: xr.Dataset, units: str, statistics: dict | None = None, whole: dict | None = None
) -> xr.Dataset:
    """The variables of a level with their names and units; without values where none are given."""
    traffic = level["traffic"]
    dims, unit = traffic.dims[1:], traffic.attrs.get("long_name", "traffic")
    reference = {name: value for name, value in traffic.attrs.items() if name == "grid_mapping"}
    variables = {}
    for prefix, values, dimensions in (("", statistics, dims), (WHOLE_PERIOD, whole, (dims[0], *dims[2:]))):
        shape = [level.sizes[axis] for axis in dimensions]
        over = "" if not prefix else f", {units} over the whole period"
        for name in STATISTICS:
            array = np.broadcast_to(np.float32(np.nan), shape) if values is None else values[name]
            attributes = {"long_name": f"{LONG_NAMES[name]}: {unit}{over}", "units": traffic.attrs["units"]}
            if name == "rising":
                attributes = {"long_name": LONG_NAMES[name] + over, "units": "1"}
            variables[prefix + name] = (dimensions, array, {**attributes, **reference})
    return level.drop_vars(["traffic", "sample"]).assign(variables)
