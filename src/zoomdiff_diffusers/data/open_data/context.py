# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The context layers of a real city as named arrays, with where they came from."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import shapely
import xarray as xr
from pyproj import CRS, Transformer

from ..simulated_context import AOI_CLASSES, POI_CATEGORIES, SURFACE_CLASSES
from .extract import open_osm
from .grid import WGS84, Grid, along_degrees, check_overlap, make_grid, read_boundary
from .osm import GROUND_CLASSES, OsmLayers, read_osm
from .points import read_points
from .population import estimate_population, read_population
from .tags import ROADS, STOREY_M


LICENCE = (
    "Contains information from OpenStreetMap, © OpenStreetMap contributors, available under the Open Database License"
    " (ODbL) 1.0: https://www.openstreetmap.org/copyright"
)
BUILT_UP_SHARE = 0.1  # ground that nobody mapped is built where buildings cover more than this of a cell
LAND_USE_SHARE = 0.1  # a cell of which less has a mapped land use has none
DEFAULT_STOREYS = 2.0  # of a building without a height where nearly no other has one either
KNOWN_HEIGHTS_SHARE = 0.05
SMALLEST_COVERED_SHARE = 0.001  # of the grid: an extract that covers less was meant for smaller cells


def build_context(
    osm,
    boundary=None,
    population=None,
    poi=None,
    cell_size: float = 50.0,
    multiple: int = 8,
    poi_crs: str | None = None,
    total_population: float | None = None,
) -> xr.Dataset:
    """
    Build the context of an area from open data, with the layers of `SIMULATED_LAYERS` except people per hour.

    Everything that can be checked at once is checked before the extract is read.

    Args:
        osm (`str` or `os.PathLike`): OpenStreetMap extract (.osm.pbf, .osm, .osm.gz, .osm.bz2, .opl).
        boundary (`str` or `os.PathLike`, *optional*): Polygons around the area. Default: the box of the extract.
        population (`str` or `os.PathLike`, *optional*):
            Raster of residents per pixel. Default: estimated from building volume.
        poi (`str` or `os.PathLike`, *optional*):
            Table of points of interest, see [`read_points`], in place of those of the extract.
        cell_size (`float`, defaults to 50.0): Side of a cell in m. The bundled weights expect 50.
        multiple (`int`, defaults to 8):
            Height and width become multiples of it, by adding cells on all sides: the cells along a base station.
        poi_crs (`str`, *optional*): Coordinate reference system of the columns x and y of `poi`.
        total_population (`float`, *optional*): Residents of the whole grid that an estimate is scaled to.

    Returns:
        `xr.Dataset`: `surface` and `aoi` (y, x) codes, `poi` (poi_category, y, x) counts, `building_volume` (y, x) in
        m3 and `population` (y, x) in residents, all per cell, rows from south to north. The coordinates
        `inside_extract` and `inside_boundary` tell which cells the inputs cover, `spatial_ref` the reference system,
        the attributes the inputs' hashes, the state of the data and the licence.

    Raises:
        ValueError: For an unusable input; the message says which and why.
    """
    if not 0 < cell_size < np.inf:
        raise ValueError(f"`cell_size` must be positive, but is {cell_size:g} m.")
    if total_population is not None and (population is not None or not 0 < total_population < np.inf):
        raise ValueError("`total_population` must be positive, and only scales an estimate: not a population raster.")
    if poi_crs is not None and poi is None:
        raise ValueError("`poi_crs` is given, but no table of points of interest.")
    source, notes = open_osm(osm), []
    area = shapely.box(*source.box)
    if boundary is not None:
        area, notes = read_boundary(boundary)
        check_overlap(area, source.box, "The boundary", "the extract")
    grid = make_grid(area, cell_size, multiple)
    inside = _inside(grid, area, source.box)
    if (covered := inside["inside_extract"].mean()) < SMALLEST_COVERED_SHARE:
        raise ValueError(
            f"The extract covers {covered:.1g} of the grid of {grid.height} x {grid.width} cells of {cell_size:g} m:"
            " the cells are too large for it, or `multiple` is."
        )
    residents, details = (None, {}) if population is None else read_population(population, grid)
    counts, unknown_categories, rows = (None, Counter(), {}) if poi is None else read_points(poi, grid, poi_crs)

    layers = read_osm(source, grid, with_poi=poi is None)
    if layers.objects == 0:
        raise ValueError(f"{osm} has nothing in the area: no ground, road, building or point of interest.")
    surface = surface_classes(layers, grid.cell_size)
    aoi = aoi_classes(layers)
    volume, known_heights, mean_height = building_volume(layers)
    if residents is None:
        residents = estimate_population(volume, aoi, total_population)
    notes += _notes(layers, details, rows, inside, boundary is not None)
    values = {"surface": surface, "aoi": aoi, "poi": layers.poi if counts is None else counts}
    values |= {"building_volume": volume.sum(axis=0), "population": residents}
    dataset = _dataset(grid, values, inside, boundary is not None)
    dataset["population"].attrs |= {
        "estimated": int(population is None),
        "source": "estimated from building volume" if population is None else Path(population).name,
    }
    dataset["building_volume"].attrs |= {
        "share_of_footprint_with_known_height": known_heights,
        "assumed_height_m": mean_height,
    }
    inputs = {"osm": osm, "boundary": boundary, "population": population, "poi": poi}
    dataset.attrs |= {
        "osm_timestamp": source.timestamp or layers.newest or "unknown",
        "osm_timestamp_source": "header" if source.timestamp else "newest object" if layers.newest else "unknown",
        "licence": LICENCE,
        "inputs": json.dumps({name: _provenance(path) for name, path in inputs.items() if path is not None}),
        "unknown_tags": json.dumps(dict(layers.unknown_tags.most_common()), ensure_ascii=False),
        "unknown_poi_categories": json.dumps(dict(unknown_categories.most_common()), ensure_ascii=False),
        "unmapped_ground_share": float(np.average(1 - layers.ground.sum(axis=0), weights=inside["inside_extract"])),
        "notes": json.dumps(notes, ensure_ascii=False),
    }
    return dataset


def surface_classes(layers: OsmLayers, cell_size: float) -> np.ndarray:
    """
    Codes of `SURFACE_CLASSES` (H, W): the largest share of the ground, and over it the roads in their order.

    Ground that nobody mapped counts as built in cells with buildings on more than `BUILT_UP_SHARE` of them, elsewhere
    as vegetation. A road needs at least half a cell side of length in a cell; streets do not hide water.
    """
    ground = layers.ground.astype(np.float64)
    missing = 1 - ground.sum(axis=0)
    built_up = layers.footprint.sum(axis=(0, 1)) > BUILT_UP_SHARE * cell_size**2
    ground[GROUND_CLASSES.index("built")] += missing * built_up
    ground[GROUND_CLASSES.index("vegetation")] += missing * ~built_up
    codes = ground.argmax(axis=0)
    for name, length in zip(ROADS, layers.roads):
        here = length >= cell_size / 2
        if name == "street":
            here &= codes != SURFACE_CLASSES.index("water")
        codes[here] = SURFACE_CLASSES.index(name)
    return codes


def aoi_classes(layers: OsmLayers) -> np.ndarray:
    """Codes of `AOI_CLASSES` (H, W): the largest share; `none` where less than `LAND_USE_SHARE` is mapped."""
    codes = layers.land_use.argmax(axis=0)
    return np.where(layers.land_use.sum(axis=0) < LAND_USE_SHARE, AOI_CLASSES.index("none"), codes)


def building_volume(layers: OsmLayers) -> tuple[np.ndarray, float, float]:
    """
    Volume of buildings in m3, (3, H, W) by use.

    A building without a height gets the mean height of the others, weighted by area, or `DEFAULT_STOREYS` where those
    cover less than `KNOWN_HEIGHTS_SHARE` of all footprints.

    Returns:
        `tuple[np.ndarray, float, float]`: the volume, the share of the footprint with a known height, the height that
        the others got in m.
    """
    known, unknown = layers.footprint
    share = float(known.sum() / max(layers.footprint.sum(), 1e-9))
    height = layers.volume.sum() / known.sum() if share >= KNOWN_HEIGHTS_SHARE else DEFAULT_STOREYS * STOREY_M
    return layers.volume + unknown * height, share, float(height)


def summarise(dataset: xr.Dataset) -> dict:
    """What a context of [`build_context`] holds, JSON-safe: sizes, shares, counts, totals, unknown tags, notes."""
    attributes, layers = dataset.attrs, dataset
    return {
        "height": layers.sizes["y"],
        "width": layers.sizes["x"],
        "cell_size_m": attributes["cell_size_m"],
        "crs": attributes["crs"],
        "bounds_m": [float(value) for value in attributes["bounds_m"]],
        "osm_timestamp": attributes["osm_timestamp"],
        "surface": _class_shares(layers["surface"]),
        "aoi": _class_shares(layers["aoi"]),
        "unmapped_ground_share": float(attributes["unmapped_ground_share"]),
        "poi": {str(name): int(layers["poi"].sel(poi_category=name).sum()) for name in layers["poi_category"].values},
        "building_volume_m3": float(layers["building_volume"].sum(dtype=np.float64)),
        "known_heights_share": float(layers["building_volume"].attrs["share_of_footprint_with_known_height"]),
        "population": float(layers["population"].sum(dtype=np.float64)),
        "population_estimated": bool(layers["population"].attrs["estimated"]),
        "unknown_tags": json.loads(attributes["unknown_tags"]),
        "unknown_poi_categories": json.loads(attributes["unknown_poi_categories"]),
        "notes": json.loads(attributes["notes"]),
        "inputs": json.loads(attributes["inputs"]),
        "licence": attributes["licence"],
    }


def _class_shares(layer: xr.DataArray) -> dict[str, float]:
    names = layer.attrs["flag_meanings"].split()
    return {name: float((layer == code).mean()) for code, name in enumerate(names)}


def _inside(grid: Grid, area, box) -> dict[str, np.ndarray]:
    """The share of every cell that lies in the extract, and in the boundary; (H, W) each."""
    project = Transformer.from_crs(WGS84, grid.epsg, always_xy=True).transform
    polygons = {"inside_extract": shapely.box(*box), "inside_boundary": area}
    return {
        name: _shares(grid, shapely.transform(along_degrees(polygon), project, interleaved=False))
        for name, polygon in polygons.items()
    }


def _shares(grid: Grid, polygon) -> np.ndarray:
    """The share of every cell that lies in a polygon, (H, W)."""
    shapely.prepare(polygon)
    shares = np.zeros(grid.shape)
    for row, share in enumerate(shares):
        cells = grid.boxes(np.full(grid.width, row), np.arange(grid.width))
        share[:] = shapely.contains_properly(polygon, cells)
        cut = np.flatnonzero((share == 0) & shapely.intersects(polygon, cells))
        share[cut] = shapely.area(shapely.intersection(polygon, cells[cut])) / grid.cell_size**2
    return shares


def _notes(layers: OsmLayers, details: dict, rows: dict, inside: dict, bounded: bool) -> list[str]:
    """What had to be repaired or should be known, in words."""
    notes = [f"{count} {what}" for what, count in layers.repairs.items()]
    outside = 1 - float(inside["inside_extract"].mean())
    if outside > 0.0005:
        hint = "" if bounded else "; a boundary inside of it avoids that"
        notes.append(f"{outside:.1%} of the grid lie outside of the extract, where nothing is known{hint}")
    if bounded and (beyond := 1 - float(inside["inside_boundary"].mean())) > 0.0005:
        notes.append(f"{beyond:.1%} of the grid lie outside of the boundary; the layers are filled there too")
    if (smallest := details.get("smallest", 0.0)) < 0:
        notes.append(f"negative values of the population raster, down to {smallest:g}, were taken for 0")
    if details.get("covered_share", 1.0) < 0.9995:
        notes.append(f"the population raster covers {details['covered_share']:.1%} of the grid; elsewhere it is 0")
    if rows.get("outside"):
        notes.append(f"{rows['outside']} points of interest lie outside of the grid")
    return notes


def _dataset(grid: Grid, values: dict, inside: dict, bounded: bool) -> xr.Dataset:
    per = f"per {grid.cell_size:g} m cell"
    flags = {
        name: {"flag_values": np.arange(len(classes), dtype=np.int8), "flag_meanings": " ".join(classes)}
        for name, classes in (("surface", SURFACE_CLASSES), ("aoi", AOI_CLASSES))
    }
    plane, reference = ("y", "x"), {"grid_mapping": "spatial_ref"}
    crs = CRS.from_epsg(grid.epsg)
    metres = {"units": "m"}
    coordinates = {
        "y": ("y", grid.y, {"axis": "Y", "standard_name": "projection_y_coordinate", **metres}),
        "x": ("x", grid.x, {"axis": "X", "standard_name": "projection_x_coordinate", **metres}),
        "poi_category": ("poi_category", POI_CATEGORIES),
        "spatial_ref": ((), np.int32(0), {**crs.to_cf(), "spatial_ref": crs.to_wkt()}),
        "inside_extract": (plane, inside["inside_extract"].astype(np.float32), {"long_name": "share in the extract"}),
    }
    if bounded:
        share = inside["inside_boundary"].astype(np.float32)
        coordinates["inside_boundary"] = (plane, share, {"long_name": "share in the boundary"})
    return xr.Dataset(
        {
            "surface": (plane, values["surface"].astype(np.int8), {**reference, **flags["surface"]}),
            "aoi": (plane, values["aoi"].astype(np.int8), {**reference, **flags["aoi"]}),
            "poi": (
                ("poi_category", *plane),
                values["poi"].astype(np.float32),
                {**reference, "units": "1", "long_name": f"points of interest {per}"},
            ),
            "building_volume": (
                plane,
                values["building_volume"].astype(np.float32),
                {**reference, "units": "m3", "long_name": f"volume of buildings {per}"},
            ),
            "population": (
                plane,
                values["population"].astype(np.float32),
                {**reference, "units": "1", "long_name": f"residents {per}"},
            ),
        },
        coords=coordinates,
        attrs={
            "Conventions": "CF-1.11",
            "title": "Urban context from open data",
            "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}",
            "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
            "crs": f"EPSG:{grid.epsg}",
            "cell_size_m": grid.cell_size,
            "bounds_m": np.array(grid.bounds),
            "libraries": ", ".join(f"{name} {version(name)}" for name in ("osmium", "shapely", "pyproj", "rasterio")),
        },
    )


def _provenance(path) -> dict:
    """Name, size and SHA-256 of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": Path(path).name, "bytes": Path(path).stat().st_size, "sha256": digest}
