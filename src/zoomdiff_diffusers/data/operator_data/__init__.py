# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""Traffic of an operator as training sets and stores: long tables of base stations, cells or squares."""

from .build import build_dataset
from .layouts import build_telecom_italia, build_uomo
from .measured import Measured, read_measured
from .readings import TableFormat


__all__ = ["Measured", "TableFormat", "build_dataset", "build_telecom_italia", "build_uomo", "read_measured"]
