# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
from support.osm_city import HEIGHT, WIDTH, draw_city

from benchmarks import context_speed
from zoomdiff_diffusers.data.open_data import build_context


def test_a_repeated_extract_holds_everything_as_often(tmp_path, monkeypatch):
    monkeypatch.setattr(context_speed, "ACROSS", 2)
    path = draw_city().write(tmp_path / "city.osm.pbf")
    once = build_context(path)
    repeated = build_context(context_speed.repeat_extract(path, 3, tmp_path / "repeated.osm.pbf"))
    assert repeated["poi"].sum() == 3 * once["poi"].sum() == 21
    assert abs(repeated["building_volume"].sum() / once["building_volume"].sum() - 3) < 0.01
    assert repeated.sizes["y"] >= 2 * HEIGHT and repeated.sizes["x"] >= 2 * WIDTH
