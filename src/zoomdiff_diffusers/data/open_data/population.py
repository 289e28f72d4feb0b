# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Residents per cell: from a raster of counts, whose sum is kept, or else estimated from building volume."""

import geopandas
import numpy as np
import rasterio
import shapely
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from pyproj import CRS, Transformer
from rasterio.windows import Window

from ..simulated_context import AOI_BUILDINGS, AOI_CLASSES, CUBIC_METRES_PER_RESIDENT
from .grid import WGS84, Grid, check_overlap
from .tags import DWELLINGS, UNTOLD


ROWS_AT_ONCE = 64


def read_population(path, grid: Grid) -> tuple[np.ndarray, dict]:
    """
    Residents per cell from a raster of residents per pixel (WorldPop, GHS-POP ...) in any coordinate reference system.

    Every pixel is shared out to the cells by area, exactly, so that what lies inside of the grid adds up to the same
    sum (to about 1e-6). Negative values that the raster does not declare as missing are taken for 0.

    Args:
        path (`str` or `os.PathLike`): A raster that GDAL reads; its first band.
        grid ([`Grid`]): The cells.

    Returns:
        `tuple[np.ndarray, dict]`: (H, W), and `smallest`, the most negative value or 0, and `covered_share`, the
        share of the grid that the raster covers.

    Raises:
        ValueError: If the raster cannot be read, has no coordinate reference system, is rotated, lies elsewhere, or
            has no residents in the grid.
    """
    try:
        with rasterio.open(path) as raster:
            _check(raster, path, grid)
            return _shared_out(raster, path, grid)
    except rasterio.errors.RasterioError as error:
        # A read that fails says why in the error before it.
        raise ValueError(f"{path} is not a readable raster, or a damaged one ({error.__cause__ or error}).") from error


def _check(raster, path, grid: Grid) -> None:
    if raster.crs is None:
        raise ValueError(f"{path} has no coordinate reference system, so that nobody knows where its pixels lie.")
    transform = raster.transform
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise ValueError(f"{path} is rotated or mirrored ({tuple(transform)[:6]}); rows must run south, columns east.")
    if np.dtype(raster.dtypes[0]).kind not in "iuf":
        raise ValueError(f"{path} holds {raster.dtypes[0]} values, but must hold numbers of residents.")
    crs = CRS.from_user_input(raster.crs)
    area = shapely.box(*grid.bounds_in(WGS84))
    bounds = raster.bounds
    if crs.is_geographic:
        check_overlap(shapely.box(*bounds), area.bounds, str(path), "the area")
    elif not shapely.box(*bounds).intersects(shapely.box(*grid.bounds_in(crs))):
        raise ValueError(f"{path} ({tuple(bounds)} in {crs.name}) lies outside of the area.")


def _shared_out(raster, path, grid: Grid) -> tuple[np.ndarray, dict]:
    crs = CRS.from_user_input(raster.crs)
    transform = Transformer.from_crs(grid.epsg, crs, always_xy=True).transform
    residents, covered, smallest = np.zeros(grid.shape), 0.0, 0.0
    for first in range(0, grid.height, ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, grid.height)
        cells = _cells(grid, first, last, transform)
        window = _window_around(raster, shapely.total_bounds(cells))
        if window is None:
            continue
        values = raster.read(1, window=window, masked=True).astype(np.float64)
        values = np.ma.masked_invalid(values).filled(0.0)
        smallest = min(smallest, float(values.min()))
        source = NumPyRasterSource(values.clip(min=0.0), *_extent(raster, window), srs_wkt=crs.to_wkt())
        table = exact_extract(
            source, geopandas.GeoDataFrame(geometry=cells, crs=crs), ["sum", "count"], output="pandas"
        )
        residents[first:last] = np.nan_to_num(table["sum"].to_numpy(float)).reshape(last - first, grid.width)
        pixel = abs(raster.transform.a * raster.transform.e)
        covered += float(np.minimum(table["count"].to_numpy(float) * pixel / shapely.area(cells), 1.0).sum())
    if not residents.sum() > 0:
        raise ValueError(f"{path} has no residents in the area: all its values there are 0, negative or missing.")
    return residents, {"smallest": smallest, "covered_share": covered / residents.size}


def _cells(grid: Grid, first: int, last: int, transform) -> np.ndarray:
    """The cells of some rows as polygons in the raster's coordinates; neighbours share their corners."""
    left, bottom, _, _ = grid.bounds
    y = bottom + np.arange(first, last + 1) * grid.cell_size
    x = left + np.arange(grid.width + 1) * grid.cell_size
    corners = np.stack(transform(*np.meshgrid(x, y)), axis=-1)
    around = [corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1], corners[:-1, :-1]]
    return shapely.polygons(np.stack(around, axis=2).reshape(-1, 5, 2))


def _window_around(raster, bounds) -> Window | None:
    """All pixels that touch a box; `None` if there are none."""
    left, bottom, right, top = bounds
    width, west, height, north = (getattr(raster.transform, name) for name in "acef")
    columns = max(int(np.floor((left - west) / width)), 0), min(int(np.ceil((right - west) / width)), raster.width)
    rows = max(int(np.floor((top - north) / height)), 0), min(int(np.ceil((bottom - north) / height)), raster.height)
    if columns[0] >= columns[1] or rows[0] >= rows[1]:
        return None
    return Window.from_slices(rows, columns)


def _extent(raster, window: Window) -> tuple[float, float, float, float]:
    """West, south, east and north of a window."""
    width, west, height, north = (getattr(raster.transform, name) for name in "acef")
    left, top = west + window.col_off * width, north + window.row_off * height
    return left, top + window.height * height, left + window.width * width, top


def estimate_population(volume: np.ndarray, aoi: np.ndarray, total: float | None = None) -> np.ndarray:
    """
    Residents per cell in proportion to the volume that is lived in.

    The share of a building that is lived in and the volume per resident are those of the simulated city: 90 % of a
    building with dwellings, the share of the AOI class where no tag tells, and 280 m3.

    Args:
        volume (`np.ndarray`): (3, H, W), m3 of buildings with dwellings, without, and untold.
        aoi (`np.ndarray`): (H, W), codes of `AOI_CLASSES`.
        total (`float`, *optional*): Residents of the whole grid, to which the estimate is scaled.

    Raises:
        ValueError: If a total is given, but nobody can live anywhere.
    """
    shares = AOI_BUILDINGS[:, 2]
    lived_in = volume[DWELLINGS] * shares[AOI_CLASSES.index("residential")] + volume[UNTOLD] * shares[aoi]
    residents = lived_in / CUBIC_METRES_PER_RESIDENT
    if total is None:
        return residents
    if not residents.sum() > 0:
        raise ValueError("There are no buildings in the area in which the total population could live.")
    return residents * (total / residents.sum())
