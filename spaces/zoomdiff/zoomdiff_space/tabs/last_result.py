# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The visitor's last result: kept for the tabs, shown in Zoom, and there to download."""

from html import escape

import gradio as gr

from zoomdiff_diffusers import Hierarchy

from .. import limits, storage, views
from ..events import AT_ONCE, QUICK, existing, friendly
from ..runs import Result, describe_level
from .zoom import ZoomTab


class Downloads:
    """Below the tabs: the files of the last result."""

    def __init__(self, hierarchy: Hierarchy):
        levels = [(describe_level(hierarchy, name), name) for name in hierarchy.names]
        with gr.Column(visible=False, elem_id="downloads") as self.column:
            self.last = gr.HTML()
            with gr.Row():
                self.to_zoom = gr.Button("Look closer in Zoom")
                self.netcdf = gr.DownloadButton("Download NetCDF, all levels")
                self.csv = gr.DownloadButton("Download CSV, one level")
            self.csv_level = gr.Dropdown(
                levels,
                value=hierarchy.names[0],
                label="Level of the CSV file",
                info="Both files hold totals in MB per unit and interval, for every sample.",
            )

    @property
    def components(self) -> list:
        """What `values` are for."""
        return [self.column, self.last, self.netcdf, self.csv, self.csv_level]

    def values(self, result: Result) -> list:
        """The files of a new result."""
        credit = f". Data: {result.attribution}" if result.attribution else ""
        first_level = result.hierarchy.names[0]
        return [
            gr.Column(visible=True),
            f"<b>Last result:</b> {escape(result.name + credit)}",
            gr.DownloadButton(value=str(result.write_netcdf(storage.new_folder()))),
            gr.DownloadButton(value=_write_csv(result, first_level)),
            first_level,
        ]

    def connect(self, result: gr.State, tabs: gr.Tabs) -> None:
        """Another level as CSV, and the way to the maps."""

        @friendly
        def csv_of(current, level):
            """The last result at one level, as CSV."""
            return gr.DownloadButton(value=_write_csv(existing(current), level))

        self.csv_level.input(csv_of, [result, self.csv_level], self.csv, api_name="csv", **QUICK)
        self.to_zoom.click(lambda: gr.Tabs(selected="zoom"), None, tabs, **AT_ONCE)


class LastResult:
    """
    What Generate and Refine make.

    Args:
        zoom (`ZoomTab`), downloads (`Downloads`): What shows it.
    """

    def __init__(self, zoom: ZoomTab, downloads: Downloads):
        self.zoom, self.downloads = zoom, downloads
        self.state = gr.State(None, time_to_live=limits.KEEP_SECONDS)

    @property
    def components(self) -> list:
        """What `values` are for, before the summary and the figure of the tab that made the result."""
        return [self.state, *self.downloads.components, *self.zoom.components]

    def values(self, result: Result, note: str = "") -> list:
        """Everything that the page shows of a new result, its summary and figure last."""
        shown = [*self.downloads.values(result), *self.zoom.values(result)]
        return [result, *shown, views.summary(result, note), gr.Plot(views.total_figure(result), visible=True)]

    def connect(self, tabs: gr.Tabs) -> None:
        """What can be done with the result."""
        self.zoom.connect(self.state)
        self.downloads.connect(self.state, tabs)


def _write_csv(result: Result, level: str) -> str:
    return str(result.write_csv(storage.new_folder(), level))
