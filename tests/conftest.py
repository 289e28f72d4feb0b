# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""What keeps the tests of one module from touching those of another."""

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(scope="module", autouse=True)
def accelerate_forgets_its_precision():
    """Accelerate keeps the mixed precision of the first run in a process for all later ones."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
