# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The grid of a real city: square cells in its UTM zone, edges at multiples of the cell size."""

import math
from dataclasses import dataclass

import geopandas
import numpy as np
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError


MAX_CELLS = 4_000_000
WGS84 = CRS.from_epsg(4326)


@dataclass(frozen=True)
class Grid:
    """
    Args:
        epsg (`int`): The UTM zone, an EPSG code.
        left (`float`), bottom (`float`): Its south-western corner in m.
        height (`int`), width (`int`): Its cells; rows run from south to north, columns from west to east.
        cell_size (`float`): Side of a cell in m.
    """

    epsg: int
    left: float
    bottom: float
    height: int
    width: int
    cell_size: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top in m."""
        size = self.cell_size
        return self.left, self.bottom, self.left + self.width * size, self.bottom + self.height * size

    @property
    def y(self) -> np.ndarray:
        """Centres of the rows in m, (height,)."""
        return self.bottom + (np.arange(self.height) + 0.5) * self.cell_size

    @property
    def x(self) -> np.ndarray:
        """Centres of the columns in m, (width,)."""
        return self.left + (np.arange(self.width) + 0.5) * self.cell_size

    def widened(self, margin: float) -> "Grid":
        """The grid with at least so many metres more on all sides."""
        cells = math.ceil(margin / self.cell_size)
        left, bottom = self.left - cells * self.cell_size, self.bottom - cells * self.cell_size
        return Grid(self.epsg, left, bottom, self.height + 2 * cells, self.width + 2 * cells, self.cell_size)

    def bounds_in(self, crs) -> tuple[float, float, float, float]:
        """The box around the grid in another coordinate reference system, x before y."""
        return Transformer.from_crs(self.epsg, crs, always_xy=True).transform_bounds(*self.bounds, densify_pts=21)

    def rows_and_columns(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row and column of each position in m, and which of them lie in the grid; the others' are 0."""
        row = np.floor((np.asarray(y) - self.bottom) / self.cell_size)
        column = np.floor((np.asarray(x) - self.left) / self.cell_size)
        inside = (row >= 0) & (row < self.height) & (column >= 0) & (column < self.width)
        return np.where(inside, row, 0).astype(np.int64), np.where(inside, column, 0).astype(np.int64), inside

    def boxes(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The cells at these rows and columns as polygons."""
        left, bottom = self.left + columns * self.cell_size, self.bottom + rows * self.cell_size
        return shapely.box(left, bottom, left + self.cell_size, bottom + self.cell_size)


def make_grid(area, cell_size: float, multiple: int) -> Grid:
    """
    The smallest grid around an area whose height and width are multiples of `multiple` cells.

    What has to be added for that is added on both sides alike.

    Args:
        area (`shapely.Geometry`): The area in degrees, longitude before latitude.
        cell_size (`float`): Side of a cell in m.
        multiple (`int`): Cells along the coarsest unit of the traffic.

    Raises:
        ValueError: If the area lies outside of the UTM zones or the grid would have more than `MAX_CELLS` cells.
    """
    west, south, east, north = area.bounds
    longitude, latitude = (west + east) / 2, (south + north) / 2
    if not -80 <= south <= north <= 84:
        raise ValueError(f"The area goes from latitude {south:g} to {north:g}; UTM zones only cover -80 to 84.")
    zone = min(int((longitude + 180) // 6) + 1, 60)
    epsg = (32600 if latitude >= 0 else 32700) + zone
    project = Transformer.from_crs(WGS84, epsg, always_xy=True).transform
    projected = shapely.transform(along_degrees(area), project, interleaved=False)
    left, bottom, right, top = projected.bounds
    if not np.isfinite(projected.bounds).all():
        raise ValueError(f"The area from longitude {west:g} to {east:g} does not fit into one UTM zone.")
    (bottom, height), (left, width) = (
        _whole_units(low, high, cell_size, multiple) for low, high in ((bottom, top), (left, right))
    )
    if height * width > MAX_CELLS:
        raise ValueError(
            f"The area has {height} x {width} cells of {cell_size:g} m; more than {MAX_CELLS:,} are not supported."
            " Give a smaller boundary or larger cells."
        )
    return Grid(epsg, left, bottom, height, width, cell_size)


def along_degrees(area):
    """The same area with enough points along its edges, which are straight in degrees but curved in a UTM zone."""
    west, south, east, north = area.bounds
    return shapely.segmentize(area, max(east - west, north - south, 1e-9) / 50)


def _whole_units(low: float, high: float, cell_size: float, multiple: int) -> tuple[float, int]:
    """First edge and number of cells along an axis; a millionth of a cell is rounding."""
    first, last = math.floor(low / cell_size + 1e-6), math.ceil(high / cell_size - 1e-6)
    count = max(last - first, 1)
    missing = -count % multiple
    return (first - missing // 2) * cell_size, count + missing


def read_boundary(path) -> tuple:
    """
    Read a boundary: all polygons of a vector file (GeoJSON, GeoPackage, Shapefile ...) as one.

    Returns:
        `tuple[shapely.Geometry, list[str]]`: in degrees, longitude before latitude; and what had to be repaired.

    Raises:
        ValueError: If the file cannot be read, has no coordinate reference system or no polygon with an area.
    """
    try:
        table = geopandas.read_file(path, engine="pyogrio")
    except Exception as error:  # pyogrio's errors have no common base besides it
        raise ValueError(f"{path} is not a readable vector file ({_first_line(error)}).") from error
    if not isinstance(table, geopandas.GeoDataFrame) or table.geometry.isna().all() or table.geometry.is_empty.all():
        raise ValueError(f"{path} is empty: the boundary needs at least one polygon.")
    if table.crs is None:
        raise ValueError(f"{path} has no coordinate reference system; in GeoJSON it is longitude and latitude.")
    geometries = table.geometry.dropna()
    kinds = sorted(set(geometries.geom_type))
    geometries = geometries[geometries.geom_type.isin(["Polygon", "MultiPolygon"])]
    notes = []
    if not geometries.is_valid.all():
        notes.append(f"the boundary had {int((~geometries.is_valid).sum())} invalid polygon(s), which were repaired")
        geometries = geometries.make_valid()
    if geometries.empty or not (shapely.area(geometries.to_numpy()) > 0).any():
        raise ValueError(f"{path} has no polygon with an area, only {', '.join(kinds)}.")
    degrees = geometries.to_crs(WGS84).union_all()
    west, south, east, north = degrees.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise ValueError(
            f"{path} goes from ({west:g}, {south:g}) to ({east:g}, {north:g}), which is no longitude and latitude."
            " Either its coordinate reference system is not the one it names, or x and y are swapped."
        )
    return degrees, notes


def check_overlap(area, box: tuple, what: str, of_what: str) -> None:
    """
    Refuse an area that lies outside of a box, both in degrees.

    Raises:
        ValueError: With a hint if longitude and latitude of `area` seem to be swapped.
    """
    if area.intersection(shapely.box(*box)).area > 0:
        return
    swapped = shapely.transform(area, lambda x, y: (y, x), interleaved=False)
    hint = ""
    if swapped.intersects(shapely.box(*box)):
        hint = " With x and y exchanged it would lie inside: longitude and latitude seem to be swapped."
    raise ValueError(f"{what} ({_text(area.bounds)}) lies outside of {of_what} ({_text(box)}).{hint}")


def parse_crs(text: str) -> CRS:
    """The coordinate reference system that a text such as `EPSG:32635` names.

    Raises:
        ValueError: If it names none.
    """
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise ValueError(f"{text!r} is no coordinate reference system; expected one such as EPSG:4326.") from error


def _text(box) -> str:
    west, south, east, north = box
    return f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
