# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Plans: changes of land use, buildings, residents and points of interest, drawn as GeoJSON and put into a context."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from .simulated_context import AOI_CLASSES, POI_CATEGORIES, SURFACE_CLASSES
from .stores import check_metres


# What a plan of a kind usually brings, per hectare of its ground with inner roads and yards. Our own rough figures
# for a European city, and near what the simulated cities hold: give numbers of your own where you have them.
PRESETS = {
    "housing": {
        "aoi": "residential", "surface": "built", "building_volume": 25_000, "population": 80,
        "poi": {"food": 0.5, "shop": 0.7, "education": 0.2, "health": 0.2, "leisure": 0.2, "transport": 0.2},
    },
    "dense housing": {
        "aoi": "residential", "surface": "built", "building_volume": 75_000, "population": 250,
        "poi": {"food": 2, "shop": 3, "office": 1, "education": 0.4, "health": 0.7, "leisure": 0.4, "transport": 0.4},
    },
    "offices": {
        "aoi": "office", "surface": "built", "building_volume": 80_000, "population": 0,
        "poi": {"food": 4, "shop": 2, "office": 10, "health": 0.5, "leisure": 0.5, "public": 1, "transport": 0.5},
    },
    "shopping centre": {
        "aoi": "retail", "surface": "built", "building_volume": 60_000, "population": 0,
        "poi": {"food": 6, "shop": 20, "office": 1, "leisure": 1, "transport": 0.5},
    },
    "stadium": {
        "aoi": "leisure", "surface": "built", "building_volume": 50_000, "population": 0,
        "poi": {"food": 3, "shop": 0.5, "leisure": 4, "public": 0.3, "transport": 0.5},
    },
    "industry": {
        "aoi": "industrial", "surface": "built", "building_volume": 35_000, "population": 0,
        "poi": {"food": 0.2, "shop": 0.2, "office": 0.8},
    },
    "campus": {
        "aoi": "education", "surface": "built", "building_volume": 30_000, "population": 0,
        "poi": {"food": 0.5, "education": 4, "leisure": 0.4, "public": 0.4, "transport": 0.3},
    },
    "hospital": {
        "aoi": "health", "surface": "built", "building_volume": 45_000, "population": 0,
        "poi": {"food": 0.5, "health": 6, "public": 0.3, "transport": 0.3},
    },
    "park": {
        "aoi": "park", "surface": "vegetation", "building_volume": 100, "population": 0,
        "poi": {"food": 0.1, "leisure": 0.4},
    },
}  # fmt: skip

CLASSES = {"aoi": AOI_CLASSES, "surface": SURFACE_CLASSES}
TOTALS = ("building_volume", "population")
PROPERTIES = ("name", "preset", *CLASSES, *TOTALS, "poi")
OF_POINTS = ("name", "poi")
ROW_NUMBERS = ("id", "fid", "ogc_fid")  # which GIS programs add, and say nothing
# Nobody has counted the people of a plan hour by hour.
COUNTED_PEOPLE = "population_over_time"
SMOOTHED = "_smooth_"  # between the layer and the width in the names of `smooth_context`
SAME_VALUES = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}  # in single precision, of values around 1
METRES = ("m", "metre", "metres", "meter", "meters")
LARGEST_SHARE_OUTSIDE = 1e-3  # of a polygon: edges that follow those of the area are never exact
FILLED = 1e-9  # of a cell: rounding
# Cells in the order of these multiples, modulo 1, are an even pattern: every stretch of them is all over the polygon
# (the R2 sequence of M. Roberts). Categories begin at different places of the order, so that not all share one cell.
LATTICE = (0.7548776662466927, 0.5698402909980532)
GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class _Cells:
    """The grid of a context: the rows' and columns' centres in m, in either order, and its reference system."""

    y: np.ndarray
    x: np.ndarray
    crs: object | None

    @property
    def sides(self) -> tuple[float, float]:
        return abs(self.y[1] - self.y[0]), abs(self.x[1] - self.x[0])

    @property
    def area(self) -> float:
        """Of a cell in m2."""
        return self.sides[0] * self.sides[1]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top."""
        half_y, half_x = (side / 2 for side in self.sides)
        return self.x.min() - half_x, self.y.min() - half_y, self.x.max() + half_x, self.y.max() + half_y

    def shares(self, polygon) -> tuple[tuple[slice, slice], np.ndarray]:
        """The rows and columns around a polygon, and the share of each of their cells that it covers."""
        import shapely

        left, bottom, right, top = polygon.bounds
        half_y, half_x = (side / 2 for side in self.sides)
        rows = np.flatnonzero((self.y > bottom - half_y) & (self.y < top + half_y))
        columns = np.flatnonzero((self.x > left - half_x) & (self.x < right + half_x))
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        y, x = np.meshgrid(self.y[window[0]], self.x[window[1]], indexing="ij")
        boxes = shapely.box(x - half_x, y - half_y, x + half_x, y + half_y)
        shapely.prepare(polygon)
        shares = shapely.contains_properly(polygon, boxes).astype(np.float64)
        cut = (shares == 0) & shapely.intersects(polygon, boxes)
        shares[cut] = shapely.area(shapely.intersection(polygon, boxes[cut])) / self.area
        return window, np.where(shares > FILLED, np.minimum(shares, 1.0), 0.0)


@dataclass(frozen=True)
class _Edit:
    """One feature: its name for messages, its geometry in metres of the context, and what it sets."""

    name: str
    geometry: object
    values: dict


def edit_context(context: xr.Dataset, edits: str | os.PathLike | dict) -> tuple[xr.Dataset, dict]:
    """
    Put a plan into a context: what will stand, live and open in some places instead of what is there.

    A polygon replaces what its ground holds, and only that of which it speaks. Land use and surface change in the
    cells that it covers by at least half. Building volume and residents are shared out over its cells by covered area,
    and what a partly covered cell had outside of the polygon stays, so totals are exact. Points of interest are whole:
    those of its categories go from the cells that it covers by at least half, and the new ones are placed evenly. A
    point adds to the points of interest of its cell. Features are applied in their order. Smoothed copies of layers
    that change, such as `population_smooth_2` of [`smooth_context`], are made again.

    Args:
        context (`xarray.Dataset`): Of `zoomdiff context`, or with the same layers (any of `surface`, `aoi`, `poi`,
            `building_volume` and `population`) and the coordinates `y` and `x`, centres of the cells in m.
        edits (`str`, `os.PathLike` or `dict`): A GeoJSON feature collection, or its file, in longitude and latitude or
            in what its member `crs` names; for a context without a reference system, in metres of its `x` and `y`. The
            properties of a Polygon or MultiPolygon are any of
            - `preset`: a key of `PRESETS`, typical values per hectare for all layers; the others win over it,
            - `aoi`, `surface`: a class,
            - `building_volume`: m3 in all, the floor area times about 3 m,
            - `population`: residents in all,
            - `poi`: numbers by category, in all, such as `{"shop": 12, "food": 0}`,
            - `name`: for the report and for messages.
            Those of a Point are `poi` and `name`. An empty value (`null`) counts as not given.

    Returns:
        `tuple[xr.Dataset, dict]`: The plan, with the coordinate `edited`, the share of each cell that changes; and
        what was changed, JSON-safe: `features`, `totals` of the area before and after, and `dropped`, the layers that
        the plan lacks, since they would speak against it. These are `population_over_time`, as people present follow
        from everything that changes, and smoothed copies that [`smooth_context`] does not make of the layer in the
        context, so that they cannot be made again. Leave them out on both sides of a comparison.

    Raises:
        ValueError: For a context that is not in metres, or a feature that cannot be applied; the message names it.
    """
    cells = _cells(context)
    found = _read_edits(edits, cells, context)
    touched = dict.fromkeys(name for edit in found for name in edit.values)
    plan = context.copy()
    for name in touched:
        layer = context[name].compute().transpose(..., "y", "x").drop_encoding()
        # Whole numbers, as a file may hold them, would not take the shares of a partly covered cell.
        plan[name] = layer.copy(deep=True) if name in CLASSES else layer.astype(np.float64)
    edited = np.zeros((len(cells.y), len(cells.x)), dtype=np.float32)
    report = {"features": [], "totals": {}, "dropped": []}
    for edit in found:
        window, shares = _window_of(edit, cells)
        before = _totals(plan, edit.values, window)
        _apply(plan, edit, window, shares)
        edited[window] = np.maximum(edited[window], shares)
        report["features"].append(
            {
                "name": edit.name,
                "cells": int((shares > 0).sum()),
                "cells_mostly_covered": int(_mostly(shares).sum()),
                "hectares": round(float(shares.sum()) * cells.area / 1e4, 4),
                "set": edit.values,
                "totals": _before_and_after(before, _totals(plan, edit.values, window)),
            }
        )
    everywhere = (slice(None), slice(None))
    report["totals"] = _before_and_after(_totals(context, touched, everywhere), _totals(plan, touched, everywhere))
    for name in (name for name in touched if name in TOTALS or name == "poi"):
        plan[name] = plan[name].astype(np.float32)
    plan = plan.assign_coords(edited=(("y", "x"), edited, {"long_name": "share of the cell that the plan changes"}))
    if found and COUNTED_PEOPLE in plan:
        report["dropped"].append(COUNTED_PEOPLE)
    for name in map(str, context.data_vars):
        layer, _, width = name.rpartition(SMOOTHED)
        if layer in touched:
            again = _smooth_again(name, layer, width, context, plan)
            if again is None:
                report["dropped"].append(name)
            else:
                plan[name] = again
    return plan.drop_vars(report["dropped"]), report


def _smooth_again(name: str, layer: str, width: str, context: xr.Dataset, plan: xr.Dataset) -> xr.DataArray | None:
    """
    The smoothed copy of a layer of the plan, made in the way that gives that of the context from its layer.

    `None` if no way does, or several do and disagree about the plan.
    """
    from .datasets import smooth_context

    copy = context[name].compute().drop_encoding()
    try:
        sigma = float(width)
        copy = copy.transpose(..., "y", "x")
    except ValueError:
        return None
    if layer in CLASSES:
        ways = [{"kind": "categorical", "classes": _labels(context[layer], layer)}]
    else:
        ways = [{"kind": "continuous", "log": log} for log in (False, True)]
    found = []
    for way in ways:
        before, after = (
            smooth_context({layer: values.transpose(..., "y", "x").values}, [{"name": layer, **way}], [sigma])[
                f"{layer}{SMOOTHED}{sigma:g}"
            ]
            for values in (context[layer], plan[layer])
        )
        if before.size == copy.size and np.allclose(before.reshape(copy.shape), copy, **SAME_VALUES):
            found.append(after.reshape(copy.shape))
    if not found or not all(np.allclose(found[0], other, **SAME_VALUES) for other in found[1:]):
        return None
    return copy.copy(data=found[0])


def _cells(context: xr.Dataset) -> _Cells:
    """The grid of a context, after checking that it has one."""
    if not isinstance(context, xr.Dataset) or not {"y", "x"} <= set(context.coords):
        raise ValueError("`context` must be an xarray.Dataset with coordinates `y` and `x`: centres of cells in m.")
    centres = [np.asarray(context[axis].values) for axis in ("y", "x")]
    for axis, values in zip(("y", "x"), centres):
        if (unit := context[axis].attrs.get("units", "m")) not in METRES:
            raise ValueError(f"The coordinate `{axis}` of the context must be in m, but its `units` are {unit!r}.")
        steps = np.diff(values) if values.ndim == 1 and values.dtype.kind in "iuf" else np.zeros(1)
        if not steps.size or not np.isfinite(steps).all() or steps[0] == 0 or not np.allclose(steps, steps[0], 1e-3):
            raise ValueError(f"The coordinate `{axis}` of the context must be evenly spaced centres of cells in m.")
    return _Cells(*(values.astype(np.float64) for values in centres), _crs(context))


def _crs(context: xr.Dataset):
    """The reference system of a context, which must count metres, or `None`."""
    mappings = [layer.attrs.get("grid_mapping") for layer in context.data_vars.values()]
    for name in dict.fromkeys([*mappings, "spatial_ref"]):
        attributes = context[name].attrs if name in context.variables else {}
        text = attributes.get("crs_wkt") or attributes.get("spatial_ref")
        if text:
            return _in_metres(text, "The context's `spatial_ref`")
    return _in_metres(context.attrs["crs"], "The context's attribute `crs`") if "crs" in context.attrs else None


def _in_metres(text, what: str):
    crs = _parse_crs(text, what)
    check_metres(crs, what)
    return crs


def _parse_crs(text, what: str):
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(text)
    except CRSError:
        raise ValueError(f"{what} names no coordinate reference system: {str(text)[:60]!r}.") from None


def _read_edits(edits, cells: _Cells, context: xr.Dataset) -> list[_Edit]:
    """Check everything before anything is changed."""
    collection = edits if isinstance(edits, dict) else _read_json(Path(edits))
    features = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(features, list) or collection.get("type") != "FeatureCollection":
        raise ValueError("The edits must be a GeoJSON FeatureCollection: an object with a list of `features`.")
    project = _projection(collection.get("crs"), cells.crs)
    found = []
    for number, feature in enumerate(features, start=1):
        properties = (feature.get("properties") or {}) if isinstance(feature, dict) else None
        if not isinstance(properties, dict):
            raise ValueError(f"Feature {number} of the edits is no GeoJSON Feature with `properties`.")
        given = {key: value for key, value in properties.items() if value is not None and key not in ROW_NUMBERS}
        name = f"feature {number}" + (f" ({str(given['name'])[:60]})" if "name" in given else "")
        geometry = _geometry(name, feature.get("geometry"), project, cells)
        hectares = geometry.area / 1e4
        kind = feature["geometry"]["type"]
        found.append(_Edit(name, geometry, _values(name, given, kind, hectares, context)))
    return found


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no GeoJSON: {str(error).splitlines()[0]}.") from None


def _projection(member, target):
    """From coordinates of the edits to metres of the context."""
    if target is None:
        if member is not None:
            raise ValueError(
                "The edits name a coordinate reference system, but the context has none. Give them in metres of its"
                " `x` and `y`, without `crs`."
            )
        return None
    from pyproj import Transformer

    source = "OGC:CRS84"
    if member is not None:
        source = (member.get("properties") or {}).get("name") if isinstance(member, dict) else None
    crs = _parse_crs(source, "The member `crs` of the edits")
    return Transformer.from_crs(crs, target, always_xy=True).transform


def _geometry(name: str, geometry, project, cells: _Cells):
    """A checked shapely geometry in metres of the context."""
    import shapely

    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon", "Point"):
        raise ValueError(f"{name}: the geometry must be a Polygon, MultiPolygon or Point, but is {kind}.")
    try:
        shape = shapely.force_2d(shapely.from_geojson(json.dumps(geometry)))
    except (shapely.errors.GEOSException, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: the coordinates are no {kind} ({str(error).splitlines()[0]}).") from None
    if shape.is_empty:
        raise ValueError(f"{name}: the geometry is empty.")
    if project is not None:
        west, south, east, north = shape.bounds
        # Straight in the edits' system, curved in the context's.
        shape = shapely.segmentize(shape, max(east - west, north - south, 1e-9) / 50)
        shape = shapely.transform(shape, project, interleaved=False)
    if not np.isfinite(shape.bounds).all():
        raise ValueError(f"{name}: the coordinates are not finite, or no longitude and latitude.")
    if kind != "Point" and (not shape.is_valid or shape.area == 0):
        reason = shapely.is_valid_reason(shape) if not shape.is_valid else "it has no area"
        raise ValueError(f"{name}: the polygon cannot be used: {reason}.")
    return _check_inside(name, shape, cells)


def _check_inside(name: str, shape, cells: _Cells):
    """Refuse what lies outside of the area, with the area cut off; its totals could not be exact."""
    import shapely

    area = shapely.box(*cells.bounds)
    inside = shape if shape.within(area) else shapely.intersection(shape, area)
    lost = 1 - inside.area / shape.area if shape.area else float(inside.is_empty)
    if lost > LARGEST_SHARE_OUTSIDE:
        left, bottom, right, top = (f"{value:.0f}" for value in shape.bounds)
        where = "lies outside of the area" if lost > 0.999 else f"lies outside of the area by {lost:.1%}"
        hint = " Are longitude and latitude swapped?" if lost > 0.999 and cells.crs is not None else ""
        edges = tuple(f"{value:.0f}" for value in cells.bounds)
        raise ValueError(
            f"{name}: the geometry {where}. In m it goes from x {left} to {right} and y {bottom} to {top}; the area"
            f" from x {edges[0]} to {edges[2]} and y {edges[1]} to {edges[3]}.{hint}"
        )
    return inside


def _values(name: str, given: dict, kind: str, hectares: float, context: xr.Dataset) -> dict:
    """What a feature sets, by layer: its preset's values for its area, and over them its own."""
    allowed = OF_POINTS if kind == "Point" else PROPERTIES
    if unknown := sorted(str(key) for key in set(given) - set(allowed)):
        raise ValueError(f"{name}: unknown properties {unknown}; a {kind} may have {list(allowed)}.")
    own = {key: _checked(name, key, value, context) for key, value in given.items() if key not in ("name", "preset")}
    values = {}
    if "preset" in given:
        if given["preset"] not in list(PRESETS):
            raise ValueError(f"{name}: `preset` is {given['preset']!r}, expected one of {list(PRESETS)}.")
        values = _of_preset(PRESETS[given["preset"]], hectares, context)
    if "poi" in own:
        own["poi"] = values.get("poi", {}) | own["poi"]
    values |= own
    if not values:
        raise ValueError(f"{name}: sets nothing; it needs at least one of {list(allowed[1:])}.")
    return values


def _of_preset(preset: dict, hectares: float, context: xr.Dataset) -> dict:
    """For so many hectares, of the layers that the context has; all categories, so that nothing old stays open."""
    values = {key: value for key, value in preset.items() if key in context and key in CLASSES}
    values |= {key: preset[key] * hectares for key in TOTALS if key in context}
    if "poi" in context:
        categories = _labels(context["poi"], "poi")
        values["poi"] = {category: round(preset["poi"].get(category, 0) * hectares) for category in categories}
    return values


def _checked(name: str, key: str, value, context: xr.Dataset):
    """A property's value, after checking that the context has the layer and knows what it names."""
    if key not in context:
        raise ValueError(f"{name}: `{key}` is set, but the context has no layer {key!r}.")
    if key in CLASSES:
        labels = _labels(context[key], key)
        if value not in labels:
            raise ValueError(f"{name}: `{key}` is {value!r}, expected one of {labels}.")
        return value
    if key in TOTALS:
        return float(_amount(name, f"`{key}`", value))
    categories = _labels(context["poi"], "poi")
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{name}: `poi` must map categories to numbers, such as {{'shop': 3}}, but is {value!r}.")
    if unknown := sorted(str(category) for category in set(value) - set(categories)):
        raise ValueError(f"{name}: `poi` has the unknown categories {unknown}, expected some of {categories}.")
    counts = {category: _amount(name, f"`poi` of {category!r}", count) for category, count in value.items()}
    if not all(float(count).is_integer() for count in counts.values()):
        raise ValueError(f"{name}: `poi` must be whole numbers, but is {value}.")
    return {category: int(count) for category, count in counts.items()}


def _amount(name: str, what: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(f"{name}: {what} must be a number that is not negative, but is {value!r}.")
    return value


def _labels(layer: xr.DataArray, name: str) -> list[str]:
    """Names of the classes or categories, which the layer tells, or else those of the bundled schema."""
    if name == "poi":
        dimensions = [dimension for dimension in layer.dims if dimension not in ("y", "x")]
        if len(dimensions) != 1:
            raise ValueError(f"The layer 'poi' must have the dimensions category, y and x, but has {layer.dims}.")
        labels = layer[dimensions[0]].values
        if labels.dtype.kind in "UOT":
            return [str(label) for label in labels]
        if len(labels) != len(POI_CATEGORIES):
            raise ValueError(f"The layer 'poi' has {len(labels)} categories without names; name them in a coordinate.")
        return POI_CATEGORIES
    if layer.ndim != 2:
        raise ValueError(f"The layer {name!r} must hold one code per cell, on y and x, but has {layer.dims}.")
    labels = layer.attrs["flag_meanings"].split() if "flag_meanings" in layer.attrs else CLASSES[name]
    codes = np.ravel(layer.attrs.get("flag_values", np.arange(len(labels))))
    if not np.array_equal(codes, np.arange(len(labels))):
        raise ValueError(
            f"The layer {name!r} must number its classes {labels} from 0 on, but has the flag_values {codes.tolist()}."
        )
    return labels


def _window_of(edit: _Edit, cells: _Cells) -> tuple[tuple[slice, slice], np.ndarray]:
    if edit.geometry.geom_type != "Point":
        return cells.shares(edit.geometry)
    row, column = (
        int(np.abs(centres - position).argmin())
        for centres, position in ((cells.y, edit.geometry.y), (cells.x, edit.geometry.x))
    )
    return (slice(row, row + 1), slice(column, column + 1)), np.ones((1, 1))


def _apply(plan: xr.Dataset, edit: _Edit, window: tuple[slice, slice], shares: np.ndarray) -> None:
    """Change the layers of a plan in place."""
    mostly = _mostly(shares)
    for name, value in edit.values.items():
        here = plan[name].values[(..., *window)]
        if name in CLASSES:
            here[mostly] = _labels(plan[name], name).index(value)
        elif name in TOTALS:
            here *= 1 - shares
            here += value * shares / shares.sum()
        else:
            categories = _labels(plan[name], name)
            for category, count in value.items():
                index = categories.index(category)
                if edit.geometry.geom_type != "Point":
                    here[index][mostly] = 0
                here[index] += _spread_evenly(count, shares, (0.5 + index * GOLDEN_RATIO) % 1)


def _mostly(shares: np.ndarray) -> np.ndarray:
    return shares >= 0.5 - FILLED


def _spread_evenly(count: int, shares: np.ndarray, offset: float) -> np.ndarray:
    """Whole numbers that add up to `count`, as near to the shares as they can be, and far from each other."""
    rows, columns = np.indices(shares.shape)
    order = np.argsort(((rows * LATTICE[0] + columns * LATTICE[1]) % 1).ravel(), kind="stable")
    reached = np.cumsum(shares.ravel()[order]) / shares.sum()
    reached[-1] = 1.0
    counts = np.empty(shares.size)
    counts[order] = np.diff(np.floor(count * reached + offset), prepend=0.0)
    return counts.reshape(shares.shape)


def _totals(context: xr.Dataset, names, window: tuple[slice, slice]) -> dict:
    """Cells by class, sums by category or sums, per layer."""
    totals = {}
    for name in names:
        layer = context[name].transpose(..., "y", "x")
        values = layer.values[(..., *window)]
        if name in CLASSES:
            labels = _labels(layer, name)
            counts = np.bincount(values.astype(np.int64).ravel(), minlength=len(labels))
            totals[name] = {f"{label} cells": int(count) for label, count in zip(labels, counts)}
        elif name in TOTALS:
            totals[name] = float(values.sum(dtype=np.float64))
        else:
            sums = values.sum(axis=(1, 2), dtype=np.float64)
            totals[name] = {label: float(total) for label, total in zip(_labels(layer, name), sums)}
    return totals


def _before_and_after(before: dict, after: dict) -> dict:
    """`{layer: {"before": ..., "after": ...}}`; of classes and categories only those that differ."""
    result = {}
    for name in before:
        first, second = before[name], after[name]
        if isinstance(first, dict):
            changed = [label for label in first if first[label] != second[label]]
            first, second = ({label: values[label] for label in changed} for values in (first, second))
        result[name] = {"before": first, "after": second}
    return result
