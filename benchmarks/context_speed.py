# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Seconds and peak memory of building the context of an area from an OpenStreetMap extract.

    python -m benchmarks.context_speed --osm Helsinki.osm.pbf
    python -m benchmarks.context_speed --osm Helsinki.osm.pbf --copies 300 --boundary centre.geojson

With `--copies`, the extract is first repeated side by side, to see whether memory grows with the size
of what is read. The area stays the same: the boundary, which should lie in the original.
"""

import tempfile
import time
from pathlib import Path

import osmium

from zoomdiff_diffusers.data.open_data import build_context
from zoomdiff_diffusers.data.open_data.extract import open_osm

from .report import make_parser, peak_memory_gib, publish


ACROSS = 20  # copies from west to east
ID_STEP = 10**11  # between the copies' identifiers


def repeat_extract(path, copies, target):
    """Write an extract `copies` times side by side, the original in the south-west."""
    west, south, east, north = open_osm(path).box
    width, height = 1.05 * (east - west), 1.05 * (north - south)
    header = osmium.io.Header()
    header.add_box(osmium.osm.Box(west, south, west + ACROSS * width, south + (copies // ACROSS + 1) * height))
    with osmium.SimpleWriter(str(target), header=header) as writer:
        for kind in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION):
            for copy in range(copies):
                shift = copy % ACROSS * width, copy // ACROSS * height
                for item in osmium.FileProcessor(path, kind):
                    writer.add(_moved(item, shift, copy * ID_STEP))
    return target


def _moved(item, shift, offset):
    if item.is_node():
        position = item.location.lon + shift[0], item.location.lat + shift[1]
        return item.replace(id=item.id + offset, location=position)
    if item.is_way():
        return item.replace(id=item.id + offset, nodes=[node.ref + offset for node in item.nodes])
    members = [(member.type, member.ref + offset, member.role) for member in item.members]
    return item.replace(id=item.id + offset, members=members)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--osm", type=Path, required=True, help="OpenStreetMap extract")
    parser.add_argument("--boundary", type=Path, default=None, help="polygons around the area (default: all of it)")
    parser.add_argument("--copies", type=int, default=1, help="how often the extract is repeated (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs (default: 3)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.osm
        if arguments.copies > 1:
            path = repeat_extract(path, arguments.copies, Path(folder) / "repeated.osm.pbf")
        before = peak_memory_gib()
        seconds = []
        for _ in range(arguments.repeats):
            started = time.perf_counter()
            dataset = build_context(path, arguments.boundary)
            seconds.append(time.perf_counter() - started)
        results = {
            "seconds": seconds,
            "cells": dataset.sizes["y"] * dataset.sizes["x"],
            "extract_mib": path.stat().st_size / 2**20,
            "mib_per_second": path.stat().st_size / 2**20 / min(seconds),
            "peak_memory_gib": peak_memory_gib(),
            "memory_before_gib": before,
        }
    arguments.osm, arguments.boundary = (path and path.name for path in (arguments.osm, arguments.boundary))
    publish(results, arguments)


if __name__ == "__main__":
    main()
