# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
The figures of the concept pages, drawn from the classes that they are about:

    python docs/figures.py [--output docs/images]

The same on every run; a minute on one CPU core.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from zoomdiff_diffusers import DRDMScheduler, Hierarchy, ZoomDiffPipeline, bundled_model
from zoomdiff_diffusers.data.simulated_city import SimulatedCity, simulate_context
from zoomdiff_diffusers.evaluation.plots import COLOURS, LEVEL_COLOURS, MARK, save_figure


HEIGHT, WIDTH = 16, 24  # cells of 50 m
EVENING = 19  # hour of the day that the maps show
GREY = "0.55"


def label_of(level, hierarchy):
    hours = level.temporal_factor * hierarchy.config.time_step
    return f"{level.name}\n{level.spatial_factor * hierarchy.config.cell_size:g} m, {hours:g} h"


def show_map(axes, values, norm, lines=True):
    """One map with the borders of its units."""
    image = axes.imshow(
        values, origin="lower", extent=(0, WIDTH, 0, HEIGHT), cmap=COLOURS, norm=norm, interpolation="nearest"
    )
    axes.set_xticks(np.linspace(0, WIDTH, values.shape[1] + 1), [])
    axes.set_yticks(np.linspace(0, HEIGHT, values.shape[0] + 1), [])
    axes.tick_params(length=0)
    if lines:
        axes.grid(color="white", linewidth=0.35, alpha=0.6)
    return image


def levels_figure():
    """Two days of one simulated city at the four levels of S4T4."""
    hierarchy = Hierarchy()
    traffic = SimulatedCity(HEIGHT, WIDTH, seed=7).sample_traffic(1, hours=48, seed=1)[0, 0]
    levels = hierarchy.pyramid(traffic)
    total = traffic.sum(0)
    busy = np.abs(total - np.quantile(total, 0.95)).argmin()  # a busy cell, but not the busiest
    row, column = np.unravel_index(busy, total.shape)
    norm = PowerNorm(0.5, vmin=0, vmax=float(np.quantile(levels[-1][EVENING], 0.995)))
    figure = Figure(figsize=(11, 4.9), layout="constrained")
    grid = figure.subplots(2, 4, height_ratios=[1.25, 1])
    top = max(level[:, row // level_.spatial_factor, column // level_.spatial_factor].max()
              for level, level_ in zip(levels, hierarchy.levels))  # fmt: skip
    for position, (level, values) in enumerate(zip(hierarchy.levels, levels)):
        factor = level.spatial_factor
        axes = grid[0, position]
        image = show_map(axes, values[EVENING // level.temporal_factor], norm)
        axes.set_title(label_of(level, hierarchy), fontsize=11)
        rectangle = (column // factor * factor, row // factor * factor)
        axes.add_patch(_frame(rectangle, factor))
        axes = grid[1, position]
        series = values[:, row // factor, column // factor]
        axes.stairs(series, np.arange(len(series) + 1) * level.temporal_factor, color=LEVEL_COLOURS[0], linewidth=1.6,
                    baseline=None)  # fmt: skip
        axes.set(xlim=(0, 48), ylim=(0, 1.05 * top), xticks=range(0, 49, 12), xlabel="hour")
        axes.spines[["top", "right"]].set_visible(False)
        if position:
            axes.set_yticklabels([])
    grid[1, 0].set_ylabel("MB per 50 m cell and hour")
    figure.colorbar(image, ax=grid[0, :].tolist(), shrink=0.9, label="MB per cell and hour")
    return figure


def _frame(corner, size):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, size, size, fill=False, edgecolor=MARK, linewidth=2)


def noise_figure():
    """Noise over the global step for a segmented and for a continuous intensity, and the calls of the sampler."""
    names = Hierarchy().names
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    axes = figure.subplots()
    scheduler = DRDMScheduler()
    continuous = DRDMScheduler(intensity="continuous")
    edges = [len(scheduler), *scheduler.boundaries]
    scheduler.set_timesteps()
    for stage, name in enumerate(names):
        steps = torch.linspace(edges[stage + 1] - 1 + 1e-3, edges[stage] - 1, 200, dtype=torch.float64)
        _, noise = scheduler.signal_and_noise(steps)
        axes.fill_between(steps, noise**2, color=LEVEL_COLOURS[stage], alpha=0.22, linewidth=0)
        axes.plot(steps, noise**2, color=LEVEL_COLOURS[stage], linewidth=1.8)
        calls = scheduler.stage_timesteps(stage).double()
        _, noise = scheduler.signal_and_noise(calls)
        axes.plot(calls, noise**2, "o", color=LEVEL_COLOURS[stage], markersize=4.5)
        middle = (edges[stage] + edges[stage + 1]) / 2
        axes.text(middle, 1.06, f"stage {stage + 1}: {name}", ha="center", color=LEVEL_COLOURS[stage], fontsize=10)
    steps = torch.linspace(-1 + 1e-3, len(continuous) - 1, 400, dtype=torch.float64)
    _, noise = continuous.signal_and_noise(steps)
    axes.plot(steps, noise**2, "--", color=GREY, linewidth=1.2, label="for comparison: one schedule over all steps")
    figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    axes.set(xlim=(604, -6), ylim=(0, 1.16), xticks=edges, yticks=[0, 0.5, 1])
    axes.set(
        xlabel="step n (the sampler moves to the right; each dot is a call of the network)", ylabel="share of noise"
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


class Recorder:
    """Keeps the state before each call; pass it as `callback_on_step_end`."""

    def __init__(self):
        self.states = []

    def __call__(self, pipe, step, timestep, tensors):
        self.states.append(tensors["latents"][0, 0].clone())
        return tensors


def generate(pipe, context):
    recorder = Recorder()
    generator = torch.Generator().manual_seed(3)
    levels = pipe(context, num_hours=24, generator=generator, callback_on_step_end=recorder).levels
    return levels, recorder.states


def forecast_by_context(pipe, context):
    """The regressor's forecast of the finest level, (1, C, T, H, W) in MB."""
    tensors = pipe.context_processor([context], hours=24)
    with torch.no_grad():
        return pipe.traffic_processor.decode(pipe.regressor(tensors, 24, 0))


def stages_figure(pipe, context):
    """The evening of one day in the making: the states of the four stages, in MB, and the levels that they end in."""
    levels, states = generate(pipe, context)
    hierarchy, processor = pipe.hierarchy, pipe.traffic_processor
    forecast = hierarchy.pyramid(forecast_by_context(pipe, context))
    calls = [0, 1, 2, 3]  # of the 7 of a stage
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.subplots(len(levels), len(calls) + 1)
    norm = PowerNorm(0.5, vmin=0, vmax=float(np.quantile(levels["grid_50m"][0, 0, EVENING], 0.995)))
    coarse = None
    for stage, (level, values) in enumerate(zip(hierarchy.levels, levels.values())):
        time = EVENING // level.temporal_factor
        prior = processor.encode_prior(hierarchy, stage, stage, coarse, forecast[stage])
        for axes, call in zip(grid[stage], calls):
            state = prior + pipe.scheduler.data_std[stage] * states[7 * stage + call]
            show_map(axes, processor.decode(state)[0, 0, time].numpy(), norm, lines=False)
            if stage == 0:
                axes.set_title(f"after call {call + 1} of 7", fontsize=11)
        image = show_map(grid[stage, -1], values[0, 0, time], norm, lines=False)
        grid[stage, 0].set_ylabel(label_of(level, hierarchy), fontsize=10)
        coarse = torch.from_numpy(values)
    grid[0, -1].set_title("the finished level", fontsize=11)
    figure.colorbar(image, ax=grid[:, -1].tolist(), shrink=0.6, label="MB per cell and hour")
    return figure


def starting_points_figure(pipe, context):
    """What the last stage starts from: the level before it shared out evenly, and in proportion to the forecast."""
    levels, _ = generate(pipe, context)
    hierarchy = pipe.hierarchy
    coarse = torch.from_numpy(levels["grid_100m"])
    forecast = forecast_by_context(pipe, context)
    maps = {
        "the level before, shared out\nevenly (as in the paper)": hierarchy.upsample(levels["grid_100m"], 2, 3)[
            0, 0, EVENING
        ],
        "the forecast by the context": forecast[0, 0, EVENING].numpy(),
        "the level before, shared out\nby the forecast (here)": hierarchy.reconcile(forecast, coarse, 3)[
            0, 0, EVENING
        ].numpy(),
        "the generated level\n(50 m, 1 h)": levels["grid_50m"][0, 0, EVENING],
    }
    norm = PowerNorm(0.5, vmin=0, vmax=float(np.quantile(maps["the generated level\n(50 m, 1 h)"], 0.995)))
    figure = Figure(figsize=(11, 2.7), layout="constrained")
    grid = figure.subplots(1, len(maps))
    for axes, (title, values) in zip(grid, maps.items()):
        image = show_map(axes, values, norm, lines=False)
        axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=grid.tolist(), shrink=0.85, label="MB per cell\nand hour")
    return figure


def sums_figure():
    """Two groups of four children before and after reconciliation."""
    hierarchy = Hierarchy([{"name": "coarse", "spatial_factor": 2, "temporal_factor": 1},
                           {"name": "fine", "spatial_factor": 1, "temporal_factor": 1}])  # fmt: skip
    values = torch.tensor([[[2.0, 6.0, 0.0, 0.0], [1.0, 3.0, 0.0, 0.0]]])
    coarse = torch.tensor([[[4.5, 2.0]]])
    exact = hierarchy.reconcile(values, coarse, "fine")
    figure = Figure(figsize=(9, 3.3), layout="constrained")
    for axes, fine, title in zip(
        figure.subplots(1, 2, sharey=True), (values, exact), ("as the network left it", "after reconciliation")
    ):
        for unit in range(2):
            children = fine[0, :, 2 * unit : 2 * unit + 2].flatten().tolist()
            places = np.arange(4) + 5 * unit
            parent = coarse[0, 0, unit].item()
            axes.bar(places, children, color=LEVEL_COLOURS[unit], width=0.8)
            for place, child in zip(places, children):
                axes.text(place, child + 0.12, f"{child:g}", ha="center", fontsize=10)
            axes.plot([places[0] - 0.5, places[-1] + 0.5], [parent, parent], "--", color="black", linewidth=1.3)
            axes.text(
                places.mean(), 11.6, f"level above: {parent:g}\nmean of the four: {np.mean(children):g}", ha="center",
                va="top", fontsize=10, color="black" if abs(np.mean(children) - parent) < 1e-6 else MARK,
            )  # fmt: skip
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], ylim=(0, 11.9))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("mean per cell and hour")
    return figure


def sample_with_exact_denoiser(prior_type, prediction_type, mean=1.0, std=0.1, guide=0.8, count=4000):
    """The last stage of two with the best possible network for x ~ N(mean, std^2): final state, and its level."""
    scheduler = DRDMScheduler(
        num_train_timesteps=800, spatial_factors=[1, 1], temporal_factors=[2, 1], prior_type=prior_type,
        prediction_type=prediction_type, noise_shape="linear", solver="ddpm", timestep_spacing="even",
        zero_terminal_snr=prediction_type != "epsilon",
    )  # fmt: skip
    scheduler.set_timesteps(800)
    generator = torch.Generator().manual_seed(0)
    shape = (count, 1, 1, 1, 1)
    prior = torch.full(shape, guide, dtype=torch.float64)
    state = scheduler.begin_stage(1, shape, prior, generator, dtype=torch.float64)
    sign = {"residual": -1, "as_printed": 1}.get(prior_type, 0)
    for timestep in scheduler.stage_timesteps(1):
        signal, noise = (value.item() for value in scheduler.signal_and_noise(timestep))
        centre = mean + sign * guide  # of the quantity that is noised
        clean = centre + signal * std**2 / (signal**2 * std**2 + noise**2) * (state - signal * centre)
        target = scheduler.get_target(clean - sign * guide, (state - signal * clean) / noise, timestep, prior)
        result = scheduler.step(target, timestep, state, generator=generator)
        state = result.prev_sample
    return state.flatten().numpy(), result.level.flatten().numpy()


def priors_figure():
    """What the variants of the prior sample with the best possible network."""
    printed, corrected = sample_with_exact_denoiser("as_printed", "epsilon")
    _, residual = sample_with_exact_denoiser("residual", "v_prediction")
    _, none = sample_with_exact_denoiser("none", "v_prediction")
    rows = {
        "Eq. 10 to 13 as printed": printed,
        'the same, z subtracted at the end ("as_printed")': corrected,
        'x - z is noised ("residual", the default)': residual,
        'without z ("none")': none,
    }
    figure = Figure(figsize=(9, 3.0), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0.4, 2.4, 161)
    for row, (name, values) in enumerate(rows.items()):
        counts, _ = np.histogram(values, edges, density=True)
        axes.fill_between(edges[:-1] + 0.00625, -row, -row + 0.8 * counts / counts.max(), step="mid",
                          color=MARK if row == 0 else LEVEL_COLOURS[0], alpha=0.75, linewidth=0)  # fmt: skip
        axes.text(2.42, -row + 0.2, f"{name}: mean {values.mean():.2f}", fontsize=10, va="center")
    axes.axvline(1.0, ymax=0.9, color="black", linestyle="--", linewidth=1.2)
    axes.text(0.98, 1.05, "true mean: 1", fontsize=10)
    axes.axvline(0.8, ymax=0.9, color=GREY, linestyle=":", linewidth=1.2)
    axes.text(0.82, 1.05, "z: 0.8", ha="right", fontsize=10, color=GREY)
    axes.set(xlim=(0.4, 2.4), ylim=(-3.1, 1.4), yticks=[], xlabel="sampled value")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images", help="folder of the figures")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    pipe = ZoomDiffPipeline.from_pretrained(bundled_model("simulated-city"))
    pipe.set_progress_bar_config(disable=True)
    context = simulate_context(HEIGHT, WIDTH, seed=7)
    context["population_over_time"] = context["population_over_time"][:24]
    figures = {
        "levels": levels_figure(),
        "noise": noise_figure(),
        "stages": stages_figure(pipe, context),
        "starting-points": starting_points_figure(pipe, context),
        "sums": sums_figure(),
        "priors": priors_figure(),
    }
    for name, figure in figures.items():
        save_figure(figure, output / f"{name}.png")
        print(output / f"{name}.png")


if __name__ == "__main__":
    main()
