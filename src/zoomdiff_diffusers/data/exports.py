# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Levels in the formats of other programs: GeoTIFF, GeoParquet, CSV and NetCDF.

Everything is read and written block by block: memory does not grow with the area.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from .ensembles import over_samples, quantile_of
from .stores import GRID_MAPPING, open_levels, replace_file
from .tables import level_table, time_texts


TIMES = ("each", "mean", "max", "busy-hour")
OVER_TIME = {"mean": "mean over the time", "max": "maximum over the time"}
VALUES_PER_BLOCK = 2**25  # of all samples, in single precision: 128 MiB
ROWS_PER_GROUP = 2**19
TILE = 256
MAX_BANDS = 65535
GDAL_CACHE = 64 * 2**20  # bytes
LICENCES = ("context_licence", "licence")  # attributes that say what is owed to the sources of a file


class Zones:
    """
    The areas of a level whose units are no squares.

    Args:
        labels (`np.ndarray`): (H, W), which area serves each cell.
    """

    def __init__(self, labels: np.ndarray):
        self.labels = labels.astype(np.int32)
        self.names, first, self.index, self.cells = np.unique(
            self.labels, return_index=True, return_inverse=True, return_counts=True
        )
        self.index = self.index.reshape(labels.shape)
        self.first = np.zeros(labels.shape, bool)  # one cell of each area, whose value is that of the area
        self.first.flat[first] = True

    def centres(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean position of the cells of each area."""
        rows, columns = np.indices(self.labels.shape)
        return tuple(
            np.bincount(self.index.ravel(), centres[places.ravel()]) / self.cells
            for centres, places in ((y, rows), (x, columns))
        )

    def polygons(self, y_edges: np.ndarray, x_edges: np.ndarray) -> np.ndarray:
        """Each area as a multipolygon along the edges of its cells."""
        import shapely
        from affine import Affine
        from rasterio.features import shapes

        height, width = self.labels.shape
        steps = (x_edges[-1] - x_edges[0]) / width, (y_edges[-1] - y_edges[0]) / height
        transform = Affine(steps[0], 0, x_edges[0], 0, steps[1], y_edges[0])
        found = sorted(shapes(self.index.astype(np.int32), transform=transform), key=lambda each: each[1])
        parts = shapely.orient_polygons(np.array([shapely.geometry.shape(outline) for outline, _ in found]))
        return shapely.multipolygons(parts, indices=np.array([index for _, index in found], dtype=np.int64))


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
        of_channels = [str(unit) for unit in self.dataset["unit"].values] if "unit" in self.dataset.coords else None
        found = []
        for position, name in enumerate(self.columns):
            stored = self.variables[0 if self.sampled else position].attrs.get("units", "")
            unit = "1" if name.startswith("exceedance") else stored
            found.append(of_channels if of_channels and unit != "1" else [unit] * len(self.channels))
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

        from .open_data.grid import parse_crs

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
        if not crs.is_projected or any(axis.unit_conversion_factor != 1 for axis in crs.axis_info):
            raise ValueError(f"`crs` must count metres, as the coordinates of {self.path} do; {crs.name} does not.")
        return crs

    def time_blocks(self, rows: int, columns: int) -> list[slice]:
        """Time steps of `values` that fit into memory for so many rows and columns."""
        return _parts(self.num_times, self._steps_at_once(rows, columns))

    def blocks(self) -> Iterator[tuple[slice, slice, slice]]:
        """Time steps, rows and columns of `values`, on the chunks of the file where these fit into memory."""
        _, rows, columns = self.chunks
        per_row = self.num_samples * len(self.channels) * columns
        rows = min(rows, max(1, VALUES_PER_BLOCK // per_row))
        for row, column in product(_parts(len(self.y), rows), _parts(len(self.x), columns)):
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
        for time in _parts(self.num_steps, steps):
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
        for row, column in product(_parts(len(self.y), rows), _parts(len(self.x), columns)):
            for time in _parts(self.num_steps, self._steps_at_once(rows, columns)):
                values = self._read(variable, time, row, column)[:, 0]
                # Every cell of an area has its total.
                values = np.where(self.zones.first[row, column], values, 0) if once else values
                totals[time] += np.nansum(values, axis=(0, 2, 3), dtype=np.float64)
        return int(totals.argmax())


def export_geotiff(path, output, level=None, statistics=("mean",), time="each", threshold=None, crs=None) -> dict:
    """
    Write one level as a GeoTIFF: north up, a band per statistic, channel and time step, whose name says which.

    Args:
        path (`str` or `os.PathLike`): NetCDF file or Zarr store of levels, or of statistics over their samples.
        output (`str` or `os.PathLike`): The file. An existing one is replaced when the new one is complete.
        level (`str`, *optional*), statistics (`Sequence[str]`), time (`str`), threshold (`float`, *optional*):
            See [`LevelStatistics`].
        crs (`str`, *optional*): Coordinate reference system, such as EPSG:32635, if the file does not name it.

    Returns:
        `dict`: what was written, JSON-safe.

    Raises:
        ValueError: If the file does not have what is asked for.
        OSError: If `output` cannot be written.
    """
    with _open(path, level, statistics, time, threshold) as (root, source):
        system, (y_edges, x_edges) = source.crs(crs), source.edges()
        count = len(source.columns) * len(source.channels) * source.num_times
        if count > MAX_BANDS:
            raise ValueError(f"A GeoTIFF has at most {MAX_BANDS} bands, not {count}: choose another `time`.")
        replace_file(Path(output), lambda file: _write_geotiff(file, source, system, y_edges, x_edges, root))
        return _report(source, output, crs=system.to_string(), bands=count, **_licence(root))


def export_geoparquet(path, output, level=None, statistics=("mean",), time="each", threshold=None, crs=None) -> dict:
    """
    Write one level as GeoParquet: a row per unit with its square, and per channel and time step if there are several.
    Where units are no squares, it is the area that a unit serves.

    The columns are those of the CSV file, and `geometry`. For the arguments and errors see [`export_geotiff`].
    """
    with _open(path, level, statistics, time, threshold) as (root, source):
        system, (y_edges, x_edges) = source.crs(crs), source.edges()
        replace_file(Path(output), lambda file: _write_geoparquet(file, source, system, y_edges, x_edges, root))
        return _report(source, output, crs=system.to_string(), rows=_num_rows(source), **_licence(root))


def export_csv(path, output, level=None, statistics=("mean",), time="each", threshold=None) -> dict:
    """
    Write one level as a table: a row per unit, and per channel and time step if there are several.

    The columns are `level`, `channel`, `time` (start of the interval), `y`, `x` (centre of the unit, m), `unit` (of
    the statistics that are no shares), and the statistics. The rows of a large area come block by block. For the
    arguments and errors see [`export_geotiff`].
    """
    with _open(path, level, statistics, time, threshold) as (root, source):
        replace_file(Path(output), lambda file: _write_csv(file, source))
        return _report(source, output, rows=_num_rows(source), **_licence(root))


def export_netcdf(path, output, level=None) -> dict:
    """
    Write a store as one NetCDF-4 file with the same groups, variables and attributes.

    Args:
        path (`str` or `os.PathLike`): Zarr store or NetCDF file of levels, or of statistics over their samples.
        output (`str` or `os.PathLike`): The file. An existing one is replaced when the new one is complete.
        level (`str`, *optional*): The only level to write; all by default.

    Returns:
        `dict`: what was written, JSON-safe.

    Raises:
        ValueError: If there is no such level.
        OSError: If `output` cannot be written.
    """
    with open_levels(path) as (root, levels):
        if level is not None:
            if level not in levels:
                raise ValueError(f"`level` must be one of {list(levels)}, the levels of {path}, but is {level!r}.")
            levels = {level: levels[level]}
        top = root.to_dataset().assign_attrs(levels=list(levels))

        def write(file):
            try:
                _write_netcdf(file, levels, top, path)
            except RuntimeError as error:  # the NetCDF library's own errors
                raise OSError(f"{error}; is the disk full?") from error

        replace_file(Path(output), write)
        shapes = {name: {it: list(values.shape) for it, values in each.items()} for name, each in levels.items()}
        return {"output": str(output), "levels": shapes, **_licence(root)}


@contextmanager
def _open(path, level, statistics, time, threshold):
    with open_levels(path) as (root, levels):
        yield root, LevelStatistics(path, levels, level, statistics, time, threshold)


def _report(source: LevelStatistics, output, **more) -> dict:
    return {
        "output": str(output),
        "level": source.name,
        "height": len(source.y),
        "width": len(source.x),
        "channels": source.channels,
        "statistics": source.columns,
        "times": source.num_times,
        "first_time": None if source.times is None else str(time_texts(source.times[:1])[0]),
        **more,
    }


def _licence(root: xr.DataTree) -> dict[str, str]:
    """What is owed to the sources of a file, such as "© OpenStreetMap contributors", if it says so."""
    texts = [str(root.attrs[name]) for name in LICENCES if name in root.attrs]
    return {"licence": texts[0]} if texts else {}


def _num_rows(source: LevelStatistics) -> int:
    units = len(source.y) * len(source.x) if source.zones is None else len(source.zones.names)
    return len(source.channels) * source.num_times * units


def _parts(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _write_geotiff(file: Path, source: LevelStatistics, crs, y_edges, x_edges, root: xr.DataTree):
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    height, width = len(source.y), len(source.x)
    period = OVER_TIME.get(source.time, "of the whole time")
    times = [period] if source.times is None else [str(text) for text in time_texts(source.times)]
    bands = list(product(range(len(source.columns)), range(len(source.channels)), times))
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": len(bands),
        "dtype": "float32",
        "nodata": np.nan,
        "crs": crs.to_wkt(),
        "transform": Affine(np.ptp(x_edges) / width, 0, x_edges.min(), 0, -np.ptp(y_edges) / height, y_edges.max()),
        "tiled": True,
        "blockysize": min(TILE, -(-height // 16) * 16),
        "blockxsize": min(TILE, -(-width // 16) * 16),
        "interleave": "band",
        "compress": "deflate",
        "predictor": 3,
        "bigtiff": "if_safer",
    }
    numbers = np.arange(1, len(bands) + 1).reshape(len(source.columns), len(source.channels), len(times))
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE):
        with rasterio.open(file, "w", **profile) as image:
            texts = {name: str(value) for name, value in root.attrs.items() if name in ("title", "source", "seed")}
            texts |= {name: text for text in _licence(root).values() for name in ("TIFFTAG_COPYRIGHT", "licence")}
            image.update_tags(level=source.name, description=source.attributes.get("long_name", ""), **texts)
            units, several = source.units, len(source.channels) > 1
            for number, (statistic, channel, when) in enumerate(bands, start=1):
                name = [source.columns[statistic].removesuffix(f"_of_{source.time}"), when]
                image.set_band_description(number, " ".join([source.channels[channel], *name] if several else name))
                image.set_band_unit(number, units[statistic][channel])
            for window, time, rows, columns in _tiles(source):
                # Rows of an image go from north to south, columns from west to east.
                values = source.values(time, rows, columns)
                values = values if y_edges[0] > y_edges[-1] else values[..., ::-1, :]
                values = values if x_edges[0] < x_edges[-1] else values[..., ::-1]
                indexes = numbers[..., time].ravel().tolist()
                image.write(values.reshape(-1, *values.shape[-2:]), indexes=indexes, window=Window(*window))
        # An error at the end is only seen by who reads the file.
        try:
            with rasterio.open(file) as image:
                for window, time, _, _ in _tiles(source):
                    image.read(indexes=numbers[..., time].ravel().tolist(), window=Window(*window))
        except rasterio.errors.RasterioIOError as error:
            raise OSError("what was written cannot be read; is the disk full?") from error


def _tiles(source: LevelStatistics):
    """Of every tile of an image, north up: its window, and the time steps, rows and columns of the source."""
    height, width = len(source.y), len(source.x)
    to_north, to_west = source.y[0] < source.y[-1] or height == 1, source.x[0] > source.x[-1]
    for top, left in product(_parts(height, TILE), _parts(width, TILE)):
        rows = slice(height - top.stop, height - top.start) if to_north else top
        columns = slice(width - left.stop, width - left.start) if to_west else left
        size = left.stop - left.start, top.stop - top.start
        for time in source.time_blocks(*size):
            yield (left.start, top.start, *size), time, rows, columns


def _write_geoparquet(file: Path, source: LevelStatistics, crs, y_edges, x_edges, root: xr.DataTree):
    import pyarrow
    import pyarrow.parquet
    import shapely

    box = [float(bound) for bound in (x_edges.min(), y_edges.min(), x_edges.max(), y_edges.max())]
    column = {
        "encoding": "WKB",
        "geometry_types": ["Polygon" if source.zones is None else "MultiPolygon"],
        "crs": crs.to_json_dict(),
        "orientation": "counterclockwise",
        "bbox": box,
    }
    metadata = {"geo": json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}})}
    metadata |= _licence(root)
    polygons = None if source.zones is None else shapely.to_wkb(source.zones.polygons(y_edges, x_edges))
    writer, place, outlines = None, None, None
    try:
        for time, rows, columns, table in _tables(source):
            if (rows, columns) != place:
                place = rows, columns
                if polygons is None:
                    outlines = shapely.to_wkb(
                        _squares(y_edges[rows.start : rows.stop + 1], x_edges[columns.start : columns.stop + 1])
                    )
                else:
                    outlines = polygons[source.zones.index[rows, columns][source.zones.first[rows, columns]]]
                outlines = pyarrow.array(outlines, pyarrow.binary())
            if "time" in table:
                table["time"] = table["time"].astype(source.times.dtype)
            table = pyarrow.Table.from_pandas(table, preserve_index=False)
            repeated = outlines.take(np.tile(np.arange(len(outlines)), len(table) // len(outlines)))
            table = table.append_column("geometry", repeated).replace_schema_metadata(metadata)
            writer = writer or pyarrow.parquet.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _squares(y_edges: np.ndarray, x_edges: np.ndarray) -> np.ndarray:
    """The units between these edges as polygons, row by row."""
    import shapely

    south, north = np.sort([y_edges[:-1], y_edges[1:]], axis=0)
    west, east = np.sort([x_edges[:-1], x_edges[1:]], axis=0)
    south, north = (np.repeat(it, len(west)) for it in (south, north))
    west, east = (np.tile(it, len(y_edges) - 1) for it in (west, east))
    return shapely.box(west, south, east, north)


def _write_csv(file: Path, source: LevelStatistics):
    with open(file, "w", encoding="utf-8", newline="") as lines:
        for number, (_, _, _, table) in enumerate(_tables(source, as_text=True)):
            table.to_csv(lines, index=False, header=number == 0, lineterminator="\n")


def _tables(source: LevelStatistics, as_text=False):
    """Time steps, rows and columns, and the table of their values, for one part of a level after the other."""
    times = time_texts(source.times) if as_text and source.times is not None else source.times
    centres = None if source.zones is None else source.zones.centres(source.y, source.x)
    shares = ["1"] * len(source.channels)
    units = next((each for each in source.units if each != shares), shares)
    for time, rows, columns in source.blocks():
        if source.zones is not None and not source.zones.first[rows, columns].any():
            continue
        values = source.values(time, rows, columns)
        cells = values[0, :, 0].size
        for steps in _parts(values.shape[2], max(1, ROWS_PER_GROUP // cells)):
            part = slice(time.start + steps.start, time.start + steps.stop)
            table = level_table(
                source.name,
                source.channels,
                units,
                None if times is None else times[part],
                source.y[rows],
                source.x[columns],
                dict(zip(source.columns, values[:, :, steps])),
                as_text,
            )
            if source.zones is not None:
                table = _rows_of_zones(table, source.zones, rows, columns, centres)
            yield part, rows, columns, table


def _rows_of_zones(table, zones: Zones, rows: slice, columns: slice, centres):
    """Of a table of cells, one row for each area that has its first cell there."""
    first = zones.first[rows, columns].ravel()
    repeats = len(table) // first.size
    table = table[np.tile(first, repeats)].reset_index(drop=True)
    index = np.tile(zones.index[rows, columns].ravel()[first], repeats)
    table["y"], table["x"] = (positions[index] for positions in centres)
    table.insert(table.columns.get_loc("y"), "zone", zones.names[index])
    return table


def _write_netcdf(file: Path, levels: dict[str, xr.Dataset], top: xr.Dataset, path):
    import netCDF4

    maps = {
        name: [it for it, values in level.data_vars.items() if {"y", "x"} <= set(values.dims)]
        for name, level in levels.items()
    }
    small = {f"/{name}": level.drop_vars(maps[name]) for name, level in levels.items()}
    tree = xr.DataTree.from_dict({"/": top, **small})
    tree.to_netcdf(file, engine="netcdf4")
    with netCDF4.Dataset(file, "a") as dataset:
        for name, level in levels.items():
            group = dataset[name]
            for dimension, size in level.sizes.items():
                if dimension not in group.dimensions:
                    group.createDimension(dimension, size)
            for variable in (level[it] for it in maps[name]):
                _copy(variable, group, path)


def _copy(variable: xr.DataArray, group, path):
    """Copy a variable of the file at `path` into a NetCDF group, chunk by chunk."""
    in_source = variable.encoding.get("preferred_chunks", {})
    chunks = [min(size, in_source.get(axis, size)) for axis, size in variable.sizes.items()]
    copy = group.createVariable(
        variable.name,
        variable.dtype.newbyteorder("="),
        variable.dims,
        chunksizes=chunks,
        fill_value=np.nan if variable.dtype.kind == "f" else None,
        compression="zlib",
        complevel=1,
        shuffle=True,
    )
    copy.setncatts(variable.attrs)
    for part in product(*(_parts(size, step) for size, step in zip(variable.shape, chunks))):
        try:
            values = variable[part].values
        except RuntimeError as error:
            raise ValueError(f"{path} is damaged ({error}).") from error
        copy[part] = values
