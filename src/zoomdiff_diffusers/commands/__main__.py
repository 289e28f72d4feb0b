# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""`python -m zoomdiff_diffusers.commands`: the command where no script is, as for `accelerate launch -m`."""

from . import app


app(prog_name="zoomdiff")
