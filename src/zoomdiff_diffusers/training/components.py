# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The components of a pipeline, from the arguments of a training run and its data."""

import numpy as np

from ..data.datasets import TrafficArea
from ..hierarchy import Hierarchy, resolve_stages
from ..models import ZoomDiffRegressor, ZoomDiffUNet
from ..models.embeddings import HOURS_PER_WEEK
from ..processors import ContextProcessor, TrafficProcessor
from ..schedulers import DRDMScheduler
from .arguments import Arguments, DataArguments, HierarchyArguments, SchedulerArguments


def build_hierarchy(arguments: Arguments) -> Hierarchy:
    """From explicit levels, or from scales and their resolution greediness preference."""
    group = arguments.hierarchy
    metric = {"cell_size": group.cell_size, "time_step": group.time_step}
    if group.spatial_scales is not None:
        return Hierarchy.from_resolutions(group.spatial_scales, group.temporal_scales, group.rgp, **metric)
    return Hierarchy(levels=group.levels, **metric)


def build_scheduler(hierarchy: Hierarchy, arguments: Arguments) -> DRDMScheduler:
    """One stage per level; the boundaries are those of the resolution greediness preference unless they are given."""
    given = {name: value for name, value in vars(arguments.scheduler).items() if value is not None}
    if arguments.training.regression_steps > 0:
        if "continuous" in (arguments.scheduler.adding, arguments.scheduler.denoising):
            raise ValueError("A regressor needs segmented `adding` and `denoising`: set `regression_steps` to 0.")
        given["coarsest_prior"] = True
    group = arguments.hierarchy
    if group.spatial_scales is not None and "boundaries" not in given:
        total = given.get("num_train_timesteps", 600)
        stages = resolve_stages(list(group.spatial_scales.values()), group.temporal_scales, group.rgp)
        given["boundaries"] = [round(total * end) for _, _, end in stages]
    factors = {"spatial_factors": hierarchy.spatial_factors, "temporal_factors": hierarchy.temporal_factors}
    return DRDMScheduler(**factors, **given)


def build_unet(
    arguments: Arguments,
    hierarchy: Hierarchy,
    scheduler: DRDMScheduler,
    context_processor: ContextProcessor,
    traffic_processor: TrafficProcessor,
) -> ZoomDiffUNet:
    """The denoiser of all stages, with new weights."""
    states = [scheduler.state_level(stage) for stage in range(len(hierarchy))]
    return ZoomDiffUNet(
        context_layers=context_processor.layer_specs if arguments.model.denoiser_context else [],
        channels=len(traffic_processor.channels),
        spatial_factors=[hierarchy.raster_factors[level] for level in states],
        temporal_factors=[hierarchy.temporal_factors[level] for level in states],
        time_step=hierarchy.config.time_step,
        **{
            "coarsest_unit": [hierarchy.temporal_factors[0], hierarchy.spatial_factors[0]],
            **arguments.model.unet,
        },
    )


def build_regressor(
    arguments: Arguments,
    hierarchy: Hierarchy,
    context_processor: ContextProcessor,
    traffic_processor: TrafficProcessor,
) -> ZoomDiffRegressor | None:
    """The forecast from which stages start, with new weights; none without `regression_steps`."""
    if arguments.training.regression_steps == 0:
        return None
    return ZoomDiffRegressor(
        context_layers=context_processor.layer_specs,
        channels=len(traffic_processor.channels),
        time_step=hierarchy.config.time_step,
        **{"token_length": _token_length(hierarchy.config.time_step), **arguments.model.regressor},
    )


def fit_traffic_processor(areas: list[TrafficArea], arguments: Arguments) -> TrafficProcessor:
    """Statistics of all training areas."""
    data = arguments.data
    simulated = data.dataset == "simulated_city"
    unit = data.traffic_unit if data.traffic_unit is not None else ("MB" if simulated else "")
    channels = list(data.traffic_variables)
    found = areas[0].traffic.shape[0]
    if len(channels) != found:
        if len(channels) > 1:
            raise ValueError(f"`traffic_variables` names {channels}, but the traffic has {found} channels.")
        channels = [f"{channels[0]}_{channel}" for channel in range(found)]
    processor = TrafficProcessor(channels=channels, unit=unit)
    masks = [np.ones(area.traffic.shape[1:], bool) if area.valid is None else area.valid for area in areas]
    return processor.fit([area.traffic for area in areas], masks, data.traffic_offset)


def context_schema(arguments: Arguments, hierarchy: Hierarchy) -> list[dict]:
    """The declared context layers, or those of the simulator; with those of zones that the hierarchy needs."""
    data = arguments.data
    if data.dataset == "simulated_city":
        from ..data.simulated_context import SECTORS, SIMULATED_LAYERS, SITES

        if data.layers is not None or data.smooth_layers:
            raise ValueError("`layers` and `smooth_layers` are for files: the simulated city has its own layers.")
        if data.train_region is not None or data.validation_region is not None:
            raise ValueError(
                "`train_region` and `validation_region` are for files: simulated cities are held out as a whole,"
                " `validation_cities` of them."
            )
        if unknown := set(hierarchy.zone_layers) - {SITES, SECTORS}:
            raise ValueError(f"The zones of the simulated city are {SITES!r} and {SECTORS!r}, not {sorted(unknown)}.")
        zones = [SITES, SECTORS] if hierarchy.zone_layers else []
        return [*SIMULATED_LAYERS, *({"name": name, "kind": "zones"} for name in zones)]
    if data.layers is None:
        raise ValueError(
            "`layers` must declare the context layers of the dataset; [] stands for traffic without any context."
        )
    processor = ContextProcessor(layers=data.layers)  # refuses a wrong schema before any file is read
    if missing := set(hierarchy.zone_layers) - set(processor.zone_layers):
        raise ValueError(f"`layers` must declare the zones of the hierarchy too: {sorted(missing)}.")
    return list(data.layers)


def load_pretrained(arguments: Arguments):
    """The pipeline to start from, if any; a `ValueError` for arguments that would change its parts."""
    name = arguments.model.pretrained_pipeline
    if name is None:
        return None
    given = (arguments.hierarchy, arguments.scheduler, arguments.model.unet, arguments.model.regressor)
    if given != (HierarchyArguments(), SchedulerArguments(), {}, {}):
        raise ValueError(
            "With `pretrained_pipeline`, hierarchy, scheduler, unet and regressor come from it: do not give them."
        )
    from ..pipelines import ZoomDiffPipeline

    pipe, data = ZoomDiffPipeline.from_pretrained(name), arguments.data
    deviations = (DataArguments().largest_deviation, pipe.context_processor.config.largest_deviation)
    changes = {
        "denoiser_context": not arguments.model.denoiser_context and bool(pipe.unet.config.context_layers),
        "traffic_offset": data.traffic_offset != DataArguments().traffic_offset,
        "largest_deviation": data.largest_deviation not in deviations,
        "traffic_unit": data.traffic_unit is not None and {data.traffic_unit} != set(pipe.traffic_processor.units),
    }
    if given := [option for option, changed in changes.items() if changed]:
        raise ValueError(f"With `pretrained_pipeline`, `{given[0]}` comes from '{name}': leave it out.")
    return pipe


def _token_length(time_step: float) -> int:
    """The regressor's tokens: half a day in hours, or as near below as divides a week in other time steps."""
    week = round(HOURS_PER_WEEK / time_step)
    return max(length for length in range(1, 13) if week % length == 0)
