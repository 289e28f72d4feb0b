# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Models that ship inside the package, and what uploads others to the Hugging Face Hub."""

from pathlib import Path


BUNDLED = Path(__file__).parents[1] / "bundled"


def bundled_models() -> list[str]:
    """Names of the models that ship with the package."""
    return sorted(index.parent.name for index in BUNDLED.glob("*/model_index.json"))


def bundled_model(name: str) -> str:
    """
    Return the folder of a model that ships with the package, for `from_pretrained`.

    Args:
        name (`str`): For example `"simulated-city"`.

    Raises:
        ValueError: If no model of this name is bundled.
    """
    available = bundled_models()
    if name not in available:
        raise ValueError(f"`name` must be one of the bundled models {available}, but is {name!r}.")
    return str(BUNDLED / name)
