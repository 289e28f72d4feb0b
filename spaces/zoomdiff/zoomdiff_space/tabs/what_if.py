# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What if: an area without and with something else in a square of it."""

import gradio as gr

from .. import areas, limits, storage, views
from ..controls import area_controls, first_day_control, maps, place_controls, run_controls, summary
from ..events import ONE_AT_A_TIME, PRIVATE, QUICK, existing, friendly, picked, reporter
from ..runs import PRESETS, Engine


INTRODUCTION = """
What if something else stood in a place? **Click the map** to move the square (or use the arrow keys), choose what is
built in it, and press the button. Traffic is generated twice from the same noise, without and with it, so what differs
is what the plan changes. The answer is what the model has learnt from simulated cities, not a forecast: it knows no
match days, and not where people move from.
"""
AGAIN = "Press “What if?” again."
FIRST_SIDE = 300  # m
# In the browser alone: the square's size and place are part of what the map was given.
REDRAW = """(value, side, row, column) => value && JSON.stringify(
    {...JSON.parse(value), side: Math.floor(side / 50), place: [row ?? 0, column ?? 0]})"""


class WhatIfTab:
    """The third tab."""

    def __init__(self):
        with gr.Tab("What if", id="what-if"):
            # Inside of the tab: among the tabs, Gradio would count it as one of them.
            self.difference = gr.State(None, time_to_live=limits.KEEP_SECONDS)
            gr.Markdown(INTRODUCTION, elem_classes="zd-text")
            self.area = area_controls("Where it is built.")
            first_area, cells = areas.helsinki_area(), FIRST_SIDE // 50
            first_place = views.green_place(first_area, cells)
            self.map = maps("plan-map", value=views.land_use_data(first_area, first_place, cells))
            with gr.Row():
                kinds = [(f"{preset[0].upper()}{preset[1:]}", preset) for preset in PRESETS]
                self.preset = gr.Dropdown(
                    kinds, value="stadium", label="What is built", info="Replaces what is there.", min_width=200
                )
                self.metres = gr.Slider(
                    *limits.SQUARE_METRES, FIRST_SIDE, step=50, label="Side of the square, m", min_width=200
                )
            self.place = place_controls(first_place, interactive=True)
            self.first_day = first_day_control()
            self.settings = run_controls(samples=6)
            self.button = gr.Button("What if?", variant="primary", elem_id="plan-button")
            self.summary = summary()
            with gr.Column(visible=False) as self.changes:
                self.shown = gr.Dropdown(
                    [views.CHANGE, views.SPREAD], value=views.CHANGE, label="Maps show",
                    info="Click a place for its numbers. The dashed square is the plan.",
                )  # fmt: skip
                self.viewer = maps("plan-viewer")
                self.numbers = gr.HTML(padding=False)
                self.chart = gr.Plot(show_label=False, container=False)
                self.file = gr.DownloadButton("Download NetCDF, all levels")

    def connect(self, engine: Engine) -> None:
        """The button generates; the map shows the plan before, others what it changes."""

        @friendly
        def what_if(
            source, size, number, file, preset, row, column, metres, day, samples, seed, steps,
            progress=gr.Progress(),  # noqa: B008
        ):  # fmt: skip
            """Generate an area without and with something else in a square of it."""
            chosen = areas.choose_area(source, size, number, file)
            made = engine.what_if(chosen, preset, row, column, metres, day, samples, seed, steps, reporter(progress))
            place = _middle(made.square)
            return [
                made,
                views.difference_summary(made),
                gr.Column(visible=True),
                views.CHANGE,
                views.difference_data(made, views.CHANGE, place),
                views.difference_place_table(made, place),
                gr.Plot(views.difference_figure(made)),
                gr.DownloadButton(value=str(made.write_netcdf(storage.new_folder()))),
            ]

        @friendly
        def difference_at(current, event: gr.EventData):
            height, width = existing(current, AGAIN).size
            row, column = picked(event)
            return views.difference_place_table(current, (min(row, height - 1), min(column, width - 1)))

        @friendly
        def difference_shown(current, choice):
            return views.difference_data(current, choice, _middle(existing(current, AGAIN).square))

        self._connect_map()
        inputs = [*self.area, self.preset, *self.place, self.metres, self.first_day, *self.settings]
        outputs = [self.difference, self.summary, self.changes, self.shown]
        outputs += [self.viewer, self.numbers, self.chart, self.file]
        self.button.click(what_if, inputs, outputs, show_progress_on=self.summary, api_name="what_if", **ONE_AT_A_TIME)
        self.viewer.select(difference_at, self.difference, self.numbers, show_progress="hidden", **QUICK, **PRIVATE)
        self.shown.input(
            difference_shown, [self.difference, self.shown], self.viewer, show_progress="minimal", **QUICK, **PRIVATE
        )

    def _connect_map(self) -> None:
        """The map of the land use follows the area, and its square follows the inputs and the clicks."""

        @friendly
        def map_of(source, size, number, file, metres):
            """The land use of an area, with the square where most of it is green."""
            if source in (areas.OWN, areas.EXTRACT) and file is None:
                return gr.HTML(value=None), gr.skip(), gr.skip()
            chosen = areas.choose_area(source, size, number, file)
            side = limits.whole_number("Side", metres, *limits.SQUARE_METRES) // 50
            limits.check_work(chosen.height, chosen.width, 24, 1, 1)
            row, column = views.green_place(chosen, side)
            data = views.land_use_data(chosen, (row, column), side)
            return data, gr.Number(row, maximum=chosen.height - 1), gr.Number(column, maximum=chosen.width - 1)

        source, size, number, file = self.area
        gr.on(
            [source.change, size.change, number.submit, number.blur, file.change], map_of, [*self.area, self.metres],
            [self.map, *self.place], show_progress="minimal", **QUICK, **PRIVATE,
        )  # fmt: skip
        gr.on(
            [self.metres.change, *(field.input for field in self.place)], None, [self.map, self.metres, *self.place],
            self.map, js=REDRAW, show_progress="hidden", queue=False, **PRIVATE,
        )  # fmt: skip
        self.map.select(picked, None, self.place, show_progress="hidden", **QUICK, **PRIVATE)


def _middle(square: tuple[int, int, int]) -> tuple[int, int]:
    """Row and column of the middle of a square, from its first row, first column and side."""
    row, column, side = square
    return row + side // 2, column + side // 2
