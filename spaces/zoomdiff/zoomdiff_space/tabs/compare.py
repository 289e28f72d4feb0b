# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Compare: generated weeks of a simulated city against true ones."""

import gradio as gr

from .. import views
from ..controls import city_controls, hidden_plot, run_controls, summary
from ..events import ONE_AT_A_TIME, friendly, reporter
from ..runs import Engine


INTRODUCTION = """
How good is it? In a simulated city the truth is known. This scores generated weeks against true weeks that the model
has not seen, next to as many samples of the city's own law.

**CRPS** and **MAE** are errors: of the samples as a whole, and of their mean. Only the CRPS of the law is the best
possible, on average over many weeks: the mean of a few samples, even of the law, can be beaten. **Spread/skill** is 1
when the samples differ as much as they err.
"""


class CompareTab:
    """The last tab."""

    def __init__(self):
        with gr.Tab("Compare", id="compare"):
            gr.Markdown(INTRODUCTION, elem_classes="zd-text")
            with gr.Row():
                self.city = city_controls()
            self.settings = run_controls(samples=8)
            self.button = gr.Button("Compare", variant="primary", elem_id="compare-button")
            self.summary = summary()
            self.chart = hidden_plot()

    def connect(self, engine: Engine) -> None:
        """The button scores a city."""

        @friendly
        def compare(size, number, samples, seed, steps, progress=gr.Progress()):  # noqa: B008
            """Score generated weeks of a simulated city."""
            scores = engine.compare(size, number, samples, seed, steps, reporter(progress))
            figure = gr.Plot(views.comparison_figure(scores, engine.hierarchy), visible=True)
            return views.comparison_table(scores, engine.hierarchy), figure

        self.button.click(
            compare, [*self.city, *self.settings], [self.summary, self.chart],
            show_progress_on=self.summary, api_name="compare", **ONE_AT_A_TIME,
        )  # fmt: skip
