# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Zoom: the last result at all levels, and the series of a place."""

import gradio as gr

from .. import limits, views
from ..controls import hidden_plot, maps, place_controls
from ..events import PRIVATE, QUICK, existing, friendly, picked
from ..runs import Result


INTRODUCTION = """
The same hour at all four levels, on one colour scale. **Click a place** to see its series below; or move the mark with
the arrow keys, or enter its row and column.
"""
NOTHING = "Nothing to show yet. Press Generate in the first tab, or Refine."


class ZoomTab:
    """The second tab."""

    def __init__(self):
        with gr.Tab("Zoom", id="zoom"):
            gr.Markdown(INTRODUCTION, elem_classes="zd-text")
            self.shown = gr.Dropdown(
                [views.MEAN],
                value=views.MEAN,
                label="Maps show",
                info="The mean, or one possible week.",
                interactive=False,
            )
            self.viewer = maps("zoom-viewer", NOTHING)
            self.row, self.column = place_controls()
            self.place = gr.HTML(padding=False)
            self.series = hidden_plot()

    @property
    def components(self) -> list[gr.components.Component]:
        """What `values` are for."""
        return [self.shown, self.viewer, *self.of_place]

    @property
    def of_place(self) -> list[gr.components.Component]:
        """What another place changes."""
        return [self.row, self.column, self.series, self.place]

    def values(self, result: Result) -> list:
        """Everything that the tab shows of a new result."""
        place, choices = views.busy_place(result), views.choices(result)
        shown = gr.Dropdown(choices=choices, value=choices[0], interactive=True)
        return [shown, views.zoom_data(result, choices[0], place), *_place_values(result, place)]

    def connect(self, result: gr.State) -> None:
        """Another place and other maps of the last result."""

        @friendly
        def series_at(current, row, column):
            """The series at a place of the last result."""
            return _place_values(current, _checked_place(current, row, column))[2:]

        @friendly
        def clicked(current, event: gr.EventData):
            return _place_values(current, _checked_place(current, *picked(event)))

        @friendly
        def show(current, choice, row, column):
            return views.zoom_data(existing(current), choice, _checked_place(current, row, column))

        entered = [self.row.submit, self.column.submit, self.row.blur, self.column.blur]
        place, maps_shown = [result, self.row, self.column], [result, self.shown, self.row, self.column]
        gr.on(entered, series_at, place, [self.series, self.place], api_name="series", **QUICK)
        gr.on(entered, show, maps_shown, self.viewer, show_progress="hidden", **QUICK, **PRIVATE)
        self.viewer.select(clicked, result, self.of_place, show_progress="minimal", **QUICK, **PRIVATE)
        self.shown.input(show, maps_shown, self.viewer, show_progress="minimal", **QUICK, **PRIVATE)


def _checked_place(current: Result | None, row, column) -> tuple[int, int]:
    height, width = existing(current).finest.shape[-2:]
    return limits.whole_number("Row", row, 0, height - 1), limits.whole_number("Column", column, 0, width - 1)


def _place_values(result: Result, place: tuple[int, int]) -> list:
    """For `of_place`."""
    height, width = result.finest.shape[-2:]
    return [
        gr.Number(place[0], maximum=height - 1, interactive=True),
        gr.Number(place[1], maximum=width - 1, interactive=True),
        gr.Plot(views.series_figure(result, place), visible=True),
        views.place_table(result, place),
    ]
