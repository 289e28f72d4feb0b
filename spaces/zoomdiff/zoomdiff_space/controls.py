# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Inputs that several tabs have."""

from pathlib import Path

import gradio as gr

from . import areas, limits
from .events import AT_ONCE


SCRIPT = Path(__file__).parents[1] / "zoom.js"
EXTRACT_HELP = f"""
An extract of OpenStreetMap as `.osm.pbf`, up to {limits.MAX_UPLOAD_BYTES // 2**20} MB, such as osmium or the extract
services on the web cut it. If it covers too much for this page, its middle, {limits.EXTRACT_SIDE * 0.05:g} km across,
is used. Land use, roads, buildings and points of interest are read from it; residents are estimated. Show results with
the credit “© OpenStreetMap contributors”.
"""
CONTEXT_HELP = """
A NetCDF file with some of the layers that the model knows, on the dimensions `y` and `x` (cells of 50 m; both numbers
multiples of 8), `population_over_time` also on `hour`, from the first hour of the traffic on. Any layer may be
missing. Take `area.nc`, the context of the example city, as a template:
"""
RESULT_HINT = "<p>The result will appear here.</p>"


def uploaded_file(label: str, *kinds: str) -> gr.File:
    """A file from the visitor's device. Gradio would also fetch an address; this page asks no other machine."""
    file = gr.File(label=label, file_types=list(kinds), type="filepath", height=150)
    move = file.async_move_resource_to_block_cache

    async def move_unless_address(path):
        if str(path).lower().startswith(("http:", "https:")):
            raise gr.Error("Files must be uploaded; addresses are not read.", print_exception=False)
        return await move(path)

    file.async_move_resource_to_block_cache = move_unless_address
    return file


def city_controls() -> list[gr.components.Component]:
    """The two inputs that choose a simulated city."""
    sizes = list(areas.SIZES)
    info = "South to north × west to east."
    return [
        gr.Dropdown(sizes, value=sizes[0], label="Size", info=info, min_width=260),
        gr.Number(
            1,
            label="City number",
            info="Every number is another city.",
            precision=0,
            minimum=1,
            maximum=areas.LARGEST_CITY,
            min_width=200,
        ),
    ]


def area_controls(text: str, first: str = areas.HELSINKI) -> list[gr.components.Component]:
    """The four inputs that choose an area."""
    source = gr.Radio(list(areas.SOURCES), value=first, label="Area", info=text)
    credit = gr.Markdown(f"Data: {areas.ATTRIBUTION}", visible=first == areas.HELSINKI, elem_classes="zd-text")
    with gr.Row(visible=False) as simulated:
        size, number = city_controls()
    with gr.Group(visible=False) as own:
        file = uploaded_file("Your file (.nc or .osm.pbf)", ".nc", ".pbf")
        own_help = gr.Markdown(CONTEXT_HELP, elem_classes="zd-text", padding=True)
        template = gr.DownloadButton("Download area.nc", value=str(areas.EXAMPLES / "area.nc"), size="sm")

    def adapt(choice):
        extract = choice == areas.EXTRACT
        return (
            gr.Markdown(visible=choice in (areas.HELSINKI, areas.EXTRACT)),
            gr.Row(visible=choice == areas.SIMULATED),
            gr.Group(visible=choice in (areas.OWN, areas.EXTRACT)),
            gr.Markdown(EXTRACT_HELP if extract else CONTEXT_HELP),
            gr.DownloadButton(visible=not extract),
        )

    source.change(adapt, source, [credit, simulated, own, own_help, template], **AT_ONCE)
    return [source, size, number, file]


def first_day_control() -> gr.Textbox:
    """The day on which the traffic begins."""
    return gr.Textbox("2026-03-02", label="First day", info="Year-month-day; weekends differ.", max_length=10)


def run_controls(samples: int) -> list[gr.components.Component]:
    """The three inputs of every run."""
    with gr.Accordion("Settings: samples, seed, steps", open=False):
        return [
            gr.Slider(
                2,
                limits.MAX_SAMPLES,
                samples,
                step=1,
                label="Samples",
                info="Possible weeks. More show the range better.",
            ),
            gr.Number(
                0,
                label="Seed",
                precision=0,
                minimum=0,
                maximum=limits.MAX_SEED,
                info="The same seed gives the same result.",
            ),
            gr.Slider(
                *limits.STEPS,
                28,
                step=4,
                label="Steps",
                info="Calls of the network, over all levels. 28 is what it is tuned for.",
            ),
        ]


def place_controls(place: tuple[int, int] = (0, 0), interactive: bool = False) -> list[gr.Number]:
    """Row and column of a place on the maps."""
    fields = zip(("Row", "Column"), place, ("50 m cells, counted from 0.", "From the west."))
    with gr.Row():
        return [
            gr.Number(value, label=label, info=info, precision=0, minimum=0, interactive=interactive, min_width=120)
            for label, value, info in fields
        ]


def maps(name: str, empty: str = "", value: str | None = None) -> gr.HTML:
    """Maps that the browser draws, and that can be clicked."""
    return gr.HTML(
        value=value,
        html_template=f"<div class='zd-zoom' data-empty='{empty}'></div>",
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        elem_id=name,
    )


def summary() -> gr.HTML:
    """What a run found, in words."""
    return gr.HTML(RESULT_HINT, elem_classes=["zd-text", "zd-result"])


def hidden_plot() -> gr.Plot:
    """A figure that appears with the first result."""
    return gr.Plot(visible=False, show_label=False, container=False)
