# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What the main tables show: averages over folds and training seeds, and how ZoomDiff stands against its bars."""

from collections.abc import Sequence

import numpy as np

from .baselines import REGRESSORS
from .markdown import markdown_table, number


DIFFUSION_RIVALS = ("CSDI", "DiT", "Diffusion-TS")
MARGIN = 0.15  # by which the CRPS should be below that of the best diffusion model of one level
CALIBRATED = (0.8, 1.2)
PAPER_ADVANTAGE = 0.184  # over the second best system, on average


def average(parts: list):
    """
    The mean of nested figures, number by number.

    Args:
        parts (`list`): The same figures several times: numbers, or dicts or lists of them, down to any depth.

    Returns:
        The same once: `None` where a part has `None`, and as it is where all parts agree, as on counts and words.
    """
    first = parts[0]
    if isinstance(first, dict):
        return {key: average([part[key] for part in parts]) for key in first}
    if isinstance(first, list):
        return [average(list(values)) for values in zip(*parts, strict=True)]
    if None in parts:
        return None
    return first if all(part == first for part in parts) else float(np.mean(parts))


def over_seeds(documents: list[dict]) -> list[dict]:
    """One document for each dataset and system in place of one for each training seed: their results' mean."""
    groups: dict[tuple[str, str], list[dict]] = {}
    for document in documents:
        groups.setdefault((document["cell"]["dataset"], document["cell"]["system"]), []).append(document)
    return [{**group[0], "results": average([each["results"] for each in group])} for group in groups.values()]


def seed_table(documents: list[dict], score: str) -> str:
    """
    How far apart training seeds are: of one dataset, row by level, the lowest and the highest value of a score.

    Args:
        documents (`list[dict]`): Of all systems and seeds.
        score (`str`): Which score.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for document in documents:
        for row, levels in rows_of(document).items():
            for level, scores in levels.items():
                values.setdefault(row, {}).setdefault(level, []).append(scores[score])
    levels = list(next(iter(values.values())))
    lines = [
        [row, *(" to ".join(dict.fromkeys(map(number, (min(found), max(found))))) for found in of_level.values())]
        for row, of_level in values.items()
    ]
    return markdown_table(["system", *levels], lines)


def rows_of(document: dict) -> dict[str, dict[str, dict]]:
    """Row -> level -> score -> value of one cell, averaged over its folds."""
    return average([fold["rows"] for fold in document["results"]["folds"]])


def lowest(rows: dict[str, dict[str, dict]], level: str, score: str, among) -> tuple[str, float] | None:
    """The row with the lowest score of a level, of the rows whose system `among` accepts."""
    values = {
        row: scores[level][score]
        for row, scores in rows.items()
        if among(row.removesuffix(", aggregated")) and scores[level][score] is not None
    }
    return min(values.items(), key=lambda item: item[1]) if values else None


def check_levels(
    rows: dict[str, dict[str, dict]],
    ours: str,
    title: str,
    forecasts: dict[str, dict[str, dict]] | None = None,
    floor: str | None = None,
    seeds: Sequence[dict[str, dict[str, dict]]] = (),
    forecasts_of_seeds: Sequence[dict[str, dict[str, dict]]] = (),
) -> list[dict]:
    """
    The bars of one dataset: what is asked, whether it is met, the figures, and whether they are within chance: the
    difference from the bar is below two standard errors, which the scatter between training seeds tells.

    Args:
        rows (`dict`): Row -> level -> score -> value.
        ours (`str`): ZoomDiff's row.
        title (`str`): Name of the dataset.
        forecasts (`dict`, *optional*):
            Of ensembles that were made to be forecasts, row -> level -> score -> value: in place of the row's own
            scores where a forecast is compared.
        floor (`str`, *optional*):
            The row of the best possible system. It takes no part, but is named beside a bar that it misses too. Its
            spread/skill is always named: it tells how far the truth at hand is from its law.
        seeds, forecasts_of_seeds (`Sequence[dict]`, defaults to `()`):
            `rows` and `forecasts` of each training seed. Without two of them, nothing counts as within chance.
    """
    bars = []
    judged_seeds = [own | other for own, other in zip(seeds, forecasts_of_seeds, strict=True)]
    for level, own in rows[ours].items():
        where = f"{title}, {level}"

        def compare(what, score, among, factor=1.0, judged=rows, judged_seeds=seeds):
            best = lowest(rows, level, score, among)
            if best is not None:
                value = judged[ours][level][score]
                errors = [
                    _standard_error([found[row][level][score] for found in of_seeds if row in found])
                    for row, of_seeds in ((ours, judged_seeds), (best[0], seeds))
                ]
                chance = abs(value - factor * best[1]) < 2 * np.hypot(errors[0], factor * errors[1])
                found = f"{number(value)} against {number(best[1])} of {best[0]}"
                found += ", within chance" if chance else ""
                if floor in judged and judged[floor][level][score] > factor * best[1]:
                    found += f"; {number(judged[floor][level][score])} of {floor[0].lower()}{floor[1:]} misses it too"
                met = value <= factor * best[1]
                bars.append({"bar": f"{where}: {what}", "met": met, "found": found, "chance": bool(chance)})

        def others(row):
            return row not in (ours, floor)

        compare("CRPS lowest of all systems", "crps", others)
        compare("Wasserstein distance of the values lowest of all systems", "wasserstein", others)
        rivals = ", ".join(DIFFUSION_RIVALS[:-1]) + f" and {DIFFUSION_RIVALS[-1]}"
        compare(
            f"CRPS at least {100 * MARGIN:.0f} % below the best of {rivals}",
            "crps",
            lambda row: row in DIFFUSION_RIVALS,
            1 - MARGIN,
        )
        # Of skewed traffic the median has the least absolute error, not the mean, and it is what regressors learn.
        for which in ("mean", "median"):
            compare(
                f"MAE of the ensemble {which} no worse than the best of {' and '.join(REGRESSORS)}",
                f"mae_of_{which}",
                lambda row: row in REGRESSORS,
                judged=rows | (forecasts or {}),
                judged_seeds=judged_seeds,
            )
        found = number(own["spread_skill"])
        if floor in rows:
            found += f"; {number(rows[floor][level]['spread_skill'])} of {floor[0].lower()}{floor[1:]}"
        bars.append(
            {
                "bar": f"{where}: spread/skill between {CALIBRATED[0]} and {CALIBRATED[1]}",
                "met": CALIBRATED[0] <= own["spread_skill"] <= CALIBRATED[1],
                "found": found,
            }
        )
    return bars


def _standard_error(values: list[float]) -> float:
    """Of the mean of a few values; 0 where their scatter is not known."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def paper_claim(datasets: dict[str, dict[str, dict[str, dict]]], ours: str, unranked: tuple[str, ...]) -> str:
    """
    How the paper's main claim fares: ZoomDiff first at every scale, well ahead of the second.

    Args:
        datasets (`dict`): Title -> row -> level -> score -> value.
        ours (`str`): ZoomDiff's row.
        unranked (`tuple[str, ...]`): Rows that take no part.
    """
    count = failed = 0
    advantages: dict[str, list[float]] = {"all": [], "generative": []}
    for rows in datasets.values():
        for level, own in rows[ours].items():
            others = {row: scores for row, scores in rows.items() if row != ours and row not in unranked}
            generative = {row: scores for row, scores in others.items() if scores[level]["spread_skill"] is not None}
            for kind, part in (("all", others), ("generative", generative)):
                if (best := lowest(part, level, "mae_of_sample", lambda row: True)) is not None:
                    advantages[kind].append(1 - own["mae_of_sample"] / best[1])
                    failed += kind == "all" and advantages[kind][-1] < 0
            count += 1
    text = (
        f"The paper's claim is that ZoomDiff's errors are the lowest at every scale, {100 * PAPER_ADVANTAGE:.1f} % "
        f"below the second best on average. Here, its MAE of a sample is {_below(advantages['all'])} that of the best "
        f"other system on average, and the lowest in {count - failed} of {count} comparisons (dataset and level)."
    )
    if advantages["generative"]:
        text += (
            " A forecast without spread has an advantage in this score, which a sample's scatter adds to; of the "
            f"systems that have a distribution, it is {_below(advantages['generative'])} that of the best."
        )
    return text


def _below(advantages: list[float]) -> str:
    mean = 100 * float(np.mean(advantages))
    return f"{abs(mean):.1f} % {'below' if mean >= 0 else 'above'}"
