# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Model and dataset cards: every fact comes from the components, the training or the data, or is called not stated."""

import re
from dataclasses import fields
from math import lcm
from pathlib import Path

import diffusers
import numpy as np
import torch
import yaml
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData, constants

from .. import __version__


TEMPLATES = Path(__file__).parent / "templates"
NOT_STATED = "not stated"
METRICS = {
    "crps": "CRPS",
    "mae_of_mean": "MAE of the ensemble mean",
    "mae_of_sample": "MAE of one sample",
    "rmse_of_mean": "RMSE of the ensemble mean",
    "spread_skill": "spread/skill",
}
SIMULATED = {
    "data_license": "none needed: the data are simulated",
    "data_description": "simulated by `zoomdiff_diffusers.data.simulated_city`; nothing was measured",
}
# What the windows of the validation were to the training, in the metadata and in the text.
HELD_OUT, PARTLY_HELD_OUT, TRAINED_ON = "held out", "held out by the last run only", "training data"
VALIDATION = {
    HELD_OUT: " that were held out",
    PARTLY_HELD_OUT: " that the last run held out, but that an earlier one may have seen",
    TRAINED_ON: " of the training data: none were held out",
}
KINDS = {"categorical": "classes", "count": "counts", "continuous": "quantities", "temporal": "quantities over time",
         "zones": "numbers of units"}  # fmt: skip


def model_card(
    pipe, repo_id: str, statements: dict, figure: str | None = None, remote_code: bool = False
) -> ModelCard:
    """
    Return the card of a pipeline.

    Args:
        pipe ([`ZoomDiffPipeline`]): Its components and its `training_summary` are described.
        repo_id (`str`): The repository, "organisation/name".
        statements (`dict`):
            `model_license`, `data_license` and `data_description`, where they are not what the training says.
        figure (`str`, *optional*): File name of a picture beside the card.
        remote_code (`bool`, defaults to `False`): Say how to load the revision without the package.
    """
    runs = runs_of(pipe.training_summary)
    stated = _statements(statements, runs)
    name, simulated = repo_id.split("/")[-1], all(_is_simulated(run) for run in runs)
    hierarchy = pipe.hierarchy
    scores = (runs[-1].get("validations") or [{}])[-1].get("scores", {})
    networks = [network for network in (pipe.regressor, pipe.unet) if network is not None]
    processor = pipe.traffic_processor
    maxima = processor.config.maximum or [None] * len(processor.channels)
    return ModelCard.from_template(
        _model_data(name, runs, stated, scores, simulated),
        template_path=str(TEMPLATES / "model_card.md"),
        name=name,
        repo_id=repo_id,
        url=f"{constants.ENDPOINT}/{repo_id}",
        citation_key=_key(repo_id),
        simulated=simulated,
        figure=figure,
        remote_code=remote_code,
        snippet=_snippet(pipe, repo_id, remote_code=False),
        remote_snippet=_snippet(pipe, repo_id, remote_code=True),
        parameters=f"{sum(parameter.numel() for network in networks for parameter in network.parameters()):,}",
        cell=f"{hierarchy.config.cell_size:g} m",
        step=_hours(hierarchy.config.time_step),
        levels=[
            {
                "name": level.name,
                "side": _side(level, hierarchy),
                "step": _hours(level.temporal_factor * hierarchy.config.time_step),
            }
            for level in hierarchy.levels
        ],
        multiple={"cells": lcm(*hierarchy.spatial_factors), "steps": lcm(*hierarchy.temporal_factors)},
        channels=[
            {
                "name": channel,
                "unit": unit or NOT_STATED,
                "maximum": NOT_STATED if largest is None else _number(largest),
            }
            for channel, unit, largest in zip(processor.channels, processor.units, maxima)
        ],
        margin=f"{processor.config.margin:g}",
        layers=[_layer_row(layer) for layer in pipe.context_processor.config.layers],
        zones=", ".join(f"`{name}`" for name in pipe.context_processor.zone_layers),
        data=_data_rows(runs, stated),
        training=_training_rows(pipe, runs),
        summary_file="training_summary.json" if pipe.training_summary is not None else None,
        scores=[
            {"name": level, **{metric: _number(values[metric]) for metric in METRICS}}
            for level, values in scores.items()
        ],
        validation=_validation(runs),
        has_regressor=pipe.regressor is not None,
        version=__version__,
        diffusers_version=diffusers.__version__,
        torch_version=torch.__version__,
        **stated,
    )


def runs_of(summary: dict | None) -> list[dict]:
    """The runs of a summary, the one that made the weights last; one empty run where there is no summary."""
    return (summary or {}).get("runs") or [summary or {}]


def _config(run: dict, section: str) -> dict:
    """A section of the configuration of a run; empty where it is not known."""
    return run.get("config", {}).get(section, {})


def _is_simulated(run: dict) -> bool:
    return _config(run, "data").get("dataset") == "simulated_city"


def _of_run(number: int, runs: list[dict]) -> str:
    """What stands before a fact of one run of several."""
    return f"run {number}: " if len(runs) > 1 else ""


def _statements(statements: dict, runs: list[dict]) -> dict[str, str]:
    """What is given, else what was given to the training, else that it is not stated."""
    licence = statements.get("model_license") or _config(runs[-1], "hub").get("model_license")
    stated = {"model_license": _cell(licence or NOT_STATED)}
    for name in SIMULATED:
        found = [_about_data(name, statements, run) for run in runs]
        each = [_of_run(number, runs) + text for number, text in enumerate(found, start=1)]
        stated[name] = found[0] if len(set(found)) == 1 else "; ".join(each)
    return stated


def _about_data(name: str, statements: dict, run: dict) -> str:
    """`data_license` or `data_description` of a run."""
    given = statements.get(name) or _config(run, "hub").get(name)
    if not _is_simulated(run):
        return _cell(given or NOT_STATED)
    if name == "data_description" and given:
        return f"{_cell(given)} ({SIMULATED[name]})"
    return _cell(given or SIMULATED[name])


def _model_data(name: str, runs: list[dict], stated: dict, scores: dict, simulated: bool) -> ModelCardData:
    tags = ["zoomdiff", "diffusion", "mobile-traffic", "multi-resolution", "network-planning"]
    names = [_config(run, "data").get("dataset") for run in runs]
    datasets = [dataset for dataset in dict.fromkeys(names) if _is_on_the_hub(dataset)]
    dataset = _dataset_name(_config(runs[-1], "data"))
    results = [
        EvalResult(
            task_type="other",
            task_name="Traffic generation",
            dataset_type=dataset,
            dataset_name=f"{dataset}, {_seen(runs)}",
            dataset_config=level,
            metric_type=metric,
            metric_name=f"{METRICS[metric]} ({level})",
            metric_value=float(f"{values[metric]:.6g}"),
        )
        for level, values in scores.items()
        for metric in METRICS
        if values[metric] is not None
    ]
    return ModelCardData(
        library_name="diffusers",
        license=None if stated["model_license"] == NOT_STATED else stated["model_license"],
        tags=[*tags, "simulated"] if simulated else tags,
        datasets=datasets or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _is_on_the_hub(dataset) -> bool:
    """Whether a name is the id of a data set, and not a file."""
    if not isinstance(dataset, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        return False
    return not Path(dataset).exists() and not Path(dataset).suffix


def _dataset_name(settings: dict) -> str:
    """A name without folders."""
    return Path(settings.get("dataset") or NOT_STATED).name.replace("_", " ")


def _data_rows(runs: list[dict], stated: dict) -> list[tuple[str, str]]:
    rows = [("data", stated["data_description"]), ("licence", stated["data_license"])]
    for number, run in enumerate(runs, start=1):
        pretrained = _config(run, "model").get("pretrained_pipeline")
        found = _rows_of_data(_config(run, "data"))
        if pretrained:
            found.append(("continued from", f"`{_local_name(pretrained)}`" if number == 1 else f"run {number - 1}"))
        rows += [(_of_run(number, runs) + label, text) for label, text in found]
    return rows


def _rows_of_data(settings: dict) -> list[tuple[str, str]]:
    """The data of one run."""
    if settings.get("dataset") == "simulated_city":
        periods = f"{settings['city_weeks']} x {settings.get('city_hours', 168)} h each"
        size = f"{settings['city_height']} x {settings['city_width']} cells, {periods}"
        cities = ("simulated cities", f"{settings['train_cities']} of {size}")
        return [cities, ("way of life", ", ".join(settings["cultures"]))]
    if not settings:
        return []
    rows = [("name", f"`{Path(settings['dataset']).name}`")]
    for name, label in (("train_region", "training region"), ("validation_region", "validation region")):
        region = settings.get(name) or {}
        rows.append((label, _cell(", ".join(f"{axis} {span}" for axis, span in region.items()) or "all")))
    return rows


def _training_rows(pipe, runs: list[dict]) -> list[tuple[str, str]]:
    scheduler = pipe.scheduler
    scheduler.set_timesteps()
    config = scheduler.config
    rows = [
        ("denoiser", f"`{type(pipe.unet).__name__}`, {pipe.unet.num_parameters():,} parameters"),
        ("forecast by the context", "none"),
        (
            "sampler",
            f"`{type(scheduler).__name__}`: prior {config.prior_type}, {config.prediction_type}, {config.solver},"
            f" {len(scheduler.timesteps)} network calls by default",
        ),
    ]
    if pipe.regressor is not None:
        rows[1] = (rows[1][0], f"`{type(pipe.regressor).__name__}`, {pipe.regressor.num_parameters():,} parameters")
    for number, run in enumerate(runs, start=1):
        found = _rows_of_training(pipe, run)
        rows += [(_of_run(number, runs) + label, text) for label, text in found]
    return rows


def _rows_of_training(pipe, run: dict) -> list[tuple[str, str]]:
    """The budget of one run."""
    if not run:
        return [("budget and seed", NOT_STATED)]
    data, settings = _config(run, "data"), _config(run, "training")
    before = settings.get("regression_steps", 0) if pipe.regressor is not None else 0
    steps = f"{run['steps']:,}" + (f", with {before:,} of the forecast before" if before else "")
    rows = [("steps", steps), ("time", f"{run['seconds'] / 60:.1f} minutes"), ("seed", str(run["seed"]))]
    if settings:
        size = _window(data, data.get("longest_crop_hours"))
        rows.append(("batch", f"{settings['batch_size']} windows of {size} time steps and cells"))
        rows.append(("peak learning rate", f"{settings['learning_rate']:g}"))
    return rows


def _window(data: dict, longest: int | None = None) -> str:
    """Time steps, height and width of a window."""
    steps = f"{data['crop_hours']} to {longest}" if longest else data["crop_hours"]
    return f"{steps} x {data['crop_height']} x {data['crop_width']}"


def _validation(runs: list[dict]) -> str:
    data, settings = _config(runs[-1], "data"), _config(runs[-1], "training")
    windows = f"at most {settings.get('validation_areas', NOT_STATED)} windows"
    if data:
        windows += f" of {_window(data)} time steps and cells"
    return f"{windows}{VALIDATION[_seen(runs)]}; {settings.get('validation_samples', NOT_STATED)} samples each"


def _seen(runs: list[dict]) -> str:
    """What the windows of the last run's validation were to the training: a key of `VALIDATION`."""
    data = [_config(run, "data") for run in runs]
    if not _held_out(data[-1], data[-1]):
        return TRAINED_ON
    all_known = not _config(runs[0], "model").get("pretrained_pipeline")
    return HELD_OUT if all_known and all(_held_out(trained, data[-1]) for trained in data) else PARTLY_HELD_OUT


def _held_out(trained: dict, validated: dict) -> bool:
    """
    Whether a training with some settings saw nothing of the validation of others, cities or a region. What cannot be
    told apart without the data counts as trained on.
    """
    if "simulated_city" in (trained.get("dataset"), validated.get("dataset")):  # held-out cities have their own seeds
        return bool(trained)
    if trained.get("dataset") != validated.get("dataset"):
        return False
    train, validation = trained.get("train_region") or {}, validated.get("validation_region") or {}
    for axis in ("rows", "columns"):
        if axis in train and axis in validation and _disjoint_spans(train[axis], validation[axis]):
            return True
    return "areas" in train and "areas" in validation and _disjoint_areas(train["areas"], validation["areas"])


def _disjoint_spans(first: list[int], second: list[int]) -> bool:
    """Whether two spans [first, end) of cells have none in common."""
    return min(first[1], second[1]) <= max(first[0], second[0])


def _disjoint_areas(first: list[int] | dict, second: list[int] | dict) -> bool:
    """Whether two choices of areas, as `select_region` takes them, have none in common, however many there are."""
    if isinstance(first, dict) != isinstance(second, dict):  # numbers of areas and of places
        return False
    if not isinstance(first, dict):
        return set(first).isdisjoint(second)
    places = range(lcm(first["folds"], second["folds"]))
    return not any(_has_place(first, place) and _has_place(second, place) for place in places)


def _has_place(choice: dict, place: int) -> bool:
    """Whether a choice of folds has the place of this number."""
    if "only" in choice:
        return place % choice["folds"] == choice["only"]
    return place % choice["folds"] != choice["without"]


def _layer_row(layer: dict) -> dict[str, str]:
    return {
        "name": layer["name"],
        "kind": f"{layer['kind']} ({KINDS[layer['kind']]}{', log' if layer.get('log') else ''})",
        "shape": _shape(layer, "T", "H", "W"),
        "names": _cell(", ".join(_values_of(layer))),
    }


def _values_of(layer: dict) -> list[str]:
    """Classes or channels; what the numbers of a layer of zones mean."""
    if layer["kind"] == "zones":
        return [f"the {layer['name']} that serves the cell"]
    return layer.get("classes") or layer.get("channels") or [NOT_STATED]


def _shape(layer: dict, *sizes) -> str:
    """The shape that a layer may have at its plainest, as text."""
    time, height, width = sizes
    count = len(layer.get("channels", []))
    axes = [str(count)] if layer["kind"] != "categorical" and count > 1 else []
    axes += [str(time)] if layer["kind"] == "temporal" else []
    return f"({', '.join([*axes, str(height), str(width)])})"


def _snippet(pipe, repo_id: str, remote_code: bool) -> str:
    """Code that runs as it is; with `remote_code` without this package."""
    hierarchy, processor = pipe.hierarchy, pipe.context_processor
    cells, steps = lcm(*hierarchy.spatial_factors), lcm(*hierarchy.temporal_factors)
    height, width = 2 * cells, 3 * cells
    length = max(1, round(168 / hierarchy.config.time_step) // steps) * steps
    imports, context = _example_context(processor, length, height, width, simulated=not remote_code)
    library, name = ("diffusers", "DiffusionPipeline") if remote_code else ("zoomdiff_diffusers", "ZoomDiffPipeline")
    options = ', revision="remote-code", trust_remote_code=True' if remote_code else ""
    hours = f"{length * hierarchy.config.time_step:g}"
    lines = [
        *imports,
        "import torch",
        f"from {library} import {name}",
        "",
        f'pipe = {name}.from_pretrained("{repo_id}"{options})',
        *context,
        f'options = {{"start": "2026-03-02", "num_hours": {hours}, "num_samples_per_context": 4}}',
        "out = pipe(context, generator=torch.Generator().manual_seed(0), **options)",
        f'out.levels["{hierarchy.names[-1]}"]  # (samples, channels, time, y, x)',
    ]
    return "\n".join(lines)


def _example_context(processor, *sizes: int, simulated: bool) -> tuple[list[str], list[str]]:
    """Imports and the assignment of a context: simulated where the schema is the simulator's, else zeros."""
    _, height, width = sizes
    layers = processor.config.layers
    if simulated and is_simulated(processor):
        call = f"simulate_context(height={height}, width={width}, seed=1)  # or your own layers, see below"
        imports, lines = ["from zoomdiff_diffusers.data.simulated_city import simulate_context"], [f"context = {call}"]
        if processor.zone_layers:
            imports.append("from zoomdiff_diffusers.data.simulated_context import simulate_zones")
            lines.append("zones = simulate_zones(context, seed=1)")
            lines += [f'context["{name}"] = zones["{name}"]' for name in processor.zone_layers]
        return imports, lines
    if not layers:
        grid = f'xarray.Dataset(coords={{"y": np.arange({height}), "x": np.arange({width})}})'
        return ["import numpy as np", "import xarray"], [f"context = {grid}"]
    entries = [f'    "{layer["name"]}": np.zeros({_shape(layer, *sizes)}{_dtype(layer)}),' for layer in layers]
    needed = "each but the zones" if processor.zone_layers else "each"
    comment = f"# Put your own layers here; {needed} may be left out."
    return ["import numpy as np"], [comment, "context = {", *entries, "}"]


def is_simulated(processor) -> bool:
    """Whether the simulator makes all layers of a schema."""
    from ..data.simulated_context import SECTORS, SIMULATED_LAYERS, SITES

    return processor.layers == SIMULATED_LAYERS and {*processor.zone_layers} <= {SITES, SECTORS}


def _dtype(layer: dict) -> str:
    return ", dtype=int" if layer["kind"] in ("categorical", "zones") else ""


def dataset_facts(folder: Path, arguments=None) -> dict:
    """
    What a training set holds.

    Args:
        folder (`Path`): A `datasets` folder of Parquet files.
        arguments (`Arguments`, *optional*):
            Those of a training on it; without them all other columns of nested numbers count as layers.

    Raises:
        ValueError: If a column is missing or does not fit (see `zoomdiff_diffusers.data.datasets`).
    """
    import datasets  # of the extra `train`

    from ..data.datasets import parquet_areas
    from ..training.arguments import DataArguments

    data = DataArguments() if arguments is None else arguments.data
    columns = datasets.load_dataset(str(folder), split="train").features.arrow_schema
    special = [*data.traffic_variables, data.valid_variable, "start_hour", "area"]
    layers = data.layers
    if layers is None:
        found = [column.name for column in columns if column.name not in special and _holds_arrays(column.type)]
        layers = [{"name": name, "kind": NOT_STATED} for name in found]
    wanted = [layer["name"] for layer in layers]
    areas = parquet_areas(str(folder), data.traffic_variables, wanted, data.valid_variable, data.start_hour)
    channels = list(data.traffic_variables)
    if len(channels) == 1 and len(areas[0].traffic) > 1:
        channels = [f"{channels[0]}_{index}" for index in range(len(areas[0].traffic))]
    return {
        "areas": len(areas),
        "cells": sorted({area.traffic.shape[2:] for area in areas}),
        "steps": sorted({area.traffic.shape[1] for area in areas}),
        "missing": 1 - sum(_measured(area).sum() for area in areas) / sum(_measured(area).size for area in areas),
        "channels": [_channel_facts(areas, index, name) for index, name in enumerate(channels)],
        "layers": [
            {**layer, "shape": sorted({area.context[layer["name"]].shape for area in areas})} for layer in layers
        ],
        "columns": columns.names,
        "data": data,
        "cell_size": arguments and arguments.hierarchy.cell_size,
        "time_step": arguments and arguments.hierarchy.time_step,
        "settings": _settings(arguments, data),
    }


def _holds_arrays(column_type) -> bool:
    """Whether an Arrow type is that of nested lists of numbers, as of layers, and not of dates and names."""
    from pyarrow import types

    innermost = getattr(column_type, "storage_type", column_type)
    is_nested = types.is_nested(innermost)
    while types.is_list(innermost) or types.is_large_list(innermost) or types.is_fixed_size_list(innermost):
        innermost = innermost.value_type
    return is_nested and (types.is_floating(innermost) or types.is_integer(innermost) or types.is_boolean(innermost))


def _settings(arguments, data) -> dict:
    """The sections of a configuration that trains on the data; what is left at its default is left out."""
    if arguments is None:
        return {"data": {"dataset": None, "layers": []}}
    return {
        name: {
            member.name: getattr(group, member.name)
            for member in fields(group)
            if member.name in ("dataset", "layers")
            or getattr(group, member.name) != getattr(type(group)(), member.name)
        }
        for name, group in (("data", data), ("hierarchy", arguments.hierarchy))
        if name == "data" or group != type(group)()
    }


def _measured(area) -> np.ndarray:
    return np.ones(area.traffic.shape[1:], bool) if area.valid is None else area.valid


def _channel_facts(areas: list, index: int, name: str) -> dict:
    values = np.concatenate([area.traffic[index][_measured(area)] for area in areas]).astype(np.float64)
    if values.size == 0:
        raise ValueError(f"Channel {name!r} has no measured value.")
    zeros = f"{100 * (values == 0).mean():.1f} %"
    return {"name": name, "mean": _number(values.mean()), "maximum": _number(values.max()), "zeros": zeros}


def dataset_card(facts: dict, repo_id: str, statements: dict) -> DatasetCard:
    """
    Return the card of a training set.

    Args:
        facts (`dict`): From [`dataset_facts`].
        repo_id (`str`): The dataset repository, "organisation/name".
        statements (`dict`): `data_license` and `data_description`, where they are known.
    """
    data, name = facts["data"], repo_id.split("/")[-1]
    stated = {key: _cell(statements.get(key) or NOT_STATED) for key in ("data_license", "data_description")}
    unit = data.traffic_unit or NOT_STATED
    licence = None if stated["data_license"] == NOT_STATED else stated["data_license"]
    tags = ["zoomdiff", "mobile-traffic", "urban-context"]
    return DatasetCard.from_template(
        DatasetCardData(license=licence, tags=tags, pretty_name=name),
        template_path=str(TEMPLATES / "dataset_card.md"),
        name=name,
        repo_id=repo_id,
        url=f"{constants.ENDPOINT}/datasets/{repo_id}",
        citation_key=_key(repo_id),
        contents=_content_rows(facts),
        columns=_column_rows(facts, unit),
        channels=[{**channel, "unit": unit} for channel in facts["channels"]],
        valid=data.valid_variable,
        settings=_as_yaml(facts["settings"], repo_id),
        has_layers=bool(facts["settings"]["data"]["layers"]),
        snippet=f'from datasets import load_dataset\n\nareas = load_dataset("{repo_id}", split="train")',
        **stated,
    )


def _content_rows(facts: dict) -> list[tuple[str, str]]:
    time_step = facts["time_step"]
    steps = ", ".join(f"{count}" for count in facts["steps"])
    hours = "" if time_step is None else f" ({', '.join(_hours(count * time_step) for count in facts['steps'])})"
    return [
        ("areas", str(facts["areas"])),
        ("cells of an area, height x width", ", ".join(f"{height} x {width}" for height, width in facts["cells"])),
        ("side of a cell", NOT_STATED if facts["cell_size"] is None else f"{facts['cell_size']:g} m"),
        ("time steps of an area", f"{steps}{hours}"),
        ("time step", NOT_STATED if time_step is None else _hours(time_step)),
        ("first time step", _first_hour(facts)),
        ("missing traffic", f"{100 * facts['missing']:.1f} %"),
    ]


def _first_hour(facts: dict) -> str:
    if "start_hour" in facts["columns"]:
        return "column `start_hour`: hour of the week, 0 is Monday 00:00"
    return f"hour {facts['data'].start_hour} of the week, 0 is Monday 00:00"


def _column_rows(facts: dict, unit: str) -> list[dict[str, str]]:
    from ..data.datasets import NAMES

    data = facts["data"]
    shape = "(T, H, W)" if len(data.traffic_variables) == len(facts["channels"]) else "(C, T, H, W)"
    rows = [{"name": name, "what": "traffic", "shape": shape, "content": unit} for name in data.traffic_variables]
    for layer in facts["layers"]:
        shapes = " or ".join(str(tuple(int(size) for size in found)) for found in layer["shape"])
        kind = layer["kind"] if layer["kind"] == NOT_STATED else f"{layer['kind']} ({KINDS[layer['kind']]})"
        what = f"context layer, kind {kind}" if kind == NOT_STATED else f"context layer, {kind}"
        rows.append(
            {"name": layer["name"], "what": what, "shape": shapes, "content": _cell(", ".join(_values_of(layer)))}
        )
    known = {
        data.valid_variable: ("where the traffic was measured", "(T) or (T, H, W)", "true or false"),
        "start_hour": ("hour of the week of the first time step", "one number", "0 to 167"),
        "area": ("number of the place, the same for all its rows", "one number", "whole number"),
        "start": ("first time step, local time", "one text", "date and time"),
        "unit": ("the base station or cell", "one text", "its id"),
    }
    for layer in facts["layers"]:
        what = f"names of the classes or channels of `{layer['name']}`, in their order"
        known[layer["name"] + NAMES] = (what, "one text each", "texts")
    for name, (what, axes, content) in known.items():
        if name in facts["columns"]:
            rows.append({"name": name, "what": what, "shape": axes, "content": content})
    return rows


def _as_yaml(settings: dict, repo_id: str) -> str:
    settings = {**settings, "data": {**settings["data"], "dataset": repo_id}}
    return yaml.safe_dump(settings, sort_keys=False, width=110, default_flow_style=None).strip()


def _side(level, hierarchy) -> str:
    return f"by {level.zones}" if level.zones else f"{level.spatial_factor * hierarchy.config.cell_size:g} m"


def _hours(hours: float) -> str:
    return f"{hours / 24:g} day" if hours == 24 else f"{hours / 24:g} days" if hours % 24 == 0 else f"{hours:g} h"


def _number(value: float | None) -> str:
    """Four significant digits, thousands apart; a dash for what is undefined."""
    return "–" if value is None else f"{float(f'{value:.4g}'):,.6g}"


def _local_name(name: str) -> str:
    """A Hub id as it is, a folder without those above it."""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else Path(name).name


def _key(repo_id: str) -> str:
    return re.sub(r"\W+", "_", repo_id)


def _cell(value) -> str:
    """Text for one cell of a Markdown table."""
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").strip()
