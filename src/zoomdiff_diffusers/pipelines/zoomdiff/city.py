# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Traffic of whole cities: every stage runs over the whole area before the next one begins, call by call and window by
window, with the state of the diffusion on disk.

The network is convolutional. A window that is larger than its core by the reach of the network gives the core the same
values as one window over everything: there are no seams to hide, and memory does not grow with the city. Where units
of a level are coverage areas, a window also has all cells of the areas that its core cuts, and of those that cut these
in turn.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from math import ceil, prod
from pathlib import Path

import numpy as np
import torch
import xarray
from tqdm.auto import tqdm

from ...data.stores import levels_to_datatree, replace_file, shared_attributes, shared_grid_mapping
from .city_windows import Window, extent_of_chains, make_windows, scaled, share_out, widened, within
from .inputs import cell_centres, check_cell_size, first_hour, hour_of_week, parse_start


HOURS_PER_WEEK = 168
# A window has about so many finest values, without the margin around it: with the default network, some 2 GB.
VALUES_PER_WINDOW = 2**22
# In units of the coarsest level. Margins cost less in a few long windows than in many short ones.
LONGEST_WINDOW, SMALLEST_SIDE = 28, 4
PROGRESS = "progress.json"
STATES, PARITIES = "states", ("even", "odd")
MEASURED = "measured areas"  # beside the names of layers of zones


def noise_of_place(
    seed: int, sample: int, stage: int, part: tuple[slice, slice, slice], channels: int, unit: tuple[int, int, int]
) -> np.ndarray:
    """
    Standard normal noise that is a function of seed, sample, stage and place alone.

    Every coarsest unit has a stream of its own, of the counter-based generator Philox (Salmon et al. 2011,
    doi:10.1145/2063384.2063405).

    Args:
        seed (`int`), sample (`int`), stage (`int`): Keys.
        part (`tuple[slice, slice, slice]`): Coarsest units along time, y and x.
        channels (`int`): Traffic channels.
        unit (`tuple[int, int, int]`): Steps, rows and columns of the stage's state in a coarsest unit.

    Returns:
        `np.ndarray`: (C, T, H, W) float32.
    """
    key = np.random.SeedSequence([seed, sample, stage]).generate_state(2, np.uint64)
    counts = [slices.stop - slices.start for slices in part]
    noise = np.empty((*counts, channels, *unit), dtype=np.float32)
    for index in np.ndindex(*counts):
        place = [slices.start + offset for slices, offset in zip(part, index)]
        generator = np.random.Generator(np.random.Philox(key=key, counter=[0, *place]))
        generator.standard_normal(dtype=np.float32, out=noise[index])
    # (t, y, x, C, T, H, W) -> (C, t T, y H, x W)
    noise = noise.transpose(3, 0, 4, 1, 5, 2, 6)
    return noise.reshape(channels, *(count * size for count, size in zip(counts, unit)))


class CityGenerator:
    """
    One run of [`ZoomDiffPipeline.generate_city`], whose arguments are explained there.

    Args:
        pipe ([`ZoomDiffPipeline`]): Trained.
        context (`xarray.Dataset`): Layers on `y`, `x` (and `hour`); read window by window, so it may lie on disk.
        output (`Path`): The Zarr store to make.
        measured ([`MeasuredZones`], *optional*): Traffic that the result has to meet.
    """

    def __init__(
        self,
        pipe,
        context,
        output,
        start,
        num_hours,
        num_samples,
        seed,
        num_inference_steps,
        units,
        window,
        measured=None,
    ):
        self.pipe, self.hierarchy, self.scheduler = pipe, pipe.hierarchy, pipe.scheduler
        self.context, self.output = context, Path(output).absolute()
        self.start, self.num_samples, self.seed, self.units = start, num_samples, seed, units
        self.num_inference_steps, self.window, self.measured = num_inference_steps, window, measured
        self._check()
        begins = first_hour([context], self.hierarchy.config.time_step)
        self.start_time = parse_start(start, self.hierarchy, begins)
        check_cell_size([context], self.hierarchy)
        size = (self.context.sizes["y"], self.context.sizes["x"])
        self.shapes = self.hierarchy.shapes(self._num_steps(num_hours), *size)
        self.centres = cell_centres(context, size)
        self.unit = (self.hierarchy.temporal_factors[0], *(2 * [self.hierarchy.spatial_factors[0]]))
        self.area = tuple(whole // part for whole, part in zip(self.shapes[-1], self.unit))
        self.folder = self.output.with_name(f".{self.output.name}.partial")
        # What guides a stage is not the level before it, in the store, where zones cut across its units.
        self.keeps_fields = bool(self.hierarchy.zone_layers) or measured is not None
        self.extent = self._extent(size)
        # Of the last unit, which a layer that is too short does not have: refuses a context that does not fit.
        self._tensors(tuple(slice(count - 1, count) for count in self.area))

    def _check(self):
        """Refuse arguments that no run could honour, before work starts."""
        import importlib.util

        if importlib.util.find_spec("zarr") is None:
            message = "zarr is not installed; the extra `city` of zoomdiff_diffusers brings it."
            raise ModuleNotFoundError(message, name="zarr")
        if not isinstance(self.context, xarray.Dataset) or not {"y", "x"} <= set(self.context.sizes):
            raise ValueError(
                "`context` must be an xarray.Dataset with the dimensions `y` and `x`, but is "
                f"{type(self.context).__name__} with {dict(getattr(self.context, 'sizes', {}))}."
            )
        if self.output.suffix != ".zarr":
            raise ValueError(f"`output` must end in .zarr, but is {str(self.output)!r}.")
        if self.output.exists():
            raise ValueError(f"`output` must not exist yet, but {self.output} does; remove it or choose another name.")
        if not self.output.parent.is_dir():
            raise FileNotFoundError(f"`output` cannot be {self.output}: the folder {self.output.parent} is missing.")
        config = self.scheduler.config
        if config.solver == "ddpm" or "continuous" in (config.intensity, config.adding, config.denoising):
            raise ValueError(
                "`generate_city` needs a scheduler whose stages are segmented and whose solver draws no noise, but "
                f"has solver={config.solver!r}, intensity={config.intensity!r}, adding={config.adding!r}, "
                f"denoising={config.denoising!r}."
            )
        finest = (self.hierarchy.raster_factors[-1], self.hierarchy.temporal_factors[-1])
        if finest != (1, 1):
            raise ValueError(
                "`generate_city` needs a hierarchy whose last level has the spatial and the temporal factor 1, but has"
                f" {finest}."
            )
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"`seed` must be an integer that is not negative, but is {self.seed!r}.")
        if self.window is not None and (len(self.window) != 3 or not all(size >= 1 for size in self.window)):
            raise ValueError(f"`window` must be three positive integers: time, y and x, but is {self.window!r}.")

    def _extent(self, size: tuple[int, int]) -> int:
        """How many coarsest units around a core have the cells that its values depend on, along y and x."""
        rasters = {}
        if self.hierarchy.zone_layers:
            zones = self._zones(tuple(slice(0, count) for count in self.area))
            rasters = {name: labels[0].cpu().numpy() for name, labels in zones.items()}
        if self.measured is not None:
            if self.measured.labels.shape != size:
                raise ValueError(
                    f"`zones` must have the shape {size} of the context, not {self.measured.labels.shape}."
                )
            labels = self.measured.labels
            if rasters:
                # Zones where nothing is measured count as areas: zones that lie in areas elsewhere are then nested.
                finest = rasters[self.hierarchy.zone_layers[-1]]
                labels = np.where(labels < 0, labels.max() + 1 + finest, labels)
            rasters[MEASURED] = labels
        return extent_of_chains(self._chains(), rasters, self.unit[1]) if rasters else 0

    def _chains(self) -> list[list]:
        """What the values of a core depend on, for each stage and from the last step back, for `extent_of_chains`."""
        units = [level.zones or level.spatial_factor for level in self.hierarchy.levels]
        measured = [] if self.measured is None else [MEASURED]
        chains = []
        for stage, unit in enumerate(units):
            # The network says one value per unit of the level. They are scaled to the sum of each part that the units
            # of all levels before have in common, and then to that of each measured area; the level is the mean of
            # the result over its units. A part lies in one unit of each level before, so it is no wider than these.
            before = next((name for name in reversed(units[:stage]) if isinstance(name, str)), None)
            parts = [before or units[stage - 1]] if stage > 0 else []
            # Where areas were measured, the levels before are means of the last one.
            targets = units if measured and stage == len(units) - 1 else [unit]
            chains += [[target, unit, *measured, *parts, unit] for target in targets]
        # Units of a single cell lead nowhere.
        return [[name for name in chain if name != 1] for chain in chains]

    def _num_steps(self, num_hours) -> int:
        time_step = self.hierarchy.config.time_step
        if num_hours is None:
            layers = [layer["name"] for layer in self.pipe.context_processor.layers if layer["kind"] == "temporal"]
            varying = [self.context[name] for name in layers if name in self.context]
            if constant := [layer.name for layer in varying if "hour" not in layer.sizes]:
                raise ValueError(f"`context`: the layer {constant[0]!r} must have the dimension `hour`.")
            lengths = [layer.sizes["hour"] for layer in varying]
            return lengths[0] if lengths else round(HOURS_PER_WEEK / time_step)
        steps = num_hours / time_step
        if steps != round(steps) or steps < 1:
            raise ValueError(f"`num_hours` must be a positive multiple of {time_step:g} h, not {num_hours}.")
        return int(steps)

    def run(self, num_processes: int = 1, process_index: int = 0, wait: Callable = lambda: None) -> Path:
        """
        Generate all samples, or what an interrupted run has left to do.

        Args:
            num_processes (`int`), process_index (`int`): The windows are shared out over the processes.
            wait (`Callable`): Returns when all processes have called it.
        """
        import zarr

        main = process_index == 0
        self.scheduler.set_timesteps(self.num_inference_steps)
        stages = range(len(self.hierarchy))
        windows = [self._windows(stage) for stage in stages]
        own_windows = [share_out(of_stage, num_processes)[process_index] for of_stage in windows]
        # Before its calls, a stage is begun: one more step.
        timesteps = [[None, *self.scheduler.stage_timesteps(stage).tolist()] for stage in stages]
        steps = [
            (sample, stage, place, timestep)
            for sample, stage in product(range(self.num_samples), stages)
            for place, timestep in enumerate(timesteps[stage], start=-1)
        ]
        fingerprint = self._fingerprint(windows) if main else None
        if main:
            self._open(fingerprint, windows)
        wait()
        root = zarr.open_group(self.folder, mode="r+")
        done = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))["done"]
        # What has been worked on before and after each step: a value counts once per call.
        worked = np.cumsum([0, *(prod(self.shapes[stage]) * (place >= 0) for _, stage, place, _ in steps)]).tolist()
        options = {"disable": not main, **getattr(self.pipe, "_progress_bar_config", {})}
        with tqdm(total=worked[-1], initial=worked[done], unit=" values", unit_scale=True, **options) as bar:
            for position, (sample, stage, place, timestep) in enumerate(steps):
                if position < done:
                    continue
                bar.set_description(f"Sample {sample + 1} of {self.num_samples}, {self.hierarchy.names[stage]}")
                for window in own_windows[stage]:
                    if place < 0:
                        self._begin(root, sample, stage, window)
                    else:
                        last = place == len(timesteps[stage]) - 2
                        self._step(root, sample, stage, place, timestep, last, window)
                        bar.update(
                            prod(part.stop - part.start for part in scaled(window.core, self._state_unit(stage)))
                        )
                wait()
                bar.update(worked[position + 1] - bar.n)
                if main:
                    self._write_progress(fingerprint, position + 1)
                wait()
        if main:
            # As long as the folder has its temporary name, it must say that it is done.
            shutil.rmtree(self.folder / STATES, ignore_errors=True)
            os.replace(self.folder, self.output)
            (self.output / PROGRESS).unlink()
        wait()
        return self.output

    def _windows(self, stage: int) -> list[Window]:
        """The windows of a stage, with the margin that its network needs."""
        margin = self.pipe.unet.reach(stage)
        if self.window is not None:
            return make_windows(self.area, self.window, margin, self.extent)
        # As large in all stages: a coarse one has few values itself, but reads the context of the finest cells.
        units = VALUES_PER_WINDOW // (prod(self.unit) * len(self.pipe.traffic_processor.channels))
        days = min(self.area[0], LONGEST_WINDOW)
        side = max(SMALLEST_SIDE, int((units / days) ** 0.5))
        return make_windows(self.area, (days, side, side), margin, self.extent)

    def _state_unit(self, stage: int) -> tuple[int, int, int]:
        """Steps, rows and columns of a stage's state in a coarsest unit."""
        level = self.hierarchy.levels[stage]
        side = self.unit[1] // level.raster_factor
        return self.unit[0] // level.temporal_factor, side, side

    def _field_unit(self, stage: int) -> tuple[int, int, int]:
        """Steps, rows and columns of a stage's field in a coarsest unit."""
        side = self.unit[1] // self.hierarchy.field_factor(stage)
        return self.unit[0] // self.hierarchy.levels[stage].temporal_factor, side, side

    def _fingerprint(self, windows) -> str:
        """What the result depends on: an interrupted run may only go on with the same."""
        digest = hashlib.sha256()
        networks = [network for network in (self.pipe.regressor, self.pipe.unet) if network is not None]
        for network in networks:
            for name, values in network.state_dict().items():
                digest.update(name.encode() + values.detach().float().cpu().numpy().tobytes())
        configs = [
            {name: value for name, value in component.config.items() if not name.startswith("_")}
            for component in self.pipe.components.values()
            if component is not None
        ]
        settings = [self.seed, self.num_samples, self.num_inference_steps, self.units, self.shapes]
        settings += [str(self.start_time), str(windows)]
        digest.update(json.dumps([configs, settings], sort_keys=True).encode())
        if self.measured is not None:
            for values in (self.measured.labels, self.measured.mean, self.measured.known):
                digest.update(np.ascontiguousarray(values).tobytes())
        for window in windows[-1]:
            part = self._context_of(window.core)
            for name in sorted(part):
                digest.update(str(name).encode() + np.ascontiguousarray(part[name].values).tobytes())
        return digest.hexdigest()

    def _open(self, fingerprint: str, windows: list[list[Window]]):
        """Make the store under its temporary name, or take up the one that an interrupted run has left."""
        path = self.folder / PROGRESS
        if path.is_file():
            progress = json.loads(path.read_text(encoding="utf-8"))
            if progress["fingerprint"] == fingerprint:
                return
            if progress["done"] > 0:
                raise ValueError(
                    f"`output`: {self.folder} holds an unfinished run with another context, model or settings. Go on"
                    " with the same ones, or remove that folder."
                )
        shutil.rmtree(self.folder, ignore_errors=True)
        self._create(windows)
        self._write_progress(fingerprint, 0)

    def _create(self, windows: list[list[Window]]):
        import zarr

        levels = {
            name: np.broadcast_to(
                np.float32(np.nan), (self.num_samples, len(self.pipe.traffic_processor.channels), *shape)
            )
            for name, shape in zip(self.hierarchy.names, self.shapes)
        }
        y, x = self.centres
        tree = levels_to_datatree(
            levels,
            self.hierarchy,
            np.datetime64(self.start_time, "s"),
            self.pipe.traffic_processor.channels,
            self.pipe.traffic_processor.units,
            self.units,
            y=y,
            x=x,
            # Groups are read in any order; this is that of the levels.
            attrs={
                "title": "Generated mobile traffic",
                "source": f"zoomdiff_diffusers {version('zoomdiff_diffusers')}",
                "seed": self.seed,
                "levels": self.hierarchy.names,
                **shared_attributes([self.context]),
            },
            grid_mapping=shared_grid_mapping([self.context]),
            zones=self.context if self.hierarchy.zone_layers else None,
        )
        tree.map_over_datasets(_without_traffic).to_zarr(self.folder, mode="w", zarr_format=3, consolidated=False)
        root = zarr.open_group(self.folder, mode="r+")
        states = root.create_group(STATES)
        for stage, (name, shape) in enumerate(zip(self.hierarchy.names, self.shapes)):
            chunk = tuple(part.stop for part in scaled(windows[stage][0].core, self._state_unit(stage)))
            described = tree[name]["traffic"]
            root[name].create_array(
                "traffic",
                shape=levels[name].shape,
                chunks=(1, levels[name].shape[1], *chunk),
                dtype="float32",
                fill_value=float("nan"),
                dimension_names=described.dims,
                attributes=dict(described.attrs),
            )
            # Of the solver between two calls: the prior, the state, and what the call before took for the truth.
            for which, count in (("prior", 1), *((parity, 2) for parity in PARITIES)):
                states.create_array(
                    f"{name}_{which}",
                    shape=(count, levels[name].shape[1], *shape),
                    chunks=(count, levels[name].shape[1], *chunk),
                    dtype="float32",
                    compressors=None,
                )
            if self.keeps_fields:
                steps, *sides = (count * size for count, size in zip(self.area, self._field_unit(stage)))
                chunk = tuple(part.stop for part in scaled(windows[stage][0].core, self._field_unit(stage)))
                states.create_array(
                    f"{name}_field",
                    shape=(levels[name].shape[1], steps, *sides),
                    chunks=(levels[name].shape[1], *chunk),
                    dtype="float32",
                    compressors=None,
                )

    def _write_progress(self, fingerprint: str, done: int):
        content = json.dumps({"fingerprint": fingerprint, "done": done})
        replace_file(self.folder / PROGRESS, lambda path: path.write_text(content, encoding="utf-8"))

    def _begin(self, root, sample: int, stage: int, window: Window):
        """Write z and the noise from which a stage starts, for the core of a window."""
        name, unit = self.hierarchy.names[stage], self._state_unit(stage)
        forecast, zones = self._forecast(window.whole), self._zones(window.whole)
        guesses = (None, None) if forecast is None else (forecast[stage], forecast[-1])
        coarse = self._coarse(root, sample, stage, window)
        prior = self.pipe.traffic_processor.encode_prior(
            self.hierarchy, stage, stage, coarse, guesses[0], zones, guesses[1]
        )
        channels = len(self.pipe.traffic_processor.channels)
        noise = torch.from_numpy(noise_of_place(self.seed, sample, stage, window.whole, channels, unit))[None]
        noise = self.hierarchy.noise_over_units(noise, stage, zones)
        place, inner = (
            (0, slice(None), *scaled(part, unit)) for part in (window.core, within(window.core, window.whole))
        )
        root[STATES][f"{name}_prior"][place] = 0.0 if prior is None else prior[inner].cpu().numpy()
        root[STATES][f"{name}_even"][place] = noise[inner].numpy()

    def _step(self, root, sample, stage: int, place: int, timestep: float, last: bool, window: Window):
        """One call of the network for one window: from one state on disk to the next, or to the finished level."""
        name, states, device = self.hierarchy.names[stage], root[STATES], self.pipe._execution_device
        current, following = (states[f"{name}_{PARITIES[(place + ahead) % 2]}"] for ahead in (0, 1))
        unit = self._state_unit(stage)
        parts = (window.core, window.whole, window.outer, within(window.whole, window.outer))
        core, whole, outer, whole_in_outer = (scaled(part, unit) for part in parts)
        core_in_whole = within(window.core, window.whole)

        def read(array, row, part):
            return torch.from_numpy(array[(slice(row, row + 1), slice(None), *part)]).to(device)

        def cut(values, part):
            return values[(slice(None), slice(None), *part)]

        zones = self._zones(window.whole)
        state, prior = read(current, 0, outer), read(states[f"{name}_prior"], 0, outer)
        output = cut(self._predict(state, timestep, stage, prior, window), whole_in_outer)
        output = self.hierarchy.over_units(output, stage, zones)
        earlier = read(current, 1, whole) if place > 0 else None
        self.scheduler.continue_stage(timestep, cut(prior, whole_in_outer), earlier)
        result = self.scheduler.step(output, timestep, cut(state, whole_in_outer))
        if not last:
            saved = torch.cat([result.prev_sample, result.pred_original_sample])
            following[(slice(None), slice(None), *core)] = cut(saved, scaled(core_in_whole, unit)).cpu().numpy()
            return
        options = {"zones": zones, "profile": self._profile(window)}
        field = self.pipe.physical_level(result.level, self._coarse(root, sample, stage, window), stage, **options)
        finished = [stage]
        if self.measured is not None:
            field = self.measured.combine(field, stage, scaled(window.whole, self.unit))
            if stage == len(self.hierarchy) - 1:  # the levels before it follow from what was met
                finished = range(len(self.hierarchy))
        level = self.hierarchy.level_of(field, stage, zones)
        for position in finished:
            unit = self._state_unit(position)
            values = self.hierarchy.aggregate(level, position, source=stage, zones=zones)
            values = cut(values * self._volume(position, zones), scaled(core_in_whole, unit)).float()
            place = (sample, slice(None), *scaled(window.core, unit))
            root[self.hierarchy.names[position]]["traffic"][place] = values[0].cpu().numpy()
        if self.keeps_fields:
            unit = self._field_unit(stage)
            field = cut(field, scaled(core_in_whole, unit))
            states[f"{name}_field"][(slice(None), *scaled(window.core, unit))] = field[0].cpu().numpy()

    def _predict(self, state, timestep: float, stage: int, prior, window: Window) -> torch.Tensor:
        unet = self.pipe.unet
        tensors, hour_of_week = self._tensors(window.outer)
        embedding = unet.encode_context(tensors.to(dtype=unet.dtype), stage)
        state, prior = state.to(unet.dtype), prior.to(unet.dtype)
        return unet(state, timestep, stage, prior, embedding, hour_of_week).sample.float()

    def _profile(self, window: Window) -> torch.Tensor | None:
        """The forecast of the finest level in a window without its margin, where zones need it."""
        if not self.hierarchy.zone_layers:
            return None
        forecast = self._forecast(window.whole)
        return None if forecast is None else forecast[-1]

    def _forecast(self, part: tuple[slice, slice, slice]) -> list[torch.Tensor] | None:
        """The forecast of all levels in a part, as if there were no parts; none without a regressor."""
        if self.pipe.regressor is None:
            return None
        # A token across an end of the part needs the context on both sides of it.
        wide = widened(part, (ceil(self.pipe.regressor.config.token_length / self.unit[0]), 0, 0), self.area)
        tensors, hour_of_week = self._tensors(wide)
        steps = (wide[0].stop - wide[0].start) * self.unit[0]
        time, *_ = within(part, wide)
        levels = self.pipe.forecast_levels(tensors, steps, hour_of_week)
        return [
            values[:, :, scaled((time, *part[1:]), self._state_unit(level))[0]] for level, values in enumerate(levels)
        ]

    def _coarse(self, root, sample: int, stage: int, window: Window) -> torch.Tensor | None:
        """The field of the finished level before a stage, in a window without its margin, as physical means."""
        if stage == 0:
            return None
        name, whole = self.hierarchy.names[stage - 1], scaled(window.whole, self._field_unit(stage - 1))
        if self.keeps_fields:
            values = root[STATES][f"{name}_field"][(slice(None), *whole)]
        else:
            values = root[name]["traffic"][(sample, slice(None), *whole)] / self._volume(stage - 1, None)
        return torch.from_numpy(values[None]).to(self.pipe._execution_device)

    def _volume(self, stage: int, zones) -> int | torch.Tensor:
        """What a mean is multiplied with to be in the units of the store."""
        return 1 if self.units == "mean" else self.hierarchy.volume(stage, zones)

    def _context_of(self, part: tuple[slice, slice, slice]) -> xarray.Dataset:
        time, y, x = scaled(part, self.unit)
        sizes = {"hour": time, "y": y, "x": x}
        return self.context.isel({axis: part for axis, part in sizes.items() if axis in self.context.dims}).load()

    def _zones(self, part: tuple[slice, slice, slice]) -> dict[str, torch.Tensor] | None:
        """The zones of a part."""
        names = self.pipe.context_processor.zone_layers
        if not names:
            return None
        if missing := [name for name in names if name not in self.context]:
            raise ValueError(f"`context` has no layer {missing[0]!r}, but a level has these units.")
        rows, columns = scaled(part, self.unit)[1:]
        layers = self.context[names].isel(y=rows, x=columns).load()
        zones = self.pipe.context_processor.zones([layers], (layers.sizes["y"], layers.sizes["x"]))
        return {name: labels.to(self.pipe._execution_device) for name, labels in zones.items()}

    def _tensors(self, part: tuple[slice, slice, slice]):
        """Normalised context of a part, and the time since Monday 00:00 at which it starts, in hours."""
        hours = (part[0].stop - part[0].start) * self.unit[0]
        cells = tuple((axis.stop - axis.start) * side for axis, side in zip(part[1:], self.unit[1:]))
        tensors = self.pipe.context_processor([self._context_of(part)], hours, cells).to(self.pipe._execution_device)
        hour = hour_of_week(self.start_time) + part[0].start * self.unit[0] * self.hierarchy.config.time_step
        return tensors, hour % HOURS_PER_WEEK


def _without_traffic(level: xarray.Dataset) -> xarray.Dataset:
    """The coordinates of a level; texts of a fixed length have no specification in Zarr v3."""
    texts = {name: level[name].astype(object) for name in level.coords if level[name].dtype.kind == "U"}
    return level.drop_vars("traffic", errors="ignore").assign_coords(texts)
