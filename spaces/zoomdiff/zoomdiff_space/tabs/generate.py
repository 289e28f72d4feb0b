# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Generate: traffic of an area from its context."""

import gradio as gr

from .. import areas
from ..controls import area_controls, first_day_control, hidden_plot, run_controls, summary
from ..events import ONE_AT_A_TIME, friendly, reporter
from ..runs import Engine
from .last_result import LastResult


class GenerateTab:
    """The first tab."""

    def __init__(self):
        with gr.Tab("Generate", id="generate"):
            self.area = area_controls("What the traffic is made for. Helsinki and the simulated cities need no file.")
            self.first_day = first_day_control()
            self.settings = run_controls(samples=8)
            self.button = gr.Button("Generate", variant="primary", elem_id="generate-button")
            self.summary = summary()
            self.total = hidden_plot()

    def connect(self, engine: Engine, last: LastResult) -> None:
        """The button makes the last result."""

        @friendly
        def generate(source, size, number, file, day, samples, seed, steps, progress=gr.Progress()):  # noqa: B008
            """Generate a week of traffic for an area."""
            chosen = areas.choose_area(source, size, number, file)
            return last.values(engine.generate(chosen, day, samples, seed, steps, reporter(progress)))

        self.button.click(
            generate, [*self.area, self.first_day, *self.settings], [*last.components, self.summary, self.total],
            show_progress_on=self.summary, api_name="generate", **ONE_AT_A_TIME,
        )  # fmt: skip
