# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.image import imread
from support.tiny import tiny_unet

from zoomdiff_diffusers import ContextProcessor, DRDMScheduler, Hierarchy, TrafficProcessor, ZoomDiffPipeline
from zoomdiff_diffusers.data.demo_city import load_demo_context
from zoomdiff_diffusers.data.simulated_city import SIMULATED_LAYERS, SimulatedCity


ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo as it is run by `make demo`, with a network of random weights."""
    folder = tmp_path_factory.mktemp("demo")
    city = SimulatedCity(16, 16, seed=0)
    context_processor = ContextProcessor(SIMULATED_LAYERS).fit([city.context])
    pipe = ZoomDiffPipeline(
        unet=tiny_unet(context_processor.layer_specs),
        scheduler=DRDMScheduler(),
        hierarchy=Hierarchy(),
        traffic_processor=TrafficProcessor().fit(city.sample_traffic(1)),
        context_processor=context_processor,
    )
    pipe.save_pretrained(folder / "model")
    options = ["--model", str(folder / "model"), "--samples", "3"]
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), *options]
    done = subprocess.run([*command, "--output", str(folder / "out")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "out", done


def test_the_progress_bar_names_every_level(demo):
    _, done = demo
    for name in Hierarchy().names:
        assert re.search(rf"Level \d of 4, {name}:", done.stderr)


def test_the_table_shows_equal_totals_and_exact_sums(demo):
    _, done = demo
    rows = [
        line.split() for line in done.stdout.splitlines() if line.split()[:1] and line.split()[0] in Hierarchy().names
    ]
    assert [row[0] for row in rows] == Hierarchy().names
    totals = [float(row[-3].replace(",", "")) for row in rows]
    assert totals == pytest.approx([totals[0]] * 4, rel=1e-6) and totals[0] > 0
    assert all(float(row[-2]) <= 1e-5 for row in rows[1:])


def test_the_store_has_all_levels_with_coordinates_and_provenance(demo):
    folder, _ = demo
    assert sorted(path.name for path in folder.iterdir()) == ["context.png", "traffic.nc", "zoom.png"]
    context = load_demo_context()
    with xr.open_datatree(folder / "traffic.nc", engine="netcdf4") as tree:
        assert {"source", "seed", "comment", "date_created"} <= set(tree.attrs)
        assert "© OpenStreetMap contributors" in tree.attrs["licence"]
        shapes = [tree[name]["traffic"].shape for name in Hierarchy().names]
        assert shapes == [(3, 1, *shape) for shape in Hierarchy().shapes(168, 32, 16)]
        finest = tree["grid_50m"]["traffic"]
        assert finest.attrs["units"] == "MB" and float(finest.min()) >= 0
        assert finest.time.dt.dayofweek.values[0] == 0
        for axis in ("y", "x"):
            np.testing.assert_array_equal(finest[axis], context[axis])


@pytest.mark.parametrize("name", ["context.png", "zoom.png"])
def test_the_pictures_are_not_empty(demo, name):
    folder, _ = demo
    picture = imread(folder / name)
    assert picture.shape[1] > 1000 and np.unique(picture[..., :3].reshape(-1, 3), axis=0).shape[0] > 200
