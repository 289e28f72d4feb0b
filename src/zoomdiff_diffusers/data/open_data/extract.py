# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""OpenStreetMap extracts before they are read: whether they are whole, the box around them, how recent they are."""

import math
from dataclasses import dataclass
from pathlib import Path

import osmium


@dataclass(frozen=True)
class OsmFile:
    """
    An extract that was found readable.

    Args:
        path (`Path`): The file.
        box (`tuple`): West, south, east and north in degrees: that of the header, or else around all nodes.
        timestamp (`str` or `None`): State of the data according to the header.
    """

    path: Path
    box: tuple[float, float, float, float]
    timestamp: str | None


def open_osm(path) -> OsmFile:
    """
    Check an extract (.osm.pbf, .osm, .osm.gz, .osm.bz2, .opl). Objects are only read if its header has no box.

    Raises:
        ValueError: If it is damaged, truncated, of an unknown format or empty.
    """
    path = Path(path)
    if path.name.endswith(".pbf"):
        _check_blobs(path)
    try:
        header = osmium.FileProcessor(path).header
    except RuntimeError as error:
        raise ValueError(f"{path} is no readable OpenStreetMap file ({error}).") from error
    timestamp = header.get("osmosis_replication_timestamp") or header.get("timestamp") or None
    box = header.box()
    if box.valid():
        first, last = box.bottom_left, box.top_right
        return OsmFile(path, (first.lon, first.lat, last.lon, last.lat), timestamp)
    return OsmFile(path, _box_of_nodes(path), timestamp)


def _check_blobs(path: Path) -> None:
    """Walk over the blocks of a PBF file by their lengths: a file that was cut off ends inside of one."""
    size, position = path.stat().st_size, 0
    if size == 0:
        raise ValueError(f"{path} is empty.")
    damaged = f"{path} is no PBF file, or a damaged one"
    with open(path, "rb") as file:
        while position < size:
            file.seek(position)
            length = int.from_bytes(file.read(4), "big")
            if not 0 < length <= 64 * 1024:
                raise ValueError(f"{damaged}: a block at byte {position:,} has an impossible length.")
            header = file.read(length)
            kind, data = _blob_header(header)
            if data is None or kind != (b"OSMHeader" if position == 0 else kind):
                raise ValueError(f"{damaged}: there is no block at byte {position:,}.")
            position += 4 + length + data
    if position != size:
        raise ValueError(f"{path} is cut off: it has {size:,} bytes, but its last block ends at {position:,}.")


def _blob_header(header: bytes) -> tuple[bytes, int | None]:
    """Type and length of the data of a block: fields 1 and 3 of the protocol buffer `BlobHeader`."""
    kind, data, position = b"", None, 0
    while position < len(header):
        field_number, wire = header[position] >> 3, header[position] & 7
        value, position = _varint(header, position + 1)
        if wire == 2:
            if field_number == 1:
                kind = header[position : position + value]
            position += value
        elif wire != 0:
            return kind, None
        elif field_number == 3:
            data = value
    return kind, data


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            break
    return value, position


def _box_of_nodes(path: Path) -> tuple[float, float, float, float]:
    west, south, east, north = math.inf, math.inf, -math.inf, -math.inf
    try:
        for node in osmium.FileProcessor(path, osmium.osm.NODE):
            if node.location.valid():
                longitude, latitude = node.location.lon, node.location.lat
                west, east = min(west, longitude), max(east, longitude)
                south, north = min(south, latitude), max(north, latitude)
    except RuntimeError as error:
        raise ValueError(f"{path} is damaged ({error}).") from error
    if west > east:
        raise ValueError(f"{path} is empty: it has no nodes.")
    return west, south, east, north
