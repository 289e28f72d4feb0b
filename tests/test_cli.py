# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import json
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from support.traffic_files import finest_traffic, pyramid, write_files, write_mask, write_traffic
from typer.testing import CliRunner

from zoomdiff_diffusers.cli import app


PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def zoomdiff(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"))


def files(folder):
    return ["--generated", folder / "out.nc", "--truth", folder / "truth.nc"]


def test_the_entry_point_is_the_command():
    module, attribute = PROJECT["scripts"]["zoomdiff"].split(":")
    assert getattr(import_module(module), attribute) is app


def test_help_has_an_example_and_no_arguments_show_help():
    done = zoomdiff("evaluate", "--help")
    assert done.exit_code == 0
    assert "zoomdiff evaluate --generated out.nc --truth truth.nc" in done.output
    assert all(option in done.output for option in ("--mask", "--context", "--output", "--json"))
    assert "evaluate" in zoomdiff().output


def test_evaluate_prints_a_summary_and_writes_the_report(folder, tmp_path):
    words = ["--context", folder / "context.nc", "--output", tmp_path / "out"]
    done = zoomdiff("evaluate", *files(folder), *words)
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("CRPS "))
    scores = content["channels"]["traffic"]["levels"]
    assert [float(word) for word in line.split()[-4:]] == [pytest.approx(s["crps"], abs=6e-4) for s in scores.values()]
    assert set(content["channels"]["traffic"]["decomposition"]) == {"housing", "office park"}
    assert str(tmp_path / "out" / "report.html") in done.stdout and (tmp_path / "out" / "report.html").stat().st_size


def test_json_goes_to_standard_output_and_a_mask_is_heeded(tmp_path):
    write_files(tmp_path, truth_levels=["cell"])
    write_mask(tmp_path / "mask.nc", np.arange(18) >= 6)
    words = ["--mask", tmp_path / "mask.nc", "--output", tmp_path, "--json"]
    done = zoomdiff("evaluate", *files(tmp_path), *words)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    counts = [level["count"] for level in content["channels"]["traffic"]["levels"].values()]
    assert counts == [2 * 6, 12 * 24]
    assert "66.7 % of the hours and places" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_file_that_does_not_exist_is_a_wrong_argument(folder, tmp_path):
    done = zoomdiff(
        "evaluate", "--generated", tmp_path / "no.nc", "--truth", folder / "truth.nc", "--output", tmp_path
    )
    assert done.exit_code == 2 and "does not exist" in done.output and "Traceback" not in done.output


def test_files_that_do_not_fit_are_named_without_a_traceback(folder, tmp_path):
    write_traffic(tmp_path / "later.nc", pyramid(finest_traffic(1)), start="2026-03-05T00:00")
    words = ["--truth", tmp_path / "later.nc", "--output", tmp_path / "out"]
    done = zoomdiff("evaluate", "--generated", folder / "out.nc", *words)
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith("zoomdiff: error: The start of") and "later.nc" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named_with_what_installs_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    done = zoomdiff("evaluate", *files(folder), "--output", tmp_path)
    assert (
        done.exit_code == 1 and "jinja2 is not installed. pip install 'zoomdiff_diffusers[evaluation]'" in done.stderr
    )
