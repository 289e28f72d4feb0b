# Copyright 2026 The ZoomDiff for Diffusers authors. Licensed under the Apache License, Version 2.0.
"""
The page of spaces/zoomdiff under many visitors at once: who gets an answer, and what memory and files are left behind.

    python -m benchmarks.space_load --users 20 --requests 200

Starts the page in a process of its own, on a free port of this machine. Every user has a session and sends the next
request when the answer is there: mostly a run of the model (generate, refine, compare), otherwise series and downloads
of the last result, and now and then something that must be refused. At the end more runs are asked for at once than
the queue takes. Files and results are kept for a short time only (`--keep`), so that what is left after it is a leak.
"""

import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from .report import make_parser, publish


SPACE = Path(__file__).parents[1] / "spaces" / "zoomdiff"
SIZES = ["1.2 × 1.6 km (24 × 32 cells)", "1.6 × 2.4 km (32 × 48 cells)"]
SERVE = (
    "import sys; sys.path.insert(0, {space!r})\n"
    "from zoomdiff_space import limits; limits.KEEP_SECONDS = {keep}\n"
    "import app; app.start(quiet=True)"
)
WARM_UP = 10
BURST = 80  # twice what the queue takes


class Server:
    """The page in a process of its own, and what can be seen of it from outside."""

    def __init__(self, keep):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "TMPDIR": self.folder.name}
        environment["PYTHONPATH"] = os.pathsep.join([str(SPACE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
        self.started = time.perf_counter()
        self.log = open(Path(self.folder.name) / "log.txt", "w")
        command = [sys.executable, "-c", SERVE.format(space=str(SPACE), keep=keep)]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=subprocess.STDOUT)
        self.address = f"http://127.0.0.1:{port}"
        while not self.answers():
            if self.process.poll() is not None:
                raise RuntimeError((Path(self.folder.name) / "log.txt").read_text())
            time.sleep(0.1)
        self.start_seconds = time.perf_counter() - self.started

    def answers(self):
        try:
            return httpx.get(f"{self.address}/config", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    def memory(self):
        """Resident memory of the page in MiB."""
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def files(self):
        """Files and folders that the page keeps, and their size in MiB."""
        count, size = 0, 0
        for folder, folders, files in os.walk(self.folder.name):
            files = [name for name in files if name != "log.txt"]
            count += len(folders) + len(files)
            for name in files:
                with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                    size += os.path.getsize(os.path.join(folder, name))
        return {"entries": count, "mib": size / 2**20}

    def descriptors(self):
        return psutil.Process(self.process.pid).num_fds()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        self.folder.cleanup()


class Watch(threading.Thread):
    """Looks at the server twice a second: largest memory, most files, slowest answer to a plain request."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.done = server, threading.Event()
        self.peak_memory, self.most_files, self.slowest, self.unanswered = 0.0, 0, 0.0, 0

    def run(self):
        while not self.done.wait(0.5):
            self.peak_memory = max(self.peak_memory, self.server.memory())
            self.most_files = max(self.most_files, self.server.files()["entries"])
            started = time.perf_counter()
            self.unanswered += not self.server.answers()
            self.slowest = max(self.slowest, time.perf_counter() - started)


class User:
    """One visitor."""

    def __init__(self, server, seed):
        self.random = random.Random(seed)
        self.downloads = tempfile.TemporaryDirectory()
        self.client = Client(
            server.address, verbose=False, analytics_enabled=False, download_files=self.downloads.name
        )
        self.has_result = False

    def request(self):
        """Send one; return its kind, how it ended and the seconds."""
        kinds = ["generate"] * 5 + ["refine", "compare", "upload", "wrong"] + ["series", "csv"] * 2 * self.has_result
        kind = self.random.choice(kinds)
        started = time.perf_counter()
        try:
            self.send(kind)
            ending = "answered"
            self.has_result |= kind in ("generate", "refine", "upload")
        except AppError as error:
            full = "queue is full" in str(error).lower()
            expired = "There is no result" in str(error)
            ending = "queue_full" if full else "expired" if expired else f"failed: {str(error)[:100]}"
            ending = "refused" if kind == "wrong" and not full else ending
        except Exception as error:  # noqa: BLE001 whatever goes wrong is counted
            ending = f"failed: {type(error).__name__} {str(error)[:100]}"
        return kind, ending, time.perf_counter() - started

    def send(self, kind):
        number, size = self.random.randint(1, 9999), self.random.choice(SIZES)
        if kind == "generate":
            arguments = ["Another simulated city", size, number, None, "2026-03-02", 8, number, 28]
        elif kind == "upload":
            file = handle_file(SPACE / "examples" / "area.nc")
            arguments = ["Your own context file", size, 1, file, "2026-03-02", 4, number, 28]
        elif kind == "refine":
            arguments = [
                "Simulated example city",
                size,
                1,
                None,
                handle_file(SPACE / "examples" / "stations.csv"),
                4,
                number,
                28,
            ]
        elif kind == "compare":
            arguments = [SIZES[0], number, 4, number, 28]
        elif kind == "wrong":
            file = handle_file(SPACE / "examples" / "stations.csv")
            arguments, kind = ["Your own context file", size, 1, file, "2026-03-02", 4, 0, 28], "generate"
        elif kind == "series":
            arguments = [self.random.randint(0, 23), self.random.randint(0, 31)]
        else:
            arguments = [self.random.choice(["bs", "cell", "grid_100m", "grid_50m"])]
        self.client.predict(*arguments, api_name="/generate" if kind == "upload" else f"/{kind}")

    def leave(self):
        self.client.close()
        self.downloads.cleanup()


def burst(server):
    """Ask for more runs at once than the queue takes; nobody waits for the answers."""
    data = ["Simulated example city", SIZES[0], 1, None, "2026-03-02", 2, 0, 8]

    def ask(index):
        body = {"data": data, "session_hash": f"burst-{index}"}
        return httpx.post(f"{server.address}/gradio_api/call/generate", json=body, timeout=120).status_code

    with ThreadPoolExecutor(BURST) as pool:
        return Counter(pool.map(ask, range(BURST)))


def percentiles(seconds):
    return {f"p{share}": float(np.percentile(seconds, share)) for share in (50, 90, 100)} | {"count": len(seconds)}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--users", type=int, default=20, help="visitors at the same time (default: 20)")
    parser.add_argument("--requests", type=int, default=200, help="requests of all of them (default: 200)")
    parser.add_argument("--keep", type=int, default=90, help="seconds that the page keeps results (default: 90)")
    arguments = parser.parse_args()
    server = Server(arguments.keep)
    try:
        publish(measure(server, arguments), arguments)
    finally:
        server.stop()


def measure(server, arguments):
    before = server.files()
    first = User(server, arguments.seed)
    first.send("generate")
    first_result = time.perf_counter() - server.started
    for _ in range(WARM_UP):
        first.request()
    first.leave()
    warm_memory, warm_descriptors = server.memory(), server.descriptors()

    watch = Watch(server)
    watch.start()
    users = [User(server, arguments.seed + 1 + index) for index in range(arguments.users)]
    endings, memory, lock = [], [], threading.Lock()
    left = iter(range(arguments.requests))

    def visit(user):
        while True:
            with lock:
                if next(left, None) is None:
                    return
            ending = user.request()
            with lock:
                endings.append(ending)
                if len(endings) % 50 == 0:
                    memory.append(round(server.memory()))

    started = time.perf_counter()
    with ThreadPoolExecutor(arguments.users) as pool:
        list(pool.map(visit, users))
    seconds = time.perf_counter() - started
    refused = burst(server)
    for user in users:
        user.leave()
    after_load = server.files()
    # The page first works off its queue; files and results older than `keep` are looked for every minute or two.
    time.sleep(arguments.keep + 240)
    watch.done.set()
    watch.join()
    model = [took for kind, _, took in endings if kind in ("generate", "refine", "compare", "upload")]
    quick = [took for kind, _, took in endings if kind in ("series", "csv")]
    return {
        "seconds_to_first_result_from_process_start": first_result,
        "seconds_to_page_from_process_start": server.start_seconds,
        "seconds": seconds,
        "requests": dict(Counter(kind for kind, _, _ in endings)),
        "endings": dict(Counter(ending for _, ending, _ in endings)),
        "seconds_per_model_run_with_waiting": percentiles(model),
        "seconds_per_series_or_download": percentiles(quick),
        "burst": {"asked": BURST, "queued": refused[200], "refused": refused[503]},
        "alive_afterwards": server.process.poll() is None and server.answers(),
        "plain_requests": {"slowest_seconds": watch.slowest, "unanswered": watch.unanswered},
        "memory_mib": {
            "warm": warm_memory,
            "after_every_50_requests": memory,
            "peak": watch.peak_memory,
            "final": server.memory(),
        },
        "files": {"before": before, "most": watch.most_files, "after_load": after_load, "final": server.files()},
        "descriptors": {"warm": warm_descriptors, "final": server.descriptors()},
    }


if __name__ == "__main__":
    main()
