# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The folder of everything that visitors upload and download, how it is emptied, and memory that is given back."""

import atexit
import contextlib
import ctypes
import logging
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path


logger = logging.getLogger(__name__)
M_ARENA_MAX = -8  # of malloc.h
LIBC = ctypes.CDLL(None) if sys.platform == "linux" and platform.libc_ver()[0] == "glibc" else None


def share_memory_among_threads() -> None:
    """
    Let glibc keep free memory in one place instead of one per thread; call this before any thread starts.

    Gradio's threads take turns with large arrays, and what each has freed would stay with it.
    """
    if LIBC is not None:
        LIBC.mallopt(M_ARENA_MAX, 1)


def use_own_folder() -> Path:
    """Give Gradio a folder of this process for uploads and downloads; call this before importing Gradio."""
    folder = Path(tempfile.mkdtemp(prefix="zoomdiff-space-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def new_folder() -> Path:
    """A folder for the files of one request; nothing in its path comes from the visitor."""
    return Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))


def clean(folder: Path, keep_seconds: float, max_bytes: int) -> None:
    """Remove what was not changed for `keep_seconds`, and the oldest of the rest while it is more than `max_bytes`."""
    entries = [(*_last_change_and_size(entry), entry) for entry in folder.iterdir()]
    total = sum(size for _, size, _ in entries)
    for changed, size, entry in sorted(entries, key=lambda entry: entry[0]):
        if time.time() - changed < keep_seconds and total <= max_bytes:
            break
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
        total -= size


def _last_change_and_size(entry: Path) -> tuple[float, int]:
    """Of a file, or of a folder with all that is in it; what disappears meanwhile does not count."""
    changed, size = 0.0, 0
    inside = [os.path.join(parent, name) for parent, folders, files in os.walk(entry) for name in (*folders, *files)]
    for path in (entry, *inside):
        with contextlib.suppress(OSError):
            found = os.stat(path)
            changed, size = max(changed, found.st_mtime), size + found.st_size
    return changed, size


def start_cleaning(folder: Path, every_seconds: float, keep_seconds: float, max_bytes: int) -> threading.Thread:
    """Clean the folder and give free memory back now and then, for as long as the process lives."""

    def work():
        while True:
            time.sleep(every_seconds)
            try:
                clean(folder, keep_seconds, max_bytes)
            except OSError:
                logger.exception("Cleaning failed; it is tried again")
            if LIBC is not None:
                LIBC.malloc_trim(0)

    thread = threading.Thread(target=work, name="cleaner", daemon=True)
    thread.start()
    return thread
