# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`zoomdiff info`."""

import json
from typing import Annotated

import typer

from .models import DEFAULT_MODEL, MODEL_HELP, load_pipeline


def info(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)] = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """
    Say what a model makes and which context it reads.

    Example: zoomdiff info simulated-city

    Exit codes: 0 done; 1 the model cannot be loaded; 2 wrong arguments.
    """
    description = describe(load_pipeline(model))
    if as_json:
        typer.echo(json.dumps({"model": model, **description}, indent=2))
        return
    typer.echo(f"{model}: {description['parameters']:,} parameters, {description['network_calls']} network calls\n")
    typer.echo(f"{'level':<16}{'side':>10}{'time step':>12}")
    for level in description["levels"]:
        side = f"by {level['zones']}" if level["zones"] else f"{level['side_m']:g} m"
        typer.echo(f"{level['name']:<16}{side:>10}{level['time_step_h']:>10g} h")
    typer.echo(f"\n{'channel':<16}unit of the mean per finest cell and time step")
    for name, unit in description["channels"].items():
        typer.echo(f"{name:<16}{unit or '-'}")
    typer.echo(f"\n{'context layer':<24}{'kind':<14}channels or classes (each layer may be left out)")
    for layer in description["context"]:
        if layer["kind"] == "zones":
            values = f"number of the {layer['name']} that serves each cell (needed)"
        else:
            values = ", ".join(layer["values"])
        typer.echo(f"{layer['name']:<24}{layer['kind']:<14}{values}")


def describe(pipe) -> dict:
    """Levels, channels, context schema, sampler and size of a pipeline, JSON-safe."""
    hierarchy, processor = pipe.hierarchy, pipe.traffic_processor
    pipe.scheduler.set_timesteps()
    networks = [network for network in (pipe.regressor, pipe.unet) if network is not None]
    return {
        "parameters": sum(parameter.numel() for network in networks for parameter in network.parameters()),
        "network_calls": len(pipe.scheduler.timesteps),
        "levels": [
            {
                "name": level.name,
                "side_m": None if level.zones else level.spatial_factor * hierarchy.config.cell_size,
                "zones": level.zones,
                "time_step_h": level.temporal_factor * hierarchy.config.time_step,
            }
            for level in hierarchy.levels
        ],
        "channels": dict(zip(processor.channels, processor.units)),
        "context": [
            {
                "name": layer["name"],
                "kind": layer["kind"],
                "values": layer.get("classes") or layer.get("channels") or [],
            }
            for layer in pipe.context_processor.config.layers
        ],
    }
