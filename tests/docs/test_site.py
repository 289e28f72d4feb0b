# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The site builds without a warning, refers to nothing on the network, and has a reference of all that is public."""

import re
import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.image import imread
from mkdocs.commands.build import build
from mkdocs.config import load_config

import zoomdiff_diffusers


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load_config("mkdocs.yml", site_dir=str(target))
        assert config.strict  # a warning stops the build
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return target


class Resources(HTMLParser):
    """What a browser loads by itself when it opens a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "embed"):
            self.found.append(attributes.get("src") or "")
        if tag == "link" and attributes.get("rel") != "canonical":
            self.found.append(attributes.get("href") or "")


def test_a_browser_needs_nothing_from_the_network(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        external = [address for address in resources.found if re.match(r"(https?:)?//", address)]
        assert external == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_the_reference_has_everything_that_is_public(site):
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    base_classes = {"ModelMixin", "SchedulerMixin"}  # Diffusers' own
    missing = {name for name in zoomdiff_diffusers.__all__ if f'id="zoomdiff_diffusers.{name}"' not in text}
    assert missing == base_classes
    assert 'id="zoomdiff_diffusers.ZoomDiffPipeline.__call__"' in text


def test_commands_and_arguments_are_filled_in(site):
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "zoomdiff generate" in commands and "--samples" in commands and "<!-- commands -->" not in commands
    arguments = (site / "reference" / "training-arguments.html").read_text(encoding="utf-8")
    assert "regression_steps" in arguments and "<!-- training-arguments -->" not in arguments
    lines = {name: row for row in arguments.split("<tr>") for name in re.findall(r"<td><code>(\w+)</code></td>", row)}
    assert all("<em>JSON</em>" in lines[name] for name in ("levels", "layers", "train_region", "unet"))
    assert not any("<em>JSON</em>" in lines[name] for name in ("stage_items", "cultures", "seed"))


def test_docstrings_and_formulas_are_rendered(site):
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "arithmatex" not in text, page
        assert "*optional*" not in text and "[`" not in text, page
    assert "<math" in (site / "concepts" / "drdm.html").read_text(encoding="utf-8")


def test_the_search_knows_the_pages(site):
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "tutorials/first-city.html" in index and "spread/skill" in index


def test_figures_are_small_and_those_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["figures.py", "--output", str(tmp_path)])
    runpy.run_path(str(ROOT / "docs" / "figures.py"), run_name="__main__")
    drawn = sorted(tmp_path.iterdir())
    assert len(drawn) == 6
    for path in drawn:
        committed = ROOT / "docs" / "images" / path.name
        assert committed.stat().st_size < 120 * 1024
        now, before = imread(path), imread(committed)
        assert now.shape == before.shape, "run docs/figures.py"
        assert abs(now - before).mean() < 0.01, f"{path.name} is out of date: run docs/figures.py"
