# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Tables of the experiments: one per level, with a row per system."""

from collections.abc import Collection, Mapping

from .markdown import emphasised, markdown_table


# Score -> headline, and which end is best. Errors are those of the ensemble mean.
COLUMNS = {
    "crps": ("CRPS", "lowest"),
    "mae_of_mean": ("MAE", "lowest"),
    "rmse_of_mean": ("RMSE", "lowest"),
    "sprmse_of_mean": ("spRMSE", "lowest"),
    "psnr_of_mean": ("PSNR (dB)", "highest"),
    "spread_skill": ("spread/skill", "one"),
}


def level_tables(
    rows: Mapping[str, Mapping[str, Mapping]],
    columns: Mapping[str, tuple[str, str]] = COLUMNS,
    first: str = "system",
    unranked: Collection[str] = (),
) -> str:
    """
    One table for each level.

    Args:
        rows (`Mapping[str, Mapping[str, Mapping]]`): Row -> level -> score -> value. Levels may be absent from a row.
        columns (`Mapping[str, tuple[str, str]]`): Score -> headline and best end, as `emphasised` takes it.
        first (`str`, defaults to `"system"`): Headline of the first column.
        unranked (`Collection[str]`, defaults to `()`): Rows that take no part in the comparison.

    Returns:
        `str`: Markdown, the levels in the order of their first occurrence; the best value of a column is bold, the
        second in italics.
    """
    parts = []
    for level in dict.fromkeys(level for scores in rows.values() for level in scores):
        here = {row: scores[level] for row, scores in rows.items() if level in scores}
        ranked = [row not in unranked for row in here]
        texts = [
            emphasised([scores.get(column) for scores in here.values()], best, ranked)
            for column, (_, best) in columns.items()
        ]
        header = [first, *(headline for headline, _ in columns.values())]
        parts.append(
            f"Level {level}:\n\n" + markdown_table(header, [[row, *line] for row, *line in zip(here, *texts)])
        )
    return "\n".join(parts)
