# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Runs the cells of the experiments, each in a process of its own, and keeps one JSON file per cell."""

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from .budgets import BUDGETS, BenchmarkBudget


# Every module has `cells(budget)`, the descriptions of its parts, `run_cell(cell, budget)` and `tables(results)`;
# those that are held to a bar have `bars(results)` too, and those with figures `draw(results, folder)`, which writes
# them beside the page. In the order of the results page.
EXPERIMENTS = {
    "main": "main_tables",
    "sides": "sides",
    "schedules": "schedules",
    "resolution_preference": "resolution_preference",
    "efficiency": "efficiency",
    "refinement": "refinement",
    "transfer": "transfer",
    "figures": "figures",
    "few_steps": "few_steps",
    "recipes": "recipes",
}
# Those that repeat the paper's. The others say how much it matters which place is held out, how good the default
# sampler is, and where the recipes come from.
PAPER = [name for name in EXPERIMENTS if name not in ("sides", "few_steps", "recipes")]
# Imported once, before the processes of the cells are forked.
PRELOADED = ["torch", "diffusers", "transformers", "zoomdiff_diffusers.training", "benchmarks.main_tables"]


def experiment_module(name: str):
    """The module of an experiment by its name on the command line."""
    return import_module(f".{EXPERIMENTS[name]}", __package__)


def cell_name(cell: dict) -> str:
    """A file name that tells a cell from the others of its experiment."""
    values = [str(value) for key, value in sorted(cell.items()) if key != "experiment" and value is not None]
    slug = "".join(letter if letter.isalnum() or letter in "+.-_" else "-" for letter in "--".join(values).lower())
    return slug


def is_done(path: Path, cell: dict, budget: BenchmarkBudget) -> bool:
    """Whether the file holds the results of the same cell, under the same budget."""
    if not path.is_file():
        return False
    document = json.loads(path.read_text(encoding="utf-8"))
    return document["cell"] == as_json(cell) and document["budget"] == as_json(asdict(budget))


def as_json(value):
    """The value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def run_and_write(cell: dict, budget_name: str, path: Path, threads: int) -> None:
    """The body of a cell's process: run it and write its results; output goes to the log beside them."""
    log = path.with_suffix(".log").open("w", encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    import torch

    from .report import write_report

    torch.set_num_threads(threads)
    budget = BUDGETS[budget_name]
    started = time.perf_counter()
    try:
        results = experiment_module(cell["experiment"]).run_cell(cell, budget)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    description = {"cell": cell, "budget": asdict(budget), "seconds": time.perf_counter() - started}
    write_report(path, description, results)


def run_cells(
    cells: list[dict], budget: BenchmarkBudget, output: Path, jobs: int, report: Callable[[str], None] = print
) -> list[str]:
    """
    Run the cells that have no results yet.

    Args:
        cells (`list[dict]`): Descriptions, with the key `experiment`.
        budget (`BenchmarkBudget`): One of `BUDGETS`.
        output (`Path`): Folder of the results: `<experiment>/<cell>.json`.
        jobs (`int`): Processes at a time.
        report (`Callable`, defaults to `print`): Called with every line of progress.

    Returns:
        `list[str]`: the files that the failed cells should have written.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before the server of the processes imports torch
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    waiting, running, failed = [], {}, []
    for cell in cells:
        path = output / cell["experiment"] / f"{cell_name(cell)}.json"
        if not is_done(path, cell, budget):
            path.parent.mkdir(parents=True, exist_ok=True)
            waiting.append((cell, path))
    report(f"{len(cells) - len(waiting)} of {len(cells)} cells are done already")
    total = len(waiting)
    while waiting or running:
        while waiting and len(running) < jobs:
            cell, path = waiting.pop(0)
            process = context.Process(target=run_and_write, args=(cell, budget.name, path, threads))
            process.start()
            running[process.sentinel] = process, path, time.monotonic()
        for sentinel in wait(list(running)):
            failed += _finished(*running.pop(sentinel), f"{total - len(waiting) - len(running)} of {total}", report)
    return failed


def _finished(process: BaseProcess, path: Path, started: float, count: str, report: Callable[[str], None]) -> list:
    process.join()
    seconds = time.monotonic() - started
    if process.exitcode == 0:
        report(f"{count}: {path}, {seconds:.0f} s")
        return []
    report(f"{count}: FAILED after {seconds:.0f} s, see {path.with_suffix('.log')}")
    return [str(path)]
