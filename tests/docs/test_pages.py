# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Every code block of the documentation runs: the blocks of a page in order, in one folder and one namespace.

The folder looks like a checkout. `python` blocks run as they are (a block that starts with `>>>` also shows the right
output), `bash` blocks line by line, and a block with a `title="..."` is written to the file of that name. `console`
blocks do not run; what they may hold is listed here.
"""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from sybil import Region, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer
from typer.testing import CliRunner

from zoomdiff_diffusers.commands import app


ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OF_A_CHECKOUT = ("configs", "examples", "train.py")
# Installing, publishing to the Hub's own server, several GPUs, and the commands that run these tests or hours of work.
NOT_RUN = re.compile(
    r"(python3?\S* -m (venv|pytest|build|benchmarks)|(\S+/)?pip install|git clone|cd |make |hf auth login"
    r"|accelerate (config|launch .*--num_(processes|machines))|torchrun |zoomdiff push|export |\. \S+activate)"
)


def name_of(path):
    return str(path.relative_to(ROOT))


def run_line(line):
    """Run one shell command: our own in this process, where the libraries are imported already, others in a shell."""
    words = shlex.split(line, comments=True)
    if words[0] == "zoomdiff":
        done = CliRunner().invoke(app, words[1:], env={"COLUMNS": "120", "TERM": "dumb"})
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
        return
    if words[:3] == ["accelerate", "launch", "train.py"] or words[:2] == ["python", "train.py"]:
        sys.argv[:] = words[words.index("train.py") :]
        runpy.run_path("train.py", run_name="__main__")
        AcceleratorState._reset_state(reset_partial_state=True)
        return
    if words[0] == "python":
        line = f"{shlex.quote(sys.executable)} {line.removeprefix('python')}"
    done = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def run_shell(example):
    for line in example.parsed.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            run_line(line)


def titled_files(document):
    """Blocks that show a file: they are written, for the blocks after them."""
    for region in FencedCodeBlockLexer(r'\w+ title="[^"\n]+"')(document):
        name = re.search(r'"(.+)"', region.lexemes["language"])[1]

        def write(example, name=name):
            Path(name).write_text(example.parsed, encoding="utf-8")

        yield Region(region.start, region.end, region.lexemes["source"], write)


SYBIL = Sybil([PythonCodeBlockParser(), CodeBlockParser("bash", run_shell), titled_files])


WITH_CODE = {path: list(SYBIL.parse(path).examples()) for path in PAGES}


@pytest.mark.parametrize("path", [path for path in PAGES if WITH_CODE[path]], ids=name_of)
def test_every_block_runs(path, tmp_path, monkeypatch):
    for name in OF_A_CHECKOUT:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    torch.manual_seed(0)
    for example in WITH_CODE[path]:
        example.evaluate()


def fences(path):
    """Language and lines of every code block."""
    text = path.read_text(encoding="utf-8")
    return [(info, body) for info, body in re.findall(r"^ *```(\S.*)\n((?:.*\n)*?) *```$", text, re.MULTILINE)]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_only_what_cannot_run_here_does_not_run(path):
    for info, body in fences(path):
        language = info.split()[0]
        assert language in ("python", "bash", "console", "text") or "title=" in info, f"{path}: ```{info}"
        if language == "console":
            for line in body.replace("\\\n", " ").splitlines():
                assert not line.strip() or NOT_RUN.match(line.strip()), f"{path}: {line}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|#|mailto:", target):
            assert (path.parent / target.partition("#")[0]).exists(), f"{path}: {target}"


def test_every_page_is_in_the_navigation():
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = yaml.safe_load(re.search(r"^nav:\n(?:[ -].*\n)+", configuration, re.MULTILINE)[0])["nav"]
    named = {leaf for section in nav for leaf in leaves(section)}
    assert named == {str(path.relative_to(ROOT / "docs")) for path in PAGES if (ROOT / "docs") in path.parents}


def leaves(entry):
    if isinstance(entry, dict):
        (entry,) = entry.values()
    return [entry] if isinstance(entry, str) else [leaf for part in entry for leaf in leaves(part)]
