# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The model that a command works with."""

from pathlib import Path

from .messages import fail


DEFAULT_MODEL = "simulated-city"
MODEL_HELP = "Folder or Hub id of a saved pipeline, or the name of a bundled one."


def load_pipeline(model: str):
    """
    Load a pipeline for inference.

    Args:
        model (`str`): Name of a bundled model, folder or Hub id, in this order.
    """
    from .. import ZoomDiffPipeline
    from ..hub import bundled_model, bundled_models

    bundled = bundled_models()
    path = bundled_model(model) if model in bundled else model
    if not Path(path).exists() and model.count("/") != 1:
        fail(f"--model: {model!r} is no folder, no Hub id (organisation/name) and none of the bundled {bundled}.")
    try:
        return ZoomDiffPipeline.from_pretrained(path)
    except (OSError, ValueError) as error:
        fail(f"--model: {model!r} cannot be loaded: {str(error).splitlines()[0]}")
