# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""One level of a file as statistics over its samples, read block by block."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import xarray as xr

from ..ensembles import over_samples, quantile_of
from ..stores import GRID_MAPPING, channel_units, check_metres, open_levels
from .zones import Zones


TIMES = ("each", "mean", "max", "busy-hour")
OVER_TIME = {"mean": "mean over the time", "max": "maximum over the time"}
VALUES_PER_BLOCK = 2**25  # of all samples, in single precision: 128 MiB


class LevelStatistics:
    """
    One level of a file, read block by block as statistics over the samples.

    Args:
        path (`str` or `os.PathLike`): For messages.
        levels (`dict[str, xarray.Dataset]`): Of [`~data.stores.open_levels`].
        level (`str`, *optional*): One of them; the finest by default.
        statistics (`Sequence[str]`):
            `mean`, `std`, a quantile such as `q90`, `exceedance` or `samples`, which is every sample on its own. If
            the file holds other variables in place of samples, the names of these, and `q90` for one of its quantiles.
        time (`str`):
            `each` time step; the `mean` or the `max` over the time, of every sample before the statistics are taken;
            or the `busy-hour`, the time step in which the whole area has the most traffic (of the first channel).
        threshold (`float`, *optional*): Exceedance is the share of the samples above it.

    Raises:
        ValueError: If the file does not have what is asked for.
    """

    def __init__(self, path, levels, level=None, statistics=("mean",), time="each", threshold=None):
        self.path, self.name = path, level or list(levels)[-1]
        if self.name not in levels:
            raise ValueError(f"`level` must be one of {list(levels)}, the levels of {path}, but is {level!r}.")
        if time not in TIMES:
            raise ValueError(f"`time` must be one of {list(TIMES)}, but is {time!r}.")
        self.dataset, self.time, self.threshold = levels[self.name], time, threshold
        self.sampled = "traffic" in self.dataset.data_vars
        self.statistics = list(dict.fromkeys(statistics))
        self._check()
        self.variables = [self.dataset["traffic"]] if self.sampled else [self._stored(it) for it in self.statistics]
        first = self.variables[0]
        self.attributes, self.num_samples = first.attrs, first.sizes["sample"]
        self.channels = [str(channel) for channel in first["channel"].values]
        self.y, self.x = (first[axis].values.astype(np.float64) for axis in ("y", "x"))
        self.zones = Zones(self.dataset["zone"].values) if "zone" in self.dataset.coords else None
        self.num_steps = first.sizes["time"]
        chunks = first.encoding.get("preferred_chunks", {})
        self.chunks = tuple(chunks.get(axis, first.sizes[axis]) for axis in ("time", "y", "x"))
        self.busy = self._busy_step() if time == "busy-hour" else None
        self.times = None  # what `values` returns has one time step, which stands for all
        if time not in OVER_TIME and "time" in first.coords:
            self.times = first["time"].values[slice(None) if self.busy is None else [self.busy]]

    @property
    def num_times(self) -> int:
        """Time steps of `values`."""
        return 1 if self.times is None else len(self.times)

    @property
    def columns(self) -> list[str]:
        """Names of what `values` returns: a sample is a statistic of its own."""
        samples = [f"sample_{sample}" for sample in range(self.num_samples)]
        names = [name for it in self.statistics for name in (samples if it == "samples" else [it])]
        return [f"{name}_of_{self.time}" for name in names] if self.time in OVER_TIME else names

    @property
    def units(self) -> list[list[str]]:
        """The units of each of `columns`, one per channel."""
        found = []
        for position, name in enumerate(self.columns):
            variable = self.variables[0 if self.sampled else position]
            is_share = name.startswith("exceedance") or variable.attrs.get("units") == "1"
            found.append(["1"] * len(self.channels) if is_share else channel_units(variable))
        return found

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """
        Edges of the rows and of the columns in m, one more than there are of them.

        Raises:
            ValueError: If the centres are not evenly spaced.
        """
        sides = []
        for name, centres in (("y", self.y), ("x", self.x)):
            steps = np.diff(centres)
            if len(steps) and not np.allclose(steps, steps[0], rtol=1e-6, atol=0):
                raise ValueError(
                    f"The coordinate {name!r} of level {self.name!r} in {self.path} is not evenly spaced."
                )
            sides.append(float(steps.mean()) if len(steps) else None)
        # A single row or column is as wide as the other side tells; its rows run to the north.
        known = [abs(side) for side in sides if side is not None] or [self.dataset.attrs["spatial_resolution_m"]]
        return tuple(
            centres[0] + (np.arange(len(centres) + 1) - 0.5) * (known[0] if side is None else side)
            for centres, side in zip((self.y, self.x), sides)
        )

    def crs(self, given: str | None = None):
        """
        The coordinate reference system, as `given` or of the file.

        Raises:
            ValueError: If there is none, the file has another than `given`, or its coordinates are not metres.
        """
        from pyproj import CRS

        from ..open_data.grid import parse_crs

        variable = self.dataset.coords.get(self.attributes.get("grid_mapping", GRID_MAPPING), xr.DataArray())
        stored = CRS.from_wkt(variable.attrs["crs_wkt"]) if "crs_wkt" in variable.attrs else None
        crs = stored if given is None else parse_crs(given)
        if crs is None:
            raise ValueError(
                f"{self.path} does not say in which coordinate reference system its coordinates are. Give `crs`, such"
                " as EPSG:32635."
            )
        if stored is not None and crs != stored:
            raise ValueError(f"`crs` is {crs.to_string()}, but {self.path} is in {stored.name}.")
        check_metres(crs, f"The reference system of {self.path}" if given is None else "`crs`")
        return crs

    def time_blocks(self, rows: int, columns: int) -> list[slice]:
        """Time steps of `values` that fit into memory for so many rows and columns."""
        return parts(self.num_times, self._steps_at_once(rows, columns))

    def blocks(self) -> Iterator[tuple[slice, slice, slice]]:
        """Time steps, rows and columns of `values`, on the chunks of the file where these fit into memory."""
        _, rows, columns = self.chunks
        per_row = self.num_samples * len(self.channels) * columns
        rows = min(rows, max(1, VALUES_PER_BLOCK // per_row))
        for row, column in product(parts(len(self.y), rows), parts(len(self.x), columns)):
            for time in self.time_blocks(rows, columns):
                yield time, row, column

    def values(self, time: slice, rows: slice, columns: slice) -> np.ndarray:
        """The statistics (statistic, channel, time, y, x) of a block, float32."""
        if self.busy is not None:
            time = slice(self.busy, self.busy + 1)
        if not self.sampled:
            return np.concatenate([self._read(variable, time, rows, columns) for variable in self.variables])
        samples = (
            self._over_time(rows, columns)
            if self.time in OVER_TIME
            else self._read(self.variables[0], time, rows, columns)
        )
        parts = [
            samples if it == "samples" else over_samples(samples, it, self.threshold)[None] for it in self.statistics
        ]
        return np.concatenate(parts).astype(np.float32, copy=False)

    def _check(self):
        """Refuse statistics that the file does not have."""
        if not self.statistics:
            raise ValueError("`statistics` must name at least one.")
        if self.sampled:
            known = {"mean", "std", "exceedance", "samples"}
            if wrong := [it for it in self.statistics if it not in known and quantile_of(it) is None]:
                raise ValueError(
                    "`statistics` must be mean, std, a quantile such as q90, exceedance or samples, but one is"
                    f" {wrong[0]!r}."
                )
            if ("exceedance" in self.statistics) != (self.threshold is not None):
                raise ValueError("`threshold` is needed for the exceedance, and only for it.")
            return
        if self.threshold is not None or self.time in OVER_TIME:
            what = f"`time` {self.time!r}" if self.threshold is None else "`threshold`"
            raise ValueError(f"{what} needs the samples; {self.path} holds statistics of them.")
        maps = {name: it for name, it in self.dataset.data_vars.items() if {"channel", "y", "x"} <= set(it.dims)}
        quantiles = [f"q{100 * float(it):g}" for it in self.dataset.get("quantile", xr.DataArray([])).values]
        stored = [*sorted(set(maps) - {"quantiles"}), *quantiles]
        if missing := [it for it in self.statistics if it not in stored]:
            raise ValueError(f"`statistics` must be among those of {self.path}, {stored}, but one is {missing[0]!r}.")
        per_step = {"time" in maps[it if it in maps else "quantiles"].dims for it in self.statistics}
        if len(per_step) > 1:
            raise ValueError(f"`statistics` must all be per time step or all of the whole time: {self.statistics}.")
        if self.time != "each" and not all(per_step):
            raise ValueError(f"`time` is {self.time!r}, but {self.statistics} are of the whole time.")

    def _stored(self, statistic: str) -> xr.DataArray:
        """A variable of the file as (sample, channel, time, y, x) with one sample."""
        if statistic not in self.dataset.data_vars:
            values = self.dataset["quantiles"].sel(quantile=[quantile_of(statistic)], method="nearest")
            return values.rename(quantile="sample")
        variable = self.dataset[statistic]
        return variable.expand_dims([axis for axis in ("sample", "time") if axis not in variable.dims])

    def _read(self, variable: xr.DataArray, time: slice, rows: slice, columns: slice) -> np.ndarray:
        part = variable.isel(time=time, y=rows, x=columns)
        return part.transpose("sample", "channel", "time", "y", "x").values

    def _steps_at_once(self, rows: int, columns: int) -> int:
        per_step = self.num_samples * len(self.channels) * rows * columns
        return min(self.chunks[0], max(1, VALUES_PER_BLOCK // per_step))

    def _over_time(self, rows: slice, columns: slice) -> np.ndarray:
        """The mean or the maximum of every sample over all time steps: (sample, channel, 1, y, x)."""
        steps = self._steps_at_once(rows.stop - rows.start, columns.stop - columns.start)
        result = None
        for time in parts(self.num_steps, steps):
            values = self._read(self.variables[0], time, rows, columns)
            if self.time == "max":
                part = values.max(axis=2, keepdims=True)
                result = part if result is None else np.maximum(result, part)
            else:
                part = values.sum(axis=2, keepdims=True, dtype=np.float64) / self.num_steps
                result = part if result is None else result + part
        return result

    def _busy_step(self) -> int:
        # Statistics and differences have their traffic under these names; the busy hour is not that of a spread.
        traffic = [name for name in ("mean", "before") if name in self.dataset.data_vars and not self.sampled]
        variable = self._stored(traffic[0]) if traffic else self.variables[0]
        totals = np.zeros(self.num_steps)
        once = self.zones is not None and "sum" in self.attributes.get("cell_methods", "")
        _, rows, columns = self.chunks
        for row, column in product(parts(len(self.y), rows), parts(len(self.x), columns)):
            for time in parts(self.num_steps, self._steps_at_once(rows, columns)):
                values = self._read(variable, time, row, column)[:, 0]
                # Every cell of an area has its total.
                values = np.where(self.zones.first[row, column], values, 0) if once else values
                totals[time] += np.nansum(values, axis=(0, 2, 3), dtype=np.float64)
        return int(totals.argmax())


@contextmanager
def open_level(path, level, statistics, time, threshold):
    """The root of a file and the [`LevelStatistics`] of one level, until the file is closed at the end of `with`."""
    with open_levels(path) as (root, levels):
        yield root, LevelStatistics(path, levels, level, statistics, time, threshold)


def parts(size: int, step: int) -> list[slice]:
    """`range(size)` as slices of at most `step`."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
