# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Refine: from measured base-station traffic to the finer levels."""

import gradio as gr

from .. import areas, views
from ..controls import area_controls, hidden_plot, run_controls, summary, uploaded_file
from ..events import AT_ONCE, ONE_AT_A_TIME, friendly, reporter
from ..runs import Engine
from .last_result import LastResult


INTRODUCTION = """
From measured base-station traffic to cells and 50 m. What you measured is kept: the finer levels add up to it.

A CSV file with a line per base-station area of 400 m and day, and the columns `date` (such as 2026-03-02), `y` and `x`
(a position in it, in metres) and `value` (MB in that day). Days that are missing, or have an empty value, are filled
in.

Positions are those of the area: from the south-west corner in a simulated city, in UTM coordinates in central Helsinki
and in an extract, and as `y` and `x` say in a context file (from the corner of its first cell, if it has neither). The
CSV file of generated traffic shows them.
"""
EXAMPLE = str(areas.EXAMPLES / "stations.csv")


class RefineTab:
    """The fourth tab."""

    def __init__(self):
        with gr.Tab("Refine", id="refine"):
            gr.Markdown(INTRODUCTION, elem_classes="zd-text")
            self.area = area_controls("Where the traffic was measured.", areas.EXAMPLE)
            self.stations = uploaded_file("Base-station traffic (CSV)", ".csv")
            with gr.Row():
                self.example = gr.Button("Load the example", size="sm", elem_id="example-button")
                gr.DownloadButton("Download stations.csv", value=EXAMPLE, size="sm")
            self.settings = run_controls(samples=8)
            self.button = gr.Button("Refine", variant="primary", elem_id="refine-button")
            self.summary = summary()
            self.total = hidden_plot()

    def connect(self, engine: Engine, last: LastResult) -> None:
        """The button makes the last result; another fills in the example."""

        @friendly
        def refine(source, size, number, file, table, samples, seed, steps, progress=gr.Progress()):  # noqa: B008
            """Refine base-station traffic of an area."""
            chosen = areas.choose_area(source, size, number, file)
            refined, given = engine.refine(chosen, table, samples, seed, steps, reporter(progress))
            return last.values(refined, views.refinement_note(given))

        self.button.click(
            refine, [*self.area, self.stations, *self.settings], [*last.components, self.summary, self.total],
            show_progress_on=self.summary, api_name="refine", **ONE_AT_A_TIME,
        )  # fmt: skip
        self.example.click(lambda: (areas.EXAMPLE, EXAMPLE), None, [self.area[0], self.stations], **AT_ONCE)
