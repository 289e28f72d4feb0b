# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""How much one visitor may ask for: a CPU Space has two cores for everybody."""

MAX_UPLOAD_BYTES = 10 * 2**20
MAX_CELLS = 64 * 96
MAX_DAYS = 14
MAX_SAMPLES = 16
STEPS = (8, 60)
MAX_SEED = 2**31 - 1
SQUARE_METRES = (50, 1000)  # side of what a visitor builds
MAX_WORK = 8 * 48 * 64 * 7 * 28  # samples x cells x days x steps: about 4 s on two idle cores
MAX_CSV_ROWS = 20_000
MAX_VALUES = 8 * 10**6  # numbers in an uploaded file
MAX_VARIABLES = 64
READ_SECONDS = 20
EXTRACT_SECONDS = 60  # of processor time, for an extract of OpenStreetMap
EXTRACT_SIDE = 40  # cells of the middle of an extract that is too large
RUN_SECONDS = 90
QUEUE_LENGTH = 40
SESSIONS = 32  # of which results are kept in memory
KEEP_SECONDS = 20 * 60  # how long results and files are kept
MAX_STORED_BYTES = 4 * 2**30  # of all visitors' files together


def whole_number(name: str, value, smallest: int, largest: int) -> int:
    """
    Return what a visitor entered as an `int`.

    Raises:
        ValueError: If it is empty, no whole number or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value % 1 != 0:
        raise ValueError(f"{name} must be a whole number from {smallest} to {largest}.")
    if not smallest <= value <= largest:
        raise ValueError(f"{name} must be between {smallest} and {largest}, but is {str(value)[:20]}.")
    return int(value)


def check_work(height: int, width: int, hours: int, samples: int, steps: int) -> None:
    """
    Refuse a run that would keep the other visitors waiting for long.

    Raises:
        ValueError: The message says which number is too large.
    """
    if height * width > MAX_CELLS:
        raise ValueError(
            f"The area has {height} × {width} = {height * width} cells of 50 m; this page takes at most {MAX_CELLS}."
            " Cut the area, or use the zoomdiff command on your own machine."
        )
    if hours > 24 * MAX_DAYS:
        raise ValueError(f"The period has {hours / 24:g} days; this page takes at most {MAX_DAYS}.")
    work = samples * height * width * hours / 24 * steps
    if work > MAX_WORK:
        raise ValueError(
            f"{samples} samples with {steps} steps for {height} × {width} cells and {hours / 24:g} days are"
            f" {work / MAX_WORK:.1f} times what this page allows. Choose fewer samples or steps, or a smaller area."
        )
