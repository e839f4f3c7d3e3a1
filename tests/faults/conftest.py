"""Fixtures of the tests that break things: a small network, and a service of real parts that can be taken away."""

import itertools
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.backends import Postgres, Valkey
from benchmarks.faults.client import StubbornClient
from benchmarks.faults.workload import make_network

Recipe = list[dict[str, Any]]


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions and a classifier with random weights."""
    return make_network(tmp_path_factory.mktemp("network") / "tiny.onnx", width=64, side=12, classes=5)


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that tests may stop and kill; they leave it running."""
    # Not below pytest's folder, which is root's alone: as root the server runs as another user.
    with tempfile.TemporaryDirectory(prefix="slimline-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder) / "data").open()
        yield server
        server.stop(signal.SIGINT)


@pytest.fixture(scope="session")
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey that tests may kill; they leave it running."""
    server = Valkey(tmp_path_factory.mktemp("own") / "valkey").open()
    yield server
    server.kill_all()


class Jobs:
    """A client with the network uploaded, and names for its jobs."""

    def __init__(self, url: str, network: Path) -> None:
        self.client = StubbornClient(url)
        self.network = network
        self._seeds = itertools.count(1)
        self.model = self.client.upload("models", network, f"network-{url}")

    def send(self, steps: int = 1, **wishes: Any) -> str:
        """The id of a new job, no two alike. Each step takes a moment and leaves a checkpoint."""
        seed = next(self._seeds)
        recipe = [{"method": "prune.magnitude", "amount": (step + 1) / (steps + 1)} for step in range(steps)]
        spec = {"model": self.model, "recipe": recipe, "seed": seed, **wishes}
        return str(self.client.post("/v1/jobs", spec, f"{self.model}-{seed}")["id"])

    def look(self, job: str) -> Any:
        return self.client.get(f"/v1/jobs/{job}")

    def events(self, job: str) -> list[dict[str, Any]]:
        return list(self.client.get(f"/v1/jobs/{job}/events?limit=200")["data"])

    def states(self, job: str) -> list[str]:
        """Every state it was in."""
        return [event["data"]["state"] for event in self.events(job) if event["type"] == "state"]

    def until(self, job: str, holds: Callable[[Any], bool]) -> Any:
        """The job once `holds`."""
        from benchmarks.faults.program import wait_until

        wait_until(lambda: holds(self.look(job)), f"{job}: {self.look(job)}")
        return self.look(job)

    def until_at_work(self, job: str, step: int = 1) -> None:
        """Return once the job runs its step `step`, from 0."""
        self.until(job, lambda seen: seen["state"] == "running" and seen["progress"]["step"] > step)

    def assert_done_once(self, job: str) -> Any:
        """It succeeded, with one artifact that has its digest; gives the job."""
        import hashlib

        ended = self.client.finish(job)
        assert ended["state"] == "succeeded", ended["failure"]
        [artifact] = ended["artifacts"]
        content = self.client.request("GET", f"/v1/artifacts/{artifact['id']}/content").content
        assert hashlib.sha256(content).hexdigest() == artifact["sha256"]
        assert self.states(job).count("succeeded") == 1
        return ended


@pytest.fixture(scope="session")
def make_jobs(network: Path) -> Callable[[str], Jobs]:
    """Gives a client of the service at a URL."""
    return lambda url: Jobs(url, network)
