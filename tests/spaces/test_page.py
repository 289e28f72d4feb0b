# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""The page in a process of its own: used through the API, by hand-made requests, and in a browser."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from support.osm_city import draw_city
from zoomdiff_space import areas, limits

from zoomdiff_diffusers.evaluation.inputs import read_traffic


ROOT = Path(__file__).parents[2]
SPACE = ROOT / "spaces" / "zoomdiff"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SMALL = next(iter(areas.SIZES))
FIRST_RESULT_SECONDS = 15


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """`python app.py`, its address, its folder for files and what it said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "PYTHONPATH": str(ROOT / "src"),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "2",
    }
    with open(folder / "log.txt", "w") as log:
        started = time.perf_counter()
        command = [sys.executable, str(SPACE / "app.py")]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{address}/config", timeout=5)
                break
            except httpx.TransportError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.perf_counter() - started < 120
                time.sleep(0.2)
        yield address, folder
        assert process.poll() is None, "the server died: " + (folder / "log.txt").read_text()[-2000:]
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def client(server, tmp_path):
    client = Client(server[0], verbose=False, analytics_enabled=False, download_files=tmp_path / "downloads")
    yield client
    client.close()


def generate(
    client, source=areas.EXAMPLE, size=SMALL, number=1, file=None, day="2026-03-02", samples=2, seed=0, steps=8
):
    return client.predict(source, size, number, file, day, samples, seed, steps, api_name="/generate")


# The API


def test_generate_zoom_and_download_through_the_api(client):
    answers = generate(client, areas.SIMULATED, number=7, samples=3)
    traffic = read_traffic(answers[1]["value"])
    assert traffic.levels["grid_50m"].shape == (3, 1, 168, 24, 32) and "simulated city 7" in traffic.attrs["title"]
    table = pd.read_csv(client.predict("cell", api_name="/csv")["value"])
    assert len(table) == 42 * 6 * 8
    totals = traffic.levels["cell"][1].sum(dtype=np.float64) * 16 * 4
    assert table["sample_1"].sum() == pytest.approx(totals, rel=1e-5)
    plot, text = client.predict(23, 31, api_name="/series")
    assert "Row 23, column 31" in text
    assert len(json.loads((plot.get("value") or plot)["plot"])["data"]) == 12


def test_an_uploaded_area_and_table_are_refined(client):
    upload = handle_file(areas.EXAMPLES / "area.nc")
    stations = handle_file(areas.EXAMPLES / "stations.csv")
    answers = client.predict(areas.OWN, SMALL, 1, upload, stations, 2, 0, 8, api_name="/refine")
    given = pd.read_csv(areas.EXAMPLES / "stations.csv", parse_dates=["date"]).dropna().set_index(["date", "y", "x"])
    with xr.open_datatree(answers[1]["value"]) as tree:
        hourly = tree["grid_50m"]["traffic"].astype(np.float64)
        daily = hourly.resample(time="1D").sum().coarsen(y=8, x=8).sum().isel(channel=0)
        for sample in range(2):
            found = daily.isel(sample=sample).to_series().rename_axis(index={"time": "date"})
            np.testing.assert_allclose(found.reindex(given.index), given["value"], rtol=1e-5)


def test_compare_through_the_api(client):
    text, _ = client.predict(SMALL, 3, 2, 0, 8, api_name="/compare")
    assert "Simulated city 3" in text and text.count("<tr>") == 5


def test_what_if_through_the_api(client):
    inputs = [areas.HELSINKI, SMALL, 1, None, "park", 8, 4, 200, "2026-03-02", 3, 0, 8]
    answer = client.predict(*inputs, api_name="/what_if")
    text, file = answer[0], next(part["value"] for part in answer[::-1] if isinstance(part, dict) and "value" in part)
    assert "Park in central Helsinki" in text and "traffic falls" in text and "simulated cities" in text
    assert "© OpenStreetMap contributors" in text
    with xr.open_datatree(file) as tree:
        assert tree["grid_50m"]["difference"].shape == (1, 168, 32, 16) and "OpenStreetMap" in tree.attrs["licence"]
        assert tree["grid_50m"]["period_difference"][0, 6:10, 2:6].max() < 0


def test_an_extract_of_openstreetmap_through_the_api(client, tmp_path):
    path = draw_city().write(tmp_path / "city.osm.pbf", timestamp="2026-03-01T20:21:22Z")
    answers = generate(client, areas.EXTRACT, file=handle_file(path))
    assert "Generated traffic of your extract. Data: © OpenStreetMap contributors" in answers[0]
    assert any("state of the data: 2026-03-01" in str(answer) for answer in answers)


def test_errors_are_sentences(client):
    def message(call, *arguments, **keywords):
        with pytest.raises(AppError) as caught:
            call(*arguments, **keywords)
        assert "Traceback" not in str(caught.value)
        return str(caught.value)

    assert "No file yet" in message(generate, client, areas.OWN)
    assert "an OpenStreetMap extract" in message(generate, client, areas.EXTRACT)
    plan = [areas.EXAMPLE, SMALL, 1, None, "park", 99, 4, 200, "2026-03-02", 3, 0, 8]
    assert "Row must be between 0 and 23" in message(client.predict, *plan, api_name="/what_if")
    assert "written as 2026-03-02" in message(generate, client, day="tomorrow")
    assert "maximum value 9999" in message(generate, client, areas.SIMULATED, number=10**6)
    assert "Generate or refine first" in message(client.predict, 1, 1, api_name="/series")
    generate(client)
    assert "maximum value 23" in message(client.predict, 24, 1, api_name="/series")


def test_the_examples_do_not_lie_among_the_files_that_are_deleted(server):
    components = httpx.get(f"{server[0]}/config").json()["components"]
    offered = [
        part["props"]["value"]["path"]
        for part in components
        if (part["props"].get("value") or {}) and part["type"] == "downloadbutton"
    ]
    assert {Path(path).name for path in offered} == {"area.nc", "stations.csv"}
    for path in offered:
        content = httpx.get(f"{server[0]}/gradio_api/file={path}").raise_for_status().content
        assert content == (areas.EXAMPLES / Path(path).name).read_bytes()
        assert not Path(path).is_relative_to(server[1])


# Requests made by hand


def joined(server, name, data, session="x"):
    """Call an endpoint as a hostile client would; return the last event and its text."""
    call = httpx.post(f"{server[0]}/gradio_api/call/{name}", json={"data": data, "session_hash": session}, timeout=30)
    if call.status_code != 200:
        return "refused", call.text
    text = httpx.get(f"{server[0]}/gradio_api/call/{name}/{call.json()['event_id']}", timeout=60).text
    events = [block for block in text.split("\n\n") if block.startswith("event: ") and "heartbeat" not in block]
    return events[-1].splitlines()[0].removeprefix("event: "), events[-1]


@pytest.mark.parametrize("kind", ["absolute", "relative", "folder", "environment"])
def test_no_file_of_the_machine_is_read(server, tmp_path, kind):
    (tmp_path / "secret.csv").write_text("date,y,x,value\n2026-03-02,0,0,4711\n")
    path = {
        "absolute": str(tmp_path / "secret.csv"),
        "relative": os.path.relpath(tmp_path / "secret.csv", server[1]),
        "folder": f"{server[1]}/../{tmp_path.name}/secret.csv",
        "environment": "/proc/self/environ",
    }[kind]
    file = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "a.csv"}
    event, text = joined(server, "refine", [areas.EXAMPLE, SMALL, 1, None, file, 2, 0, 8])
    assert event in ("error", "refused") and "4711" not in text
    assert httpx.get(f"{server[0]}/gradio_api/file={path}").status_code in (403, 404)
    assert httpx.get(f"{server[0]}/gradio_api/file=../../../etc/passwd").status_code in (403, 404)


def test_no_address_is_fetched(server):
    asked = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments):
            pass

    listener = HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{listener.server_port}/stations.csv"
    for file in ({"path": address}, {"path": address, "url": address}, {"path": "a.csv", "url": address}):
        file["meta"] = {"_type": "gradio.FileData"}
        event, text = joined(server, "refine", [areas.EXAMPLE, SMALL, 1, None, file, 2, 0, 8])
        assert event in ("error", "refused"), text
    listener.shutdown()
    assert asked == []


@pytest.mark.parametrize(
    "name",
    ["../../../evil.csv", "/etc/evil.csv", "=cmd|'x'!A1.csv", "a" * 300 + ".csv", "\u202efdp.csv", "%2e%2e%2fe.csv"],
)
def test_names_of_uploads_do_not_leave_the_folder_and_are_not_used(server, client, name):
    stations = (areas.EXAMPLES / "stations.csv").read_bytes()
    before = set(SPACE.rglob("*"))
    answer = httpx.post(f"{server[0]}/gradio_api/upload", files={"files": (name, stations)})
    if answer.status_code == 200:
        (path,) = answer.json()
        assert Path(path).resolve().is_relative_to(server[1]) and Path(path).is_file()
        file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        event, text = joined(server, "refine", [areas.EXAMPLE, SMALL, 1, None, file, 2, 0, 8])
        assert event == "complete", text
        assert "evil" not in text and "cmd|" not in text
    else:
        assert answer.status_code in (400, 422, 500)
    assert set(SPACE.rglob("*")) - before <= {path for path in SPACE.rglob("*") if "__pycache__" in path.parts}
    assert httpx.get(f"{server[0]}/config").status_code == 200


def test_uploads_over_the_limit_are_refused(server):
    files = {"files": ("a.nc", bytes(limits.MAX_UPLOAD_BYTES + 1))}
    assert httpx.post(f"{server[0]}/gradio_api/upload", files=files, timeout=30).status_code == 413


def test_numbers_that_no_form_would_send_are_refused(server):
    for samples, seed, steps in ((10**9, 0, 8), (2, -5, 8), (2, 0, 10**6), ("<b>", 0, 8), (None, 0, 8), (2, 1e308, 8)):
        event, text = joined(server, "generate", [areas.EXAMPLE, SMALL, 1, None, "2026-03-02", samples, seed, steps])
        assert event in ("error", "refused"), text
    for source, size in (("Elsewhere", SMALL), (areas.SIMULATED, "1000 × 1000 km")):
        event, text = joined(server, "generate", [source, size, 1, None, "2026-03-02", 2, 0, 8])
        assert event in ("error", "refused"), text


@pytest.mark.parametrize(
    "plan",
    [
        ["castle", 8, 4, 200],
        ["park", [8], 4, 200],
        ["park", 8, -1, 200],
        ["park", 8, 1e308, 200],
        ["park", 8, 4, 10**9],
        ["park", 8, 4, "<b>"],
        [None, None, None, None],
    ],
)
def test_plans_made_by_hand_are_refused(server, plan):
    event, text = joined(server, "what_if", [areas.HELSINKI, SMALL, 1, None, *plan, "2026-03-02", 2, 0, 8])
    assert event in ("error", "refused") and "Traceback" not in text


def test_simultaneous_visitors_get_their_own_result(server, tmp_path):
    def visit(number):
        client = Client(server[0], verbose=False, analytics_enabled=False, download_files=tmp_path / str(number))
        answer = generate(client, areas.SIMULATED, number=number)
        table = Path(client.predict("bs", api_name="/csv")["value"]).read_bytes()
        client.close()
        assert f"simulated city {number}" in answer[0]
        return table

    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(visit, range(1, 5)))
    assert len(set(tables)) == 4


# The browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(server, browser):
    """Open the page; afterwards, check that nothing else was asked for and nothing went wrong."""
    contexts, requests, complaints = [], [], []

    def opened(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("websocket", lambda websocket: requests.append(websocket.url))
        page.on("console", lambda entry: complaints.append(entry.text) if entry.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server[0])
        page.locator("#generate-button").wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    outside = [url for url in requests if not url.startswith((server[0], "data:", "blob:"))]
    assert requests and outside == [] and complaints == []


def column_count(page):
    """How many maps stand in a row."""
    tops = page.eval_on_selector_all("#zoom-viewer canvas", "all => all.map(one => one.getBoundingClientRect().top)")
    return tops.count(tops[0])


def pixel(page, index, x, y):
    """The colour of a map at a relative position."""
    script = """([index, x, y]) => { const canvas = document.querySelectorAll('#zoom-viewer canvas')[index];
        return [...canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data]; }"""
    return page.evaluate(script, [index, x, y])


def press_generate(page):
    started = time.perf_counter()
    page.click("#generate-button")
    page.get_by_text("Every level adds up to the one above it").first.wait_for(timeout=60_000)
    return time.perf_counter() - started


def test_generate_and_zoom_in_a_browser(visit, tmp_path):
    page = visit(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page.get_by_text("Settings: samples, seed, steps").first.click()
    page.get_by_label("Another simulated city").first.check()
    page.get_by_label("City number").first.fill("12")
    page.click("#generate-button")
    page.get_by_text("Level").filter(has_text="of 4:").first.wait_for(
        timeout=30_000
    )  # the progress bar names the level
    page.get_by_text("Every level adds up to the one above it").first.wait_for(timeout=60_000)
    assert page.get_by_text("Generated traffic of simulated city 12").count()
    for button, name in (("Download NetCDF, all levels", "t.nc"), ("Download CSV, one level", "t.csv")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / name)
    with xr.open_datatree(tmp_path / "t.nc") as tree:
        assert tree["cell"]["traffic"].shape == (8, 1, 42, 6, 8)
    assert pd.read_csv(tmp_path / "t.csv")["sample_7"].gt(0).all()

    page.get_by_role("button", name="Look closer in Zoom").click()
    page.locator("#zoom-viewer canvas").nth(3).wait_for()
    assert column_count(page) == 4
    slider, when = page.get_by_label("Hour of the period"), page.locator("#zd-when")
    slider.fill("4")
    assert when.text_content() == "Monday 2 March 2026, 04:00"
    night = [pixel(page, 3, x / 9 + 0.01, 0.31) for x in range(1, 9)]
    slider.press("Home")
    for _ in range(14):
        slider.press("ArrowRight")
    assert when.text_content() == "Monday 2 March 2026, 14:00" == slider.get_attribute("aria-valuetext")
    day = [pixel(page, 3, x / 9 + 0.01, 0.31) for x in range(1, 9)]
    assert sum(map(sum, day)) > sum(map(sum, night))

    box = page.locator("#zoom-viewer canvas").nth(3).bounding_box()
    page.mouse.click(box["x"] + box["width"] * 5.5 / 32, box["y"] + box["height"] * 20.5 / 24)
    page.get_by_text("Row 3, column 5: 275 m from the west edge, 175 m from the south edge").wait_for()
    assert (
        page.get_by_role("spinbutton", name="Row").input_value() == "3"
        and page.get_by_role("spinbutton", name="Column").input_value() == "5"
    )
    assert page.locator(".js-plotly-plot").last.locator(".scatterlayer .trace").count() == 12
    page.locator("#zoom-viewer canvas").nth(1).focus()
    page.keyboard.press("ArrowUp")  # one cell of that level: four of the finest
    page.get_by_text("Row 7, column 5:").wait_for()
    page.get_by_role("spinbutton", name="Column").fill("30")
    page.keyboard.press("Enter")
    page.get_by_text("Row 7, column 30:").wait_for()
    page.locator("#zoom-viewer canvas[aria-label*='Base station, 400 m, 1 day'][aria-label*='column 30']").wait_for()
    assert when.text_content() == "Monday 2 March 2026, 14:00"
    before = pixel(page, 3, 0.5, 0.5), pixel(page, 2, 0.3, 0.6), pixel(page, 3, 0.7, 0.2)
    page.get_by_label("Maps show").click()
    page.get_by_role("option", name="Sample 3").click()
    page.wait_for_timeout(1500)
    assert (pixel(page, 3, 0.5, 0.5), pixel(page, 2, 0.3, 0.6), pixel(page, 3, 0.7, 0.2)) != before


def test_what_if_in_a_browser(visit, tmp_path):
    from playwright.sync_api import expect

    page = visit(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page.get_by_role("tab", name="What if").click()
    land = page.locator("#plan-map canvas")
    land.wait_for()
    assert page.get_by_text("© OpenStreetMap contributors").locator("visible=true").count() == 1
    assert page.locator("#plan-map li").filter(has_text="railway").count() == 1
    box = land.bounding_box()
    assert box["height"] < 600 and abs(box["height"] / box["width"] - 2) < 0.05  # 32 x 16 cells
    land.click(position={"x": box["width"] * 4.5 / 16, "y": box["height"] * 24.5 / 32})
    page.locator("#plan-map canvas[aria-label*='row 7, column 4']").wait_for()
    field = page.get_by_role("spinbutton", name="Row").locator("visible=true")
    expect(field).to_have_value("7")
    before = land.screenshot()
    page.get_by_role("spinbutton", name="number input for Side of the square, m").fill("500")
    page.keyboard.press("Enter")
    page.wait_for_timeout(1000)
    assert land.screenshot() != before  # the square grows in the browser
    land.focus()
    page.keyboard.press("ArrowUp")
    expect(field).to_have_value("8")
    page.get_by_label("What is built").click()
    page.get_by_role("option", name="Park").click()
    page.click("#plan-button")
    page.get_by_text("Without, level").first.wait_for(timeout=30_000)
    page.get_by_text("Park in central Helsinki").first.wait_for(timeout=60_000)
    page.locator("#plan-viewer canvas").nth(3).wait_for()
    assert page.get_by_text("learnt from simulated cities about such places").count() == 1
    assert page.locator("#plan-viewer input").count() == 0  # no hours: one map of the period per level
    page.locator("#plan-viewer canvas").nth(3).click(position={"x": 5, "y": 5})
    page.get_by_text("Row 31, column 0: traffic of the whole period").wait_for()
    shown = page.locator("#plan-viewer canvas").nth(3).screenshot()
    page.get_by_label("Maps show").locator("visible=true").click()
    page.get_by_role("option", name="Spread of that").click()
    page.get_by_text("dark is little, bright is much").locator("visible=true").wait_for()
    assert page.locator("#plan-viewer canvas").nth(3).screenshot() != shown
    with page.expect_download() as download:
        page.get_by_role("button", name="Download NetCDF, all levels").locator("visible=true").click()
    download.value.save_as(tmp_path / "d.nc")
    with xr.open_datatree(tmp_path / "d.nc") as tree:
        edited = tree["edited_after"] - tree["edited_before"]
        assert (edited < 0).all()
    page.get_by_label("Another simulated city").locator("visible=true").check()
    page.locator("#plan-map canvas[aria-label*='Land use of simulated city 1.']").wait_for()


def test_charts_and_maps_suit_the_dark(visit):
    page = visit(viewport={"width": 1200, "height": 900}, color_scheme="dark")
    press_generate(page)
    chart = page.locator(".js-plotly-plot").first
    chart.wait_for()
    assert page.evaluate("document.body.classList.contains('dark')")
    style = "getComputedStyle(document.querySelector('.js-plotly-plot {0}')).{1}"
    assert page.evaluate(style.format(".xtick text", "fill")) == page.evaluate("getComputedStyle(document.body).color")
    assert page.evaluate(style.format(".main-svg", "backgroundColor")) == "rgba(0, 0, 0, 0)"


def test_refine_and_compare_in_a_browser(visit):
    page = visit(viewport={"width": 1200, "height": 900})
    page.get_by_role("tab", name="Refine").click()
    page.click("#refine-button")
    page.get_by_text("No file yet: upload base-station traffic").wait_for()  # a message, and the page goes on
    page.click("#example-button")
    page.get_by_text("2.1 KB").wait_for()
    page.click("#refine-button")
    page.get_by_text("79 measured values were used. 5 were missing").wait_for(timeout=60_000)
    page.get_by_role("tab", name="Compare").click()
    page.click("#compare-button")
    page.get_by_text("over 8 true weeks that the model has not seen").wait_for(timeout=60_000)
    assert page.locator(".zd-table").last.locator("tbody tr").count() == 4


def test_uploads_in_a_browser(visit, tmp_path):
    page = visit(viewport={"width": 1200, "height": 900})
    page.get_by_label("Your own context file").first.check()
    (tmp_path / "bad.nc").write_bytes(b"PK\x03\x04" + bytes(50))
    upload = page.locator(".block:visible", has_text="Your file (.nc or .osm.pbf)").last
    # It appears when the server has answered the choice. A click, as of a person, waits until it listens.
    with page.expect_file_chooser() as chooser:
        upload.get_by_role("button", name="Click to Upload").click()
    chooser.value.set_files(tmp_path / "bad.nc")
    # Once it is uploaded; before, the name is shown in one piece, for too short to wait for.
    page.get_by_role("cell", name="bad.nc").wait_for()
    page.click("#generate-button")
    page.get_by_text("must be NetCDF (.nc), but is a ZIP archive").wait_for(timeout=30_000)


def test_a_phone_shows_all_without_scrolling_sideways(visit):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert press_generate(page) < FIRST_RESULT_SECONDS * 2  # also where other tests share the cores
    for tab in ("Generate", "Zoom", "What if", "Refine", "Compare"):
        page.get_by_role("tab", name=tab).tap()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        if tab == "Zoom":
            assert column_count(page) == 2
            page.locator("#zoom-viewer canvas").nth(2).tap()
            page.get_by_text("m from the south edge").wait_for()


def test_the_keyboard_reaches_the_main_button_and_every_input_has_a_name(visit):
    page = visit(viewport={"width": 1200, "height": 900})
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "generate-button":
            break
    assert page.evaluate("document.activeElement.id") == "generate-button"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.keyboard.press("Enter")
    page.get_by_text("Every level adds up to the one above it").first.wait_for(timeout=60_000)
    nameless = """() => [...document.querySelectorAll('input, select, textarea, button, canvas')].filter(node =>
        node.offsetParent && node.type !== 'file' && !node.labels?.length && !node.textContent.trim()
        && !node.getAttribute('aria-label') && !node.getAttribute('aria-labelledby') && !node.title)
        .map(node => node.outerHTML.slice(0, 200))"""
    for tab in ("Generate", "Zoom", "What if", "Refine", "Compare"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(200)
        assert page.evaluate(nameless) == []
