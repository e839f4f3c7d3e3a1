"""What the service costs beside the physical limit: memory, upload and download, polling, submitting, a whole job.

Run: `python -m benchmarks.service [--json]`. Every figure is measured in this run, ratios side by side; goals are those
of the README. A miss is printed as a miss and makes the exit code 1.
"""

import argparse
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from fastapi import FastAPI

from benchmarks.background import repeating
from benchmarks.closed_loop import build_request, run_load
from benchmarks.demo import load_digits, running_service, train_and_export, wait_until_ready

GIB = 1024**3
MIB = 1024**2
CHUNK = MIB
CONNECTIONS = 50
ROUNDS = 3
ROUND_S = 3.0


@dataclass(frozen=True)
class Figure:
    """One measured figure with its goal; `met` says whether it holds."""

    name: str
    value: float
    unit: str
    goal: str
    met: bool


def create_server() -> FastAPI:
    """The real server with one empty route beside its own: what everything is compared with."""
    from app.main import create_app

    server = create_app()

    @server.get("/empty")
    async def empty() -> dict[str, str]:
        return {}

    return server


@contextmanager
def running_api(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """The API alone on SQLite, with a Valkey beside it and no worker."""
    from app.db.migrate import upgrade
    from app.settings import Settings
    from app.up.valkey import server_command

    broker = folder / "v.sock"
    environment = {**os.environ, "SLIMLINE_DATA": str(folder), "SLIMLINE_BROKER_URL": f"redis+socket://{broker}"}
    upgrade(Settings(data=folder).database)
    port = free_port()
    valkey = subprocess.Popen(server_command(folder, broker), stdout=subprocess.DEVNULL)
    command = [sys.executable, "-m", "uvicorn", "benchmarks.service:create_server", "--factory", "--port", str(port)]
    api = subprocess.Popen([*command, "--no-access-log", "--log-level", "warning"], env=environment)
    try:
        wait_until_ready(folder, f"http://127.0.0.1:{port}")
        yield port, psutil.Process(api.pid)
    finally:
        for process in (api, valkey):
            process.terminate()
            process.wait(15)


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def call(port: int, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
    """One request with a JSON answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    sent = None if body is None else json.dumps(body)
    connection.request(method, path, sent, {"content-type": "application/json"} if sent else {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(text or b"null")


def measure_import() -> list[Figure]:
    code = (
        "import sys, app.main; heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'scipy', 'pandas'};"
        "print(len(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    heavy = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    return [Figure("tensor packages loaded by `import app.main`", heavy, "packages", "0", heavy == 0)]


def plain_loop(source: Path, target: Path) -> float:
    """Seconds to read, hash, write and sync a file: what an upload cannot avoid."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(CHUNK):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def upload(port: int, source: Path, kind: str = "models") -> tuple[float, str]:
    began = time.perf_counter()
    command = ["curl", "-sS", "-F", f"file=@{source}", f"http://127.0.0.1:{port}/v1/{kind}"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return time.perf_counter() - began, answer["id"]


def download(port: int, path: str, target: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["curl", "-sSf", "-o", str(target), f"http://127.0.0.1:{port}{path}"], check=True)
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def measure_transfer(port: int, api: psutil.Process, folder: Path) -> list[Figure]:
    source, target = folder / "random.bin", folder / "copy.bin"
    with source.open("wb") as writing:
        for _ in range(GIB // CHUNK):
            writing.write(os.urandom(CHUNK))
    idle = api.memory_info().rss
    up, down, peak = [], [], [idle]
    for _ in range(ROUNDS):
        loop = plain_loop(source, target)
        with repeating(lambda: peak.append(api.memory_info().rss), 0.01):
            seconds, model = upload(port, source)
        up.append(loop / seconds)
        down.append(plain_loop(source, target) / download(port, f"/v1/models/{model}/content", target))
    source.unlink()
    rise = (max(peak) - idle) / MIB
    return [
        Figure("API memory when idle", idle / MIB, "MiB", "< 150", idle < 150 * MIB),
        Figure(
            "API memory at its peak while 1 GiB is uploaded", max(peak) / MIB, "MiB", "< 150", max(peak) < 150 * MIB
        ),
        Figure("rise of API memory while 1 GiB is uploaded", rise, "MiB", "< 64", rise < 64),
        Figure("upload of 1 GiB, rate over plain read-hash-write", median(up), "x", ">= 0.5", median(up) >= 0.5),
        Figure("download of 1 GiB, rate over plain read-hash-write", median(down), "x", ">= 0.5", median(down) >= 0.5),
    ]


def upload_ready(port: int, folder: Path) -> str:
    """The id of a model that counts as checked, so that jobs on it are sent to the broker; no worker runs here."""
    from app.db import ingest
    from app.db.database import Database
    from app.models.tables import ModelRow
    from app.settings import Settings

    source = folder / "unchecked.onnx"
    source.write_bytes(b"\0" * 1000)
    _, model = upload(port, source)
    database = Database(Settings(data=folder).database)
    with database.write() as session:
        row = ingest.claim(session, ModelRow, model, lease_s=60)
        expect(row and ingest.finish(session, ModelRow, model, row.attempt, {}), "the model could not be made ready")
    database.close()
    return model


def measure_requests(port: int, folder: Path) -> list[Figure]:
    model = upload_ready(port, folder)
    spec = {"model": model, "recipe": [{"method": "prune.magnitude", "amount": 0.5}]}
    _, _, job = call(port, "POST", "/v1/jobs", spec)
    call(port, "POST", f"/v1/jobs/{job['id']}/cancel")  # a settled job: its ETag stays
    own = f"/v1/jobs/{job['id']}"
    _, headers, _ = call(port, "GET", own)
    empty = build_request("GET", "/empty")
    poll = build_request("GET", own, if_none_match=headers["etag"])
    submit = build_request("POST", "/v1/jobs", json.dumps(spec).encode(), content_type="application/json")
    rates, tails = [], []
    for _ in range(ROUNDS):
        bare = run_load(port, empty, connections=CONNECTIONS, seconds=ROUND_S)
        polled = run_load(port, poll, connections=CONNECTIONS, seconds=ROUND_S)
        posted = run_load(port, submit, connections=CONNECTIONS, seconds=ROUND_S)
        expect(bare.statuses == {200} and polled.statuses == {304} and posted.statuses == {202}, "an unexpected status")
        rates.append(polled.per_second / bare.per_second)
        tails.append(posted.percentile(0.99) / bare.percentile(0.99))
    return [
        Figure(
            "polling with If-None-Match, requests/s over an empty route",
            median(rates),
            "x",
            ">= 0.4",
            median(rates) >= 0.4,
        ),
        Figure("submitting a job, p99 over an empty route's", median(tails), "x", "< 10", median(tails) < 10),
    ]


def measure_job(folder: Path) -> list[Figure]:
    train, test = load_digits()
    net, data = train_and_export(train, folder / "digits.onnx"), test.save(folder / "digits.npz")
    with running_service(folder) as url:
        port = int(wait_until_ready(folder, url).rpartition(":")[2])
        model, dataset = upload(port, net)[1], upload(port, data, "datasets")[1]
        beyond = []
        for seed in range(2 * ROUNDS):
            spec = {"model": model, "recipe": [{"method": "quantize.static"}], "seed": seed}
            spec["data"] = {"calibrate": dataset, "evaluate": dataset}
            began = time.perf_counter()
            _, _, job = call(port, "POST", "/v1/jobs", spec)
            _, _, job = call(port, "GET", f"/v1/jobs/{job['id']}?wait=60")
            seconds = time.perf_counter() - began
            expect(job["state"] == "succeeded", f"the job ended {job['state']}: {job['failure']}")
            if seed:  # the first pays for the worker's warm-up
                beyond.append(seconds - job["engine_s"])
    figure = median(beyond)
    return [Figure("a job from POST to succeeded, beyond the engine's own time", figure, "s", "< 0.5", figure < 0.5)]


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def expect(held: object, message: str) -> None:
    if not held:
        sys.exit(f"the benchmark cannot go on: {message}")


def main() -> int:
    """Measure everything, print the table, and exit 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    as_json = parser.parse_args().json
    figures: list[Figure] = []

    def take(measure: Callable[[], list[Figure]]) -> None:
        for figure in measure():
            figures.append(figure)
            if not as_json:
                mark = "ok  " if figure.met else "MISS"
                print(f"{mark} {figure.name:<62} {figure.value:>8.2f} {figure.unit:<9} goal {figure.goal}", flush=True)

    with tempfile.TemporaryDirectory(prefix="slimline-bench-") as name:
        folder = Path(name)
        take(measure_import)
        with running_api(folder) as (port, api):
            take(lambda: measure_transfer(port, api, folder))
            take(lambda: measure_requests(port, folder))
        take(lambda: measure_job(folder))
    if as_json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
