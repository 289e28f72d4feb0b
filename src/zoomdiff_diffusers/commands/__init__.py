# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The `zoomdiff` command."""

import typer

from .context import context
from .dataset import dataset
from .evaluate import evaluate
from .export import export
from .generate import generate
from .info import info
from .push import push
from .refine import refine
from .summarise import summarise
from .train import train
from .whatif import whatif


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Mobile traffic at several resolutions from open urban data."""


for command in (context, dataset, generate, refine, whatif, summarise, export, evaluate, info):
    app.command()(command)

# What `zoomdiff train` does not know itself goes on to the trainer.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)
app.command()(push)
