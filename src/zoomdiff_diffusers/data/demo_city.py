# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The context of a real quarter, central Helsinki, that ships with the package."""

from pathlib import Path

import xarray as xr


DEMO_CONTEXT = Path(__file__).parents[1] / "bundled" / "helsinki" / "context.nc"


def load_demo_context() -> xr.Dataset:
    """
    The context of central Helsinki: 32 x 16 cells of 50 m around the main railway station.

    Made by [`build_context`] from OpenStreetMap as of April 2019, © OpenStreetMap contributors, Open Database License
    1.0; maps and traffic that are made from it need this attribution. The residents are estimated from the volume of
    buildings. The layer of people per hour is absent, as it is from all open data.

    Returns:
        `xr.Dataset` as of [`build_context`]: `surface` and `aoi` (y, x) codes, `poi` (poi_category, y, x) counts,
        `building_volume` (y, x) in m3 and `population` (y, x) in residents, all per cell, rows from south to north;
        `y` and `x` in m, in the coordinate reference system of `spatial_ref`.
    """
    with xr.open_dataset(DEMO_CONTEXT, engine="scipy") as dataset:
        return dataset.load().drop_encoding()
