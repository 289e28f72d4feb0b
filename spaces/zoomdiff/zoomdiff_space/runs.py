# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the buttons of the Space do: generate, refine, compare, what if. No user interface in here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from zoomdiff_diffusers import Hierarchy, ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.differences import compare_contexts
from zoomdiff_diffusers.data.edits import PRESETS, edit_context
from zoomdiff_diffusers.data.simulated_city import SimulatedCity
from zoomdiff_diffusers.data.stores import levels_to_datatree, write_netcdf
from zoomdiff_diffusers.data.tables import read_csv, write_csv
from zoomdiff_diffusers.evaluation import ensemble_scores

from . import limits
from .areas import LARGEST_CITY, SIZES, Area, check_upload, city_seed


MODEL = "simulated-city"
LEVEL_WORDS = {"bs": "Base station", "cell": "Cell", "grid_100m": "Grid", "grid_50m": "Grid"}
TRUE_WEEKS = 8
Progress = Callable[[int, int, str], None]  # steps done, steps in total, what is being done


@dataclass(frozen=True)
class Result:
    """
    Traffic of one run, as the other tabs and the downloads need it.

    Args:
        name (`str`): What was done for which area, for titles.
        levels (`dict[str, np.ndarray]`):
            Coarse to fine, (sample, channel, time, y, x), means per finest cell and hour.
        start (`np.datetime64`): First hour.
        hierarchy (`Hierarchy`): The levels.
        unit (`str`): Of the values, per finest cell and hour.
        y, x (`np.ndarray`, *optional*): Centres of the finest cells (m).
        seconds (`float`): How long it took.
        attrs (`dict`): Provenance.
        attribution (`str`): Whose data the context is.
        notes (`tuple[str, ...]`): What should be known about the context.
    """

    name: str
    levels: dict[str, np.ndarray]
    start: np.datetime64
    hierarchy: Hierarchy
    unit: str
    y: np.ndarray | None
    x: np.ndarray | None
    seconds: float
    attrs: dict
    attribution: str = ""
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        return len(self.finest)

    @property
    def finest(self) -> np.ndarray:
        return self.levels[self.hierarchy.names[-1]]

    @property
    def north_up(self) -> bool:
        return runs_south(self.y)

    def volume(self, level: str) -> int:
        """How many finest cells and hours one value of a level stands for."""
        found = self.hierarchy.levels[self.hierarchy.index(level)]
        return found.spatial_factor**2 * found.temporal_factor

    def totals(self):
        """All levels as an `xarray.DataTree`, in totals per unit and interval."""
        totals = {name: values * self.volume(name) for name, values in self.levels.items()}
        place = {"y": self.y, "x": self.x, "attrs": self.attrs}
        return levels_to_datatree(totals, self.hierarchy, self.start, ["traffic"], self.unit, "sum", **place)

    def write_netcdf(self, folder: Path) -> Path:
        """Write all levels and samples into a folder."""
        path = folder / "zoomdiff_traffic.nc"
        write_netcdf(self.totals(), path)
        return path

    def write_csv(self, folder: Path, level: str) -> Path:
        """Write one level, all samples, into a folder."""
        path = folder / f"zoomdiff_{self.hierarchy.names[self.hierarchy.index(level)]}.csv"
        write_csv(self.totals(), path, level)
        return path


@dataclass(frozen=True)
class Difference:
    """
    What a plan changes.

    Args:
        name (`str`): Of the plan and its area, for titles.
        tree (`xarray.DataTree`): Of [`compare_contexts`], totals per unit and interval.
        report (`dict`): Of [`edit_context`].
        square (`tuple[int, int, int]`): Row and column of its first cell, and its side in cells.
        samples (`int`): Pairs of them.
        start, hierarchy, unit, north_up, seconds, attribution: As in `Result`.
    """

    name: str
    tree: xr.DataTree
    report: dict
    square: tuple[int, int, int]
    samples: int
    start: np.datetime64
    hierarchy: Hierarchy
    unit: str
    north_up: bool
    seconds: float
    attribution: str

    @property
    def size(self) -> tuple[int, int]:
        """Finest cells from south to north and from west to east."""
        finest = self.tree[self.hierarchy.names[-1]]
        return finest.sizes["y"], finest.sizes["x"]

    def write_netcdf(self, folder: Path) -> Path:
        """Write all levels into a folder."""
        path = folder / "zoomdiff_difference.nc"
        write_netcdf(self.tree, path)
        return path


def runs_south(y: np.ndarray | None) -> bool:
    """Whether the first row is the northern one, as in many raster files. Otherwise it is the southern one."""
    return y is not None and len(y) > 1 and y[0] > y[-1]


def place_square(place: tuple[int, int], side: int, size: tuple[int, int]) -> tuple[int, int, int]:
    """The square of so many cells around a place that still lies in the area: its first row and column, and side."""
    side = min(side, *size)
    row, column = (min(max(at - side // 2, 0), whole - side) for at, whole in zip(place, size))
    return row, column, side


def describe_level(hierarchy: Hierarchy, name: str) -> str:
    """For example `Base station, 400 m, 1 day`."""
    level = hierarchy.levels[hierarchy.index(name)]
    metres = level.spatial_factor * hierarchy.config.cell_size
    hours = level.temporal_factor * hierarchy.config.time_step
    days, rest = divmod(hours, 24)
    length = f"{hours:g} h" if rest else f"{days:g} day" + "s" * (days > 1)
    return f"{LEVEL_WORDS.get(name, name)}, {metres:g} m, {length}"


def parse_day(text: str | None) -> np.datetime64:
    """
    Read a date.

    Raises:
        ValueError: If it is none, or far from our time.
    """
    try:
        day = date.fromisoformat((text or "").strip())
    except ValueError as error:
        raise ValueError("The first day must be a date, written as 2026-03-02.") from error
    if not 1900 <= day.year <= 2200:
        raise ValueError(f"The first day must lie between the years 1900 and 2200, but is {day}.")
    return np.datetime64(day, "s")


class Engine:
    """The bundled model. One run at a time: the queue of the page sees to it."""

    def __init__(self):
        self.pipe = ZoomDiffPipeline.from_pretrained(bundled_model(MODEL))
        self.pipe.set_progress_bar_config(disable=True)

    @property
    def hierarchy(self) -> Hierarchy:
        return self.pipe.hierarchy

    def generate(self, area: Area, first_day, samples, seed, steps, progress: Progress) -> Result:
        """
        Generate a week, or as many hours as an uploaded file has.

        Raises:
            ValueError: For what cannot be done or is too much; the message is for the visitor.
        """
        start = parse_day(first_day)
        samples, seed, steps = self._check_numbers(samples, seed, steps)
        self._check_size(area, area.hours, samples, steps)
        if area.begins not in (None, start):
            raise ValueError(f"The context file begins at {_said(area.begins)}. Enter its date as the first day.")
        started = time.perf_counter()
        levels = self.pipe(
            area.context_for(start, area.hours),
            start=start,
            num_hours=area.hours,
            num_samples_per_context=samples,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=self._reporter(progress),
        ).levels
        title = f"Generated traffic of {area.name}"
        return self._result(title, area, levels, start, started, seed)

    def refine(self, area: Area, path: str | None, samples, seed, steps, progress: Progress):
        """
        Refine measured base-station traffic, totals per base-station area and day in a CSV file.

        Returns:
            `tuple[Result, dict]`: the result, and what was given: `values` read, `missing` ones, and the largest
            relative `deviation` between a given value and the sum over its finest cells and hours.

        Raises:
            ValueError: For what cannot be done or is too much; the message is for the visitor.
        """
        if path is None:
            raise ValueError("No file yet: upload base-station traffic (CSV), or load the example.")
        samples, seed, steps = self._check_numbers(samples, seed, steps)
        self._check_size(area, 24, samples, steps)
        check_upload(path, "table")
        level = self.hierarchy.names[0]
        given, start = read_csv(
            path, self.hierarchy, level, area.height, area.width,
            y=area.coordinates("y"), x=area.coordinates("x"),
            max_rows=limits.MAX_CSV_ROWS, max_hours=24 * limits.MAX_DAYS,
        )  # fmt: skip
        hours = given.shape[1] * self.hierarchy.temporal_factors[0]
        if not area.whole_week and "hour" in area.context.sizes and hours != area.hours:
            raise ValueError(
                f"The table covers {hours} hours, but the context file {area.hours}. Both must cover the same hours."
            )
        if area.begins not in (None, start):
            raise ValueError(
                f"The table begins at {_said(start)}, but the context file at {_said(area.begins)}. Both must cover"
                " the same hours."
            )
        limits.check_work(area.height, area.width, hours, samples, steps)
        started = time.perf_counter()
        volume = self.hierarchy.spatial_factors[0] ** 2 * self.hierarchy.temporal_factors[0]
        levels = self.pipe.refine(
            given / volume,
            level,
            area.context_for(start, hours),
            start=start,
            num_samples_per_context=samples,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=self._reporter(progress),
        ).levels
        result = self._result(f"Refined traffic of {area.name}", area, levels, start, started, seed)
        sums = self.hierarchy.aggregate(result.finest.astype(np.float64), level, reduction="sum")
        known = np.isfinite(given)
        difference = np.abs(sums - given)[:, known]
        deviation = difference.max(axis=0) / np.maximum(given[known], 1e-3 * given[known].max() or 1.0)
        return result, {
            "values": int(known.sum()),
            "missing": int((~known).sum()),
            "deviation": float(deviation.max()),
        }

    def compare(self, size: str, number, samples, seed, steps, progress: Progress) -> dict:
        """
        Score generated weeks of a simulated city against true weeks, next to weeks from the city's own law.

        Returns:
            `dict`: `name`, `unit`, `samples`, `weeks`, `seconds` and `levels`: by name, the scores `crps`, `mae` and
            `spread_skill` of the `model` and of the `law`.

        Raises:
            ValueError: For what cannot be done or is too much; the message is for the visitor.
        """
        height, width = SIZES[size]
        number = limits.whole_number("City number", number, 1, LARGEST_CITY)
        samples, seed, steps = self._check_numbers(samples, seed, steps, fewest_samples=2)
        limits.check_work(height, width, 168, samples, steps)
        started = time.perf_counter()
        city = SimulatedCity(height, width, city_seed(number))
        model = self.pipe(
            city.context,
            num_samples_per_context=samples,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            callback_on_step_end=self._reporter(progress),
        ).levels
        progress(0, 2, "True weeks")
        truth = dict(zip(model, self.hierarchy.pyramid(city.sample_traffic(TRUE_WEEKS, seed=1))))
        law = dict(zip(model, self.hierarchy.pyramid(city.sample_traffic(samples, seed=2))))
        progress(1, 2, "Scores")
        return {
            "name": f"simulated city {number}",
            "unit": self.pipe.traffic_processor.units[0],
            "samples": samples,
            "weeks": TRUE_WEEKS,
            "seconds": time.perf_counter() - started,
            "levels": {
                name: {"model": _scores(model[name], truth[name]), "law": _scores(law[name], truth[name])}
                for name in model
            },
        }

    def what_if(
        self, area: Area, preset, row, column, metres, first_day, samples, seed, steps, progress: Progress
    ) -> Difference:
        """
        Generate an area with and without a square of something else, from the same noise.

        Raises:
            ValueError: For what cannot be done or is too much; the message is for the visitor.
        """
        start = parse_day(first_day)
        samples, seed, steps = self._check_numbers(samples, seed, steps, fewest_samples=2)
        if preset not in PRESETS:
            raise ValueError(f"What is built must be one of: {', '.join(PRESETS)}.")
        cell = int(self.hierarchy.config.cell_size)
        side = limits.whole_number("Side", metres, *limits.SQUARE_METRES) // cell
        row = limits.whole_number("Row", row, 0, area.height - 1)
        column = limits.whole_number("Column", column, 0, area.width - 1)
        self._check_size(area, area.hours, 2 * samples, steps)
        started = time.perf_counter()
        square = row, column, side = place_square((row, column), side, (area.height, area.width))
        corners = [(column, row), (column + side, row), (column + side, row + side), (column, row + side)]
        ring = [[cell * x, cell * y] for x, y in (*corners, corners[0])]
        feature = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"preset": preset}}
        edits = {"type": "FeatureCollection", "features": [{"type": "Feature", **feature}]}
        before = area.layers_in_metres(cell)
        plan, report = edit_context(before, edits)
        # The square lies on rows and columns; what is made of it lies where the file says.
        centres = {axis: area.coordinates(axis) for axis in ("y", "x") if area.coordinates(axis) is not None}
        before, plan = (layers.assign_coords(centres) for layers in (before, plan))
        tree = compare_contexts(
            self.pipe, before, plan, start, area.hours, samples, seed, steps, "sum", self._reporter(progress, runs=2)
        )
        name = f"{preset[0].upper()}{preset[1:]} in {area.name}"
        tree.attrs |= self._attributes(f"What if: {name}", area, seed)
        return Difference(
            name=name,
            tree=tree,
            report=report,
            square=square,
            samples=samples,
            start=start,
            hierarchy=self.hierarchy,
            unit=self.pipe.traffic_processor.units[0],
            north_up=runs_south(area.coordinates("y")),
            seconds=time.perf_counter() - started,
            attribution=area.attribution,
        )

    def _check_numbers(self, samples, seed, steps, fewest_samples=1):
        return (
            limits.whole_number("Samples", samples, fewest_samples, limits.MAX_SAMPLES),
            limits.whole_number("Seed", seed, 0, limits.MAX_SEED),
            limits.whole_number("Steps", steps, *limits.STEPS),
        )

    def _check_size(self, area: Area, hours: int, samples: int, steps: int):
        side = self.hierarchy.spatial_factors[0]
        if area.height % side or area.width % side:
            raise ValueError(
                f"The area has {area.height} × {area.width} cells; both numbers must be multiples of {side}, since a"
                f" base station covers {side} × {side} cells."
            )
        if hours % self.hierarchy.temporal_factors[0]:
            raise ValueError(f"The context file covers {hours} hours; it must cover whole days.")
        limits.check_work(area.height, area.width, hours, samples, steps)

    def _reporter(self, progress: Progress, runs: int = 1):
        """The pipeline's callback for one run, or for so many after each other."""
        deadline = time.perf_counter() + limits.RUN_SECONDS
        finished = 0

        def report(pipe, step, timestep, tensors):
            nonlocal finished
            if time.perf_counter() > deadline:
                raise ValueError(
                    f"This took longer than {limits.RUN_SECONDS} s and was stopped. Choose a smaller area, fewer"
                    " samples or fewer steps."
                )
            stage = int(pipe.scheduler.stage_of(timestep))
            level = describe_level(pipe.hierarchy, pipe.hierarchy.names[stage])
            which = "" if runs == 1 else ("without, " if finished == 0 else "with, ")
            text = f"{which}level {stage + 1} of {len(pipe.hierarchy)}: {level}"
            progress(finished * pipe.num_timesteps + step + 1, runs * pipe.num_timesteps, text[0].upper() + text[1:])
            finished += step + 1 == pipe.num_timesteps
            return tensors

        return report

    def _result(self, name, area, levels, start, started, seed):
        return Result(
            name=name,
            levels=levels,
            start=start,
            hierarchy=self.hierarchy,
            unit=self.pipe.traffic_processor.units[0],
            y=area.coordinates("y"),
            x=area.coordinates("x"),
            seconds=time.perf_counter() - started,
            attrs=self._attributes(name, area, seed),
            attribution=area.attribution,
            notes=area.notes,
        )

    def _attributes(self, title: str, area: Area, seed: int) -> dict:
        attrs = {
            "title": title,
            "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}, model {MODEL} (bundled)",
            "seed": seed,
            "date_created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return attrs | ({"licence": area.attribution} if area.attribution else {})


def _said(time):
    return str(time).replace("T", " ")[:16]


def _scores(samples, truth):
    """Scores of an ensemble (sample, channel, ...) over true weeks (week, channel, ...), all weeks taken together."""
    weeks = [ensemble_scores(samples, week) for week in truth]
    spread = weeks[0]["spread_skill"] * weeks[0]["rmse_of_mean"]  # the same for every week
    return {
        "crps": float(np.mean([week["crps"] for week in weeks])),
        "mae": float(np.mean([week["mae_of_mean"] for week in weeks])),
        "spread_skill": float(spread / np.sqrt(np.mean([week["rmse_of_mean"] ** 2 for week in weeks]))),
    }
