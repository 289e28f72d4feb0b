# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the commands say when something is wrong: one line, no traceback, exit code 1."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer


def input_file(text: str):
    """A typer option for a file that must exist; `text` is its help."""
    return typer.Option(exists=True, dir_okay=False, readable=True, help=text)


def check_output(output: Path, *inputs: Path | None) -> None:
    """Refuse, before any work, an output that cannot be written or would replace an input."""
    if not output.parent.is_dir():
        fail(f"--output: the folder {output.parent} does not exist.")
    if not os.access(output.parent, os.W_OK):
        fail(f"--output: the folder {output.parent} cannot be written to.")
    if output.suffix != ".zarr" and output.is_dir():
        fail(f"--output: {output} is a folder.")
    if output.resolve() in [path.resolve() for path in inputs if path is not None]:
        fail(f"--output: {output} must not be the file that is read.")


@contextmanager
def failures_of(output: Path, extra: str, option: str = "") -> Iterator[None]:
    """
    Say in one line why `output` cannot be made.

    Args:
        output (`Path`): What the lines inside of `with` make.
        extra (`str`): The extra of this package that brings the libraries they need.
        option (`str`, defaults to `""`): Of the input that they read, where it is one alone.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        fail_without(error.name, extra)
    except (ValueError, TypeError) as error:
        fail(f"{option}: {error}" if option else str(error))
    except OSError as error:
        fail(f"--output: cannot write {output}: {error.strerror or error}.")


def fail(message: str) -> NoReturn:
    """Print an error and leave with exit code 1."""
    typer.echo(f"zoomdiff: error: {message}", err=True)
    raise typer.Exit(1)


def fail_without(module: str, extra: str) -> NoReturn:
    """Say which library is missing and which extra of this package brings it."""
    fail(
        f"{module} is not installed. pip install 'zoomdiff_diffusers[{extra}]' brings all that is needed;"
        f" in a checkout, pip install -e '.[{extra}]'."
    )
