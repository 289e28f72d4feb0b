# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
The page: generate, zoom, what if, refine, compare. `python app.py` starts it; Hugging Face Spaces do the same.

`build` makes the page, `start` serves it. Every event of the page is one small function in `build`, which reads what
the visitor entered, calls `runs` and returns what `views` makes of it.
"""

import functools
import logging
import os
from html import escape
from pathlib import Path

from zoomdiff_space import limits, storage


# Before PyTorch and Gradio are imported: threads that wait must not keep a core busy, files get a folder of their own,
# and nothing is sent anywhere.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
storage.share_memory_among_threads()
FILES = storage.use_own_folder()

import gradio as gr  # noqa: E402
import torch  # noqa: E402
from zoomdiff_space import areas, runs, views  # noqa: E402


HERE = Path(__file__).parent
logger = logging.getLogger("zoomdiff_space")

INTRODUCTION = """
# Mobile traffic at four scales, from open urban data

Makes hourly mobile traffic for a city area that has no measurements, from land use, roads, points of interest and
population. One run gives the same week at four levels, from the base station (400 m, one value a day) to 50 m and one
hour. All levels add up. Several samples show what is certain and what is not.
"""
LIMITS = f"""
The bundled model was trained on simulated cities: for a real city it gives a plausible pattern, not a forecast. This
page takes up to {limits.MAX_CELLS} cells of 50 m, {limits.MAX_DAYS} days, {limits.MAX_SAMPLES} samples and files of
{limits.MAX_UPLOAD_BYTES // 2**20} MB. Files and results are deleted after {limits.KEEP_SECONDS // 60} minutes. For
larger areas and models of your own there are the `zoomdiff` command and the Python package.
"""
RESULT_HINT = "<p>The result will appear here.</p>"
NOTHING = "Nothing to show yet. Press Generate in the first tab, or Refine."
AGAIN = "Press “What if?” again."
WHAT_IF = """
What if something else stood in a place? **Click the map** to move the square (or use the arrow keys), choose what is
built in it, and press the button. Traffic is generated twice from the same noise, without and with it, so what differs
is what the plan changes. The answer is what the model has learnt from simulated cities, not a forecast: it knows no
match days, and not where people move from.
"""
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
STATIONS_HELP = """
A CSV file with a line per base-station area of 400 m and day, and the columns `date` (such as 2026-03-02), `y` and `x`
(a position in the area, in metres from its south-west corner, or in the coordinates of the context file) and `value`
(MB in that day). Days that are missing, or have an empty value, are filled in.
"""


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


def reporter(progress: gr.Progress) -> runs.Progress:
    """What the runs tell about their progress, for the page's progress bar."""
    return lambda done, total, text: progress((done, total), desc=text, unit="steps")


def finished(result: runs.Result, note: str = ""):
    """Everything that the page shows of a new result."""
    place = views.busy_place(result)
    choices = views.choices(result)
    credit = f". Data: {result.attribution}" if result.attribution else ""
    return {
        "result": result,
        "summary": views.summary(result, note),
        "total": gr.Plot(views.total_figure(result), visible=True),
        "downloads": gr.Column(visible=True),
        "last": f"<b>Last result:</b> {escape(result.name + credit)}",
        "netcdf": gr.DownloadButton(value=str(result.write_netcdf(storage.new_folder()))),
        "csv": gr.DownloadButton(value=write_csv(result, result.hierarchy.names[0])),
        "csv_level": result.hierarchy.names[0],
        "shown": gr.Dropdown(choices=choices, value=choices[0], interactive=True),
        "viewer": gr.HTML(value=views.zoom_data(result, choices[0], place)),
        **place_shown(result, place),
    }


def place_shown(result: runs.Result, place: tuple[int, int]):
    height, width = result.finest.shape[-2:]
    return {
        "row": gr.Number(place[0], maximum=height - 1, interactive=True),
        "column": gr.Number(place[1], maximum=width - 1, interactive=True),
        "series": gr.Plot(views.series_figure(result, place), visible=True),
        "place": views.place_table(result, place),
    }


def write_csv(result: runs.Result, level: str) -> str:
    return str(result.write_csv(storage.new_folder(), level))


def city_controls():
    """The two inputs that choose a simulated city."""
    sizes = list(areas.SIZES)
    info = "South to north × west to east."
    return (
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
    )


def area_controls(text: str, first: str = areas.HELSINKI):
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

    adapted = [credit, simulated, own, own_help, template]
    source.change(adapt, source, adapted, queue=False, show_progress="hidden", api_visibility="private")
    return [source, size, number, file]


def maps(name: str, empty: str = "", value: str | None = None, visible: bool = True) -> gr.HTML:
    """Maps that the browser draws, and that can be clicked."""
    return gr.HTML(
        value=value,
        html_template=f"<div class='zd-zoom' data-empty='{empty}'></div>",
        js_on_load=(HERE / "zoom.js").read_text(encoding="utf-8"),
        elem_id=name,
        visible=visible,
    )


def place_controls(place: tuple[int, int] = (0, 0), interactive: bool = False):
    """Row and column of a place on the maps."""
    fields = zip(("Row", "Column"), place, ("50 m cells, counted from 0.", "From the west."))
    with gr.Row():
        return [
            gr.Number(value, label=label, info=info, precision=0, minimum=0, interactive=interactive, min_width=120)
            for label, value, info in fields
        ]


def run_controls(samples: int):
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


def build(engine: runs.Engine) -> gr.Blocks:
    """The page around a model."""
    # Served from where they are: a copy among the visitors' files would be deleted with these.
    gr.set_static_paths([areas.EXAMPLES])
    names = engine.hierarchy.names
    level_choices = [(runs.describe_level(engine.hierarchy, name), name) for name in names]
    with gr.Blocks(
        title="ZoomDiff: mobile traffic at four scales",
        analytics_enabled=False,
        delete_cache=(120, limits.KEEP_SECONDS),
        fill_width=False,
    ) as page:
        result = gr.State(None, time_to_live=limits.KEEP_SECONDS)
        difference = gr.State(None, time_to_live=limits.KEEP_SECONDS)
        gr.Markdown(INTRODUCTION, elem_classes="zd-text")
        with gr.Tabs() as tabs:
            with gr.Tab("Generate", id="generate"):
                area = area_controls("What the traffic is made for. Helsinki and the simulated cities need no file.")
                first_day = gr.Textbox(
                    "2026-03-02", label="First day", info="Year-month-day; weekends differ.", max_length=10
                )
                settings = run_controls(samples=8)
                generate_button = gr.Button("Generate", variant="primary", elem_id="generate-button")
                summary = gr.HTML(RESULT_HINT, elem_classes=["zd-text", "zd-result"])
                total = gr.Plot(visible=False, show_label=False, container=False)
            with gr.Tab("Zoom", id="zoom"):
                gr.Markdown(
                    "The same hour at all four levels, on one colour scale. **Click a place** to see its series below;"
                    " or move the mark with the arrow keys, or enter its row and column.",
                    elem_classes="zd-text",
                )
                shown = gr.Dropdown(
                    [views.MEAN],
                    value=views.MEAN,
                    label="Maps show",
                    info="The mean, or one possible week.",
                    interactive=False,
                )
                viewer = maps("zoom-viewer", NOTHING)
                row, column = place_controls()
                place = gr.HTML(padding=False)
                series = gr.Plot(visible=False, show_label=False, container=False)
            with gr.Tab("What if", id="what-if"):
                gr.Markdown(WHAT_IF, elem_classes="zd-text")
                plan_area = area_controls("Where it is built.")
                first_side = 300
                first_place = views.green_place(areas.helsinki_area(), first_side // 50)
                plan_map = maps(
                    "plan-map", value=views.land_use_data(areas.helsinki_area(), first_place, first_side // 50)
                )
                with gr.Row():
                    kinds = [(f"{preset[0].upper()}{preset[1:]}", preset) for preset in runs.PRESETS]
                    preset = gr.Dropdown(
                        kinds, value="stadium", label="What is built", info="Replaces what is there.", min_width=200
                    )
                    metres = gr.Slider(
                        *limits.SQUARE_METRES, first_side, step=50, label="Side of the square, m", min_width=200
                    )
                plan_place = place_controls(first_place, interactive=True)
                plan_day = gr.Textbox(
                    "2026-03-02", label="First day", info="Year-month-day; weekends differ.", max_length=10
                )
                plan_settings = run_controls(samples=6)
                plan_button = gr.Button("What if?", variant="primary", elem_id="plan-button")
                plan_summary = gr.HTML(RESULT_HINT, elem_classes=["zd-text", "zd-result"])
                with gr.Column(visible=False) as changes:
                    plan_shown = gr.Dropdown(
                        [views.CHANGE, views.SPREAD], value=views.CHANGE, label="Maps show",
                        info="Click a place for its numbers. The dashed square is the plan.",
                    )  # fmt: skip
                    plan_viewer = maps("plan-viewer")
                    plan_numbers = gr.HTML(padding=False)
                    plan_chart = gr.Plot(show_label=False, container=False)
                    plan_file = gr.DownloadButton("Download NetCDF, all levels")
            with gr.Tab("Refine", id="refine"):
                gr.Markdown(
                    "From measured base-station traffic to cells and 50 m. What you measured is kept: the finer levels"
                    " add up to it.\n" + STATIONS_HELP,
                    elem_classes="zd-text",
                )
                refine_area = area_controls("Where the traffic was measured.", areas.EXAMPLE)
                stations = uploaded_file("Base-station traffic (CSV)", ".csv")
                with gr.Row():
                    example = gr.Button("Load the example", size="sm", elem_id="example-button")
                    gr.DownloadButton("Download stations.csv", value=str(areas.EXAMPLES / "stations.csv"), size="sm")
                refine_settings = run_controls(samples=8)
                refine_button = gr.Button("Refine", variant="primary", elem_id="refine-button")
                refine_summary = gr.HTML(RESULT_HINT, elem_classes=["zd-text", "zd-result"])
                refine_total = gr.Plot(visible=False, show_label=False, container=False)
            with gr.Tab("Compare", id="compare"):
                gr.Markdown(
                    "How good is it? In a simulated city the truth is known. This scores generated weeks against true"
                    " weeks that the model has not seen, next to the best that any forecast can reach.\n\n"
                    "**CRPS** and **MAE** are errors: of the samples as a whole, and of their mean. **Spread/skill**"
                    " is 1 when the samples differ as much as they err.",
                    elem_classes="zd-text",
                )
                with gr.Row():
                    city = city_controls()
                compare_settings = run_controls(samples=8)
                compare_button = gr.Button("Compare", variant="primary", elem_id="compare-button")
                comparison = gr.HTML(RESULT_HINT, elem_classes=["zd-text", "zd-result"])
                comparison_chart = gr.Plot(visible=False, show_label=False, container=False)
        with gr.Column(visible=False, elem_id="downloads") as downloads:
            last = gr.HTML()
            with gr.Row():
                to_zoom = gr.Button("Look closer in Zoom")
                netcdf = gr.DownloadButton("Download NetCDF, all levels")
                csv = gr.DownloadButton("Download CSV, one level")
            csv_level = gr.Dropdown(
                level_choices,
                value=names[0],
                label="Level of the CSV file",
                info="Both files hold totals in MB per unit and interval, for every sample.",
            )
        gr.Markdown(LIMITS, elem_classes="zd-text")

        of_result = {
            "result": result, "downloads": downloads, "last": last, "netcdf": netcdf, "csv": csv,
            "csv_level": csv_level, "shown": shown, "viewer": viewer, "row": row, "column": column,
            "series": series, "place": place,
        }  # fmt: skip
        of_generate = {**of_result, "summary": summary, "total": total}
        of_refine = {**of_result, "summary": refine_summary, "total": refine_total}
        one_at_a_time = {"concurrency_limit": 1, "concurrency_id": "model"}
        quick = {"concurrency_limit": 4, "concurrency_id": "quick"}

        @friendly
        def generate(source, size, number, file, day, samples, seed, steps, progress=gr.Progress()):  # noqa: B008
            """Generate a week of traffic for an area."""
            chosen = areas.choose_area(source, size, number, file)
            made = finished(engine.generate(chosen, day, samples, seed, steps, reporter(progress)))
            return [made[name] for name in of_generate]

        @friendly
        def refine(source, size, number, file, table, samples, seed, steps, progress=gr.Progress()):  # noqa: B008
            """Refine base-station traffic of an area."""
            chosen = areas.choose_area(source, size, number, file)
            refined, given = engine.refine(chosen, table, samples, seed, steps, reporter(progress))
            made = finished(refined, views.refinement_note(given))
            return [made[name] for name in of_refine]

        @friendly
        def compare(size, number, samples, seed, steps, progress=gr.Progress()):  # noqa: B008
            """Score generated weeks of a simulated city."""
            scores = engine.compare(size, number, samples, seed, steps, reporter(progress))
            figure = gr.Plot(views.comparison_figure(scores, engine.hierarchy), visible=True)
            return views.comparison_table(scores, engine.hierarchy), figure

        @friendly
        def what_if(
            source, size, number, file, preset, row, column, metres, day, samples, seed, steps,
            progress=gr.Progress(),  # noqa: B008
        ):  # fmt: skip
            """Generate an area without and with something else in a square of it."""
            chosen = areas.choose_area(source, size, number, file)
            made = engine.what_if(chosen, preset, row, column, metres, day, samples, seed, steps, reporter(progress))
            place = made.square[0] + made.square[2] // 2, made.square[1] + made.square[2] // 2
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

        def picked(event: gr.EventData):
            return [
                limits.whole_number(name, getattr(event, name.lower(), None), 0, limits.MAX_CELLS)
                for name in ("Row", "Column")
            ]

        @friendly
        def difference_at(current, event: gr.EventData):
            height, width = existing(current, AGAIN).size
            row, column = picked(event)
            return views.difference_place_table(current, (min(row, height - 1), min(column, width - 1)))

        @friendly
        def difference_shown(current, choice):
            row, column, side = existing(current, AGAIN).square
            return views.difference_data(current, choice, (row + side // 2, column + side // 2))

        def existing(current, hint="Generate or refine first."):
            if current is None:
                raise ValueError(f"There is no result, or it was deleted in the meantime. {hint}")
            return current

        def checked_place(current, row, column):
            height, width = existing(current).finest.shape[-2:]
            return limits.whole_number("Row", row, 0, height - 1), limits.whole_number("Column", column, 0, width - 1)

        @friendly
        def series_at(current, row, column):
            """The series at a place of the last result."""
            made = place_shown(current, checked_place(current, row, column))
            return made["series"], made["place"]

        @friendly
        def clicked(current, event: gr.EventData):
            made = place_shown(
                current, checked_place(current, getattr(event, "row", None), getattr(event, "column", None))
            )
            return [made[name] for name in ("row", "column", "series", "place")]

        @friendly
        def show(current, choice, row, column):
            return views.zoom_data(existing(current), choice, checked_place(current, row, column))

        @friendly
        def csv_of(current, level):
            """The last result at one level, as CSV."""
            return gr.DownloadButton(value=write_csv(existing(current), level))

        inputs = [*area, first_day, *settings]
        private = {"api_visibility": "private"}
        generate_button.click(
            generate,
            inputs,
            list(of_generate.values()),
            show_progress_on=summary,
            api_name="generate",
            **one_at_a_time,
        )
        inputs = [*refine_area, stations, *refine_settings]
        refine_button.click(
            refine,
            inputs,
            list(of_refine.values()),
            show_progress_on=refine_summary,
            api_name="refine",
            **one_at_a_time,
        )
        of_plan = [difference, plan_summary, changes, plan_shown, plan_viewer, plan_numbers, plan_chart, plan_file]
        plan_button.click(
            what_if, [*plan_area, preset, *plan_place, metres, plan_day, *plan_settings], of_plan,
            show_progress_on=plan_summary, api_name="what_if", **one_at_a_time,
        )  # fmt: skip
        source, size, number, file = plan_area
        gr.on(
            [source.change, size.change, number.submit, number.blur, file.change], map_of, [*plan_area, metres],
            [plan_map, *plan_place], show_progress="minimal", **quick, **private,
        )  # fmt: skip
        # In the browser alone: the square's size and place are part of what the map was given.
        redraw = """(value, side, row, column) => value && JSON.stringify(
            {...JSON.parse(value), side: Math.floor(side / 50), place: [row ?? 0, column ?? 0]})"""
        gr.on(
            [metres.change, *(field.input for field in plan_place)], None, [plan_map, metres, *plan_place], plan_map,
            js=redraw, show_progress="hidden", queue=False, **private,
        )  # fmt: skip
        plan_map.select(picked, None, plan_place, show_progress="hidden", **quick, **private)
        plan_viewer.select(difference_at, difference, plan_numbers, show_progress="hidden", **quick, **private)
        plan_shown.input(
            difference_shown, [difference, plan_shown], plan_viewer, show_progress="minimal", **quick, **private
        )
        compare_button.click(
            compare, [*city, *compare_settings], [comparison, comparison_chart],
            show_progress_on=comparison, api_name="compare", **one_at_a_time,
        )  # fmt: skip
        entered = [row.submit, column.submit, row.blur, column.blur]
        shown_place = [result, shown, row, column]
        gr.on(entered, series_at, [result, row, column], [series, place], api_name="series", **quick)
        gr.on(entered, show, shown_place, viewer, show_progress="hidden", **quick, **private)
        viewer.select(clicked, result, [row, column, series, place], show_progress="minimal", **quick, **private)
        shown.input(show, shown_place, viewer, show_progress="minimal", **quick, **private)
        csv_level.input(csv_of, [result, csv_level], csv, api_name="csv", **quick)
        to_zoom.click(lambda: gr.Tabs(selected="zoom"), None, tabs, queue=False, show_progress="hidden", **private)
        example.click(
            lambda: (areas.EXAMPLE, str(areas.EXAMPLES / "stations.csv")), None, [refine_area[0], stations],
            queue=False, show_progress="hidden", **private,
        )  # fmt: skip
    return page


def theme() -> gr.themes.Base:
    """Fonts of the device, so that none is fetched; text and buttons dark enough to read on a phone in the sun."""
    system = ["system-ui", "sans-serif"]
    plain = gr.themes.Default(
        primary_hue="blue", neutral_hue="slate", font=system, font_mono=["ui-monospace", "monospace"]
    )
    return plain.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        block_info_text_color="*neutral_600",
        block_title_text_color="*neutral_800",
        block_label_text_color="*neutral_700",
        body_text_color_subdued="*neutral_600",
    )


def start(**options):
    """Serve the page; `options` go to `launch`."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    page = build(runs.Engine())
    page.queue(max_size=limits.QUEUE_LENGTH, default_concurrency_limit=4)
    storage.start_cleaning(FILES, 60, limits.KEEP_SECONDS, limits.MAX_STORED_BYTES)
    return page.launch(
        theme=theme(),
        css_paths=[HERE / "style.css"],
        footer_links=["api"],
        max_file_size=limits.MAX_UPLOAD_BYTES,
        state_session_capacity=limits.SESSIONS,
        ssr_mode=False,
        share=False,
        show_error=False,
        **options,
    )


if __name__ == "__main__":
    start()
