# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
The page: generate, zoom, what if, refine, compare. `python app.py` starts it; Hugging Face Spaces do the same.

`build` makes the page, `start` serves it. What is in a tab, and what happens there, is in `zoomdiff_space/tabs`.
"""

import os
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
from zoomdiff_space import areas, tabs  # noqa: E402
from zoomdiff_space.runs import Engine  # noqa: E402


HERE = Path(__file__).parent

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


def build(engine: Engine) -> gr.Blocks:
    """The page around a model."""
    # Served from where they are: a copy among the visitors' files would be deleted with these.
    gr.set_static_paths([areas.EXAMPLES])
    with gr.Blocks(
        title="ZoomDiff: mobile traffic at four scales",
        analytics_enabled=False,
        delete_cache=(120, limits.KEEP_SECONDS),
        fill_width=False,
    ) as page:
        gr.Markdown(INTRODUCTION, elem_classes="zd-text")
        with gr.Tabs() as all_tabs:
            generate, zoom, what_if = tabs.GenerateTab(), tabs.ZoomTab(), tabs.WhatIfTab()
            refine, compare = tabs.RefineTab(), tabs.CompareTab()
        downloads = tabs.Downloads(engine.hierarchy)
        gr.Markdown(LIMITS, elem_classes="zd-text")
        last = tabs.LastResult(zoom, downloads)
        for maker in (generate, refine):
            maker.connect(engine, last)
        what_if.connect(engine)
        compare.connect(engine)
        last.connect(all_tabs)
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
    page = build(Engine())
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
