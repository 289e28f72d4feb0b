# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Seconds of one training epoch over many base-station areas of 8 x 8 cells and one week.

    python -m benchmarks.training_speed --areas 500

Timed are whole optimiser steps of `train.py` (drawing and augmenting windows, the loss of all stages, backward, AdamW,
EMA), after some steps that warm up. The paper's Table V has 12.25 s for 500 base stations on an A100.
"""

import json
import math
import tempfile
from pathlib import Path

import torch

from zoomdiff_diffusers.training.arguments import parse_arguments
from zoomdiff_diffusers.training.trainer import Trainer

from .report import make_parser, peak_memory_gib, publish


WARM_UP_STEPS = 5
SIDE = 8  # cells of 50 m along a base-station area
ACROSS = 25  # areas along the simulated city that the windows are cut from


def areas_per_window(data):
    """Base-station areas that a training window holds."""
    return data.crop_height * data.crop_width // SIDE**2


def run(arguments, folder):
    """Train for one epoch after the warm-up; return the seconds after every step and the trainer."""
    sizes = {"city_height": SIDE * math.ceil(arguments.areas / ACROSS), "city_width": SIDE * ACROSS}
    sizes |= {"train_cities": 1, "city_weeks": 1}
    words = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    words += ["--config", arguments.config, "--output_dir", folder, "--overwrite_output_dir", "true"]
    words += [
        "--validation_areas",
        "0",
        "--logging_steps",
        "1",
        "--tensorboard",
        "false",
        "--seed",
        str(arguments.seed),
    ]
    parsed = parse_arguments(words)
    areas = parsed.training.batch_size * areas_per_window(parsed.data)
    steps = WARM_UP_STEPS + math.ceil(arguments.areas / areas)
    trainer = Trainer(
        parse_arguments([*words, "--max_train_steps", str(steps), "--checkpointing_steps", str(2 * steps)])
    )
    trainer.train()
    lines = (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if "loss" in entry]
    return [entry["seconds"] for entry in entries], trainer


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--config", default="configs/simulated_city.yaml", help="model and training settings")
    parser.add_argument("--areas", type=int, default=500, help="areas in an epoch (default: 500)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        seconds, trainer = run(arguments, folder)
    training = trainer.arguments.training
    timed = (len(seconds) - WARM_UP_STEPS) * training.batch_size * areas_per_window(trainer.arguments.data)
    per_area = (seconds[-1] - seconds[WARM_UP_STEPS - 1]) / timed
    results = {
        "seconds_per_epoch": per_area * arguments.areas,
        "areas_per_second": 1 / per_area,
        "timed_areas": timed,
        "mixed_precision": training.mixed_precision,
        "batch_size": training.batch_size,
        "stage_items": training.stage_items or [training.batch_size] * len(trainer.hierarchy),
        "parameters": sum(parameter.numel() for parameter in trainer.unet.parameters()),
        "peak_memory_gib": peak_memory_gib(),
    }
    publish(results, arguments)


if __name__ == "__main__":
    main()
