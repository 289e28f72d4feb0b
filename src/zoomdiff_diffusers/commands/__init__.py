# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The `zoomdiff` command."""

import typer

from .context import context
from .evaluate import evaluate
from .generate import generate, refine
from .info import info
from .push import push
from .train import train


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Mobile traffic at several resolutions from open urban data."""


for command in (context, generate, refine, evaluate, info):
    app.command()(command)

# What `zoomdiff train` does not know itself goes on to the trainer.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(train)
app.command()(push)
