# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The results page: made from the JSON files of the cells, and from nothing else."""

import json
import os
from pathlib import Path

from .markdown import markdown_table
from .runner import EXPERIMENTS, experiment_module


def write_page(results: Path, output: Path) -> None:
    """
    Write the page for a folder of results, and its figures beside it, in `images/results`.

    Args:
        results (`Path`): Folder that `run` wrote.
        output (`Path`): Markdown file; replaced when complete.

    Raises:
        FileNotFoundError: a folder without any results.
    """
    documents = read_documents(results)
    if not any(documents.values()):
        raise FileNotFoundError(f"`results`: '{results}' has no <experiment>/<cell>.json; write them with `run`.")
    output.parent.mkdir(parents=True, exist_ok=True)
    for name, found in documents.items():
        if found and hasattr(module := experiment_module(name), "draw"):
            module.draw(found, output.parent)
    temporary = output.with_name(output.name + ".part")
    temporary.write_text(page(documents), encoding="utf-8")
    os.replace(temporary, output)


def read_documents(results: Path) -> dict[str, list[dict]]:
    """The documents of every experiment, in the order of their file names."""
    return {
        experiment: [
            json.loads(path.read_text(encoding="utf-8")) for path in sorted((results / experiment).glob("*.json"))
        ]
        for experiment in EXPERIMENTS
    }


def page(documents: dict[str, list[dict]]) -> str:
    """The whole page as Markdown."""
    modules = {name: experiment_module(name) for name, found in documents.items() if found}
    bars = [
        line for name, module in modules.items() if hasattr(module, "bars") for line in module.bars(documents[name])
    ]
    claim = modules["main"].claim(documents["main"]) if "main" in modules else ""
    parts = ["# Results", opening(claim, bars), circumstances(documents)]
    if bars:
        parts += ["## What was to be reached", bar_table(bars)]
    parts += ["## Tables and figures", *(module.tables(documents[name]) for name, module in modules.items())]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def opening(claim: str, bars: list[dict]) -> str:
    """
    What does not hold, first: the paper's claim, and how many bars were met, those of one kind counted together.

    Args:
        claim (`str`): How the paper's claim fares.
        bars (`list[dict]`):
            Lines with "bar", which reads "where: what", "met", which is `None` where it is open, and, where that is
            assessed, "chance", which is true where the verdict is within chance.
    """
    if not bars:
        return claim
    verdicts = [line["met"] for line in bars]
    met, missed, undecided = (verdicts.count(verdict) for verdict in (True, False, None))
    text = (
        f"{claim} Of {len(bars)} bars, {met} are met, {missed} missed, and {undecided} open for want of windows. "
        f"{_within_chance(bars)} verdicts are within chance: the figures differ from the bar by less than two "
        "standard errors over the training seeds."
    )
    kinds: dict[str, list[dict]] = {}
    for line in bars:
        kinds.setdefault(line["bar"].rpartition(": ")[2], []).append(line)
    rows = []
    for what, lines in kinds.items():
        verdicts = [line["met"] for line in lines]
        counts = [str(verdicts.count(verdict)) for verdict in (True, False, None)]
        chance = str(_within_chance(lines)) if any("chance" in line for line in lines) else "–"  # not assessed
        rows.append([what, *counts, chance])
    return f"{text.strip()}\n\n" + markdown_table(["bar", "met", "missed", "open", "of all, within chance"], rows)


def _within_chance(bars: list[dict]) -> int:
    return sum(line.get("chance", False) for line in bars)


def bar_table(bars: list[dict]) -> str:
    """Every bar with its figures; one whose figures do not decide is open (`None`)."""
    words = {True: "met", False: "**missed**", None: "open"}
    return markdown_table(["bar", "", "found"], [[line["bar"], words[line["met"]], line["found"]] for line in bars])


def circumstances(documents: dict[str, list[dict]]) -> str:
    """How the figures came about."""
    found = [document for group in documents.values() for document in group]
    machines = sorted({_machine(document["circumstances"]) for document in found})
    commits = sorted({str(document["circumstances"]["commit"])[:12] for document in found})
    seeds = sorted({str(document["cell"].get("seed")) for document in found} - {"None"})
    budgets = {document["budget"]["name"]: document["budget"] for document in found}
    lines = [
        f"- Budget `{name}`: {budget['seconds']:g} s of training for each system and dataset, "
        f"{budget['fold_seconds']:g} s for each fold of Shandong, {budget['point_seconds']:g} s for each point of an "
        f"ablation; ensembles of {budget['num_samples']}, where nothing else is said; the baselines' networks have "
        f"{budget['width']} channels."
        for name, budget in sorted(budgets.items())
    ]
    hours = sum(document["seconds"] for document in found) / 3600
    return "\n".join(
        [
            "This page is made by `python -m benchmarks report` from the JSON files of `python -m benchmarks run`; it "
            "is not edited by hand.\n",
            *lines,
            f"- {len(found)} cells, {hours:.1f} hours of work in all, seeds {', '.join(seeds)}.",
            f"- Machine: {'; '.join(machines)}.",
            f"- Commit: {', '.join(commits)}.",
        ]
    )


def _machine(values: dict) -> str:
    device = values["accelerator"] or f"{values['processor']}, {values['threads']} thread(s) per cell"
    return f"{device}; PyTorch {values['torch']}, Python {values['python']}"
