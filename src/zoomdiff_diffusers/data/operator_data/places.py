# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Where the units of a table are: nowhere, on squares of a grid, at sites, or in coverage polygons."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from ..simulated_context import SECTORS, SITES
from ..zones import polygon_zones, sector_zones, sites_outside, voronoi_zones, zones_without_cells


ID_COLUMNS = ("id", "unit", "unit_id", "cell", "cell_id", "sector", "station", "station_id", "site", "site_id", "name")
SITE_COLUMNS = ("site", "site_id", "station", "station_id")
X_COLUMNS, Y_COLUMNS = ("lon", "longitude", "lng", "x"), ("lat", "latitude", "y")
POLYGONS = "zone"
SAME_SQUARE = 0.01  # difference between squares, as a share of their side, that rounding explains
MAX_CELLS = 4_000_000


@dataclass
class Places:
    """
    The units that come out, and which of them the units of the table belong to.

    Args:
        names (`list[str]`): Ids of the units that come out.
        unit_of (`dict[str, int]`): Index in `names` by the id in the table; units that are not in it are left out.
        labels (`np.ndarray`, *optional*): (H, W) int32, the unit that serves each cell, if there is a grid.
        distance (`np.ndarray`, *optional*):
            (H, W) metres from the middle of each cell to the site or the polygon that serves it.
        squares (`bool`): Each unit is one cell of the grid.
        zones (`dict[str, np.ndarray]`): Layers (H, W) of the zones by name, for the context.
        context (`xr.Dataset`): Coordinates `y`, `x` and `spatial_ref` as far as they are known, and the layers.
        positions (`dict[str, np.ndarray]`): Of the units, without a grid: `x` and `y`, or `lon` and `lat`.
        merged (`dict[str, str]`): Units without a cell of their own, and the unit that their traffic was added to.
        notes (`list[str]`): What had to be done, in words.
    """

    names: list[str]
    unit_of: dict[str, int]
    labels: np.ndarray | None = None
    distance: np.ndarray | None = None
    squares: bool = False
    zones: dict[str, np.ndarray] = field(default_factory=dict)
    context: xr.Dataset = field(default_factory=xr.Dataset)
    positions: dict[str, np.ndarray] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Sites:
    """A table of sites or sectors: ids, positions (N,), azimuths (N,) with NaN for none, and the site of each."""

    path: Path
    names: list[str]
    axes: tuple[str, str]
    x: np.ndarray
    y: np.ndarray
    azimuth: np.ndarray
    site: list[str]
    crs: str | None


def read_context(path) -> xr.Dataset:
    """
    A NetCDF file of layers on a grid.

    Raises:
        ValueError: If it is none, or lacks the coordinates `y` and `x`.
    """
    try:
        context = xr.load_dataset(path, engine="netcdf4")
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not a readable NetCDF-4 file ({error}).") from error
    for axis in ("y", "x"):
        if axis not in context.coords or context[axis].dims != (axis,):
            raise ValueError(f"{path} must have the coordinates y and x of its cells; it has {list(context.coords)}.")
    return context


def places_of_units(units: list[str], sites: Sites | None = None) -> Places:
    """Every unit is an area of its own; with the positions of a table of sites, if there is one."""
    if sites is None:
        return Places(units, {unit: index for index, unit in enumerate(units)})
    _check_overlap(units, sites.names, sites.path)
    places = Places(sites.names, {name: index for index, name in enumerate(sites.names)})
    places.positions = {sites.axes[0]: sites.x, sites.axes[1]: sites.y}
    if sites.crs is not None:
        places.context = xr.Dataset(coords={"spatial_ref": grid_mapping(sites.crs)})
    return places


def places_of_squares(units: list[str], width: int, first_id: int, cell_size: float, height, context) -> Places:
    """
    The units are squares of a grid, numbered along the rows from the south-west.

    Args:
        units (`list[str]`): Ids of the table: whole numbers.
        width (`int`): Squares in a row.
        first_id (`int`): Number of the south-western square.
        cell_size (`float`): Side of a square in m.
        height (`int`, *optional*): Rows. Default: up to the highest number.
        context (`xr.Dataset`, *optional*): A grid of the same squares, with layers.

    Raises:
        ValueError: If an id is no number of the grid, the context has another grid, or without a context the grid
            would have more than `MAX_CELLS` cells.
    """
    numbers = {}
    for unit in units:
        try:
            numbers[unit] = int(unit) - first_id
        except ValueError as error:
            raise ValueError(f"The unit {unit!r} is not the number of a square, which --grid-width needs.") from error
    if height is None:
        height = max(numbers.values()) // width + 1 if context is None else context.sizes["y"]
    if context is None and height * width > MAX_CELLS:
        highest = first_id + max(numbers.values())
        raise ValueError(
            f"The grid has {height} x {width} squares, and the highest unit is {highest}; more than {MAX_CELLS:,}"
            " squares are not supported. Is that unit one?"
        )
    wrong = [unit for unit, number in numbers.items() if not 0 <= number < height * width]
    if wrong:
        raise ValueError(
            f"{len(wrong)} units, such as {wrong[0]}, are no squares of a grid of {height} x {width}, which have the"
            f" numbers {first_id} to {first_id + height * width - 1}."
        )
    if context is None:
        metres = {"units": "m"}
        coordinates = {
            "y": ("y", (np.arange(height) + 0.5) * cell_size, {"axis": "Y", **metres}),
            "x": ("x", (np.arange(width) + 0.5) * cell_size, {"axis": "X", **metres}),
        }
        context = xr.Dataset(coords=coordinates, attrs={"cell_size_m": float(cell_size)})
    elif (context.sizes["y"], context.sizes["x"]) != (height, width):
        raise ValueError(
            f"The context has {context.sizes['y']} x {context.sizes['x']} cells,"
            f" but the squares are {height} x {width}."
        )
    labels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    # The numbers rise to the north and to the east, wherever the context begins.
    falling = [axis for axis, name in enumerate(("y", "x")) if context[name].values[0] > context[name].values[-1]]
    labels = np.ascontiguousarray(np.flip(labels, falling))
    side = float(np.abs(np.diff(context["x"].values)).mean()) if width > 1 else cell_size
    if abs(side / cell_size - 1) > SAME_SQUARE:
        raise ValueError(f"The context has cells of {side:g} m, but the squares have {cell_size:g} m.")
    names = [str(first_id + number) for number in range(height * width)]
    return Places(names, numbers, labels, squares=True, context=context)


def places_of_sites(units: list[str], sites: Sites, context: xr.Dataset) -> Places:
    """
    The units serve the cells that they are nearest to, and of one site those in their direction.

    Units without a cell are added to the nearest unit with one, of the same site if there is one and with the nearest
    azimuth; those that also stand outside of the grid are left out.

    Raises:
        ValueError: If no unit of the table is among the sites, or no site stands in the grid.
    """
    _check_overlap(units, sites.names, sites.path)
    x, y = _in_crs_of(context, sites)
    rows, columns = context["y"].values, context["x"].values
    site_names, first, site_of = np.unique(sites.site, return_index=True, return_inverse=True)
    outside = sites_outside(x[first], y[first], rows, columns)
    if outside.all():
        swapped = np.stack(_in_crs_of(context, sites, swapped=True))
        swapped = swapped[:, np.isfinite(swapped).all(axis=0)]
        inside = swapped.size and not sites_outside(*swapped, rows, columns).all()
        hint = " With the two coordinates exchanged some would: they seem to be swapped." if inside else ""
        raise ValueError(f"None of the {len(outside)} sites of {sites.path} stands in the grid of the context.{hint}")
    of_sites = voronoi_zones(x[first], y[first], rows, columns)
    sectored = len(sites.names) > len(site_names) or np.isfinite(sites.azimuth).any()
    labels = of_sites
    if sectored:
        labels = sector_zones(site_of, sites.azimuth, x[first], y[first], rows, columns)
    else:
        labels = first[of_sites].astype(np.int32)
    serving = np.unique(labels)
    notes = []
    if outside.any():
        beyond = np.isin(of_sites, np.flatnonzero(outside))
        notes.append(
            f"{int(outside.sum())} of {len(outside)} sites stand outside of the grid;"
            f" {len(np.unique(of_sites[beyond]))} of them are the nearest to {int(beyond.sum())} cells at the border"
        )
    heirs = {}
    for unit in zones_without_cells(labels, len(sites.names)):
        if not outside[site_of[unit]]:
            heirs[unit] = _heir(unit, serving, x[first][site_of], y[first][site_of], sites.azimuth)
    zones = {SITES: _numbered(of_sites)} | ({SECTORS: _numbered(labels)} if sectored else {})
    places = _places_of_zones(units, sites.names, labels, heirs, zones, context, notes)
    places.distance = np.hypot(x[first][of_sites] - columns, y[first][of_sites] - rows[:, None])
    return places


def places_of_polygons(units: list[str], path, names: list[str], polygons, context: xr.Dataset) -> Places:
    """
    The units serve the cells of their polygons.

    Units without a cell are added to the one that serves the middle of their polygon; those outside of the grid are
    left out.

    Raises:
        ValueError: If no unit of the table is among the polygons, or these are unusable or outside of the grid.
    """
    import shapely

    _check_overlap(units, names, path)
    rows, columns = context["y"].values, context["x"].values
    labels, found = polygon_zones(polygons, rows, columns)
    if found["in_none"] == labels.size:
        raise ValueError(f"No polygon of {path} covers a cell of the context.")
    notes = []
    if found["in_several"]:
        notes.append(f"{found['in_several']} cells lie in several polygons: the one with the largest share gets them")
    if found["in_none"]:
        notes.append(f"{found['in_none']} of {labels.size} cells lie in no polygon: the nearest one gets them")
    middles = shapely.point_on_surface(np.asarray(polygons, dtype=object))
    x, y = shapely.get_x(middles), shapely.get_y(middles)
    outside = sites_outside(x, y, rows, columns)
    heirs = {
        unit: int(labels[np.abs(rows - y[unit]).argmin(), np.abs(columns - x[unit]).argmin()])
        for unit in zones_without_cells(labels, len(names))
        if not outside[unit]
    }
    places = _places_of_zones(units, names, labels, heirs, {POLYGONS: _numbered(labels)}, context, notes)
    middles = shapely.points(*np.meshgrid(columns, rows))
    places.distance = shapely.distance(middles, np.asarray(polygons, dtype=object)[labels])
    return places


def read_sites(path, id_column: str | None, unit_column: str, crs: str | None) -> Sites:
    """
    Read a table of sites or sectors: id, `lon` and `lat` or `x` and `y`, and optionally `azimuth` and `site`.

    Raises:
        ValueError: If it is not like this; the message names the row.
    """
    import polars as pl

    path = Path(path)
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
        else:
            with open(path, encoding="utf-8-sig") as file:
                header = file.readline()
            table = pl.read_csv(path, separator=max(",;\t", key=header.count), infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no readable table ({str(error).splitlines()[0]}).") from error
    lowered = [name.strip().lower() for name in table.columns]
    if repeated := sorted({name for name in lowered if lowered.count(name) > 1}):
        raise ValueError(
            f"{path} has several columns {repeated[0]!r}, upper or lower case; it must have one: {table.columns}."
        )
    table.columns = lowered
    known = (id_column.lower(),) if id_column else (unit_column.lower(), *ID_COLUMNS)
    name = next((one for one in known if one in table.columns), None)
    axes = [next((one for one in names if one in table.columns), None) for names in (X_COLUMNS, Y_COLUMNS)]
    if name is None or None in axes:
        raise ValueError(
            f"{path} has the columns {table.columns}; needed are an id ({known[0]} or another, with --id-column), and"
            " lon and lat, or x and y."
        )
    is_metric = axes[0] == "x"
    if is_metric != (axes[1] == "y"):
        raise ValueError(f"{path} must have lon and lat, or x and y; it has {axes}.")
    if not is_metric:
        if crs is not None:
            raise ValueError(f"sites_crs {crs!r} needs x and y; {path} has {axes[0]} and {axes[1]}.")
        crs = "EPSG:4326"
    ids = _texts(table, name, path)
    repeated = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
    if repeated:
        raise ValueError(f"{path} has {len(repeated)} ids more than once, such as {repeated[0]!r}.")
    x, y = (_numbers(table, axis, path) for axis in axes)
    if not is_metric and ((np.abs(x) > 180) | (np.abs(y) > 90)).any():
        raise ValueError(
            f"{path} has positions that are no longitude and latitude, such as ({x.max():g}, {y.max():g})."
        )
    azimuth = _numbers(table, "azimuth", path, empty=True) if "azimuth" in table.columns else np.full(len(ids), np.nan)
    site_column = next((one for one in SITE_COLUMNS if one in table.columns and one != name), None)
    site = _texts(table, site_column, path) if site_column else [f"{a!r} {b!r}" for a, b in zip(x, y)]
    if site_column is None and not np.isfinite(azimuth).any():
        site = ids
    return Sites(path, ids, ("x", "y") if is_metric else ("lon", "lat"), x, y, azimuth, site, crs)


def read_polygons(path, id_column: str | None, unit_column: str, context: xr.Dataset) -> tuple[list[str], np.ndarray]:
    """
    Ids and polygons of a vector file (GeoJSON, GeoPackage, GeoParquet ...), in the coordinates of the context.

    Raises:
        ValueError: If it cannot be read, has no coordinate reference system, or ids that are missing or not unique.
    """
    import geopandas

    path = Path(path)
    try:
        table = geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)
    except Exception as error:  # the errors of the drivers have no common base besides it
        raise ValueError(f"{path} is not a readable vector file ({str(error).splitlines()[0]}).") from error
    if not isinstance(table, geopandas.GeoDataFrame) or table.empty:
        raise ValueError(f"{path} has no polygon.")
    if table.crs is None:
        raise ValueError(f"{path} has no coordinate reference system.")
    columns = [str(name) for name in table.columns if name != table.geometry.name]
    known = (id_column,) if id_column else (unit_column, *ID_COLUMNS)
    name = next((one for one in known if one in columns), None)
    if name is None:
        raise ValueError(f"{path} has the properties {columns}; needed is an id ({known[0]} or another, --id-column).")
    names = [str(value).strip() for value in table[name]]
    if len(set(names)) < len(names):
        raise ValueError(f"{path} has ids more than once; a unit with several parts is one multipolygon.")
    if table.geometry.isna().any():
        raise ValueError(f"{path} has {int(table.geometry.isna().sum())} entries without a geometry.")
    return names, table.geometry.to_crs(_crs_of(context)).to_numpy()


def _places_of_zones(units, names, labels, heirs, zones, context, notes) -> Places:
    """Places of the zones that serve a cell, in the order of `names`."""
    serving, numbers = np.unique(labels, return_inverse=True)
    index = {int(unit): number for number, unit in enumerate(serving)}
    unit_of = {names[unit]: number for unit, number in index.items()}
    with_rows = set(units)
    heirs = {unit: heir for unit, heir in heirs.items() if names[unit] in with_rows}
    unit_of |= {names[unit]: index[int(heir)] for unit, heir in heirs.items()}
    merged = {names[unit]: names[heir] for unit, heir in heirs.items()}
    if merged:
        notes = [*notes, f"{len(merged)} units serve no cell of their own and were added to a neighbour"]
    silent = [names[unit] for unit in serving if names[unit] not in with_rows]
    if silent:
        notes = [*notes, f"{len(silent)} of {len(serving)} units with cells have no row: not measured"]
    places = Places([names[unit] for unit in serving], unit_of, numbers.reshape(labels.shape).astype(np.int32))
    places.zones, places.context, places.merged, places.notes = zones, context, merged, notes
    return places


def _heir(unit: int, serving: np.ndarray, x: np.ndarray, y: np.ndarray, azimuth: np.ndarray) -> int:
    distance = np.hypot(x[serving] - x[unit], y[serving] - y[unit])
    near = serving[distance <= distance.min() + 1e-6]
    apart = np.abs((azimuth[near] - azimuth[unit] + 180) % 360 - 180)
    return int(near[np.nan_to_num(apart, nan=0.0).argmin()])


def _numbered(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)


def _check_overlap(units: list[str], names: list[str], path) -> None:
    if not set(units) & set(names):
        raise ValueError(
            f"No unit of the table is in {path}: the table has units such as {units[0]!r}, the other {names[0]!r}."
        )


def _crs_of(context: xr.Dataset):
    from pyproj import CRS

    reference = context.coords.get("spatial_ref")
    text = None if reference is None else reference.attrs.get("crs_wkt", reference.attrs.get("spatial_ref"))
    if text is None:
        raise ValueError("The context has no coordinate reference system: it lacks `spatial_ref` with `crs_wkt`.")
    return CRS.from_wkt(text)


def _in_crs_of(context: xr.Dataset, sites: Sites, swapped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    from pyproj import Transformer

    x, y = (sites.y, sites.x) if swapped else (sites.x, sites.y)
    crs = _crs_of(context)
    source = crs if sites.crs is None else _parsed(sites.crs)
    return tuple(np.asarray(axis) for axis in Transformer.from_crs(source, crs, always_xy=True).transform(x, y))


def _parsed(text: str):
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise ValueError(f"{text!r} is no coordinate reference system; expected one such as EPSG:3003.") from error


def grid_mapping(crs: str) -> tuple:
    """The coordinate `spatial_ref` of a coordinate reference system such as EPSG:32632."""
    parsed = _parsed(crs)
    return (), np.int32(0), {**parsed.to_cf(), "spatial_ref": parsed.to_wkt()}


def _texts(table, name: str, path) -> list[str]:
    texts = [None if value is None else str(value).strip() for value in table[name]]
    if missing := [row for row, text in enumerate(texts) if not text]:
        raise ValueError(f"{path}: {len(missing)} rows have no {name}; the first is row {missing[0] + 1}.")
    return texts


def _numbers(table, name: str, path, empty: bool = False) -> np.ndarray:
    values = np.full(len(table), np.nan)
    for row, value in enumerate(table[name]):
        text = "" if value is None else str(value).strip()
        if not text and empty:
            continue
        try:
            values[row] = float(text)
        except ValueError:
            pass
        if not np.isfinite(values[row]):
            raise ValueError(f"{path}, row {row + 1}: {name} must be a number, but is {text[:40]!r}.")
    return values
