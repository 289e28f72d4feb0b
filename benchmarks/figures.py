# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Figures 3, 4 and 10 to 13: similarity of the levels, decomposition, hierarchy settings, intermediate states, the prior
and its fusion, and the positional encodings. Cells keep numbers; the report draws them.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler

from zoomdiff_diffusers import Hierarchy
from zoomdiff_diffusers.data.datasets import load_areas
from zoomdiff_diffusers.data.simulated_context import AOI_CLASSES
from zoomdiff_diffusers.evaluation.evaluate import evaluate
from zoomdiff_diffusers.hierarchy import resolve_stages

from .baselines import baseline_class
from .baselines.base import Baseline
from .baselines.denoising import CLEAN_LIMIT
from .budgets import BenchmarkBudget
from .datasets import BenchmarkData, load_named
from .main_tables import cache_folder
from .markdown import markdown_table, number
from .systems import ZoomDiffSystem, sample_pipeline
from .variants import labelled_scores, level_label, levels_words, load_cities, train_variant


SCALES = {"bs": 8, "cell": 4, "grid_100m": 2, "grid_50m": 1}
WITHOUT_BS = {name: factor for name, factor in SCALES.items() if name != "bs"}
SETTINGS = {
    "S4T4": (SCALES, [24, 4, 2, 1]),
    "S3T4": (WITHOUT_BS, [24, 4, 2, 1]),
    "S4T2": (SCALES, [2, 1]),
    "S3T2": (WITHOUT_BS, [2, 1]),
}
DEFAULT = "S4T4"  # as shipped but for the regression: D = 32, residual prior, both encodings
FUSION = {f"D = {size}": ["--unet", json.dumps({"fusion_dim": size})] for size in (1, 2, 4, 8, 16, 64)}
PRIORS = {
    "prior: none": ["--prior_type", "none"],
    "prior: blend": ["--prior_type", "blend", "--prediction_type", "sample"],
    "prior: as printed": ["--prior_type", "as_printed", "--prediction_type", "epsilon"],
}
ENCODINGS = {
    "TPE": ["--unet", '{"use_spe": false}'],
    "SPE": ["--unet", '{"use_tpe": false}'],
    "without encodings": ["--unet", '{"use_spe": false, "use_tpe": false}'],
}
VARIANTS = {
    **{name: [] if name == DEFAULT else levels_words(*setting) for name, setting in SETTINGS.items()},
    **FUSION,
    **PRIORS,
    **ENCODINGS,
}
CANONICAL = ("CSDI", "DiT")  # diffusion at one resolution, whose intermediate states are looked at
CITY = "one city"
CHAIN_STEPS = 48  # of the canonical chains: a multiple of the numbers of stages, 3 and 4
CITY_SAMPLES, CITY_TYPES = 4, 3
CITY_SCALES = (0, 1, 3)  # BS, cell and finest grid, as in the paper


def cells(budget: BenchmarkBudget) -> list[dict]:
    """One cell for every variant, every canonical diffusion, and one for a whole city."""
    return [
        {"experiment": "figures", "dataset": "simulated", "system": system, "seed": 0}
        for system in (*VARIANTS, *CANONICAL, CITY)
    ]


def run_cell(cell: dict, budget: BenchmarkBudget) -> dict:
    """Numbers of one variant, of the states of a canonical diffusion, or of a city."""
    system, seed = cell["system"], cell["seed"]
    if system == CITY:
        return _city(budget, seed)
    if system in CANONICAL:
        return _canonical(system, budget, seed)
    data, samples, costs = train_variant(VARIANTS[system], budget, seed)
    result = {"levels": labelled_scores(samples, data), **costs}
    if system == DEFAULT:
        result["series"] = _series(samples, data)
    return result


def _canonical(system: str, budget: BenchmarkBudget, seed: int) -> dict:
    """Train on the finest level; score the states at which the stages of every setting would end."""
    data = load_cities(budget, train_windows=budget.train_windows)
    windows = data.train_windows(len(data.hierarchy) - 1)
    model = baseline_class(system)().fit(windows, budget.training(budget.point_seconds, seed))
    states = intermediate_states(model, data, seed)
    settings, series = {}, None
    for name, (spatial, temporal) in SETTINGS.items():
        here = replace(data, hierarchy=Hierarchy.from_resolutions(spatial, temporal))
        ends = [end for *_, end in resolve_stages(list(spatial.values()), temporal)]
        samples = {
            level: here.hierarchy.aggregate(states[round((1 - end) * CHAIN_STEPS)], level)
            for level, end in zip(here.hierarchy.names, ends)
        }
        settings[name] = labelled_scores(samples, here)
        series = _series(samples, here) if name == DEFAULT else series
    return {"settings": settings, "series": series}


@torch.inference_mode()
def intermediate_states(model: Baseline, data: BenchmarkData, seed: int) -> list[np.ndarray]:
    """
    The noisy states along the chain of a trained single-resolution diffusion, as if they were traffic.

    Args:
        model (`Baseline`): Of the finest level, with `network` and `scheduler`.
        data (`BenchmarkData`): Its held-out windows are the conditions.
        seed (`int`): Seed of the noise.

    Returns:
        `list[np.ndarray]`: after 0, ..., `CHAIN_STEPS` steps of DDIM, physical (1, N, C, T, H, W).
    """
    context = data.test_context(len(data.hierarchy) - 1)
    scheduler = DDIMScheduler(
        num_train_timesteps=len(model.scheduler.betas),
        trained_betas=model.scheduler.betas.numpy(),
        prediction_type=model.scheduler.config.prediction_type,
        timestep_spacing="trailing",
        clip_sample_range=CLEAN_LIMIT,
    )
    scheduler.set_timesteps(CHAIN_STEPS)
    device = next(model.network.parameters()).device
    state = torch.randn(context.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    states = [state]
    with torch.autocast(device.type, torch.bfloat16):
        condition = model.network.encode_context(context)
        for timestep in scheduler.timesteps:
            output = model.network(state, timestep.expand(len(state)).to(device), condition).float()
            state = scheduler.step(output, timestep, state).prev_sample
            states.append(state)
    return [data.decode(state.cpu()[None]) for state in states]


def _series(samples: dict[str, np.ndarray], data: BenchmarkData) -> dict[str, dict]:
    """Truth and first sample over time at the busiest unit of the first window, by level, in units of the mean."""
    finest = data.test["traffic"][0, 0]
    place = np.unravel_index(int(finest.sum(0).argmax()), finest.shape[1:])
    series = {}
    for level, name in enumerate(data.hierarchy.names):
        row, column = (index // data.hierarchy.spatial_factors[level] for index in place)
        truth = data.test_truth(level)[0][0, 0, :, row, column] / data.unit.item()
        generated = samples[name][0, 0, 0, :, row, column] / data.unit.item()
        label = level_label(data.hierarchy, name)
        series[label] = {"truth": truth.tolist(), "generated": generated.tolist()}
    return series


def _city(budget: BenchmarkBudget, seed: int) -> dict:
    """Similarity and decomposition of a whole held-out city, by type of area."""
    data = load_named("simulated", 1, budget.test_windows)
    system = ZoomDiffSystem(cache=cache_folder(budget, "simulated", "ZoomDiff", seed)).fit(data, budget, seed)
    area = load_areas(data.arguments.data, [layer["name"] for layer in data.context_processor.layers], "validation")[0]
    samples = sample_pipeline(system.pipe, [area], CITY_SAMPLES, seed)
    report = evaluate(
        {name: values[:, 0] for name, values in samples.items()},
        dict(zip(data.hierarchy.names, data.hierarchy.pyramid(area.traffic))),
        data.hierarchy,
        area_types=area.context["aoi"],
        type_names=dict(enumerate(AOI_CLASSES)),
    )["channels"]["traffic"]
    scales = [
        f"{data.hierarchy.spatial_factors[level] * data.hierarchy.config.cell_size:g} m" for level in CITY_SCALES
    ]
    return {
        "names": data.hierarchy.names,
        "rv": dict(list(report["rv"].items())[: CITY_TYPES + 1]),
        "decomposition": {
            kind: {scale: lines[scale] for scale in scales if scale in lines}
            for kind, lines in list(report["decomposition"].items())[:CITY_TYPES]
        },
    }


def draw(results: list[dict], folder: Path) -> None:
    """Write the figures whose cells are there, beside a page in a folder."""
    for drawing in _drawings(_by_system(results)):
        drawing.save(folder)


def tables(results: list[dict]) -> str:
    """The Markdown that shows the figures whose cells are there, and the table of the variants."""
    found = _by_system(results)
    parts = ["### Figures 3, 4 and 10 to 13 (simulated city)\n"]
    parts += [drawing.markdown() for drawing in _drawings(found)]
    variants = {name: found[name] for name in VARIANTS if name in found}
    if variants:
        parts.append(_variant_table(variants))
    return "\n".join(parts)


def _by_system(results: list[dict]) -> dict[str, dict]:
    return {document["cell"]["system"]: document["results"] for document in results}


def _drawings(found: dict) -> list:
    """The figures that can be drawn from the results of some systems."""
    from . import drawings

    drawn = []
    if CITY in found:
        drawn += drawings.draw_city(found[CITY])
    if {DEFAULT, *CANONICAL} <= set(found):
        series = {"CSDI": found["CSDI"]["series"], "ZoomDiff": found[DEFAULT]["series"]}
        drawn += [drawings.draw_settings(_by_setting(found)), drawings.draw_states(series)]
    if {DEFAULT, *FUSION, *PRIORS} <= set(found):
        drawn.append(drawings.draw_prior(_finest(found, FUSION, "D = 32"), _finest(found, PRIORS, "prior: residual")))
    if {DEFAULT, *ENCODINGS} <= set(found):
        both = {"TPE & SPE": found[DEFAULT], **{name: found[name] for name in ENCODINGS}}
        drawn.append(drawings.draw_encodings({name: _crps(result["levels"]) for name, result in both.items()}))
    return drawn


def _crps(levels: dict) -> dict[str, float]:
    return {level: scores["crps"] for level, scores in levels.items()}


def _finest(found: dict, variants: dict, default: str) -> dict[str, float]:
    """CRPS at the finest level of some variants and of the default, under the name that fits them."""
    rows = {default: found[DEFAULT], **{name: found[name] for name in variants}}
    return {name: list(_crps(result["levels"]).values())[-1] for name, result in rows.items()}


def _by_setting(found: dict) -> dict[str, dict[str, dict[str, float]]]:
    """MAE of one sample by setting, system and level."""
    return {
        setting: {
            system: {level: scores["mae_of_sample"] for level, scores in levels.items()}
            for system, levels in (
                *((name, found[name]["settings"][setting]) for name in CANONICAL),
                ("ZoomDiff", found[setting]["levels"]),
            )
        }
        for setting in SETTINGS
        if setting in found
    }


def _variant_table(variants: dict[str, dict]) -> str:
    rows = []
    for name, result in variants.items():
        scores = [*reversed(_crps(result["levels"]).values()), None][:4]  # three levels in some settings
        rows.append([name, str(result["steps"]), *map(number, scores)])
    return (
        f"CRPS of the variants, all trained for the same time and without the regression; {DEFAULT} is otherwise the "
        "configuration as shipped (D = 32, residual prior, TPE & SPE). The levels are those of each variant, from the "
        "finest.\n\n" + markdown_table(["variant", "optimiser steps", "finest", "second", "third", "fourth"], rows)
    )
