# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the edge of an extract cuts: the sea, which OpenStreetMap only knows the coastline of, and areas."""

import math

import numpy as np
import shapely
from pyproj import Transformer
from shapely.ops import substring

from .grid import WGS84, Grid, along_degrees


NODING_M = 1e-3  # ends of lines this close to another line lie on it
LONGEST_DETOUR = 3.0  # times the gap: further away than this, the edge of the extract is not what cuts


def sea_polygons(coast: list, grid: Grid, box: tuple[float, float, float, float]) -> list:
    """
    The sea inside of a grid.

    A coastline that ends inside of the extract, since the extract has been cut, is continued to its nearest edge.

    Args:
        coast (`list[shapely.LineString]`): Pieces of coastline in the coordinates of the grid, land to the left.
        grid ([`Grid`]): The cells.
        box (`tuple`): West, south, east and north of the extract in degrees.

    Returns:
        `list[shapely.Polygon]`: none where there is no coastline.
    """
    if not coast:
        return []
    project = Transformer.from_crs(WGS84, grid.epsg, always_xy=True).transform
    frame = shapely.transform(along_degrees(shapely.box(*box)), project, interleaved=False)
    frame = shapely.intersection(frame, shapely.box(*grid.bounds))
    lines = shapely.line_merge(shapely.intersection(shapely.union_all(coast), frame), directed=True)
    lines = [line for line in shapely.get_parts(lines) if line.geom_type == "LineString"]
    edge = frame.exterior
    bridges = [
        shapely.shortest_line(shapely.Point(end), edge)
        for line in lines
        if not line.is_ring
        for end in (line.coords[0], line.coords[-1])
    ]
    faces = list(shapely.polygonize([shapely.union_all([*lines, *bridges, edge], grid_size=NODING_M)]).geoms)
    tree = shapely.STRtree(faces)
    votes = [0.0] * len(faces)
    for line in lines:
        for start, end in zip(line.coords[:-1], line.coords[1:]):
            for side in (1, -1):  # a point just to the right votes for sea, one to the left for land
                length = max(shapely.Point(start).distance(shapely.Point(end)), 1e-9)
                across = (end[1] - start[1]) / length, (start[0] - end[0]) / length
                point = [(a + b) / 2 + side * 0.05 * c for a, b, c in zip(start, end, across)]
                for face in tree.query(shapely.Point(point), predicate="intersects"):
                    votes[face] += side * length
    return [face for face, vote in zip(faces, votes) if vote > 0]


def close_ring(parts: list, box: tuple[float, float, float, float]):
    """
    The area of a closed way of which nodes are missing, since the extract ends there.

    Every gap is closed along the edge of the extract, the shorter way round, or straight if that is a detour.

    Args:
        parts (`list[np.ndarray]`): What is left of the way, in order: (nodes, 2) longitudes and latitudes.
        box (`tuple`): West, south, east and north of the extract in degrees.

    Returns:
        `shapely.Geometry`: valid, in degrees; empty if too little is left.
    """
    scale = np.array([math.cos(math.radians((box[1] + box[3]) / 2)), 1.0])  # degrees of the same length
    parts = [np.asarray(part) * scale for part in parts]
    edge = shapely.box(box[0] * scale[0], box[1], box[2] * scale[0], box[3]).exterior
    points = []
    for part, following in zip(parts, [*parts[1:], *parts[:1]]):
        points += [*part, *_along_edge(part[-1], following[0], edge)]
    if len(points) < 3:
        return shapely.Polygon()
    return shapely.make_valid(shapely.Polygon(np.array(points) / scale))


def _along_edge(start: np.ndarray, end: np.ndarray, edge: shapely.LinearRing) -> list:
    """The points of the shorter way from one point to another along a ring; none if that is a detour."""
    first, last = (edge.project(shapely.Point(point)) for point in (start, end))
    ahead = (last - first) % edge.length
    if ahead <= edge.length / 2:
        path = _on_ring(edge, first, first + ahead)
    else:
        path = _on_ring(edge, last, last + edge.length - ahead)[::-1]
    legs = np.linalg.norm(np.diff([start, *path, end], axis=0), axis=1)
    return path if legs.sum() <= LONGEST_DETOUR * np.linalg.norm(end - start) else []


def _on_ring(edge: shapely.LinearRing, first: float, last: float) -> list:
    """The points of a ring from one distance along it to another, which may lie in the next round."""
    twice = shapely.LineString([*edge.coords, *edge.coords[1:]])
    return [np.array(point) for point in substring(twice, first, last).coords]
