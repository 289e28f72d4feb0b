# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
import shutil

import numpy as np
import pytest
import xarray
from support.tiny import interrupted, random_context, tiny_pipeline

from zoomdiff_diffusers.data.ensembles import summarise_ensemble


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Five samples of an area of 24 x 40 cells and two days, in chunks of one day and 24 x 24 cells."""
    layers = random_context(2, 48, 24, 40)
    context = xarray.Dataset({"surface": (("y", "x"), layers["surface"])}, {"x": 50.0 * np.arange(40)})
    path = tmp_path_factory.mktemp("store") / "city.zarr"
    options = {"num_hours": 48, "num_samples": 5, "num_inference_steps": 8, "units": "sum", "window": (1, 3, 3)}
    return tiny_pipeline(channels=2).generate_city(context, path, **options)


def read(path):
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        return tree.load()


def test_statistics_are_those_of_xarray(store, tmp_path):
    samples = read(store)
    threshold = float(samples["cell/traffic"].median())
    path = summarise_ensemble(store, tmp_path / "summary.zarr", [0.25, 0.9], {"cell": threshold})
    summary = read(path)
    for name in samples.children:
        traffic, found = samples[name]["traffic"].astype("f8"), summary[name]
        scale = float(traffic.mean())
        xarray.testing.assert_allclose(found["mean"], traffic.mean("sample"), atol=1e-5 * scale)
        xarray.testing.assert_allclose(found["std"], traffic.std("sample", ddof=1), atol=1e-5 * scale)
        expected = traffic.quantile([0.25, 0.9], "sample")
        np.testing.assert_allclose(found["quantiles"], expected, rtol=1e-5, atol=1e-5 * scale)
        assert ("exceedance" in found) == (name == "cell")
    above = (samples["cell/traffic"] > threshold).mean("sample")
    np.testing.assert_allclose(summary["cell/exceedance"], above)
    assert 0 < float(above.mean()) < 1 and summary["cell/exceedance"].attrs["threshold"] == threshold
    assert summary["grid_50m"]["x"].values[-1] == 50 * 39
    assert summary["bs/mean"].attrs["units"] == samples["bs/traffic"].attrs["units"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["summary.zarr"]


def test_a_chunk_that_got_lost_is_no_zero(store, tmp_path):
    path = summarise_ensemble(store, tmp_path / "summary.zarr", [0.5])
    (lost,) = (each for each in (path / "bs" / "mean" / "c" / "0" / "0").rglob("0/1") if each.is_file())
    lost.unlink()
    values = read(path)["bs/mean"]
    assert values.isnull().any() and values.notnull().any()


def test_one_sample_has_no_spread(store, tmp_path):
    context = xarray.Dataset({"surface": (("y", "x"), np.zeros((8, 8), int))})
    one = tiny_pipeline().generate_city(context, tmp_path / "one.zarr", num_hours=24, num_inference_steps=4)
    summary = read(summarise_ensemble(one, tmp_path / "summary.zarr"))
    assert (summary["bs/std"] == 0).all() and summary["bs/quantiles"].shape == (3, 1, 1, 1, 1)


def test_an_unfinished_run_of_the_same_name_is_kept(store, tmp_path):
    context = xarray.Dataset({"surface": (("y", "x"), np.zeros((8, 8), int))})
    city, options = tmp_path / "city.zarr", {"num_hours": 48, "num_inference_steps": 8}
    pipe = tiny_pipeline()
    with interrupted(pipe, calls=5):
        pipe.generate_city(context, city, **options)
    (unfinished,) = tmp_path.iterdir()
    files = sorted(unfinished.rglob("*"))
    summarise_ensemble(store, city, [0.5])
    assert set(tmp_path.iterdir()) == {unfinished, city} and files and sorted(unfinished.rglob("*")) == files
    shutil.rmtree(city)
    pipe.generate_city(context, city, **options)
    assert list(tmp_path.iterdir()) == [city]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"quantiles": [0.5, 1.5]}, "`quantiles` must lie between 0 and 1"),
        ({"thresholds": {"district": 1.0}}, "`thresholds` must name levels out of"),
        ({"output": "summary.nc"}, "`output` must end in .zarr"),
    ],
)
def test_what_cannot_be_is_refused(store, tmp_path, options, message):
    output = tmp_path / options.pop("output", "summary.zarr")
    with pytest.raises(ValueError, match=message):
        summarise_ensemble(store, output, **options)
    assert list(tmp_path.iterdir()) == []
