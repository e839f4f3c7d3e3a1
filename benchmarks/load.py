"""200 connections that submit, poll, stream and upload at once for a minute: errors, p99 beside an empty route, memory.

Run: `python -m benchmarks.load [--seconds S] [--json]`. The API runs alone on SQLite with a Valkey beside it; no worker
takes the processor from it. The empty route is measured before and after with the same number of connections.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn

from benchmarks.background import repeating
from benchmarks.closed_loop import Load, build_request, run_load, run_loads
from benchmarks.comparison.section import Section
from benchmarks.service import call, running_api, upload_ready

CONNECTIONS = {"poll": 100, "submit": 50, "stream": 30, "upload": 20}
ALLOWED = {"poll": {200, 304}, "submit": {202}, "stream": {200}, "upload": {201}}
EMPTY_S = 5.0
WARM_UP_SHARE = 0.25
MAY_GROW = 1.1
MIB = 1024**2
UPLOAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Figure:
    """One kind of request: how often, how slow, and how slow beside the empty route."""

    kind: str
    connections: int
    per_second: float
    p50_ms: float
    p99_ms: float
    p99_ratio: float
    unexpected: list[int]


@dataclass(frozen=True)
class Report:
    """All kinds, and the API's resident memory after warming up and at the end."""

    figures: list[Figure]
    warm_mib: float
    end_mib: float

    @property
    def held(self) -> bool:
        """No answer but those allowed, and memory flat."""
        return not any(figure.unexpected for figure in self.figures) and self.end_mib <= MAY_GROW * self.warm_mib


def make_requests(port: int, folder: Path) -> dict[str, bytes]:
    """The bytes each kind of connection sends over and over."""
    model = upload_ready(port, folder)
    spec = {"model": model, "recipe": [{"method": "prune.magnitude", "amount": 0.5}]}
    _, _, job = call(port, "POST", "/v1/jobs", spec)
    own = f"/v1/jobs/{job['id']}"
    call(port, "POST", f"{own}/cancel")  # over, so that its stream has an end
    return {
        "poll": build_request("GET", own),
        "submit": build_request("POST", "/v1/jobs", json.dumps(spec).encode(), content_type="application/json"),
        "stream": build_request("GET", f"{own}/events", accept="text/event-stream"),
        "upload": build_request("POST", "/v1/datasets", bytes(UPLOAD_BYTES), content_type="application/octet-stream"),
    }


@contextmanager
def watched(process: psutil.Process, seconds: float, samples: list[float]) -> Iterator[None]:
    """Takes the resident memory of `process` each second, MiB, with a progress bar."""
    columns = (*Progress.get_default_columns()[:-1], TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("mixed load", total=seconds)

        def sample() -> None:
            samples.append(process.memory_info().rss / MIB)
            bar.advance(task, 1)

        with repeating(sample, 1):
            yield


def measure(seconds: float) -> Report:
    """Run everything."""
    with tempfile.TemporaryDirectory(prefix="slimline-load-") as name, running_api(Path(name)) as (port, api):
        requests = make_requests(port, Path(name))
        empty = build_request("GET", "/empty")
        total, memory = sum(CONNECTIONS.values()), list[float]()
        before = run_load(port, empty, connections=total, seconds=EMPTY_S)
        with watched(api, seconds, memory):
            kinds = {kind: (request, CONNECTIONS[kind]) for kind, request in requests.items()}
            loads = run_loads(port, kinds, seconds=seconds)
        time.sleep(1)
        after = run_load(port, empty, connections=total, seconds=EMPTY_S)
        bare = min(before.percentile(0.99), after.percentile(0.99))
        figures = [_figure("empty route, alone", before, total, bare, {200})]
        figures += [_figure(kind, load, CONNECTIONS[kind], bare, ALLOWED[kind]) for kind, load in loads.items()]
        return Report(figures, memory[int(len(memory) * WARM_UP_SHARE)], memory[-1])


def _figure(kind: str, load: Load, connections: int, bare_ms: float, allowed: set[int]) -> Figure:
    p50, p99 = load.percentile(0.5), load.percentile(0.99)
    return Figure(kind, connections, load.per_second, p50, p99, p99 / bare_ms, sorted(load.statuses - allowed))


def main() -> int:
    """Print the report; 1 when an answer was wrong or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="of mixed load (%(default)s)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    chosen = parser.parse_args()
    report = measure(chosen.seconds)
    if chosen.json:
        print(json.dumps({**asdict(report), "held": report.held}, indent=1))
    else:
        columns = ("request", "connections", "per second", "p50, ms", "p99, ms", "p99 over empty", "unexpected answers")
        lines = [
            (f.kind, str(f.connections), f"{f.per_second:.0f}", f"{f.p50_ms:.1f}", f"{f.p99_ms:.1f}",
             f"{f.p99_ratio:.2f}", ", ".join(map(str, f.unexpected)) or "none")
            for f in report.figures
        ]  # fmt: skip
        Section("A mixed load on 200 connections", columns, columns[:1], lines).print_to(Console(width=110))
        grown = report.end_mib / report.warm_mib
        print(f"API memory: {report.warm_mib:.0f} MiB warmed up, {report.end_mib:.0f} MiB at the end", end=" ")
        print(f"({grown:.2f} x, goal <= {MAY_GROW}): {'held' if report.held else 'MISSED'}")
    return 0 if report.held else 1


if __name__ == "__main__":
    sys.exit(main())
