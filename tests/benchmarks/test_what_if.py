# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json
import sys

import pytest

from benchmarks import what_if


def test_the_answers_agree_with_the_law(tmp_path, monkeypatch, capsys):
    path = tmp_path / "plans.json"
    words = ["--cities", "1", "--presets", "park", "dense housing", "--samples", "2", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", ["what_if", *words])
    what_if.main()
    results = json.loads(path.read_text())["results"]
    park, homes = results["plans"]
    assert park["law_after"] < 0.1 * homes["law_after"] and park["model_after"] < 0.1 * homes["model_after"]
    assert homes["model_after"] == pytest.approx(homes["law_after"], rel=0.4)
    assert results["summary"]["correlation_of_changes"] > 0.9
