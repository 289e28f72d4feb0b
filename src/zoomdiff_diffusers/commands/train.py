# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff train`."""

import json
import logging
import sys
from typing import Annotated

import typer

from .messages import fail, fail_without


def train(
    context: typer.Context,
    arguments: Annotated[
        bool, typer.Option("--arguments", help="List every argument of a training, and leave.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary of the run as JSON at its end.")] = False,
) -> None:
    """
    Train a pipeline on your own data or on simulated cities.

    All other words are those of train.py: --config names a YAML file, and each of its settings can be given as an
    option, which wins over the file. --push_to_hub uploads the result.

    Examples:

    zoomdiff train --config configs/simulated_city.yaml --max_train_steps 2000

    zoomdiff train --config lyon.yaml --resume_from_checkpoint latest

    zoomdiff train --config lyon.yaml --push_to_hub true --hub_model_id my-team/lyon --model_license apache-2.0

    accelerate launch -m zoomdiff_diffusers.commands train --config lyon.yaml

    Exit codes: 0 done; 1 the arguments and the data do not fit together, or the Hub refuses; 2 wrong arguments.
    """
    try:
        from ..training.arguments import parse_arguments

        if arguments:
            parse_arguments(["--help"], prog="zoomdiff train")
        from ..training.trainer import Trainer
    except ModuleNotFoundError as error:
        fail_without(error.name, "train")
    if not context.args:
        fail("Nothing says what to train on. Give a file with --config, or see `zoomdiff train --help`.")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        trainer = Trainer(parse_arguments(context.args))
        summary = trainer.train()
        result = {"output_dir": str(trainer.output_dir), "url": None}
        if trainer.accelerator.is_main_process and trainer.arguments.hub.push_to_hub:
            result["url"] = str(trainer.push_to_hub())
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(str(error).splitlines()[0])
    if not trainer.accelerator.is_main_process:
        return
    scores = summary["validations"][-1]["scores"] if summary["validations"] else {}
    if as_json:
        facts = {name: summary[name] for name in ("steps", "seconds", "seed", "parameters")}
        typer.echo(json.dumps({**result, **facts, "scores": scores}))
        return
    for level, values in scores.items():
        typer.echo(f"{level:<16}CRPS {values['crps']:.4g}, MAE of the mean {values['mae_of_mean']:.4g}")
    typer.echo(f"{result['output_dir']}: the pipeline and training_summary.json, after {summary['seconds']:.0f} s")
    if result["url"]:
        typer.echo(f"uploaded: {result['url']}")
