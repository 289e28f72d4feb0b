# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The `zoomdiff` command."""

import typer

from .evaluate import evaluate
from .generate import generate, refine
from .info import info


app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Mobile traffic at several resolutions from open urban data."""


for command in (generate, refine, evaluate, info):
    app.command()(command)
