# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""A small OpenStreetMap extract, and the other inputs of a context, drawn in metres of a UTM zone."""

import json

import numpy as np
import osmium
import rasterio
from pyproj import Transformer


EPSG = 32633
LEFT, BOTTOM = 400_000.0, 5_400_000.0  # of the drawing: multiples of any cell size here
HEIGHT, WIDTH = 16, 24  # cells of 50 m
TO_DEGREES = Transformer.from_crs(EPSG, 4326, always_xy=True).transform


def degrees(points):
    """Longitudes and latitudes of points in metres from the corner of the drawing."""
    return [TO_DEGREES(LEFT + x, BOTTOM + y) for x, y in points]


def rectangle(x, y, width, height):
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


class OsmCity:
    """Objects of an extract; `write` puts them into a file in the order that OpenStreetMap files have."""

    def __init__(self):
        self.nodes, self.ways, self.relations = [], [], []

    def node(self, x, y, **tags):
        self.nodes.append(osmium.osm.mutable.Node(id=len(self.nodes) + 1, location=degrees([(x, y)])[0], tags=tags))
        return len(self.nodes)

    def way(self, points, closed=False, missing=(), **tags):
        """A way; the nodes at the positions `missing` are not in the file."""
        ids = [10**6 + len(self.nodes) + i if i in missing else self.node(*point) for i, point in enumerate(points)]
        ids += ids[:1] if closed else []
        self.ways.append(osmium.osm.mutable.Way(id=len(self.ways) + 1, nodes=ids, tags=tags))
        return len(self.ways)

    def area(self, *rectangle_of, **tags):
        return self.way(rectangle(*rectangle_of), closed=True, **tags)

    def multipolygon(self, outer, inner, **tags):
        members = [("w", self.area(*outer), "outer"), ("w", self.area(*inner), "inner")]
        self.relation(members, type="multipolygon", **tags)

    def relation(self, members, **tags):
        """A relation of members, such as `("w", 1, "outer")`; those that are not in the file are missing."""
        self.relations.append(osmium.osm.mutable.Relation(id=len(self.relations) + 1, members=members, tags=tags))

    def write(self, path, box=(0, 0, 50 * WIDTH, 50 * HEIGHT), timestamp=None):
        """Write the file; `box` is x, y, width and height in metres, `None` for a header without one."""
        header = osmium.io.Header()
        if box is not None:
            west, south = degrees([box[:2]])[0]
            east, north = degrees([(box[0] + box[2], box[1] + box[3])])[0]
            header.add_box(osmium.osm.Box(west, south, east, north))
        if timestamp is not None:
            header.set("osmosis_replication_timestamp", timestamp)
        with osmium.SimpleWriter(str(path), header=header, overwrite=True) as writer:
            for add, objects in (
                (writer.add_node, self.nodes),
                (writer.add_way, self.ways),
                (writer.add_relation, self.relations),
            ):
                for item in objects:
                    add(item)
        return path


def draw_city():
    """
    A city with known truths, in cells of 50 m counted from the south-west:

    - rows 0 to 3, columns 0 to 3: a forest;
    - rows 4 to 9, columns 0 to 5: a park, in it a pond on rows 6 and 7, columns 2 and 3;
    - rows 0 to 7, columns 8 to 15: housing, in it a school on rows 2 and 3, columns 10 and 11;
    - rows 0 to 3, columns 18 to 21: industry, with a hole on rows 1 and 2, columns 19 and 20;
    - row 12, all columns: a primary road; column 16: 30 m of a residential street in row 14, 20 m in row 15;
      column 20: a motorway in a tunnel; column 22: a railway;
    - row 5, columns 12 and 13: apartments of 20 m x 30 m, 12 m and 8 m in either cell, of 5 storeys.
    """
    city = OsmCity()
    city.area(0, 0, 200, 200, landuse="forest")
    city.area(0, 200, 300, 300, leisure="park")
    city.area(100, 300, 100, 100, natural="water")
    city.area(400, 0, 400, 400, landuse="residential")
    city.area(500, 100, 100, 100, amenity="school")
    city.multipolygon((900, 0, 200, 200), (950, 50, 100, 100), landuse="industrial")
    city.way([(0, 625), (1200, 625)], highway="primary")
    city.way([(825, 720), (825, 770)], highway="residential")
    city.way([(1025, 0), (1025, 800)], highway="motorway", tunnel="yes")
    city.way([(1125, 0), (1125, 800)], railway="rail")
    city.area(638, 260, 20, 30, **{"building": "apartments", "building:levels": "5"})
    for x in (10, 20, 60):
        city.node(x, 710, amenity="cafe")
    city.node(15, 715, shop="bakery", amenity="cafe")
    city.area(1160, 710, 20, 20, amenity="place_of_worship")
    city.node(605, 640, highway="bus_stop")
    city.node(605, 645, amenity="bench")
    for x in (610, 620):
        city.node(x, 645, amenity="teleporter")
    city.node(5000, 5000, amenity="teleporter")
    return city


def write_boundary(path, points, swapped=False):
    """A GeoJSON file with one polygon through points in metres."""
    ring = [list(point[::-1] if swapped else point) for point in degrees([*points, points[0]])]
    return write_geojson(path, [{"type": "Polygon", "coordinates": [ring]}])


def write_geojson(path, geometries):
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def write_raster(path, values, left, top, pixel, crs=EPSG, nodata=None):
    """A GeoTIFF of values (H, W), first row in the north."""
    values = np.asarray(values)
    profile = {"driver": "GTiff", "count": 1, "dtype": values.dtype.name, "nodata": nodata}
    transform = rasterio.transform.from_origin(left, top, pixel, pixel)
    crs = None if crs is None else rasterio.crs.CRS.from_user_input(crs)
    size = {"height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", **profile, **size, crs=crs, transform=transform) as file:
        file.write(values, 1)
    return path
