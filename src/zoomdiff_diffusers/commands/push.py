# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff push`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from .messages import fail, fail_without, input_file


def push(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="A saved pipeline (train's output), or Parquet files to train on."
        ),
    ],
    repository: Annotated[str, typer.Argument(help="organisation/name on the Hub; created if it does not exist.")],
    kind: Annotated[
        Literal["auto", "model", "dataset"],
        typer.Option("--type", help="What the folder holds; by default a model if it has a model_index.json."),
    ] = "auto",
    license: Annotated[
        str | None, typer.Option(help="Licence of the weights, or of a data set, as the Hub names it: cc-by-4.0.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="What the (training) data are and where they come from.")] = None,
    data_license: Annotated[str | None, typer.Option(help="Licence of a model's training data.")] = None,
    context: Annotated[
        Path | None, input_file("NetCDF file: context of the area in the figure of a model's card.")
    ] = None,
    remote_code: Annotated[
        bool, typer.Option(help="Also write a model's branch `remote-code`, which loads without this package.")
    ] = False,
    config: Annotated[
        Path | None, input_file("Configuration of a training on a data set: names its layers, units and cells.")
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="For a new repository; the account's default if unset.")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
    pull_request: Annotated[bool, typer.Option(help="Open a pull request instead of writing to main.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """
    Upload a trained model or a training set to the Hugging Face Hub, with a complete card.

    Log in with `hf auth login` before, or set HF_TOKEN. The card, README.md, is written anew by every push; what
    neither the files nor the options tell is called "not stated" in it. Nothing is uploaded if something is missing.

    Examples:

    zoomdiff push runs/simulated_city my-team/city --license apache-2.0 --remote-code

    zoomdiff push data/lyon my-team/lyon-traffic --config lyon.yaml --data "Operator X, 2026" --license cc-by-4.0

    Exit codes: 0 done; 1 the folder cannot be uploaded or the Hub refuses; 2 wrong arguments.
    """
    from ..hub.upload import HUB_ERRORS, explain

    if kind == "auto":
        kind = "model" if (folder / "model_index.json").exists() else "dataset"
    options = {"commit_message": message, "private": private, "create_pr": pull_request}
    try:
        if kind == "model":
            _refuse("dataset", {"--config": config})
            statements = {"model_license": license, "data_description": data, "data_license": data_license}
            commit = _push_model(folder, repository, context, {**options, **statements, "remote_code": remote_code})
        else:
            given = {"--data-license": data_license, "--context": context, "--remote-code": remote_code or None}
            _refuse("model", given)
            statements = {"data_license": license, "data_description": data}
            commit = _push_dataset(folder, repository, config, options, statements)
    except HUB_ERRORS as error:
        fail(explain(error))
    except ValueError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail_without(error.name, "train")
    if as_json:
        result = {"type": kind, "repository": repository, "commit": commit.oid, "url": str(commit)}
        typer.echo(json.dumps(result | {"pull_request": commit.pr_url}))
        return
    typer.echo(f"{kind} uploaded: {commit.pr_url or commit}")


def _refuse(kind: str, given: dict) -> None:
    for option, value in given.items():
        if value is not None:
            fail(f"{option} belongs to a {kind}; the folder holds none.")


def _push_model(folder: Path, repository: str, context: Path | None, options: dict):
    from .. import ZoomDiffPipeline
    from ..hub.upload import check_pipeline_folder

    check_pipeline_folder(folder)
    layers = None
    if context is not None:
        import xarray

        try:
            layers = xarray.load_dataset(context, engine="netcdf4")
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueError(f"--context: {context} is not a readable NetCDF-4 file ({error}).") from None
    try:
        pipe = ZoomDiffPipeline.from_pretrained(folder)
    except OSError as error:
        raise ValueError(f"'{folder}' cannot be loaded: {str(error).splitlines()[0]}") from None
    return pipe.push_to_hub(repository, context=layers, **options)


def _push_dataset(folder: Path, repository: str, config: Path | None, options: dict, statements: dict):
    from ..hub.upload import check_dataset_folder, push_dataset
    from ..training.arguments import parse_arguments

    check_dataset_folder(folder)
    arguments = None if config is None else parse_arguments(["--config", str(config)])
    return push_dataset(folder, repository, arguments, **options, statements=statements)
