# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What every benchmark has: a thread limit, a seed, and one JSON document with the figures and how they came about."""

import argparse
import json
import os
import platform
import resource
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from zoomdiff_diffusers import bundled_model


BUNDLED = "simulated-city"


def make_parser(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--device", default="cpu", help="device of the network (default: cpu)")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is generated (default: 0)")
    parser.add_argument("--output", type=Path, default=None, help="also write the JSON to this file")
    return parser


def model_path(argument):
    """A folder or Hub id, by default the bundled weights."""
    return argument or bundled_model(BUNDLED)


def peak_memory_gib():
    """Largest resident memory of this process so far; on Linux without that of the process that started it."""
    status = Path("/proc/self/status")
    if status.is_file():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def circumstances():
    """What a figure may depend on besides its arguments: versions, commit and hardware."""
    return {
        "zoomdiff_diffusers": version("zoomdiff_diffusers"),
        "commit": _commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def publish(results, arguments):
    """Print the results with their circumstances as JSON, and write them to `--output`."""
    description = {"arguments": {name: value for name, value in vars(arguments).items() if name != "output"}}
    print(_as_text(description, results))
    if arguments.output is not None:
        write_report(arguments.output, description, results)


def write_report(path, description, results):
    """Write a JSON document with results, how they came about and under which circumstances."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(_as_text(description, results) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _as_text(description, results):
    return json.dumps({**description, "results": _rounded(results), "circumstances": circumstances()}, indent=2)


def _rounded(values):
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_rounded(value) for value in values]
    return float(f"{values:.5g}") if isinstance(values, float) else values


def _commit():
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "HEAD"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    return finished.stdout.strip() or None


def _processor():
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
