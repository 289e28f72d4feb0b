# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Levels in the formats of other programs: GeoTIFF, GeoParquet, CSV and NetCDF.

Everything is read and written block by block: memory does not grow with the area.
"""

from .csv import export_csv
from .geoparquet import export_geoparquet
from .geotiff import export_geotiff
from .level_statistics import LevelStatistics
from .netcdf import export_netcdf


__all__ = ["LevelStatistics", "export_csv", "export_geoparquet", "export_geotiff", "export_netcdf"]
