"""Fixtures of the worker's tests: a real fork server, and a way to have a probe run in a real child."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from worker.child import Order
from worker.confine import Confinement
from worker.forkserver import ForkServer
from worker.outcome import Outcome
from worker.supervisor import Command, Supervisor, Watch

GIB = 1024**3

RunProbe = Callable[..., Outcome]


@pytest.fixture(scope="session")
def probes_importable() -> Iterator[None]:
    """Children import by name from the worker's sys.path."""
    folder = str(Path(__file__).parent)
    sys.path.append(folder)
    yield
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def heavy_server(probes_importable: None) -> Iterator[ForkServer]:
    """With the tensor libraries loaded, shared by all tests that do no harm to it."""
    server = ForkServer(preload=("numpy", "onnx", "onnxruntime", "torch"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def light_server(probes_importable: None) -> Iterator[ForkServer]:
    """With nothing loaded: for tests that kill it."""
    server = ForkServer(preload=())
    yield server
    server.stop()


@pytest.fixture
def supervisor(heavy_server: ForkServer) -> Supervisor:
    return Supervisor(heavy_server)


@pytest.fixture
def run_probe(supervisor: Supervisor, tmp_path: Path) -> RunProbe:
    """Runs `probes.NAME` with arguments; `memory`, `cpu_s`, `file_bytes` confine it, the rest is the Watch."""

    def run(name: str, arguments: dict[str, Any] | None = None, *, by: Supervisor = supervisor, **limits: Any) -> Outcome:
        confinement = Confinement(
            memory_bytes=limits.pop("data_bytes", 4 * GIB),
            cpu_s=limits.pop("cpu_s", 60),
            file_bytes=limits.pop("file_bytes", GIB),
        )
        order = Order(entry=f"probes:{name}", arguments=arguments or {}, confinement=confinement)
        usual: dict[str, Any] = {
            "run_s": 60,
            "memory_bytes": 8 * GIB,
            "heartbeat_s": 5,
            "on_event": lambda _event: None,
            "on_heartbeat": lambda: Command.CONTINUE,
        }
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return by.run(order, folder, Watch(**(usual | limits)))

    return run
