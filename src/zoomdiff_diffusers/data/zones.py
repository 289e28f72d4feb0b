# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Zone rasters: which site, sector or coverage polygon serves each cell of a grid.

A zone raster is an int32 array (H, W) with the index of the zone that serves each cell, from 0; every cell is
covered. Cells are given by their centres `y` (H,) and `x` (W,) in metres; either may rise or fall. Some zones may
serve no cell, since they are finer than the grid or lie outside: see [`zones_without_cells`].
"""

import numpy as np
from scipy.spatial import cKDTree


TIE = 1e-9  # distances, bearings and shares that differ by less than rounding are equal
SHARE_TIE = 1e-6  # shares of a cell are computed in single precision
CELLS_AT_ONCE = 200_000


def voronoi_zones(site_x: np.ndarray, site_y: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """
    Give every cell to the nearest site.

    Args:
        site_x (`np.ndarray`), site_y (`np.ndarray`):
            Positions of the sites, (N,), in the coordinates of the grid. Of sites with one position the first gets
            the cells.
        y (`np.ndarray`), x (`np.ndarray`): Centres of the rows, (H,), and of the columns, (W,).

    Returns:
        `np.ndarray`: (H, W) int32, the index of the site; of sites at the same distance the lower one.

    Raises:
        ValueError: If there is no site, or a position is not finite.
    """
    sites, y, x = _positions(site_x, site_y), _axis("y", y), _axis("x", x)
    first = np.sort(np.unique(sites, axis=0, return_index=True)[1])
    tree = cKDTree(sites[first])
    labels = np.empty((len(y), len(x)), dtype=np.int32)
    for rows in _row_blocks(labels.shape):
        centres = np.stack(np.meshgrid(x, y[rows]), axis=-1).reshape(-1, 2)
        labels[rows] = first[_nearest(tree, centres, 4)].reshape(-1, len(x))
    return labels


def sector_zones(
    site_of_sector: np.ndarray,
    azimuth: np.ndarray,
    site_x: np.ndarray,
    site_y: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
) -> np.ndarray:
    """
    Give every cell to a sector of its nearest site: the one whose azimuth is nearest to the direction of the cell.

    The zones are nested in those of [`voronoi_zones`].

    Args:
        site_of_sector (`np.ndarray`): Index of the site of each sector, (M,). Every site has a sector.
        azimuth (`np.ndarray`):
            Degrees clockwise from the grid's north, (M,). NaN: the sector has none and serves all directions; it gets
            cells only where no sector of its site has an azimuth.
        site_x (`np.ndarray`), site_y (`np.ndarray`), y (`np.ndarray`), x (`np.ndarray`): As in [`voronoi_zones`].

    Returns:
        `np.ndarray`: (H, W) int32, the index of the sector; of sectors at the same angle, and at the position of the
        site itself, the lower one.

    Raises:
        ValueError: As in [`voronoi_zones`], or if a site has no sector or an azimuth is infinite.
    """
    sites, sites_of_cells = _positions(site_x, site_y), voronoi_zones(site_x, site_y, y, x)
    site_of_sector, azimuth = np.asarray(site_of_sector), np.asarray(azimuth, dtype=np.float64)
    if site_of_sector.ndim != 1 or azimuth.shape != site_of_sector.shape:
        raise ValueError(
            "`site_of_sector` and `azimuth` must have one entry per sector, but have the shapes"
            f" {site_of_sector.shape} and {azimuth.shape}."
        )
    if np.isinf(azimuth).any():
        raise ValueError(f"`azimuth` must be degrees or NaN, but {int(np.isinf(azimuth).sum())} are infinite.")
    if site_of_sector.dtype.kind not in "iu" or not np.isin(site_of_sector, np.arange(len(sites))).all():
        raise ValueError(f"`site_of_sector` must hold indices of the {len(sites)} sites.")
    counts = np.bincount(site_of_sector, minlength=len(sites))
    if (counts == 0).any():
        raise ValueError(
            f"Every site needs a sector, but {int((counts == 0).sum())} have none; the first is {counts.argmin()}."
        )
    order = np.argsort(site_of_sector, kind="stable")
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    sectors = np.zeros((len(sites), counts.max()), dtype=np.int32)
    sectors[site_of_sector[order], place] = order
    missing = np.arange(counts.max()) >= counts[:, None]
    directions = np.where(missing, np.inf, azimuth[sectors])

    labels = np.empty_like(sites_of_cells)
    for rows in _row_blocks(labels.shape, of=counts.max()):
        site = sites_of_cells[rows]
        east, north = np.asarray(x) - sites[site, 0], np.asarray(y)[rows, None] - sites[site, 1]
        bearing = np.degrees(np.arctan2(east, north))[..., None]
        with np.errstate(invalid="ignore"):  # of the missing sectors, infinitely far
            angle = np.abs((bearing - directions[site] + 180) % 360 - 180)
        angle[(east == 0) & (north == 0)] = 0
        # Farther than any azimuth, an omnidirectional sector still comes before a missing one.
        angle = np.where(missing[site], np.inf, np.where(np.isnan(directions[site]), 360.0, angle))
        chosen = (angle <= angle.min(axis=-1, keepdims=True) + TIE).argmax(axis=-1)
        labels[rows] = sectors[site, chosen]
    return labels


def polygon_zones(polygons, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """
    Give every cell to the polygon with the largest share of it, and one that no polygon covers to the nearest.

    Args:
        polygons (`Sequence[shapely.Geometry]`): Polygons and multipolygons in the coordinates of the grid.
        y (`np.ndarray`), x (`np.ndarray`): Centres of the rows, (H,), and of the columns, (W,), evenly spaced.

    Returns:
        `tuple[np.ndarray, dict[str, int]]`: (H, W) int32, the index of the polygon, the lower one where two are equal;
        and how many cells lie `in_several` polygons that overlap, and `in_none`.

    Raises:
        ValueError: If there is no polygon, or some are empty, invalid or no polygons.
    """
    import shapely
    from exactextract import exact_extract
    from exactextract.feature import JSONFeatureSource
    from exactextract.raster import NumPyRasterSource

    polygons, y, x = np.asarray(polygons, dtype=object), _axis("y", y), _axis("x", x)
    if len(polygons) == 0:
        raise ValueError("`polygons` is empty: there is no zone to serve the cells.")
    wrong = ~np.isin(shapely.get_type_id(polygons), [3, 6]) | shapely.is_empty(polygons)
    for which, what in ((wrong, "empty or no polygon"), (~shapely.is_valid(polygons), "invalid")):
        if which.any():
            reason = "" if which is wrong else f" ({shapely.is_valid_reason(polygons[which.argmax()])})"
            raise ValueError(
                f"`polygons`: {int(which.sum())} of {len(polygons)} are {what}; the first is number"
                f" {which.argmax()}{reason}."
            )
    # Rows of rasters go from north to south, their columns from west to east.
    rows, columns = np.argsort(-y), np.argsort(x)
    half_y, half_x = (_spacing(name, axis, other) / 2 for name, axis, other in (("y", y, x), ("x", x, y)))
    raster = NumPyRasterSource(
        np.zeros((len(y), len(x)), dtype=np.int8),
        xmin=x.min() - half_x,
        ymin=y.min() - half_y,
        xmax=x.max() + half_x,
        ymax=y.max() + half_y,
    )
    zone, best, total = np.full(len(y) * len(x), -1), np.zeros(len(y) * len(x)), np.zeros(len(y) * len(x))
    frame = shapely.box(x.min() - half_x, y.min() - half_y, x.max() + half_x, y.max() + half_y)
    for index in np.flatnonzero(shapely.intersects(polygons, frame)):
        feature = {"type": "Feature", "properties": {}, "geometry": polygons[index].__geo_interface__}
        found = exact_extract(raster, JSONFeatureSource([feature]), ["cell_id", "coverage"])[0]["properties"]
        cells, shares = np.asarray(found["cell_id"], dtype=np.int64), np.asarray(found["coverage"], dtype=np.float64)
        total[cells] += shares
        better = shares > best[cells] + SHARE_TIE
        zone[cells[better]], best[cells[better]] = index, shares[better]
    uncovered = np.flatnonzero(zone < 0)
    if len(uncovered):
        centres = shapely.points(x[columns][uncovered % len(x)], y[rows][uncovered // len(x)])
        cell, nearest = shapely.STRtree(polygons).query_nearest(centres, all_matches=True)
        zone[uncovered] = len(polygons)
        np.minimum.at(zone, uncovered[cell], nearest)
    labels = np.empty((len(y), len(x)), dtype=np.int32)
    labels[np.ix_(rows, columns)] = zone.reshape(labels.shape)
    return labels, {"in_several": int((total > 1 + SHARE_TIE).sum()), "in_none": len(uncovered)}


def zones_without_cells(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of those of `count` zones that serve no cell of a zone raster."""
    return np.flatnonzero(np.bincount(np.asarray(labels).ravel(), minlength=count) == 0)


def sites_outside(site_x: np.ndarray, site_y: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """
    Tell which sites, (N,) bool, stand outside of the cells of a grid.

    The nearest of them still get cells along the border in [`voronoi_zones`], as stations beyond it do serve there. If
    the sites inside are missing from a table, however, those outside get far more than they serve.
    """
    sites, y, x = _positions(site_x, site_y), _axis("y", y), _axis("x", x)
    half = np.array([_spacing("x", x, y), _spacing("y", y, x)]) / 2
    low, high = np.array([x.min(), y.min()]) - half, np.array([x.max(), y.max()]) + half
    return ((sites < low) | (sites > high)).any(axis=1)


def _nearest(tree: cKDTree, points: np.ndarray, neighbours: int) -> np.ndarray:
    """Index of the nearest position to each point, the lowest where several are equally near."""
    neighbours = min(neighbours, tree.n)
    distance, index = tree.query(points, k=np.arange(1, neighbours + 1))
    tied = distance <= distance[:, :1] * (1 + TIE)
    nearest = np.where(tied, index, tree.n).min(axis=1)
    undecided = tied.all(axis=1)
    if neighbours < tree.n and undecided.any():
        nearest[undecided] = _nearest(tree, points[undecided], 4 * neighbours)
    return nearest


def _positions(site_x, site_y) -> np.ndarray:
    """(N, 2), x before y."""
    site_x, site_y = (np.asarray(values, dtype=np.float64) for values in (site_x, site_y))
    if site_x.ndim != 1 or site_x.shape != site_y.shape or len(site_x) == 0:
        raise ValueError(
            "`site_x` and `site_y` must have one entry per site and at least one, but have the shapes"
            f" {site_x.shape} and {site_y.shape}."
        )
    sites = np.stack([site_x, site_y], axis=1)
    if not np.isfinite(sites).all():
        lost = ~np.isfinite(sites).all(axis=1)
        raise ValueError(f"{int(lost.sum())} site(s) have no finite position; the first is number {lost.argmax()}.")
    return sites


def _axis(name: str, centres) -> np.ndarray:
    centres = np.asarray(centres, dtype=np.float64)
    steps = np.diff(centres) if centres.ndim == 1 else np.zeros(1)
    if centres.size == 0 or not np.isfinite(centres).all() or not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"`{name}` must be centres of cells that rise or fall steadily, found shape {centres.shape}.")
    return centres


def _spacing(name: str, centres: np.ndarray, others: np.ndarray) -> float:
    """Side of the cells along an axis; that along the other one where there is a single row or column."""
    steps = np.abs(np.diff(centres if len(centres) > 1 else others))
    if len(steps) == 0:
        raise ValueError("A grid of a single cell does not tell how large it is.")
    if not np.allclose(steps, steps[0], rtol=1e-4):
        raise ValueError(f"`{name}` must be evenly spaced, but its steps go from {steps.min():g} to {steps.max():g}.")
    return float(steps.mean())


def _row_blocks(shape: tuple[int, int], of: int = 1):
    """Slices of rows that hold about `CELLS_AT_ONCE` values, `of` values in a cell."""
    rows = max(1, CELLS_AT_ONCE // (shape[1] * int(of)))
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]
