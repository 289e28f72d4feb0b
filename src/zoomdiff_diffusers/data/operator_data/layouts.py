# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Two published data sets: the Telecom Italia Big Data Challenge, and arrays made from the UoMo release."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import xarray as xr

from .build import AREAS, REPORT, STORE, FolderInTheMaking, build_dataset, check_output
from .readings import TableFormat
from .writing import channels_of, nested, write_parquet


ACTIVITIES = ("sms_in", "sms_out", "call_in", "call_out", "internet")
MILAN_WIDTH, MILAN_CELL_M = 100, 235.0
MILAN_LEFT, MILAN_BOTTOM, MILAN_CRS = 500_900.0, 5_022_575.0, "EPSG:32632"
HOURS = 168


def build_telecom_italia(
    folder,
    output,
    grid_width: int | None = None,
    context=None,
    timezone: str = "Europe/Rome",
    cell_size: float | None = None,
) -> dict:
    """
    Make a training set from the files of the Telecom Italia Big Data Challenge.

    They have no header line; tabs separate square, start of 10 minutes (ms since 1970, UTC), country code, SMS in, SMS
    out, calls in, calls out and internet. The rows of the countries are added up. What is empty or has no row is 0,
    but an interval without any row was not measured.

    Args:
        folder (`str` or `os.PathLike`): The files.
        output (`str` or `os.PathLike`): Folder to make, as in [`build_dataset`], with five channels.
        grid_width (`int`, *optional*): Squares in a row. Default: the 100 x 100 squares of 235 m of Milan.
        context (`str` or `os.PathLike`, *optional*): NetCDF file of layers on the same squares.
        timezone (`str`, defaults to `"Europe/Rome"`): Local time.
        cell_size (`float`, *optional*): Side of a square of `grid_width` in m. Default: 235, as in Milan.

    Returns:
        `dict`: the report.

    Raises:
        ValueError, OSError: As in [`build_dataset`].
    """
    form = TableFormat(
        unit="square",
        time="time",
        values=ACTIVITIES,
        names=("square", "time", "country", *ACTIVITIES),
        key="country",
        timezone=timezone,
        interval=600,
        empty_is_zero=True,
    )
    is_milan = grid_width is None
    if is_milan and cell_size is not None:
        raise ValueError(f"cell_size needs grid_width: without it the squares are those of Milan, {MILAN_CELL_M:g} m.")
    return build_dataset(
        folder,
        output,
        form,
        grid_width=MILAN_WIDTH if is_milan else grid_width,
        grid_height=MILAN_WIDTH if is_milan else None,
        context=_milan() if is_milan and context is None else context,
        cell_size=MILAN_CELL_M if cell_size is None else cell_size,
        missing_rows="zero",
        value_unit="1",
    )


def _milan() -> xr.Dataset:
    """The squares of Milan, numbered from the south-west."""
    from .places import grid_mapping

    centres = (np.arange(MILAN_WIDTH) + 0.5) * MILAN_CELL_M
    metres = {"units": "m"}
    return xr.Dataset(
        coords={
            "y": ("y", MILAN_BOTTOM + centres, {"standard_name": "projection_y_coordinate", "axis": "Y", **metres}),
            "x": ("x", MILAN_LEFT + centres, {"standard_name": "projection_x_coordinate", "axis": "X", **metres}),
            "spatial_ref": grid_mapping(MILAN_CRS),
        }
    )


def build_uomo(folder, output) -> dict:
    """
    Make a training set from measured tiles of the UoMo release: one week of traffic and users of some places.

    Args:
        folder (`str` or `os.PathLike`):
            With `tiles.npz`, arrays made from the release and not one of its own files: `traffic` and `users`
            (N, 168, H, W), `poi` (N, n, H, W) and `valid_hours` (168,).
        output (`str` or `os.PathLike`): Folder to make, as in [`build_dataset`]. The store has the dimensions area,
            channel, time, y, x; where and when the places were measured is not published.

    Returns:
        `dict`: the report.

    Raises:
        ValueError: If the arrays are not like this. OSError: if something cannot be written.
    """
    output, path = Path(output), Path(folder) / "tiles.npz"
    check_output(output)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    needed = {"traffic", "users", "poi", "valid_hours"}
    with np.load(path, allow_pickle=False) as archive:
        if missing := sorted(needed - set(archive.files)):
            raise ValueError(f"{path} lacks the arrays {missing}; it has {sorted(archive.files)}.")
        arrays = {name: archive[name] for name in needed}
    traffic, users, poi, valid = (arrays[name] for name in ("traffic", "users", "poi", "valid_hours"))
    count, hours, *plane = traffic.shape if traffic.ndim == 4 else (0, 0)
    if (hours, users.shape, valid.shape) != (HOURS, traffic.shape, (HOURS,)) or poi.shape[::2] != (count, plane[0]):
        shapes = {name: values.shape for name, values in arrays.items()}
        raise ValueError(f"{path} must hold traffic and users (N, {HOURS}, H, W) and the same places, found {shapes}.")
    for name, values in (("traffic", traffic), ("users", users)):
        if not np.isfinite(values[:, valid]).all() or values[:, valid].min() < 0:
            raise ValueError(f"{path}: {name} must be finite and not negative where `valid_hours` is true.")
    values = np.where(valid[:, None, None], np.stack([traffic, users], axis=1), np.nan)
    with FolderInTheMaking(output) as making:
        result = making / "result"
        (result / AREAS).mkdir(parents=True)
        columns = {
            "area": pa.array(np.arange(count)),
            "start_hour": pa.array(np.zeros(count, dtype=np.int64)),
            "traffic": nested(np.nan_to_num(values[:, 0]).astype(np.float32)),
            "users": nested(np.nan_to_num(values[:, 1]).astype(np.float32)),
            "valid": nested(np.broadcast_to(valid[:, None, None], traffic.shape[1:])[None].repeat(count, axis=0)),
            "poi": nested(poi),
        }
        write_parquet(result / AREAS / "week.parquet", columns)
        dims = ("area", "channel", "time", "y", "x")
        text = {"units": "1", "long_name": "traffic, and active users, per cell and hour", "cell_methods": "time: sum"}
        hour = {"units": "h", "axis": "T", "long_name": "start of the hour, from a Monday 00:00"}
        xr.Dataset(
            {"traffic": (dims, values, text), "poi": (("area", "poi_category", "y", "x"), poi)},
            {"channel": channels_of(["traffic", "users"]), "time": ("time", np.arange(float(HOURS)), hour)},
            {"Conventions": "CF-1.11", "title": "Measured mobile traffic", "source": path.name},
        ).to_zarr(result / STORE, mode="w", zarr_format=3, consolidated=False)
        report = {
            "output": str(output),
            "rows_for_training": count,
            "channels": ["traffic", "users"],
            "grid": plane,
            "known_hours_share": float(valid.mean()),
            "totals": {"traffic": float(np.nansum(values[:, 0])), "users": float(np.nansum(values[:, 1]))},
            "notes": [
                f"{int((~valid).sum())} of {HOURS} hours are not valid, as the file says",
                "the first hour is taken for a Monday 00:00; the size of a cell is not published",
            ],
        }
        (result / REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(result, output)
    return report
