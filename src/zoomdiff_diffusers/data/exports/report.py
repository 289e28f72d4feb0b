# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What an export says of itself."""

import xarray as xr

from .level_statistics import LevelStatistics
from .rows import time_texts


LICENCES = ("context_licence", "licence")  # attributes that say what is owed to the sources of a file


def report(source: LevelStatistics, output, **more) -> dict:
    """What was written, JSON-safe: the file, the level with its size, and `more` of this format."""
    return {
        "output": str(output),
        "level": source.name,
        "height": len(source.y),
        "width": len(source.x),
        "channels": source.channels,
        "statistics": source.columns,
        "times": source.num_times,
        "first_time": None if source.times is None else str(time_texts(source.times[:1])[0]),
        **more,
    }


def licence_of(root: xr.DataTree) -> dict[str, str]:
    """What is owed to the sources of a file, such as "© OpenStreetMap contributors", if it says so."""
    texts = [str(root.attrs[name]) for name in LICENCES if name in root.attrs]
    return {"licence": texts[0]} if texts else {}
