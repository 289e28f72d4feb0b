# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Levels as GeoTIFF images."""

from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from ..stores import replace_file
from .level_statistics import OVER_TIME, LevelStatistics, open_level, parts
from .report import licence_of, report
from .rows import time_texts


TILE = 256
MAX_BANDS = 65535
GDAL_CACHE = 64 * 2**20  # bytes


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
    with open_level(path, level, statistics, time, threshold) as (root, source):
        system, (y_edges, x_edges) = source.crs(crs), source.edges()
        count = len(source.columns) * len(source.channels) * source.num_times
        if count > MAX_BANDS:
            raise ValueError(f"A GeoTIFF has at most {MAX_BANDS} bands, not {count}: choose another `time`.")
        replace_file(Path(output), lambda file: _write_geotiff(file, source, system, y_edges, x_edges, root))
        return report(source, output, crs=system.to_string(), bands=count, **licence_of(root))


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
            texts |= {name: text for text in licence_of(root).values() for name in ("TIFFTAG_COPYRIGHT", "licence")}
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
    for top, left in product(parts(height, TILE), parts(width, TILE)):
        rows = slice(height - top.stop, height - top.start) if to_north else top
        columns = slice(width - left.stop, width - left.start) if to_west else left
        size = left.stop - left.start, top.stop - top.start
        for time in source.time_blocks(*size):
            yield (left.start, top.start, *size), time, rows, columns
