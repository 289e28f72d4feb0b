# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
Reading from a Hub that somebody else wrote: olah (PyPI), which serves local git repositories. It needs another version
of psutil than `constraints.txt`, so it has to be installed on its own: `pipx install olah`, or its `olah-cli` in OLAH.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import hub_client
from support.tiny import tiny_pipeline


ROOT = Path(__file__).parents[2]
OLAH = os.environ.get("OLAH") or shutil.which("olah-cli")


@pytest.fixture
def olah(tmp_path):
    """The address of a running olah with one repository, org/lyon."""
    repository = tmp_path / "mirrors" / "models" / "org" / "lyon"
    pipe = tiny_pipeline(regression=True)
    pipe.training_summary = hub_client.SUMMARY
    pipe.save_pretrained(repository)
    identity = ["-c", "user.name=planner", "-c", "user.email=planner@example.org"]
    for words in (["init", "--quiet", "--initial-branch", "main"], ["add", "."], [*identity, "commit", "-qm", "Lyon"]):
        subprocess.run(["git", "-C", str(repository), *words], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [
        "[basic]",
        f"mirrors-path = [{json.dumps(str(tmp_path / 'mirrors'))}]",
        f"repos-path = {json.dumps(str(tmp_path / 'repos'))}",
        "[accessibility]",
        "offline = true",
    ]
    (tmp_path / "olah.toml").write_text("\n".join(settings))
    words = ["--config", str(tmp_path / "olah.toml"), "--host", "127.0.0.1", "--port", str(port)]
    log = open(tmp_path / "olah.log", "w")
    with log, subprocess.Popen([OLAH, *words], stdout=log, stderr=log, cwd=tmp_path) as process:
        try:
            _wait_for(port, process, tmp_path / "olah.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_for(port, process, log):
    for _ in range(300):
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.mark.skipif(OLAH is None, reason="olah-cli is not installed (it cannot be beside our versions)")
def test_a_pipeline_loads_from_olah(olah, tmp_path):
    settings = {
        "HF_ENDPOINT": olah,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, hub_client.__file__, "read_only", str(tmp_path)]
    done = subprocess.run(command, env=os.environ | settings | paths, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads((tmp_path / "read_only.json").read_text())
    assert answer == {"classes": 2 * ["ZoomDiffPipeline"], "component": "ZoomDiffUNet", "summary": hub_client.SUMMARY}
    read, expected = np.load(tmp_path / "read_only.npz"), hub_client.generate(tiny_pipeline(regression=True))
    for name, values in expected.items():
        np.testing.assert_allclose(read[name], values, rtol=1e-5, atol=1e-5)
