# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the commands say when something is wrong: one line, no traceback, exit code 1."""

from typing import NoReturn

import typer


def input_file(text: str):
    """A typer option for a file that must exist; `text` is its help."""
    return typer.Option(exists=True, dir_okay=False, readable=True, help=text)


def fail(message: str) -> NoReturn:
    """Print an error and leave with exit code 1."""
    typer.echo(f"zoomdiff: error: {message}", err=True)
    raise typer.Exit(1)


def fail_without(module: str, extra: str) -> NoReturn:
    """Say which library is missing and which extra of this package brings it."""
    fail(f"{module} is not installed. pip install 'zoomdiff_diffusers[{extra}]' brings all that is needed.")
