# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Writes the context of the demo city, from an OpenStreetMap extract that covers central Helsinki:

    python examples/make_demo_city.py Helsinki.osm.pbf [--output context.nc]

The same layers as of `zoomdiff context --osm Helsinki.osm.pbf --boundary boundary.geojson`, but as a NetCDF-3 file,
which SciPy reads: an installation without extras can load it.
"""

import argparse
from pathlib import Path

from zoomdiff_diffusers.data.demo_city import DEMO_CONTEXT
from zoomdiff_diffusers.data.open_data import build_context
from zoomdiff_diffusers.data.stores import replace_file


BOUNDARY = DEMO_CONTEXT.with_name("boundary.geojson")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("osm", type=Path, help="OpenStreetMap extract")
    parser.add_argument("--output", type=Path, default=DEMO_CONTEXT, help="file to write (default: the bundled one)")
    arguments = parser.parse_args()
    context = build_context(arguments.osm, BOUNDARY)
    context.attrs["title"] = "Urban context of central Helsinki, from OpenStreetMap"
    replace_file(arguments.output, lambda path: context.to_netcdf(path, engine="scipy", format="NETCDF3_CLASSIC"))
    print(f"{arguments.output}: {context.sizes['y']} x {context.sizes['x']} cells, data of {context.osm_timestamp}")


if __name__ == "__main__":
    main()
