# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""From urban context to a week of traffic at all levels of a hierarchy, coarse to fine."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import prod
from pathlib import Path

import numpy as np
import torch
import xarray
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled

from ...data.stores import levels_to_datatree, shared_attributes, shared_grid_mapping
from ...hierarchy import Hierarchy
from ...models import ZoomDiffRegressor, ZoomDiffUNet
from ...processors import ContextProcessor, ContextTensors, TrafficProcessor
from ...schedulers import DRDMScheduler
from .city import CityGenerator
from .inputs import (
    as_traffic,
    cell_centres,
    check_cell_size,
    check_zone_traffic,
    expand_generators,
    first_hour,
    hour_of_week,
    parse_start,
)
from .measurements import MeasuredTraffic, MeasuredZones
from .pipeline_output import ZoomDiffPipelineOutput


logger = logging.get_logger(__name__)

HOURS_PER_WEEK = 168
OUTPUT_TYPES = ("np", "pt", "xarray", "latent")
UNITS = ("mean", "sum")
# How the weights were trained: the trainer's own account, beside `model_index.json`.
TRAINING_SUMMARY = "training_summary.json"
# The noise of a zone is one number, which is drawn once per stage.
SETTINGS_FOR_ZONES = {"intensity": "segmented", "adding": "segmented", "denoising": "segmented"}
# Without a `batch_size`, about so many finest cells pass the network at once: some hundred megabytes.
CELLS_PER_BATCH = 2**20


@dataclass
class _Request:
    """What stays the same during one call, for all samples of one or several contexts."""

    tensors: ContextTensors  # one entry per context
    context_of_sample: torch.Tensor  # (samples,)
    start: datetime
    shapes: list[tuple[int, int, int]]  # (T, H, W) per level
    centres: tuple[np.ndarray | None, np.ndarray | None]  # y and x of the finest cells
    contexts: list  # as given
    generators: list[torch.Generator]  # one per sample
    batch_size: int
    callback: Callable | None
    callback_inputs: list[str]
    zones: dict[str, torch.Tensor] | None = None  # per layer, one entry per sample
    measured: MeasuredTraffic | None = None
    forecast: list[torch.Tensor] | None = None  # per level, one entry per context

    @property
    def hour_of_week(self) -> float:
        return hour_of_week(self.start)

    def in_batches(self, function: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        """Call `function` for `batch_size` samples at a time: what it needs on the way is never there for all."""
        count, result = len(self.generators), None
        for first in range(0, count, self.batch_size):
            part = slice(first, min(first + self.batch_size, count))
            values = function(part)
            if result is None:
                result = values.new_empty((count, *values.shape[1:]))
            result[part] = values
        return result

    def zones_of(self, part: slice) -> dict[str, torch.Tensor] | None:
        """The zones of some samples."""
        return None if self.zones is None else {name: labels[part] for name, labels in self.zones.items()}


class ZoomDiffPipeline(DiffusionPipeline):
    r"""
    Pipeline that generates mobile traffic at every level of a hierarchy from urban context (ZoomDiff, Sec. IV).

    Each stage of the denoising trajectory produces one level. The level is made to sum up exactly to the one before it
    and, upsampled, is the prior of the next stage. A level with zones lies on the finest grid; every cell has the
    value of the unit that serves it.

    This pipeline inherits from [`DiffusionPipeline`]. Check the superclass documentation for the generic methods
    implemented for all pipelines (downloading, saving, running on a particular device, etc.). Offloading to the CPU is
    not supported: the networks are small, and what takes memory is the traffic.

    Args:
        unet ([`ZoomDiffUNet`]): The denoiser of all stages.
        scheduler ([`DRDMScheduler`]): Noise schedule, stages and solver.
        hierarchy ([`Hierarchy`]): The levels, coarse to fine.
        traffic_processor ([`TrafficProcessor`]): Transform between physical traffic and the network's space.
        context_processor ([`ContextProcessor`]): Schema and normalisation of the urban context.
        regressor ([`ZoomDiffRegressor`], *optional*):
            Forecast of every level from the context. With it, a stage starts from the level before shared out in
            proportion to the forecast; without it, shared out evenly, as in the paper.

    Attributes:
        training_summary (`dict`, *optional*):
            How the weights were trained, as `training_summary.json` beside them says; `None` where it is not stated.
            It is saved and pushed with the pipeline.

    Raises:
        ValueError: If the components do not belong together.
    """

    _callback_tensor_inputs = ["latents"]
    _optional_components = ["regressor"]

    def __init__(
        self,
        unet: ZoomDiffUNet,
        scheduler: DRDMScheduler,
        hierarchy: Hierarchy,
        traffic_processor: TrafficProcessor,
        context_processor: ContextProcessor,
        regressor: ZoomDiffRegressor | None = None,
    ):
        super().__init__()
        self.register_modules(
            unet=unet,
            scheduler=scheduler,
            hierarchy=hierarchy,
            traffic_processor=traffic_processor,
            context_processor=context_processor,
            regressor=regressor,
        )
        self.check_components()
        self.training_summary = _training_summary(unet)

    def check_components(self):
        """Raise a `ValueError` for components that were not made for each other, such as another schema's."""
        if not hasattr(self.scheduler, "stages"):
            raise ValueError(
                "`scheduler` must be a DRDMScheduler, which knows the stages, but is a "
                f"{type(self.scheduler).__name__}. For another solver, take"
                " `DRDMScheduler.from_config(pipe.scheduler.config, solver='ddim')`."
            )
        levels = list(zip(self.hierarchy.spatial_factors, self.hierarchy.temporal_factors))
        stages = [tuple(factors) for factors in self.scheduler.stages]
        states = [tuple(self.scheduler.state_factors(stage)) for stage in range(len(stages))]
        arrays = dict(enumerate(zip(self.hierarchy.raster_factors, self.hierarchy.temporal_factors)))
        rasters = [arrays.get(self.scheduler.state_level(stage)) for stage in range(len(stages))]
        config, time_step = self.unet.config, self.hierarchy.config.time_step
        network = list(zip(config.spatial_factors, config.temporal_factors))
        layers = [dict(layer) for layer in config.context_layers]
        if self.regressor is not None and not layers:  # a denoiser that knows the context by its forecast only
            layers = self.context_processor.layer_specs
        comparisons = [
            ("scheduler", "hierarchy", "(spatial, temporal) factors", stages, levels),
            ("unet", "scheduler", "(spatial, temporal) factors of the states", network, rasters),
            ("unet", "context_processor", "context layers", layers, self.context_processor.layer_specs),
            ("unet", "traffic_processor", "traffic channels", config.channels, len(self.traffic_processor.channels)),
            ("unet", "hierarchy", "time steps in hours", config.time_step, time_step),
        ]
        if self.regressor is not None:
            regression = self.regressor.config
            layers = [dict(layer) for layer in regression.context_layers]
            comparisons += [
                ("scheduler", "hierarchy", "(spatial, temporal) factors of the states", states, levels),
                ("regressor", "context_processor", "context layers", layers, self.context_processor.layer_specs),
                ("regressor", "unet", "traffic channels", regression.channels, config.channels),
                ("regressor", "hierarchy", "time steps in hours", regression.time_step, time_step),
            ]
        has_regressor = self.regressor is not None
        comparisons.append(
            ("scheduler", "regressor", "prior at stage 0", self.scheduler.config.coarsest_prior, has_regressor)
        )
        if self.hierarchy.zone_layers:
            zones, known = set(self.hierarchy.zone_layers), set(self.context_processor.zone_layers)
            settings = {name: self.scheduler.config[name] for name in SETTINGS_FOR_ZONES}
            comparisons += [
                ("hierarchy", "context_processor", "layers of zones", sorted(zones & known), sorted(zones)),
                ("scheduler", "hierarchy", "settings that levels with zones need", settings, SETTINGS_FOR_ZONES),
            ]
            if self.scheduler.config.solver == "ddpm":
                raise ValueError("`scheduler` must not have the solver 'ddpm': its noise is not that of zones.")
        for first, second, what, found, expected in comparisons:
            if found != expected:
                raise ValueError(
                    f"`{first}` and `{second}` do not belong together; is one from a checkpoint of another schema?"
                    f" The {what} of `{first}` are {found}, those of `{second}` are {expected}."
                )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs) -> "ZoomDiffPipeline":
        """As [`DiffusionPipeline.from_pretrained`], but weights are read from safetensors files only."""
        return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **kwargs})

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs) -> str | os.PathLike:
        """As [`DiffusionPipeline.download`], and `training_summary.json` where there is one."""
        folder = super().download(pretrained_model_name, **kwargs)
        options = {name: kwargs[name] for name in ("cache_dir", "local_files_only", "token") if name in kwargs}
        try:
            hf_hub_download(pretrained_model_name, TRAINING_SUMMARY, revision=Path(folder).name, **options)
        except (EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled):
            logger.info(f"{pretrained_model_name} does not state how its weights were trained.")
        return folder

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs):
        """
        Save all components. Files are complete before they replace those of an earlier checkpoint: neither a full disk
        nor a killed process leaves half a file behind.

        Args:
            save_directory (`str` or `os.PathLike`): Where to save; created if it does not exist.
            push_to_hub (`bool`, defaults to `False`):
                Also upload to the Hub, to `repo_id` (by default the folder's name); `kwargs` go to `push_to_hub`.
            kwargs: `variant` and `max_shard_size`, as for [`DiffusionPipeline.save_pretrained`].
        """
        if not kwargs.pop("safe_serialization", True):
            raise ValueError("`safe_serialization` must be True: weights are saved as safetensors only.")
        target = Path(save_directory).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        options = {name: kwargs.pop(name) for name in ("variant", "max_shard_size") if name in kwargs}
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            super().save_pretrained(temporary, **options)
            if self.training_summary is not None:
                summary = json.dumps(self.training_summary, indent=2)
                Path(temporary, TRAINING_SUMMARY).write_text(summary, encoding="utf-8")
            files = [path for path in Path(temporary).rglob("*") if path.is_file()]
            # The index comes last: without it, a first save that was interrupted is not taken for a checkpoint.
            for path in sorted(files, key=lambda path: path.name == self.config_name):
                destination = target / path.relative_to(temporary)
                destination.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, destination)
        _remove_other_weights(target, {path.relative_to(temporary) for path in files}, options.get("variant"))
        if self.training_summary is None:  # that of an earlier checkpoint would be about other weights
            (target / TRAINING_SUMMARY).unlink(missing_ok=True)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", target.name), variant=options.get("variant"), **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
        *,
        model_license: str | None = None,
        data_description: str | None = None,
        data_license: str | None = None,
        context: dict | xarray.Dataset | None = None,
        remote_code: bool = False,
    ) -> str:
        """
        Upload weights, configuration and a model card in one commit. The repository is created if it does not exist.

        The card (README.md) is written anew: hierarchy, context schema, units, training data and scores come from the
        components and from `training_summary`; what they do not know is given here or is called "not stated".

        Args:
            repo_id (`str`): The repository, "organisation/name"; a name alone is one of the user's own.
            model_license (`str`, *optional*): Licence of the weights, as the Hub names it: "apache-2.0", "cc-by-4.0".
            data_description (`str`, *optional*): What the training data are and where they come from.
            data_license (`str`, *optional*): Licence of the training data.
            context (`dict` or `xarray.Dataset`, *optional*):
                Context of the area that the card's figure shows. By default a simulated one, where the schema is that
                of the simulated city; otherwise the card has no figure.
            remote_code (`bool`, defaults to `False`):
                Also write the branch `remote-code`, which loads without this package by `trust_remote_code=True`.

        The other arguments are those of [`DiffusionPipeline.push_to_hub`].

        Returns:
            `huggingface_hub.CommitInfo`, a string: the address of the commit.

        Raises:
            ValueError: Before anything is uploaded, if the checkpoint is incomplete or an access token stands in it.
            huggingface_hub.errors.HfHubHTTPError: If the Hub refuses.
        """
        from ...hub.upload import push_pipeline

        if not safe_serialization:
            raise ValueError("`safe_serialization` must be True: weights are saved as safetensors only.")
        return push_pipeline(
            self,
            repo_id,
            commit_message=commit_message,
            private=private,
            token=token,
            create_pr=create_pr,
            variant=variant,
            subfolder=subfolder,
            statements={
                "model_license": model_license,
                "data_description": data_description,
                "data_license": data_license,
            },
            context=context,
            remote_code=remote_code,
        )

    @property
    def guidance_scale(self) -> float | None:
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale is not None and self._guidance_scale != 1

    @property
    def num_timesteps(self) -> int:
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        return self._interrupt

    def check_inputs(
        self,
        num_samples,
        output_type,
        units,
        batch_size,
        guidance_scale,
        callback_inputs,
        name_of_samples="num_samples_per_context",
    ):
        """Refuse arguments that no run could honour."""
        for name, value in ((name_of_samples, num_samples), ("batch_size", batch_size)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")
        for name, value, allowed in (("output_type", output_type, OUTPUT_TYPES), ("units", units, UNITS)):
            if value not in allowed:
                raise ValueError(f"`{name}` must be one of {allowed}, but is {value!r}.")
        if guidance_scale is not None and not np.isfinite(guidance_scale):
            raise ValueError(f"`guidance_scale` must be a finite number, but is {guidance_scale!r}.")
        if guidance_scale not in (None, 1) and not self.unet.config.context_layers:
            raise ValueError(
                "`guidance_scale` must be None or 1, since the denoiser of this model does not see the context, but is"
                f" {guidance_scale!r}."
            )
        unknown = [name for name in callback_inputs if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` may have {self._callback_tensor_inputs}, but has {unknown}."
            )

    @torch.no_grad()
    def __call__(
        self,
        context: dict | xarray.Dataset | list,
        start: str | datetime | np.datetime64 | None = None,
        num_hours: int | None = None,
        num_inference_steps: int | list[int] | None = None,
        num_samples_per_context: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        guidance_scale: float | None = None,
        output_type: str = "np",
        units: str = "mean",
        batch_size: int | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        return_dict: bool = True,
    ) -> ZoomDiffPipelineOutput | tuple:
        """
        Generate all levels for one or several contexts.

        Args:
            context (`dict`, `xarray.Dataset` or a list of them):
                Raw layers by name, as [`ContextProcessor`] documents them. The contexts of a list share their size.
            start (`str`, `datetime`, `np.datetime64` or `pandas.Timestamp`, *optional*):
                The first hour in local time, so that weekdays fall right. It must lie on a time step of the coarsest
                level, counted from midnight. By default what the coordinate `hour` of the context begins with, where
                it holds times, else a Monday. Temporal layers must begin with it, and such times must be one time step
                of the hierarchy apart.
            num_hours (`int`, *optional*): Length. That of the temporal layers or else one week by default.
            num_inference_steps (`int` or `list[int]`, *optional*):
                Calls of the network, in total or per stage. The scheduler's few-step default if not given.
            num_samples_per_context (`int`, defaults to 1): Size of the ensemble.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Makes the result reproducible: one, from which each sample's seed is drawn, or one per sample.
            guidance_scale (`float`, *optional*):
                Weight of the context in classifier-free guidance; 1 leaves it out. A model whose denoiser does not see
                the context (`unet.config.context_layers` is empty) has none.
            output_type (`str`, defaults to `"np"`): `"np"`, `"pt"`, `"xarray"` or `"latent"`.
            units (`str`, defaults to `"mean"`): `"mean"` per finest cell and time step or `"sum"` per unit.
            batch_size (`int`, *optional*):
                Samples that pass the network, and are made to add up to the level before, at once. Bounds memory but
                for what is kept of every sample, about 40 bytes per finest value; changes results by no more than
                rounding.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipeline, step, timestep, tensors)` after each step, where `step` counts through
                all stages. A tensor that it returns replaces the current one, in time for the stage's next step.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`): Tensors that it gets.
            return_dict (`bool`, defaults to `True`): Return a [`ZoomDiffPipelineOutput`] rather than a tuple.

        Returns:
            [`ZoomDiffPipelineOutput`], or a tuple whose first entry is the levels. A run that a callback interrupts by
            `pipeline._interrupt = True` returns the levels that are complete by then.
        """
        # 1. Check inputs
        self.check_inputs(
            num_samples_per_context, output_type, units, batch_size, guidance_scale, callback_on_step_end_tensor_inputs
        )
        self.check_components()
        # 2. Context and generators
        callback = callback_on_step_end, callback_on_step_end_tensor_inputs
        request = self._prepare(context, start, num_hours, num_samples_per_context, generator, batch_size, *callback)
        # 3. Stages
        self._guidance_scale = guidance_scale
        levels = self._run_stages(request, num_inference_steps, levels=[])
        # 4. Postprocess
        levels = dict(zip(self.hierarchy.names, levels))
        return self._output(levels, request, units, output_type, return_dict, given={})

    @torch.no_grad()
    def refine(
        self,
        traffic: np.ndarray | torch.Tensor | xarray.DataArray,
        level: str | int,
        context: dict | xarray.Dataset | list,
        start: str | datetime | np.datetime64 | None = None,
        num_inference_steps: int | list[int] | None = None,
        num_samples_per_context: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        guidance_scale: float | None = None,
        output_type: str = "np",
        units: str = "mean",
        batch_size: int | None = None,
        callback_on_step_end: Callable | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],
        return_dict: bool = True,
    ) -> ZoomDiffPipelineOutput | tuple:
        """
        Refine given traffic of one level to all finer ones, zero-shot (Sec. VI-A).

        Where hours or units are missing (NaN), the stages up to `level` run as well: known values replace the
        generated ones at every step, and the coarser levels follow from the completed one.

        Args:
            traffic (`np.ndarray`, `torch.Tensor` or `xarray.DataArray`):
                (C, T_k, H_k, W_k), or (N, C, T_k, H_k, W_k) with N a multiple of the number of contexts, those of the
                first context first. At least 0, NaN where unknown, in the `units` of the result.
            level (`str` or `int`): The level of `traffic`.
            num_samples_per_context (`int`, defaults to 1): Refinements of each of the N tensors.

        The other arguments are those of [`~ZoomDiffPipeline.__call__`].

        Returns:
            [`ZoomDiffPipelineOutput`], or a tuple whose first entry is the levels: from `level` on if nothing is
            missing, otherwise all. Known values come back unchanged.
        """
        # 1. Check inputs
        self.check_inputs(
            num_samples_per_context, output_type, units, batch_size, guidance_scale, callback_on_step_end_tensor_inputs
        )
        self.check_components()
        level, contexts = self.hierarchy.index(level), _as_list(context)
        channels = len(self.traffic_processor.channels)
        traffic = as_traffic(traffic, channels, len(contexts), self._execution_device)
        traffic = traffic.repeat_interleave(num_samples_per_context, dim=0)
        if level == len(self.hierarchy) - 1 and not traffic.isnan().any():
            raise ValueError(f"`level` is the finest and `traffic` misses nothing: {traffic.shape} is the result.")
        # 2. Context and generators
        num_hours = traffic.shape[-3] * self.hierarchy.temporal_factors[level] * self.hierarchy.config.time_step
        callback = callback_on_step_end, callback_on_step_end_tensor_inputs
        num_samples = len(traffic) // len(contexts)
        request = self._prepare(contexts, start, num_hours, num_samples, generator, batch_size, *callback)
        if tuple(traffic.shape[-3:]) != request.shapes[level]:
            raise ValueError(
                f"`traffic` must be {request.shapes[level]} on its last three axes, the size of level"
                f" {self.hierarchy.names[level]!r} for this context, but is {tuple(traffic.shape[-3:])}."
            )
        check_zone_traffic(traffic, level, self.hierarchy, request.zones)
        # 3. Stages
        self._guidance_scale = guidance_scale
        means = traffic / (self.hierarchy.volume(level, request.zones) if units == "sum" else 1)
        measured = MeasuredTraffic(means.float(), level, self.hierarchy, request.zones)
        request.measured = None if measured.complete else measured
        given = [*measured.mean] if measured.complete else []
        levels = self._run_stages(request, num_inference_steps, levels=given)
        # 4. Postprocess
        levels = dict(zip(self.hierarchy.names, measured.complete_levels(levels)))
        if measured.complete:
            levels = {name: values for name, values in levels.items() if self.hierarchy.index(name) >= level}
        given = {self.hierarchy.names[level]: traffic}
        return self._output(levels, request, units, output_type, return_dict, given)

    @torch.no_grad()
    def generate_city(
        self,
        context: xarray.Dataset,
        output: str | os.PathLike,
        start: str | datetime | np.datetime64 | None = None,
        num_hours: int | None = None,
        num_inference_steps: int | list[int] | None = None,
        num_samples: int = 1,
        seed: int = 0,
        units: str = "mean",
        window: tuple[int, int, int] | None = None,
    ) -> Path:
        """
        Generate all levels of an area of any extent, for any number of weeks, into a Zarr store.

        Memory does not grow with the area: every call of the network goes over the area window by window, with the
        state between two calls on disk, about 20 bytes per finest value. The result is that of one window over
        everything. It depends on `seed` and not on the size of the windows or the number of processes. A run that was
        interrupted goes on when it is called again. With `torch.distributed`, all processes call this method and share
        out the windows.

        Args:
            context (`xarray.Dataset`):
                Layers on `y` and `x` (temporal ones on `hour` too), as [`ContextProcessor`] documents them. It is read
                window by window: one opened from a file need not fit into memory.
            output (`str` or `os.PathLike`):
                Folder to make, ending in `.zarr`; `xarray.open_datatree` reads it. Its attribute `levels` names the
                levels, coarse to fine.
            start, num_hours, num_inference_steps, units: As in [`~ZoomDiffPipeline.__call__`].
            num_samples (`int`, defaults to 1): Size of the ensemble.
            seed (`int`, defaults to 0): Seed of the noise.
            window (`tuple[int, int, int]`, *optional*):
                Largest window, in units of the coarsest level along time, y and x, without the margin that it needs.

        Returns:
            `Path`: the store.

        Raises:
            ValueError: If the arguments do not fit together, or an unfinished run had others.
        """
        self.check_inputs(num_samples, "xarray", units, None, None, [], name_of_samples="num_samples")
        self.check_components()
        settings = (start, num_hours, num_samples, seed, num_inference_steps, units, window)
        return self._run_city(CityGenerator(self, context, output, *settings))

    @torch.no_grad()
    def refine_city(
        self,
        traffic: np.ndarray,
        zones: np.ndarray,
        context: xarray.Dataset,
        output: str | os.PathLike,
        start: str | datetime | np.datetime64 | None = None,
        hours_per_value: float | None = None,
        num_inference_steps: int | list[int] | None = None,
        num_samples: int = 1,
        seed: int = 0,
        units: str = "mean",
        window: tuple[int, int, int] | None = None,
    ) -> Path:
        """
        Refine measured traffic of base stations, cells or other areas to all levels of an area of any extent.

        The areas may have any form and need not be units of a level. They may have gaps in time, and cover a part of
        the map: elsewhere the traffic is generated. In the result every area has its measured totals, and the levels
        agree with each other.

        Args:
            traffic (`np.ndarray`): (C, T, Z), at least 0: totals of Z areas per time step, NaN where unknown.
            zones (`np.ndarray`):
                (H, W) whole numbers below Z, the area that serves each finest cell; -1 where nothing is measured.
            hours_per_value (`float`, *optional*): Time step of `traffic`; the finest one of the levels by default.

        The other arguments are those of [`~ZoomDiffPipeline.generate_city`]; T tells the length.

        Returns:
            `Path`: the store.

        Raises:
            ValueError: If the arguments do not fit together, or an unfinished run had others.
        """
        time_step = self.hierarchy.config.time_step
        factor = 1 if hours_per_value is None else hours_per_value / time_step
        if factor < 1 or factor != round(factor):
            raise ValueError(
                f"`hours_per_value` must be a positive multiple of {time_step:g} h, not {hours_per_value}."
            )
        channels = len(self.traffic_processor.channels)
        if np.ndim(traffic) != 3 or len(traffic) != channels:
            raise ValueError(f"`traffic` must have the shape ({channels}, T, Z), but has {np.shape(traffic)}.")
        measured = MeasuredZones(traffic, zones, int(factor), self.hierarchy)
        num_hours = measured.num_steps * time_step
        self.check_inputs(num_samples, "xarray", units, None, None, [], name_of_samples="num_samples")
        self.check_components()
        settings = (start, num_hours, num_samples, seed, num_inference_steps, units, window)
        return self._run_city(CityGenerator(self, context, output, *settings, measured))

    def _run_city(self, generator: CityGenerator) -> Path:
        """Run it, on all processes that `torch.distributed` has started."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return generator.run()
        size, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        return generator.run(size, rank, torch.distributed.barrier)

    def _prepare(
        self, context, start, num_hours, num_samples, generator, batch_size, callback, callback_inputs
    ) -> _Request:
        """Check what depends on the context and bring it to the device."""
        contexts, device = _as_list(context), self._execution_device
        check_cell_size(contexts, self.hierarchy)
        time_step = self.hierarchy.config.time_step
        start = parse_start(start, self.hierarchy, first_hour(contexts, time_step))
        if num_hours is None:
            steps = self.context_processor.num_time_steps(contexts) or round(HOURS_PER_WEEK / time_step)
        else:
            steps = num_hours / time_step
            if steps != round(steps) or steps < 1:
                raise ValueError(f"`num_hours` must be a positive multiple of {time_step:g} h, not {num_hours}.")
        tensors = self.context_processor(contexts, int(steps)).to(device)
        shapes = self.hierarchy.shapes(int(steps), *tensors.static.shape[-2:])
        return _Request(
            tensors=tensors,
            context_of_sample=torch.arange(len(contexts), device=device).repeat_interleave(num_samples),
            zones={name: labels.repeat_interleave(num_samples, dim=0) for name, labels in tensors.zones.items()}
            if tensors.zones
            else None,
            start=start,
            shapes=shapes,
            centres=_common_centres(contexts, tuple(tensors.static.shape[-2:])),
            contexts=contexts,
            generators=expand_generators(generator, len(contexts) * num_samples),
            batch_size=batch_size or max(1, CELLS_PER_BATCH // prod(shapes[-1])),
            callback=callback,
            callback_inputs=callback_inputs,
        )

    def _run_stages(self, request: _Request, num_inference_steps, levels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return all levels, as physical means, some of which are given."""
        names = self.hierarchy.names
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device, start_stage=len(levels))
        self._num_timesteps = len(self.scheduler.timesteps)
        request.forecast = self.forecast_levels(
            request.tensors, request.shapes[-1][0], request.hour_of_week, request.batch_size
        )
        self._interrupt = False
        state = None
        coarse = self.hierarchy.field_of(levels[-1], len(levels) - 1) if levels else None
        with self.progress_bar(total=self._num_timesteps) as progress_bar:
            for stage in range(len(levels), len(names)):
                progress_bar.set_description(f"Level {stage + 1} of {len(names)}, {names[stage]}")
                state, coarse = self._run_stage(request, stage, coarse, state, progress_bar)
                if coarse is None:
                    break
                levels = [*levels, self.hierarchy.level_of(coarse, stage, request.zones)]
        return levels

    def _run_stage(self, request: _Request, stage: int, coarse, state, progress_bar):
        """Denoise one stage; return its last state and the field of its level, or `None` if interrupted."""
        scheduler, device = self.scheduler, self._execution_device
        shape = (
            len(request.generators),
            len(self.traffic_processor.channels),
            *request.shapes[scheduler.state_level(stage)],
        )
        prior = self._prior(request, coarse, stage)
        state = scheduler.begin_stage(
            stage, shape, prior, request.generators, device=device, dtype=torch.float32, sample=state
        )
        state = self.hierarchy.noise_over_units(state, stage, request.zones)
        embeddings = self._embed_context(request, stage)
        measured = self._measured_state(request, stage, shape)
        first = int((scheduler.stage_of_timesteps < stage).sum())
        for step, timestep in enumerate(scheduler.stage_timesteps(stage), start=first):
            if self.interrupt:
                return state, None
            if measured is not None:
                known, values, noise = measured
                noisy = scheduler.add_noise(values, noise, timestep.expand(len(values)), prior)
                state = torch.where(known, noisy, state)
            output = self._predict(request, state, timestep, stage, prior, embeddings)
            result = scheduler.step(output, timestep, state, generator=request.generators)
            state = result.prev_sample
            if request.callback is not None:
                tensors = {"latents": state} if "latents" in request.callback_inputs else {}
                state = (request.callback(self, step, timestep, tensors) or {}).get("latents", state)
            progress_bar.update()

        def finish(part: slice) -> torch.Tensor:
            return self.physical_level(
                result.level[part],
                None if coarse is None else coarse[part],
                stage,
                measured=None if request.measured is None else request.measured[part],
                zones=request.zones_of(part),
                profile=self._profile(request, part),
            )

        return state, request.in_batches(finish)

    def _profile(self, request: _Request, part: slice) -> torch.Tensor | None:
        """The forecast of the finest level for some samples, where a hierarchy with zones needs it."""
        if request.forecast is None or request.zones is None:
            return None
        return request.forecast[-1][request.context_of_sample[part]]

    def _prior(self, request: _Request, coarse: torch.Tensor | None, stage: int) -> torch.Tensor | None:
        """Bring the level before to the shape of the stage's state and into the network's space: z."""
        if stage == 0 and request.forecast is None:
            return None

        def encode(part: slice) -> torch.Tensor:
            return self.traffic_processor.encode_prior(
                self.hierarchy,
                stage,
                self.scheduler.state_level(stage),
                None if coarse is None else coarse[part],
                None if request.forecast is None else request.forecast[stage][request.context_of_sample[part]],
                request.zones_of(part),
                self._profile(request, part),
            )

        return request.in_batches(encode)

    def forecast_levels(
        self, tensors: ContextTensors, num_steps: int, hour_of_week: float, batch_size: int = 1
    ) -> list[torch.Tensor] | None:
        """
        Return the regressor's forecast of all levels, as physical means (B, C, T_k, H_k, W_k); none without one.

        Args:
            tensors ([`ContextTensors`]): Of B contexts.
            num_steps (`int`): T, number of finest time steps.
            hour_of_week (`float`): Time since Monday 00:00 at which the first step begins, in hours.
            batch_size (`int`, defaults to 1): Contexts that pass the regressor at once.
        """
        if self.regressor is None:
            return None
        tensors, parts = tensors.to(dtype=self.regressor.dtype), range(0, len(tensors), batch_size)
        pyramids = []
        for first in parts:
            part = tensors[first : first + batch_size]
            finest = self.traffic_processor.decode(self.regressor(part, num_steps, hour_of_week).float())
            pyramids.append(self.hierarchy.pyramid(finest, part.zones))
        return [torch.cat(levels) for levels in zip(*pyramids)]

    def _embed_context(self, request: _Request, stage: int) -> list[torch.Tensor]:
        """Return the embedding of every context and, for guidance, that of no context at all."""
        tensors = request.tensors.to(dtype=self.unet.dtype)
        parts = range(0, len(tensors), request.batch_size)
        embeddings = [torch.cat([self.unet.encode_context(tensors[i : i + request.batch_size], stage) for i in parts])]
        if self.do_classifier_free_guidance:
            embeddings.append(self.unet.encode_context(tensors[:1].absent(), stage))
        return embeddings

    def _measured_state(self, request: _Request, stage: int, shape: tuple[int, ...]):
        """Return where the state is known, the known values in the network's space, and noise for them."""
        if request.measured is None or stage > request.measured.level:
            return None
        state_level = self.scheduler.state_level(stage)
        known = self.hierarchy.upsample(request.measured.known(stage), stage, state_level)
        if not known.any():
            return None
        values = self.traffic_processor.encode(
            self.hierarchy.upsample(request.measured.mean[stage], stage, state_level)
        )
        noise = randn_tensor(shape, request.generators, values.device, values.dtype)
        return known, values, self.hierarchy.noise_over_units(noise, stage, request.zones)

    def _predict(self, request: _Request, state, timestep, stage: int, prior, embeddings) -> torch.Tensor:
        """Call the network, at most `batch_size` samples at a time."""
        dtype, state = self.unet.dtype, self.scheduler.scale_model_input(state, timestep)

        def predict(part: slice) -> torch.Tensor:
            index = request.context_of_sample[part]
            sample = state[part].to(dtype)
            inputs = {
                "prior": None if prior is None else prior[part].to(dtype),
                "hour_of_week": torch.full_like(index, request.hour_of_week, dtype=torch.float32),
            }
            output = self.unet(sample, timestep, stage, context_embedding=embeddings[0][index], **inputs).sample
            if self.do_classifier_free_guidance:
                absent = embeddings[1].expand(len(sample), *embeddings[1].shape[1:])
                baseline = self.unet(sample, timestep, stage, context_embedding=absent, **inputs).sample
                output = baseline + self.guidance_scale * (output - baseline)
            return self.hierarchy.over_units(output.float(), stage, request.zones_of(part))

        return request.in_batches(predict)

    def physical_level(
        self,
        level: torch.Tensor,
        coarse: torch.Tensor | None,
        stage: int,
        measured: MeasuredTraffic | None = None,
        zones: dict[str, torch.Tensor] | None = None,
        profile: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        Decode a finished level and make it agree with the level before it and with what was measured.

        Args:
            level (`torch.Tensor`): What the scheduler returns at the end of a stage.
            coarse (`torch.Tensor`, *optional*):
                Field of the level before, as physical means; none for the coarsest.
            stage (`int`): 0 is the coarsest.
            measured (`MeasuredTraffic`, *optional*): Known values.
            zones (`dict[str, torch.Tensor]`, *optional*): Those of each sample, if the hierarchy has any.
            profile (`torch.Tensor`, *optional*): Forecast of the finest level, for [`Hierarchy.reconcile`].

        Returns:
            `torch.Tensor`: the field of the level, see [`Hierarchy`].
        """
        values = self.traffic_processor.decode(level)
        if values.isnan().any():
            raise RuntimeError(
                f"The network returned NaN at level {self.hierarchy.names[stage]!r}: its weights, or its type"
                f" ({self.unet.dtype}), do not suit these inputs."
            )
        values = self.hierarchy.aggregate(values, stage, source=self.scheduler.state_level(stage))
        if measured is not None and stage <= measured.level:
            return measured.combine(values, coarse, stage)
        if coarse is None:
            return values
        return self.hierarchy.reconcile(values, coarse, stage, zones=zones, profile=profile)

    def _output(
        self, levels: dict[str, torch.Tensor], request: _Request, units, output_type, return_dict, given: dict
    ):
        """Convert physical means into what the user asked for; `given` values, in `units`, to the last bit."""
        start = np.datetime64(request.start, "s")
        if output_type == "latent":
            levels = {name: self.traffic_processor.encode(values) for name, values in levels.items()}
        elif units == "sum":
            levels = {name: self._sums(name, values, request.zones) for name, values in levels.items()}
        if output_type != "latent":
            known = {name: values for name, values in given.items() if name in levels}
            levels |= {name: torch.where(values.isnan(), levels[name], values) for name, values in known.items()}
        if output_type in ("np", "xarray"):
            levels = {name: values.cpu().numpy() for name, values in levels.items()}
        if output_type == "xarray":
            y, x = request.centres
            channels = self.traffic_processor.channels
            levels = levels_to_datatree(
                levels,
                self.hierarchy,
                start,
                channels,
                self.traffic_processor.units,
                units,
                y=y,
                x=x,
                attrs=shared_attributes(request.contexts),
                grid_mapping=shared_grid_mapping(request.contexts),
                # Several areas have a raster each.
                zones=request.contexts[0] if request.zones and len(request.contexts) == 1 else None,
            )
        if not return_dict:
            return (levels,)
        return ZoomDiffPipelineOutput(levels=levels, units=units, start=start)

    def _sums(self, name: str, values: torch.Tensor, zones) -> torch.Tensor:
        """Totals of a level's units, from their means."""
        return (values * self.hierarchy.volume(name, zones)).to(values.dtype)


def weight_patterns(variant: str | None) -> list[str]:
    """Patterns of the names of a network's weight files of one variant; the index of shards comes first."""
    suffix = f".{variant}" if variant else ""
    return [
        f"diffusion_pytorch_model.safetensors.index{suffix}.json",
        f"diffusion_pytorch_model{suffix}.safetensors",
        f"diffusion_pytorch_model{suffix}-*-of-*.safetensors",
    ]


def _remove_other_weights(target: Path, written: set[Path], variant: str | None):
    """
    Remove weights of an earlier save from a folder: an index of shards would win over the new weights.

    Args:
        target (`Path`): The saved pipeline.
        written (`set[Path]`): Its new files, relative to it.
        variant (`str`, *optional*): That of the new weights. The weights of others stay.
    """
    for folder in {path.parent for path in written}:
        # The index goes first: without one of its shards, the folder could not be loaded.
        for path in [path for pattern in weight_patterns(variant) for path in (target / folder).glob(pattern)]:
            if folder / path.name not in written:
                path.unlink()


def _training_summary(unet) -> dict | None:
    """What lies beside the folder that the network was loaded from, if it was loaded."""
    source = unet.config.get("_name_or_path")
    folder = Path(source).parent if source and Path(source).name == "unet" else Path(source or "/no folder")
    path = folder / TRAINING_SUMMARY
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _common_centres(contexts: list, size: tuple[int, int]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Coordinates of the finest cells; those that the contexts do not share are left out."""
    centres = [cell_centres(context, size) for context in contexts]
    return tuple(
        values[0] if all(np.array_equal(values[0], other) for other in values[1:]) else None
        for values in zip(*centres)
    )


def _as_list(contexts) -> list:
    return list(contexts) if isinstance(contexts, (list, tuple)) else [contexts]
