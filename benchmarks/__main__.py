# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
All tables and figures, and the page that shows them.

    python -m benchmarks run --budget small
    python -m benchmarks report --results benchmarks/results/small --output docs/results.md

`run` writes one JSON file per cell (a system on a dataset, a point of a figure ...) and leaves alone those that are
there already: an interrupted run continues where it was. Budgets: `tiny` tries the code, `small` is for two CPU cores,
where the paper's experiments take under 90 minutes, `full` is for an accelerator.
"""

import argparse
import sys
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run cells and write their results")
    run.add_argument(
        "--experiment", nargs="+", default=["paper"], help="main, schedules ... , paper or all (default: paper)"
    )
    run.add_argument("--budget", default="small", help="tiny, small or full (default: small)")
    run.add_argument("--dataset", nargs="+", default=None, help="only the cells of these datasets")
    run.add_argument("--system", nargs="+", default=None, help="only the cells of these systems")
    run.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="training seeds of main, few_steps and recipes (default: 0)"
    )
    run.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    run.add_argument("--output", type=Path, default=None, help="default: benchmarks/results/<budget>")
    run.add_argument("--list", action="store_true", help="print the cells and run nothing")
    report = commands.add_parser("report", help="make the results page from the JSON files")
    report.add_argument("--results", type=Path, default=Path("benchmarks/results/small"), help="folder of `run`")
    report.add_argument("--output", type=Path, default=Path("docs/results.md"), help="default: docs/results.md")
    return parser


def run(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from .budgets import BUDGETS
    from .runner import EXPERIMENTS, PAPER, cell_name, experiment_module, run_cells

    if arguments.budget not in BUDGETS:
        parser.error(f"--budget must be one of {', '.join(BUDGETS)}, got {arguments.budget!r}")
    groups = {"paper": PAPER, "all": list(EXPERIMENTS)}
    names = [name for word in arguments.experiment for name in groups.get(word, [word])]
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        parser.error(f"--experiment must be among {', '.join([*EXPERIMENTS, *groups])}, got {', '.join(unknown)}")
    budget = BUDGETS[arguments.budget]
    seeds = {name: {"seeds": arguments.seeds} for name in ("main", "sides", "few_steps", "recipes")}
    cells = [cell for name in names for cell in experiment_module(name).cells(budget, **seeds.get(name, {}))]
    for key in ("dataset", "system"):
        wanted = getattr(arguments, key)
        if wanted and (unknown := set(wanted) - {cell.get(key) for cell in cells}):
            parser.error(f"--{key}: no cell of these experiments has {', '.join(sorted(unknown))}")
        cells = [cell for cell in cells if not wanted or cell.get(key) in wanted]
    if arguments.list:
        for cell in cells:
            print(f"{cell['experiment']}/{cell_name(cell)}")
        return 0
    output = arguments.output or Path("benchmarks/results") / budget.name
    failed = run_cells(cells, budget, output, arguments.jobs)
    for path in failed:
        print(f"failed: {path}", file=sys.stderr)
    return 1 if failed else 0


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit status, 1 if a cell failed."""
    parser = make_parser()
    arguments = parser.parse_args(words)
    if arguments.command == "run":
        return run(arguments, parser)
    from .results_page import write_page

    write_page(arguments.results, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
