# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Areas with traffic and context, from the simulator, from files or from the Hub, and the training windows cut from them.

Documented layout of an `.npz` or NetCDF file:

- each traffic variable (`traffic` by default) is (T, H, W) for one area, or (N, T, H, W) for N areas of one size; a
  single variable may also be (N, C, T, H, W). Base stations without neighbours are (N, T): N areas of one cell, whose
  layers are (N,) or (N, n) then. Values are non-negative, the mean or the sum per cell and time step;
- each context layer is an array of its name: (H, W), (n, H, W), and (T, H, W), (n, T, H, W) for layers that vary over
  time; with a leading N where the traffic has one;
- optionally `valid`, true where the traffic was measured: (T,), (T, H, W), (N, T) or (N, T, H, W). A missing value is
  not measured.

Names in a NetCDF file count, as for `ContextProcessor`: dimensions called `y`, `x` and `hour` or `time` may come in
any order, as may channels that a coordinate of texts names; codes are those of `flag_values` and `flag_meanings`.

A `datasets` folder or Hub dataset (Parquet) has one row per area with columns of the same names, nested lists of the
single-area shapes (traffic may be (C, T, H, W)), and optionally the integer columns `start_hour` and `area`. Rows with
the same `area` are the same place at several times: folds never part them. Without the column every row is a place. A
column `<layer>_names`, a list of texts, names the classes that the codes of a layer count, or its channels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray

from ..processors import ContextProcessor, ContextTensors
from ..processors.context_processor import ordered, positional
from .simulated_context import SITES, simulate_zones


ZONES = "zones_"  # begins the names of a window's layers of zones
NAMES = "_names"  # ends the names of the columns that name the classes or channels of a layer


@dataclass(frozen=True)
class TrafficArea:
    """
    One area with its traffic.

    Args:
        name (`str`): Where it comes from, for messages.
        traffic (`np.ndarray`): (C, T, H, W) float32, non-negative; 0 where it is not valid.
        context (`dict[str, np.ndarray]`): Raw layers, as `ContextProcessor` takes them.
        valid (`np.ndarray`, *optional*): (T, H, W) bool, true where the traffic was measured.
        start_hour (`int`): Hour of the week of the first time step, 0 = Monday 00:00.
        place (`int`, *optional*): Number of the place, which several weeks of one place share.
    """

    name: str
    traffic: np.ndarray
    context: dict[str, np.ndarray]
    valid: np.ndarray | None = None
    start_hour: int = 0
    place: int | None = None

    def crop(self, rows: slice, columns: slice) -> "TrafficArea":
        """The same area, cut to some rows and columns."""
        return replace(
            self,
            traffic=self.traffic[..., rows, columns],
            context={name: values[..., rows, columns] for name, values in self.context.items()},
            valid=None if self.valid is None else self.valid[..., rows, columns],
        )


def make_area(
    name: str,
    traffic: np.ndarray,
    context: dict[str, np.ndarray],
    valid: np.ndarray | None = None,
    start_hour: int = 0,
    place: int | None = None,
) -> TrafficArea:
    """
    Checks one area and brings it to the common types.

    Args:
        name (`str`): For messages.
        traffic (`np.ndarray`): (T, H, W) or (C, T, H, W).
        context (`dict[str, np.ndarray]`): Raw layers; the last two axes are H, W.
        valid (`np.ndarray`, *optional*): (T,) or (T, H, W), not zero where the traffic was measured, 0 or NaN where it
            was not; there values are ignored, whatever they are.
        start_hour (`int`, defaults to 0): Hour of the week of the first time step.
        place (`int`, *optional*): Number of the place.

    Raises:
        ValueError: wrong shapes, or negative, infinite or missing traffic that `valid` does not mark.
    """
    traffic = np.asarray(traffic, dtype=np.float32)
    traffic = traffic[None] if traffic.ndim == 3 else traffic
    if traffic.ndim != 4:
        raise ValueError(f"{name}: traffic must be (T, H, W) or (C, T, H, W), found shape {traffic.shape}.")
    if valid is not None:
        valid = np.nan_to_num(valid).astype(bool)
        valid = valid[:, None, None] if valid.ndim == 1 else valid
        if valid.ndim != 3 or valid.shape[0] != traffic.shape[1] or valid.shape[1:] not in ((1, 1), traffic.shape[2:]):
            raise ValueError(f"{name}: `valid` of shape {valid.shape} does not fit traffic of shape {traffic.shape}.")
        valid = np.broadcast_to(valid, traffic.shape[1:]).copy()
        traffic = np.where(valid, traffic, np.float32(0))
    if not np.isfinite(traffic).all():
        count = int((~np.isfinite(traffic)).sum())
        raise ValueError(f"{name}: traffic has {count} missing or infinite values; mark them as false in `valid`.")
    if (traffic < 0).any():
        raise ValueError(f"{name}: traffic must not be negative, found {traffic.min()}.")
    for layer, values in context.items():
        if values.shape[-2:] != traffic.shape[-2:]:
            raise ValueError(
                f"{name}: context layer `{layer}` has shape {values.shape}, its last two axes must be "
                f"{traffic.shape[-2:]} as in the traffic."
            )
    return TrafficArea(name, np.ascontiguousarray(traffic), context, valid, int(start_hour), place)


def simulated_areas(
    count: int,
    height: int,
    width: int,
    weeks: int,
    first_seed: int,
    cultures: list[str],
    hours: int = 168,
    with_zones: bool = False,
) -> list[TrafficArea]:
    """
    `weeks` independent periods of `hours` of each of `count` simulated cities with seeds `first_seed`, `first_seed +
    1`, ...; with the layers of [`simulate_zones`], if these are wanted.
    """
    from .simulated_city import SimulatedCity

    areas = []
    for index in range(count):
        seed, culture = first_seed + index, cultures[index % len(cultures)]
        city = SimulatedCity(height, width, seed, culture)
        traffic = np.asarray(city.sample_traffic(weeks, hours, seed=seed))
        context = city.context_for(hours) | (simulate_zones(city.context, seed) if with_zones else {})
        names = [f"simulated city {seed}, week {week}" for week in range(weeks)]
        areas += [make_area(name, values, context, place=seed) for name, values in zip(names, traffic)]
    return areas


def array_file_areas(
    path: str | Path,
    traffic_variables: list[str],
    layers: list[str],
    valid_variable: str,
    start_hour: int,
    schema: Iterable[dict] = (),
) -> list[TrafficArea]:
    """
    Areas of an `.npz` or NetCDF file in the layout that the module documents.

    Args:
        path (`str` or `Path`): The file.
        traffic_variables (`list[str]`): Its variables of traffic, which become the channels.
        layers (`list[str]`): Its context layers to read.
        valid_variable (`str`): Name of what is called `valid` above, if it is there.
        start_hour (`int`): Hour of the week of the first time step.
        schema (`list[dict]`, *optional*): As of `ContextProcessor`. Named channels and codes of these layers are
            brought to its order.

    Raises:
        ValueError: a missing file, variable or layer, shapes that do not fit, or names that the schema does not know.
    """
    arrays = _read_arrays(Path(path), [*traffic_variables, *layers], valid_variable)
    traffic = [arrays[name] for name in traffic_variables]
    if len({values.shape for values in traffic}) > 1:
        raise ValueError(f"'{path}': traffic variables differ in shape: {[values.shape for values in traffic]}.")
    kinds = {layer["name"]: layer for layer in schema}
    if traffic[0].ndim == 3:
        context = {name: _without_names(arrays[name], kinds.get(name)) for name in layers}
        values = np.stack([values.to_numpy() for values in traffic])
        valid = arrays[valid_variable].to_numpy() if valid_variable in arrays else None
        return [make_area(str(path), values, context, valid, start_hour)]
    first = traffic[0].dims[0]  # of the areas
    arrays = {name: values.transpose(first, ..., missing_dims="ignore") for name, values in arrays.items()}
    traffic = [arrays[name].to_numpy() for name in traffic_variables]
    if traffic[0].ndim == 2:  # every base station is an area of one cell
        traffic = [values[..., None, None] for values in traffic]
        arrays |= {name: _as_cells(arrays[name]) for name in layers}
    if traffic[0].ndim == 5 and len(traffic) == 1:
        stacked = traffic[0]
    elif traffic[0].ndim == 4:
        stacked = np.stack(traffic, axis=1)
    else:
        raise ValueError(
            f"'{path}': traffic must be (T, H, W), (N, T), (N, T, H, W) or (N, C, T, H, W), found {traffic[0].shape}."
        )
    count = len(stacked)
    for name in layers:
        if len(arrays[name]) != count or arrays[name].ndim < 3:
            raise ValueError(
                f"'{path}': layer `{name}` must start with the {count} areas, found {arrays[name].shape}."
            )
    valid = arrays[valid_variable].to_numpy() if valid_variable in arrays else None
    if valid is not None and valid.shape == stacked.shape[2:3]:
        valid = np.broadcast_to(valid, (count, *valid.shape))
    return [
        make_area(
            f"{path}, area {index}",
            stacked[index],
            {name: _without_names(arrays[name][index], kinds.get(name)) for name in layers},
            None if valid is None else valid[index],
            start_hour,
        )
        for index in range(count)
    ]


def _read_arrays(path: Path, required: list[str], valid_variable: str) -> dict[str, xarray.DataArray]:
    if not path.is_file():
        raise ValueError(f"`dataset`: there is no file '{path}'.")
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            available = archive.files
            arrays = {
                name: xarray.DataArray(archive[name]) for name in available if name in [*required, valid_variable]
            }
    else:
        with xarray.open_dataset(path) as source:
            available = [str(name) for name in source.data_vars]
            arrays = {
                name: _in_layout(source[name]).load() for name in available if name in [*required, valid_variable]
            }
    missing = [name for name in required if name not in arrays]
    if missing:
        raise ValueError(f"'{path}' has no variable {missing}; it has {sorted(available)}.")
    return arrays


def _in_layout(values: xarray.DataArray) -> xarray.DataArray:
    """With the time, y and x last if they are called so; of base stations, which have no grid, with the time last."""
    if {"y", "x"} <= set(values.dims):
        return ordered(values)
    time = "hour" if "hour" in values.dims else "time"
    return values.transpose(..., time, missing_dims="ignore") if values.ndim == 2 else values


def _without_names(values: xarray.DataArray, layer: dict | None) -> np.ndarray:
    """A layer of one area in the order of its entry in the schema, if it has one."""
    if layer is None or layer["kind"] == "zones":
        return values.to_numpy()
    if not {"y", "x"} & set(values.dims):
        values = _without_positions(values).rename(dict(zip(values.dims[-2:], ("y", "x"))))
    return positional(layer, values)


def _as_cells(values: xarray.DataArray) -> xarray.DataArray:
    """A layer of base stations (N, ...) on a cell for each, (N, ..., 1, 1)."""
    return _without_positions(values).expand_dims(["y", "x"], [-2, -1])


def _without_positions(values: xarray.DataArray) -> xarray.DataArray:
    """Without coordinates that are called like the dimensions of a grid, but are not: where base stations stand."""
    return values.drop_vars(["y", "x"], errors="ignore")


def parquet_areas(
    path: str,
    traffic_variables: list[str],
    layers: list[str],
    valid_variable: str,
    start_hour: int,
    schema: Iterable[dict] = (),
) -> list[TrafficArea]:
    """
    Areas of a `datasets` folder or Hub dataset (Parquet), one row per area; columns as the module documents.

    Arguments are those of [`array_file_areas`], as are the errors.
    """
    import datasets

    table = datasets.load_dataset(path, split="train").with_format("numpy")
    missing = [name for name in [*traffic_variables, *layers] if name not in table.column_names]
    if missing:
        raise ValueError(f"'{path}' has no column {missing}; it has {sorted(table.column_names)}.")
    kinds = {layer["name"]: layer for layer in schema}
    areas = []
    for index, row in enumerate(table):
        traffic = [_nested(row[name]) for name in traffic_variables]
        areas.append(
            make_area(
                f"{path}, row {index}",
                traffic[0] if len(traffic) == 1 else np.stack(traffic),
                {name: _layer_of(row, name, kinds.get(name), f"{path}, row {index}") for name in layers},
                _nested(row[valid_variable]) if row.get(valid_variable) is not None else None,
                int(row.get("start_hour", start_hour)),
                _place_of(row, f"{path}, row {index}"),
            )
        )
    return areas


def _layer_of(row: dict, name: str, layer: dict | None, where: str) -> np.ndarray:
    """A layer of a row, in the order of its entry in the schema if it has one and the row names its parts."""
    values, names = _nested(row[name]), row.get(name + NAMES)
    if names is None or layer is None or layer["kind"] == "zones":
        return values
    if values.ndim == 2:
        meanings = " ".join(text.replace(" ", "_") for text in names)
        return positional(layer, xarray.DataArray(values, dims=("y", "x"), attrs={"flag_meanings": meanings}))
    if len(values) != len(names):
        raise ValueError(
            f"{where}: the column `{name}{NAMES}` must name the {len(values)} channels of `{name}`, found"
            f" {list(names)}."
        )
    dims = ("channel", "hour", "y", "x") if values.ndim == 4 else ("channel", "y", "x")
    return positional(layer, xarray.DataArray(values, dims=dims, coords={"channel": list(names)}))


def _place_of(row: dict, name: str) -> int | None:
    if "area" not in row:
        return None
    if np.asarray(row["area"]).dtype.kind not in "iu" or np.ndim(row["area"]):
        raise ValueError(f"{name}: the column `area` must number the place of every row; found {row['area']!r}.")
    return int(row["area"])


def _nested(values) -> np.ndarray:
    """A numeric array from what `datasets` returns for nested lists (arrays of arrays of objects); NaN for null."""
    array = np.asarray(np.nan if values is None else values)
    return np.stack([_nested(part) for part in array]) if array.dtype == object else array


def select_region(areas: list[TrafficArea], region: dict | None, what: str) -> list[TrafficArea]:
    """
    The areas or the part of each area that a split uses.

    Args:
        areas (`list[TrafficArea]`): All areas.
        region (`dict`, *optional*):
            `rows` and `columns` ([first, end), in cells), and `areas`: a list of indices of `areas`, whatever their
            places, or `{"folds": n, "only": i}` or `{"folds": n, "without": i}`. There the j-th place, in the order of
            their numbers, belongs to fold j mod n with all its weeks. An area without a place is one of its own.
        what (`str`): Name of the argument, for messages.
    """
    if region is None:
        return areas
    unknown = set(region) - {"areas", "rows", "columns"}
    if unknown:
        raise ValueError(f"`{what}` may have areas, rows and columns, found {sorted(unknown)}.")
    indices = region.get("areas", range(len(areas)))
    if isinstance(indices, dict):
        indices = _indices_of_folds(indices, areas, what)
    if not indices or min(indices) < 0 or max(indices) >= len(areas):
        raise ValueError(f"`{what}`: indices of areas must be 0 to {len(areas) - 1}, found {list(indices)}.")
    selected = []
    for index in indices:
        limits = areas[index].traffic.shape[-2:]
        spans = [region.get(key, [0, limit]) for key, limit in zip(("rows", "columns"), limits)]
        for key, (first, end), limit in zip(("rows", "columns"), spans, limits):
            if not 0 <= first < end <= limit:
                raise ValueError(f"`{what}`: {key} {[first, end]} do not lie in [0, {limit}] of {areas[index].name}.")
        selected.append(areas[index].crop(*(slice(*span) for span in spans)))
    return selected


def _indices_of_folds(choice: dict, areas: list[TrafficArea], what: str) -> list[int]:
    """The areas of the places of one fold, or of all the others."""
    kind = "only" if "only" in choice else "without"
    folds, fold = choice.get("folds"), choice.get(kind)
    if set(choice) != {"folds", kind} or not isinstance(folds, int) or fold not in range(folds):
        raise ValueError(
            f"`{what}`: areas by fold are given as folds and either only or without, a fold from 0 to folds - 1, "
            f"found {choice}."
        )
    places = [(area.place is None, index if area.place is None else area.place) for index, area in enumerate(areas)]
    numbers = {place: number for number, place in enumerate(sorted(set(places)))}
    if folds > len(numbers):
        raise ValueError(
            f"`{what}`: {len(numbers)} place(s) cannot be split into {folds} folds. Split the weeks of one place by "
            "lists of rows, such as areas: [0, 1]."
        )
    return [index for index, place in enumerate(places) if (numbers[place] % folds == fold) == (kind == "only")]


def smoothed_layers(schema: list[dict], widths: list[float]) -> list[dict]:
    """The schema of the smoothed copies of all static layers: continuous layers named `<layer>_smooth_<width>`."""
    static = [layer for layer in schema if layer["kind"] not in ("temporal", "zones")]
    return [
        {
            "name": f"{layer['name']}_smooth_{width:g}",
            "kind": "continuous",
            "channels": layer["classes"] if layer["kind"] == "categorical" else layer["channels"],
        }
        for width in widths
        for layer in static
    ]


def smooth_context(context: dict[str, np.ndarray], schema: list[dict], widths: list[float]) -> dict[str, np.ndarray]:
    """
    A copy of a raw context with smoothed copies of its static layers, which tell a cell about its surroundings. Layers
    that become logarithms do so before they are smoothed: one busy cell must not drown the others.

    Args:
        context (`dict[str, np.ndarray]`): Raw layers of the whole map; smooth before cutting windows.
        schema (`list[dict]`): Schema of the raw layers.
        widths (`list[float]`): Standard deviations of the Gaussian, in cells.
    """
    from scipy.ndimage import gaussian_filter

    smoothed = dict(context)
    for layer in schema:
        if layer["kind"] in ("temporal", "zones") or layer["name"] not in context:
            continue
        values = np.asarray(context[layer["name"]], dtype=np.float32)
        if layer["kind"] == "categorical" and values.ndim == 2:
            values = (values == np.arange(len(layer["classes"]))[:, None, None]).astype(np.float32)
        values = values[None] if values.ndim == 2 else values
        if layer["kind"] == "count" or layer.get("log", False):
            values = np.log1p(values)
        for width in widths:
            smoothed[f"{layer['name']}_smooth_{width:g}"] = gaussian_filter(values, (0, width, width), mode="nearest")
    return smoothed


class TrafficWindows(torch.utils.data.Dataset):
    """
    Windows of fixed size cut from areas, held in memory as float32.

    Training windows (`draw`) have a random place, a random offset of whole days and random flips; every one is a pure
    function of its number and the seed. Validation windows (indexing) tile the areas without overlap.

    Args:
        areas (`list[TrafficArea]`): At least one; none smaller than a window.
        context_processor (`ContextProcessor`): Fitted; normalises the context of each area once.
        size (`tuple[int, int, int]`): Time steps, height and width of a window.
        steps_per_day (`int`, defaults to 24): Windows start at midnight, if the areas do.
        time_step (`float`, defaults to 1.0): Hours in a time step.
        alignment (`int`, defaults to 1): Random places are multiples of this many cells.
        flips (`bool`, defaults to `True`): Flip windows at random; transpose square ones.
        seed (`int`, defaults to 0): Seed of order, places and flips.
        longest (`int`, *optional*): Time steps of the longest windows to `draw`: a multiple of those of `size`.
    """

    def __init__(
        self,
        areas: list[TrafficArea],
        context_processor: ContextProcessor,
        size: tuple[int, int, int],
        steps_per_day: int = 24,
        time_step: float = 1.0,
        alignment: int = 1,
        flips: bool = True,
        seed: int = 0,
        longest: int | None = None,
    ):
        if not areas:
            raise ValueError("`areas` is empty: there is nothing to learn from.")
        largest = (longest or size[0], *size[1:])
        for area in areas:
            if any(have < want for have, want in zip(area.traffic.shape[1:], largest)):
                raise ValueError(f"{area.name} has size {area.traffic.shape[1:]}, smaller than a window {largest}.")
        self.areas, self.size, self.flips, self.seed = areas, tuple(size), flips, seed
        self.lengths = [size[0] * count for count in range(1, largest[0] // size[0] + 1)]
        self.grids = (steps_per_day, alignment, alignment)
        self.time_step = time_step
        self.contexts = _normalised_contexts(areas, context_processor)
        # A large area counts as often in an epoch as it holds windows.
        repeats = [max(1, round(np.prod(area.traffic.shape[1:]) / np.prod(size))) for area in areas]
        self.epoch = np.repeat(np.arange(len(areas)), repeats)
        self.tiles = [
            (index, tuple(start))
            for index, area in enumerate(areas)
            for start in np.ndindex(*(have // want for have, want in zip(area.traffic.shape[1:], size)))
        ]
        self.has_masks = any(area.valid is not None for area in areas)
        self._order = (-1, self.epoch)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Validation window `index`: a tile of an area, as it is."""
        area, tile = self.tiles[index]
        return self._window(area, [position * length for position, length in zip(tile, self.size)], self.size)

    def draw_batch(self, step: int, batch_size: int, indices: list[int]) -> dict[str, torch.Tensor]:
        """The windows `indices` of the batch of a training step, stacked; all windows of a step are equally long."""
        length = int(np.random.default_rng([self.seed, 2, step]).choice(self.lengths))
        return stack_windows(self.draw(step * batch_size + index, length) for index in indices)

    def draw(self, number: int, length: int | None = None) -> dict[str, torch.Tensor]:
        """Training window `number` (0, 1, 2, ... without end), augmented, of `length` time steps."""
        epoch, position = divmod(number, len(self.epoch))
        if self._order[0] != epoch:
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(self.epoch)
            self._order = (epoch, order)
        area = int(self._order[1][position])
        random = np.random.default_rng([self.seed, 1, number])
        shape, size = self.areas[area].traffic.shape[1:], (length or self.size[0], *self.size[1:])
        start = [
            int(grid * random.integers((have - want) // grid + 1)) for have, want, grid in zip(shape, size, self.grids)
        ]
        window = self._window(area, start, size)
        return _flipped(window, *(bool(bit) for bit in random.integers(2, size=3))) if self.flips else window

    def _window(self, index: int, start: list[int], size: tuple[int, int, int]) -> dict[str, torch.Tensor]:
        time, rows, columns = (slice(first, first + length) for first, length in zip(start, size))
        area, context = self.areas[index], self.contexts[index]
        window = {
            "traffic": torch.from_numpy(area.traffic[:, time, rows, columns]),
            "static": context.static[0, :, rows, columns],
            "present": context.present[0],
            "hour_of_week": torch.tensor((area.start_hour + time.start * self.time_step) % 168),
        }
        for name, labels in (context.zones or {}).items():
            window[ZONES + name] = labels[0, rows, columns].unique(return_inverse=True)[1]
        if context.temporal is not None:
            window["temporal"] = context.temporal[0, :, time, rows, columns]
        if self.has_masks:
            valid = np.ones(size, dtype=bool) if area.valid is None else area.valid[time, rows, columns]
            window["mask"] = torch.from_numpy(np.ascontiguousarray(valid))
        return window


def _normalised_contexts(areas: list[TrafficArea], processor: ContextProcessor) -> list[ContextTensors]:
    """One entry per area; areas that share a context (weeks of one city) share its tensors."""
    cache: dict[tuple[int, tuple[int, ...]], ContextTensors] = {}
    for area in areas:
        key = (id(area.context), area.traffic.shape[1:])
        if key not in cache:
            cache[key] = processor(area.context, hours=area.traffic.shape[1], size=area.traffic.shape[2:])
    return [cache[id(area.context), area.traffic.shape[1:]] for area in areas]


def _flipped(window: dict[str, torch.Tensor], rows: bool, columns: bool, transpose: bool) -> dict[str, torch.Tensor]:
    axes = [axis for axis, chosen in ((-2, rows), (-1, columns)) if chosen]
    transpose = transpose and window["traffic"].shape[-2] == window["traffic"].shape[-1]
    changed = dict(window)
    for name in window:
        if name in ("traffic", "static", "temporal", "mask") or name.startswith(ZONES):
            values = window[name].flip(axes) if axes else window[name]
            changed[name] = values.transpose(-2, -1) if transpose else values
    return changed


def stack_windows(windows: Iterable[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch from windows: every tensor gains a leading axis."""
    windows = list(windows)
    return {name: torch.stack([window[name] for window in windows]) for name in windows[0]}


def load_areas(data, layer_names: list[str], split: str) -> list[TrafficArea]:
    """
    The areas of one split.

    Args:
        data (`DataArguments`): Where the data come from.
        layer_names (`list[str]`): Context layers to read (without smoothed copies).
        split (`str`): "train" or "validation".
    """
    region_name = f"{split}_region"
    if data.dataset == "simulated_city":
        count = data.train_cities if split == "train" else data.validation_cities
        # Seeds of held-out cities start far away, so that adding training cities never reaches them.
        first_seed = data.city_seed if split == "train" else data.city_seed + 1_000_000
        sizes = (data.city_height, data.city_width, data.city_weeks)
        return simulated_areas(count, *sizes, first_seed, data.cultures, data.city_hours, SITES in layer_names)
    is_file = Path(data.dataset).suffix in (".npz", ".nc", ".nc4")
    read: Callable[..., list[TrafficArea]] = array_file_areas if is_file else parquet_areas
    variables = (data.traffic_variables, layer_names, data.valid_variable)
    areas = read(data.dataset, *variables, data.start_hour, data.layers or [])
    if data.smooth_layers:
        areas = [
            replace(area, context=smooth_context(area.context, data.layers, data.smooth_layers)) for area in areas
        ]
    return select_region(areas, getattr(data, region_name), region_name)
