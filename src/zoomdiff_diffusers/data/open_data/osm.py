# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""OpenStreetMap extracts onto a grid, object by object: what the ground is, roads, buildings, points of interest."""

import os
import shutil
import tempfile
from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import numpy as np
import osmium
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.features import rasterize

from ..simulated_context import AOI_CLASSES, POI_CATEGORIES, SURFACE_CLASSES
from .clipping import close_ring, sea_polygons
from .extract import OsmFile
from .grid import WGS84, Grid
from .tags import (
    AREA_OF_TAG,
    AREAS,
    KEYS,
    POI_OF_TAG,
    POIS,
    ROAD_OF_TAG,
    ROADS,
    UNTOLD,
    area_classes,
    building_use,
    poi_category,
    road_class,
    unknown_tags,
    without_closed_road,
)


SUBDIVISIONS = 5  # ground is told apart at this many points along a cell
BATCH = 20_000  # objects that are projected and drawn together
FAR_M = 20_000.0  # a way that begins further away than this, and is less than half as long, does not reach the grid
FILE_STORE_BYTES = 100 * 2**20  # node positions of larger extracts go to a temporary file
GROUND_CLASSES = SURFACE_CLASSES[:3]  # vegetation, water, built; the others are roads
# Polygons lie upon each other, the smaller upon the larger; these lie below all others.
BELOW_LAND_USE, BELOW_ALL = 1e12, 1e15


@dataclass
class OsmLayers:
    """
    What an extract says about each cell of a grid (H, W).

    Args:
        ground (`np.ndarray`): (3, H, W), share of each of `GROUND_CLASSES`; the rest is not mapped.
        land_use (`np.ndarray`): (10, H, W), share of each of `AOI_CLASSES`; the rest is not mapped.
        roads (`np.ndarray`): (4, H, W), metres of each of `ROADS`.
        footprint (`np.ndarray`): (2, 3, H, W), m2 of buildings whose height is known and unknown, by use: with
            dwellings, without, untold.
        volume (`np.ndarray`): (3, H, W), m3 of the buildings whose height is known, by use.
        poi (`np.ndarray`): (9, H, W), count of each of `POI_CATEGORIES`.
        unknown_tags (`Counter`): Objects in the grid by tag that no table of `tags` has.
        repairs (`Counter`): Objects in the grid by what was wrong with them.
        newest (`str`): Time of the newest object that was read; empty if the header tells the time, or no object does.
        objects (`int`): Objects with a tag of interest in the grid.
    """

    ground: np.ndarray
    land_use: np.ndarray
    roads: np.ndarray
    footprint: np.ndarray
    volume: np.ndarray
    poi: np.ndarray
    unknown_tags: Counter
    repairs: Counter
    newest: str
    objects: int


def read_osm(source: OsmFile, grid: Grid, with_poi: bool = True) -> OsmLayers:
    """
    Read an extract once (its relations twice) and add up what it says about every cell.

    Where it cuts multipolygons, it is read once more for their ways: osmium gives no area of them.

    At most `BATCH` objects are held at a time, besides the extract's multipolygons and the coastline near the grid.
    Positions of the nodes of large extracts go to a temporary file.

    Args:
        source ([`OsmFile`]): From [`open_osm`].
        grid ([`Grid`]): The cells.
        with_poi (`bool`, defaults to `True`): Whether to count points of interest.

    Raises:
        ValueError: If the file turns out to be damaged, or the temporary folder has not enough space for positions.
    """
    reader = _Reader(source, grid, with_poi)
    with tempfile.TemporaryDirectory(prefix="zoomdiff-") as folder:
        store = "flex_mem"
        size = source.path.stat().st_size
        if size > FILE_STORE_BYTES:
            _check_space(folder, 3 * size)
            store = f"sparse_file_array,{os.path.join(folder, 'positions')}"
        try:
            reader.read(store)
        except RuntimeError as error:
            raise ValueError(f"{source.path} is damaged ({error}).") from error
    return reader.layers()


def _check_space(folder: str, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"{os.path.dirname(folder)} has {free / 2**30:.1f} GiB free, but positions of nodes may need"
            f" {needed / 2**30:.1f} GiB. Set TMPDIR to a folder with more space."
        )


@dataclass
class _Batch:
    """Objects that wait to be projected: geometries in degrees and what belongs to each."""

    geometries: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    unknown: list = field(default_factory=list)

    def add(self, geometry, row, unknown) -> None:
        self.geometries.append(geometry)
        self.rows.append(row)
        self.unknown.append(unknown)


class _Canvas:
    """Classes painted at `SUBDIVISIONS` x `SUBDIVISIONS` points of every cell; what is smaller stays on top."""

    def __init__(self, grid: Grid):
        self.shape = grid.height * SUBDIVISIONS, grid.width * SUBDIVISIONS
        step = grid.cell_size / SUBDIVISIONS
        self.transform = Affine(step, 0, grid.left, 0, step, grid.bottom)
        self.codes = np.zeros(self.shape, dtype=np.uint8)
        self.depth = np.full(self.shape, np.inf, dtype=np.float32)

    def paint(self, geometries: np.ndarray, codes: np.ndarray, depth: np.ndarray) -> None:
        """Paint polygons with their codes 1, 2 ...; `depth` is their area."""
        if len(geometries) == 0:
            return
        order = np.argsort(-depth, kind="stable")
        shapes = ((geometries[position], index) for index, position in enumerate(order, start=1))
        top = rasterize(shapes, self.shape, transform=self.transform, dtype=np.int32)
        here = np.nonzero(top)
        painted = order[top[here] - 1]
        higher = depth[painted] < self.depth[here]
        here = here[0][higher], here[1][higher]
        self.codes[here], self.depth[here] = codes[painted[higher]], depth[painted[higher]]

    def shares(self, count: int) -> np.ndarray:
        """The share of every cell that has code 1, 2 ... `count`, (count, H, W)."""
        height, width = (size // SUBDIVISIONS for size in self.shape)
        blocks = self.codes.reshape(height, SUBDIVISIONS, width, SUBDIVISIONS)
        return np.stack([(blocks == code).mean(axis=(1, 3), dtype=np.float32) for code in range(1, count + 1)])


class _Multipolygons:
    """
    The relations that become areas, and the ways around those that are buildings. Some of these ways carry the same
    tags, but should not count twice.

    It looks on while osmium reads the relations.
    """

    def __init__(self):
        self.relations = array("q")
        self._ways = array("q")

    def relation(self, relation) -> None:
        if relation.tags.get("type") not in ("multipolygon", "boundary"):
            return  # a group of parts, such as type=building, whose ways say themselves what they are
        self.relations.append(relation.id)
        if "building" in relation.tags:
            self._ways.extend(
                member.ref for member in relation.members if member.type == "w" and member.role != "inner"
            )

    @cached_property
    def _outlines(self) -> np.ndarray:
        return np.unique(np.array(self._ways, dtype=np.int64))

    def is_building_outline(self, way: int) -> bool:
        position = np.searchsorted(self._outlines, way)
        return position < len(self._outlines) and self._outlines[position] == way


class _Reader:
    """Adds up the objects of an extract; see [`read_osm`]."""

    def __init__(self, source: OsmFile, grid: Grid, with_poi: bool):
        self.source, self.grid, self.with_poi = source, grid, with_poi
        self.box, self.near = grid.bounds_in(WGS84), grid.widened(FAR_M).bounds_in(WGS84)
        self.project = Transformer.from_crs(WGS84, grid.epsg, always_xy=True).transform
        self.wkb = osmium.geom.WKBFactory()
        self.multipolygons, self.assembled = _Multipolygons(), array("q")
        self.ground, self.land_use = _Canvas(grid), _Canvas(grid)
        self.roads = np.zeros((len(ROADS), *grid.shape))
        self.footprint = np.zeros((2, 3, *grid.shape))
        self.volume = np.zeros((3, *grid.shape))
        self.poi = np.zeros((len(POI_CATEGORIES), *grid.shape))
        self.areas, self.lines, self.points = _Batch(), _Batch(), _Batch()
        self.coast = []
        self.unknown, self.repairs = Counter(), Counter()
        self.newest, self.objects = "", 0

    def read(self, store: str) -> None:
        """Go through the extract once; `store` says where osmium keeps the places of nodes, in memory or in a file."""
        keys = osmium.filter.KeyFilter(*KEYS)
        areas = osmium.filter.KeyFilter(*AREAS, *POIS), self.multipolygons
        file = osmium.FileProcessor(self.source.path).with_locations(store).with_areas(*areas).with_filter(keys)
        for item in file:
            if item.is_node():
                self._node(item)
            elif item.is_way():
                self._way(item)
            elif item.is_area():
                self._area(item)
            if len(self.areas.rows) + len(self.lines.rows) + len(self.points.rows) >= BATCH:
                self._flush()
        self._add_cut_multipolygons(file.node_location_storage)
        self._flush()

    def layers(self) -> OsmLayers:
        """What has been read, on the grid; the sea comes last, since it lies below everything else."""
        sea = np.array(sea_polygons(self.coast, self.grid, self.source.box), dtype=object)
        water = np.full(len(sea), 1 + GROUND_CLASSES.index("water"), dtype=np.uint8)
        self.ground.paint(sea, water, np.full(len(sea), BELOW_ALL))
        self.land_use.paint(sea, np.full(len(sea), 1, dtype=np.uint8), np.full(len(sea), BELOW_ALL))
        return OsmLayers(
            ground=self.ground.shares(len(GROUND_CLASSES)),
            land_use=self.land_use.shares(len(AOI_CLASSES)),
            roads=self.roads,
            footprint=self.footprint,
            volume=self.volume,
            poi=self.poi,
            unknown_tags=self.unknown,
            repairs=self.repairs,
            newest=self.newest,
            objects=self.objects,
        )

    # ------------------------------------------------------------------------------------------------- one object each

    def _node(self, node) -> None:
        location = node.location
        if not self.with_poi or not location.valid():
            return
        longitude, latitude = location.lon, location.lat
        west, south, east, north = self.box
        if west <= longitude <= east and south <= latitude <= north:
            tags = dict(node.tags)
            self._date(node.timestamp)
            category, unknown = poi_category(tags), unknown_tags(tags, POI_OF_TAG)
            if category is not None or unknown:
                self.points.add(shapely.Point(longitude, latitude), category, unknown)

    def _way(self, way) -> None:
        if self._is_far(way.nodes[0]) and _length(way) < FAR_M / 2:
            return
        try:
            lines, is_whole = [shapely.from_wkb(self.wkb.create_linestring(way))], True
        except osmium.InvalidLocationError:
            lines, is_whole = _known_parts(way), False
        except RuntimeError:  # a way of one node
            return
        if is_whole and not self._touches_box(lines[0]):
            return
        tags = dict(way.tags)
        if not is_whole and way.is_closed() and lines and tags.keys() & (AREAS.keys() | POIS.keys()):
            self._add_cut_area(lines, self._tags_of_ring(way.id, tags))
        road = road_class(tags)
        unknown = () if way.is_closed() else unknown_tags(tags, ROAD_OF_TAG)
        is_coast = tags.get("natural") == "coastline"
        if road is None and not unknown and not is_coast:
            return
        self._date(way.timestamp)
        for line in filter(self._touches_box, lines):
            if is_coast:
                self.coast.append(shapely.transform(line, self.project, interleaved=False))
            else:
                self.lines.add(line, road, unknown)

    def _area(self, area) -> None:
        if not area.from_way():
            self.assembled.append(area.orig_id())
        elif "building" in area.tags and self._is_far(next(iter(area.outer_rings()))[0]):
            return  # most areas are buildings, and none is as long as that
        try:
            polygon = shapely.from_wkb(self.wkb.create_multipolygon(area))
        except RuntimeError:
            self.repairs["areas without a valid geometry, left out"] += 1
            return
        if self._touches_box(polygon):
            self._date(area.timestamp)
            tags = dict(area.tags)
            self._add_area(polygon, self._tags_of_ring(area.orig_id(), tags) if area.from_way() else tags)

    def _add_cut_area(self, lines: list, tags: dict) -> None:
        """An area that the extract cuts, of which there will be no `Area` object."""
        polygon = close_ring([shapely.get_coordinates(line) for line in lines], self.source.box)
        if polygon.area > 0 and self._touches_box(polygon):
            self.repairs["areas cut off by the edge of the extract, closed along it"] += 1
            self._add_area(polygon, tags)

    def _add_cut_multipolygons(self, locations) -> None:
        """Relations of which the extract lacks ways: osmium makes no area of them, here it is that of known rings."""
        relations = self._unassembled_relations()
        if not relations:
            return
        ways = self._ways({way for _, _, members in relations for way, _ in members}, locations)
        for tags, timestamp, members in relations:
            # Those that only lack nodes have no area either; the bundled context was made without them.
            if all(way in ways for way, _ in members):
                continue
            outer = [ways[way] for way, role in members if way in ways and role != "inner"]
            inner = [ways[way] for way, role in members if way in ways and role == "inner"]
            lines = [line for parts, _ in outer for line in parts]
            if not lines or not self._touches_box(shapely.GeometryCollection(lines)):
                continue
            polygon = shapely.difference(_area_of(outer, self.source.box), _area_of(inner, self.source.box))
            end = "left out; `osmium extract --strategy=smart` keeps them whole"
            if polygon.area > 0 and self._touches_box(polygon):
                end = "drawn from the rings that are there"
                self._date(timestamp)
                self._add_area(polygon, tags)
            self.repairs[f"multipolygons that the extract cuts, {end}"] += 1

    def _unassembled_relations(self) -> list[tuple]:
        """Tags, timestamp and ways, each with its role, of relations that mean something and came without an area."""
        lost = np.setdiff1d(self.multipolygons.relations, self.assembled).tolist()
        if not lost:
            return []
        file, found = osmium.FileProcessor(self.source.path, osmium.osm.RELATION), []
        for relation in file.with_filter(osmium.filter.IdFilter(lost)):
            tags = dict(relation.tags)
            if any(self._meaning(tags)):
                ways = [(member.ref, member.role) for member in relation.members if member.type == "w"]
                found.append((tags, relation.timestamp, ways))
        return found

    def _ways(self, ids: set[int], locations) -> dict[int, tuple]:
        """The known parts of ways by id, and whether they are closed; `locations` of the nodes have been read."""
        places = osmium.NodeLocationsForWays(locations)
        places.ignore_errors()
        file = osmium.FileProcessor(self.source.path, osmium.osm.WAY).with_filter(osmium.filter.IdFilter(ids))
        return {way.id: (_known_parts(way), way.is_closed()) for way in file.with_filter(places)}

    def _tags_of_ring(self, way: int, tags: dict) -> dict:
        """The tags of a closed way that are about the area in it."""
        if "building" in tags and self.multipolygons.is_building_outline(way):
            tags = {key: value for key, value in tags.items() if key != "building"}
        return without_closed_road(tags)

    def _add_area(self, polygon, tags: dict) -> None:
        meaning, unknown = self._meaning(tags), unknown_tags(tags, AREA_OF_TAG)
        if any(meaning) or unknown:
            self.areas.add(polygon, meaning, unknown)

    def _meaning(self, tags: dict) -> tuple:
        """Surface, AOI class, building and category of an area; `None` for what its tags do not tell."""
        return *area_classes(tags), building_use(tags), poi_category(tags) if self.with_poi else None

    def _touches_box(self, geometry) -> bool:
        west, south, east, north = self.box
        left, bottom, right, top = shapely.bounds(geometry)
        return left <= east and right >= west and bottom <= north and top >= south

    def _is_far(self, node) -> bool:
        if not node.location.valid():
            return False
        west, south, east, north = self.near
        longitude, latitude = node.location.lon, node.location.lat
        return not (west <= longitude <= east and south <= latitude <= north)

    def _date(self, timestamp: datetime) -> None:
        # An extract without metadata has the start of 1970 for every object.
        if self.source.timestamp is None and timestamp.timestamp() > 0:
            self.newest = max(self.newest, timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"))

    # ------------------------------------------------------------------------------------------------------ in batches

    def _flush(self) -> None:
        for batch, add in (
            (self.areas, self._add_areas),
            (self.lines, self._add_lines),
            (self.points, self._add_points),
        ):
            if not batch.rows:
                continue
            geometries = shapely.transform(np.array(batch.geometries), self.project, interleaved=False)
            left, bottom, right, top = self.grid.bounds
            west, south, east, north = shapely.bounds(geometries).T
            inside = np.flatnonzero((east > left) & (west < right) & (north > bottom) & (south < top))
            if inside.size:
                self.objects += inside.size
                self.unknown.update(tag for index in inside for tag in batch.unknown[index])
                add(geometries[inside], [batch.rows[index] for index in inside])
        self.areas, self.lines, self.points = _Batch(), _Batch(), _Batch()

    def _add_areas(self, geometries: np.ndarray, rows: list) -> None:
        surfaces, aois, buildings, categories = zip(*rows)
        size = shapely.area(geometries)
        for canvas, classes, names in ((self.ground, GROUND_CLASSES, surfaces), (self.land_use, AOI_CLASSES, aois)):
            codes = np.array([0 if name is None else 1 + classes.index(name) for name in names], dtype=np.uint8)
            depth = size
            if canvas is self.land_use:
                # A building of which no tag tells the use does not overrule the land use around it, but where there
                # is none, somebody is most likely to live in it.
                untold = np.array([building is not None and building[0] == UNTOLD for building in buildings])
                untold &= codes == 0
                codes[untold] = 1 + AOI_CLASSES.index("residential")
                depth = np.where(untold, size + BELOW_LAND_USE, size)
            painted = np.flatnonzero(codes)
            canvas.paint(geometries[painted], codes[painted], depth[painted])
        known = [index for index, building in enumerate(buildings) if building is not None]
        self._add_buildings(geometries[known], [buildings[index] for index in known])
        counted = [index for index, category in enumerate(categories) if category is not None]
        self._add_points(shapely.point_on_surface(geometries[counted]), [categories[index] for index in counted])

    def _add_buildings(self, geometries: np.ndarray, buildings: list) -> None:
        index, row, column, area = _cut_by_cells(geometries, self.grid)
        use, height = (np.array(values)[index] for values in zip(*buildings)) if buildings else ((), np.zeros(0))
        if not len(use):
            return
        known = np.isfinite(height)
        np.add.at(self.footprint, (np.where(known, 0, 1), use, row, column), area)
        np.add.at(self.volume, (use[known], row[known], column[known]), (area * height)[known])

    def _add_lines(self, geometries: np.ndarray, roads: list) -> None:
        kept = [index for index, road in enumerate(roads) if road is not None]
        codes = np.array([ROADS.index(roads[index]) for index in kept], dtype=np.int64)
        line, middle, length = _cut_lines(geometries[kept], self.grid)
        row, column, inside = self.grid.rows_and_columns(middle[:, 0], middle[:, 1])
        np.add.at(self.roads, (codes[line], row, column), np.where(inside, length, 0))

    def _add_points(self, points: np.ndarray, categories: list) -> None:
        kept = [index for index, category in enumerate(categories) if category is not None]
        if not kept:
            return
        codes = np.array([POI_CATEGORIES.index(categories[index]) for index in kept])
        row, column, inside = self.grid.rows_and_columns(shapely.get_x(points[kept]), shapely.get_y(points[kept]))
        np.add.at(self.poi, (codes, row, column), inside)


def _length(way) -> float:
    """In m; of a way that nodes are missing of, infinite."""
    try:
        return osmium.geom.haversine_distance(way.nodes)
    except osmium.InvalidLocationError:
        return np.inf


def _known_parts(way) -> list:
    """What is left of a way that nodes are missing of, as lines; parts of one node are left out."""
    parts = [[]]
    for node in way.nodes:
        if node.location.valid():
            parts[-1].append((node.location.lon, node.location.lat))
        elif parts[-1]:
            parts.append([])
    return [shapely.LineString(part) for part in parts if len(part) > 1]


def _area_of(ways: list, box: tuple[float, float, float, float]):
    """The area in rings of ways, each its known parts and whether it is closed; open ways have to fit together."""
    rings = [close_ring([shapely.get_coordinates(line) for line in lines], box) for lines, closed in ways if closed]
    rings.append(shapely.polygonize([line for lines, closed in ways if not closed for line in lines]))
    parts = shapely.get_parts(shapely.get_parts(rings))
    return shapely.union_all(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])


def _cut_lines(lines: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Line, middle (x, y) in m and length in m of the pieces that the edges of the cells cut lines into."""
    points, line = shapely.get_coordinates(shapely.segmentize(lines, 0.9 * grid.cell_size), return_index=True)
    same = line[1:] == line[:-1]
    start, step, line = points[:-1][same], np.diff(points, axis=0)[same], line[1:][same]
    # A piece that is shorter than a cell crosses at most one edge along either axis.
    first, last = ((end - (grid.left, grid.bottom)) / grid.cell_size for end in (start, start + step))
    crosses = np.floor(first) != np.floor(last)
    edge = np.maximum(np.floor(first), np.floor(last))
    at = np.where(crosses, (edge - first) / np.where(crosses, last - first, 1), 1).clip(0, 1)
    cuts = np.column_stack([np.zeros(len(at)), np.sort(at, axis=1), np.ones(len(at))])
    share, centre = np.diff(cuts, axis=1), (cuts[:, 1:] + cuts[:, :-1]) / 2
    middle = start[:, None] + centre[..., None] * step[:, None]
    length = share * np.hypot(*step.T)[:, None]
    return np.repeat(line, 3), middle.reshape(-1, 2), length.ravel()


def _cut_by_cells(geometries: np.ndarray, grid: Grid) -> tuple:
    """Polygon, row, column and area in m2 of every piece that the cells cut polygons into."""
    left, bottom, right, top = shapely.bounds(geometries).reshape(-1, 4).T
    size = grid.cell_size
    first = np.floor([(bottom - grid.bottom) / size, (left - grid.left) / size]).astype(np.int64)
    last = np.floor([(top - grid.bottom) / size, (right - grid.left) / size]).astype(np.int64)
    limits = np.array(grid.shape)[:, None] - 1
    first, last = first.clip(0, limits), last.clip(0, limits)
    across = last - first + 1
    count = across.prod(axis=0)
    index = np.repeat(np.arange(len(geometries)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    row = first[0][index] + within // across[1][index]
    column = first[1][index] + within % across[1][index]
    area = shapely.area(shapely.intersection(geometries[index], grid.boxes(row, column)))
    return index, row, column, area
