# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of a training run: safetensors and JSON only, written atomically, exact to the bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file


PREFIX = "checkpoint-"
STATE = "state.json"  # a folder without it is no complete checkpoint


def save_checkpoint(
    output_dir: str | Path,
    step: int,
    tensors: dict[str, dict[str, torch.Tensor]],
    state: dict[str, Any],
    total_limit: int,
) -> Path:
    """
    Writes `checkpoint-<step>` under a temporary name and renames it. Only then it deletes those of later steps, which
    belong to a branch that the run has left, and the oldest ones above the limit.

    Args:
        output_dir (`str` or `Path`): Folder of the run.
        step (`int`): Optimiser steps done.
        tensors (`dict[str, dict[str, torch.Tensor]]`): File name without ending -> tensors by name.
        state (`dict`): JSON-safe values; `step` is added.
        total_limit (`int`): Complete checkpoints to keep, at least 1.
    """
    final = Path(output_dir) / f"{PREFIX}{step}"
    partial, replaced = (final.with_name(f".{final.name}.{word}") for word in ("partial", "replaced"))
    for leftover in (partial, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, values in tensors.items():
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in values.items()}, partial / f"{name}.safetensors"
        )
    (partial / STATE).write_text(json.dumps({"step": step, **state}, indent=2), encoding="utf-8")
    if final.exists():  # a folder with files cannot be overwritten by another one
        final.rename(replaced)
    partial.rename(final)
    shutil.rmtree(replaced, ignore_errors=True)
    complete = list_checkpoints(output_dir)
    last = complete.index(final)
    for outdated in complete[last + 1 :] + complete[: last + 1][:-total_limit]:
        (outdated / STATE).unlink()  # first of all: what is left of a killed run counts as incomplete
        shutil.rmtree(outdated)
    return final


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first. Folders that a crash left half-written are ignored."""
    found = []
    for folder in Path(output_dir).glob(f"{PREFIX}*"):
        step = folder.name.removeprefix(PREFIX)
        if step.isdigit() and (folder / STATE).is_file():
            found.append((int(step), folder))
    return [folder for _, folder in sorted(found)]


def find_checkpoint(output_dir: str | Path, name: str) -> Path:
    """
    The checkpoint that `resume_from_checkpoint` names: a folder, or "latest" in `output_dir`.

    Raises:
        ValueError: there is none, or it is incomplete.
    """
    if name == "latest":
        complete = list_checkpoints(output_dir)
        if not complete:
            raise ValueError(f"`resume_from_checkpoint`: '{output_dir}' holds no complete checkpoint.")
        return complete[-1]
    if not (Path(name) / STATE).is_file():
        raise ValueError(f"`resume_from_checkpoint`: '{name}' is not a complete checkpoint (no {STATE}).")
    return Path(name)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint."""
    return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))


def read_tensors(checkpoint: Path, name: str) -> dict[str, torch.Tensor]:
    """One safetensors file of a checkpoint."""
    return load_file(checkpoint / f"{name}.safetensors")


def flatten_optimizer(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, torch.Tensor]:
    """The optimizer's tensors as `<parameter>/<entry>`; `names` are in the order of its parameter groups."""
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}/{entry}": value for index, entries in state.items() for entry, value in entries.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, torch.Tensor]) -> None:
    """Inverse of [`flatten_optimizer`]."""
    index_of = {name: index for index, name in enumerate(names)}
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        name, entry = key.rsplit("/", 1)
        state.setdefault(index_of[name], {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def changed_settings(saved: dict[str, Any], current: dict[str, Any], free: set[str]) -> list[str]:
    """`group.name: saved -> current` for every setting that differs and is not in `free`."""
    return [
        f"{group}.{name}: {saved.get(group, {}).get(name)!r} -> {value!r}"
        for group, values in current.items()
        for name, value in values.items()
        if name not in free and saved.get(group, {}).get(name) != value
    ]
