# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the events of all tabs have in common: their queues, their errors and what a click says."""

import functools
import logging

import gradio as gr

from . import limits, views
from .runs import Progress


logger = logging.getLogger("zoomdiff_space")

# For `gr.on` and its kind.
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "model"}
QUICK = {"concurrency_limit": 4, "concurrency_id": "quick"}
PRIVATE = {"api_visibility": "private"}
AT_ONCE = {"queue": False, "show_progress": "hidden", **PRIVATE}


def friendly(function):
    """Show what is wrong with an input as a message; log anything else and say no more than that it happened."""

    @functools.wraps(function)
    def wrapped(*arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except gr.Error:
            raise
        except ValueError as error:
            raise gr.Error(views.error_text(error), duration=None, print_exception=False) from None
        except Exception as error:
            logger.exception("An event failed")
            message = "Something went wrong on our side. Please try again, or with a smaller area."
            raise gr.Error(message, duration=None, print_exception=False) from error

    return wrapped


def reporter(progress: gr.Progress) -> Progress:
    """What the runs tell about their progress, for the page's progress bar."""
    return lambda done, total, text: progress((done, total), desc=text, unit="steps")


def existing(current, hint: str = "Generate or refine first."):
    """
    The result that the page keeps for a visitor.

    Raises:
        ValueError: If there is none.
    """
    if current is None:
        raise ValueError(f"There is no result, or it was deleted in the meantime. {hint}")
    return current


def picked(event: gr.EventData) -> list[int]:
    """Row and column of a click on a map."""
    return [
        limits.whole_number(name, getattr(event, name.lower(), None), 0, limits.MAX_CELLS)
        for name in ("Row", "Column")
    ]
