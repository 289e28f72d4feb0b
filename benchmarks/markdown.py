# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Tables of the results page."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits; a dash for what is undefined."""
    if value is None:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        return f"{float(text):.0f}" if "e" in text else text
    return f"{value:.{digits - 1}e}"


def emphasised(
    values: Sequence[float | None], best: str = "lowest", ranked: Sequence[bool] | None = None
) -> list[str]:
    """
    A column of numbers, the best in bold and the second in italics.

    Args:
        values (`Sequence[float | None]`): One per row.
        best (`str`, defaults to `"lowest"`): `"lowest"`, `"highest"` or `"one"`, the closest to 1.
        ranked (`Sequence[bool]`, *optional*): Which rows take part; all by default.
    """
    order = {"lowest": lambda value: value, "highest": lambda value: -value, "one": lambda value: abs(value - 1)}[best]
    taking_part = [value for value, part in zip(values, ranked or [True] * len(values)) if part and value is not None]
    places = sorted({order(value) for value in taking_part})
    texts = []
    for index, value in enumerate(values):
        text = number(value)
        if value is not None and (ranked is None or ranked[index]):
            rank = places.index(order(value))
            text = f"**{text}**" if rank == 0 else f"*{text}*" if rank == 1 else text
        texts.append(text)
    return texts
