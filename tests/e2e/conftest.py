"""A running `slimline up`, curl, and networks and data made for the tests."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

READY_S = 60
STOP_S = 40


@dataclass
class Up:
    """`slimline up` on a data folder, as a user runs it; `start` may be called again after `stop`."""

    data: Path
    url: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.data.with_suffix(".log")

    def start(self) -> "Up":
        command = [sys.executable, "-m", "app.cli", "up", "--port", "0", "--data", str(self.data)]
        # A cancel is heard with the next heartbeat; jobs here are too short for the default of two seconds.
        environment = {**os.environ, "SLIMLINE_HEARTBEAT_S": "0.2", **self.environment}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout
        first = self.process.stdout.readline()
        found = re.search(r"http://\S+", first)
        assert found, f"{first}{self.log.read_text()[-2000:]}"
        self.url = found[0]
        deadline = time.monotonic() + READY_S
        while not self.is_ready():
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            time.sleep(0.1)
        return self

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """The exit status."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signum)
        self.process.communicate(timeout=STOP_S)
        return self.process.returncode

    def curl(self, *arguments: str, cwd: Path | None = None) -> str:
        """What curl prints; paths in `arguments` begin with / and stand behind the URL."""
        words = [f"{self.url}{word}" if word.startswith("/v1") else word for word in arguments]
        done = subprocess.run(
            ["curl", "-sS", *words], capture_output=True, text=True, timeout=120, check=False, cwd=cwd
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """The JSON that curl prints."""
        return json.loads(self.curl(*arguments))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self.ask("-d", json.dumps(body), "-H", "content-type: application/json", path)

    def upload(self, kind: str, file: Path) -> str:
        """The id of the new resource."""
        return str(self.ask("-F", f"file=@{file}", f"/v1/{kind}")["id"])

    def finish(self, job_id: str) -> Any:
        """The job once its state is final."""
        for _ in range(8):
            job = self.ask(f"/v1/jobs/{job_id}?wait=30")
            if job["state"] in ("succeeded", "failed", "cancelled"):
                return job
        raise AssertionError(f"{job} is not over; {self.log.read_text()[-4000:]}")

    def until(self, job_id: str, holds: Callable[[Any], bool]) -> Any:
        """The job once `holds`, which must come before its end."""
        deadline = time.monotonic() + 60
        while not holds(job := self.ask(f"/v1/jobs/{job_id}")):
            assert job["state"] in ("queued", "running", "cancelling"), job
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job

    def run_cli(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """`slimline …` against this server."""
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env={**os.environ, "SLIMLINE_URL": self.url},
        )


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A suite that a shell started in the background ignores Ctrl-C, and so would every program it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One server for all tests that leave it running."""
    up = Up(tmp_path_factory.mktemp("e2e") / "data")
    try:
        yield up.start()
    finally:
        status = up.stop()
    assert status == 0, up.log.read_text()[-4000:]


@pytest.fixture
def own_up(tmp_path: Path) -> Iterator[Up]:
    """A server of the test's own, not yet started."""
    up = Up(tmp_path / "data")
    yield up
    if up.process and up.process.poll() is None:
        up.process.kill()
        up.process.communicate()


@dataclass(frozen=True)
class Task:
    """A network, samples it gets all right, and the job that compresses it."""

    model: Path
    data: Path

    def send(self, up: Up, recipe: list[dict[str, Any]], **wishes: Any) -> Any:
        """The submitted job."""
        data = up.upload("datasets", self.data)
        spec = {"model": up.upload("models", self.model), "data": {"calibrate": data, "evaluate": data}}
        return up.post("/v1/jobs", {**spec, "recipe": recipe, **wishes})


def _make_task(folder: Path, *, width: int, side: int, samples: int) -> Task:
    """Two convolutions and a classifier with fixed random weights; labels are the network's own answers."""
    rng = np.random.default_rng(0)
    shapes = {
        "conv1.weight": (width, 3, 3, 3),
        "conv2.weight": (width, width, 3, 3),
        "head.weight": (5, width),
    }
    weights = [
        numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("f4"), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Conv", ["picture", "conv1.weight"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Conv", ["b", "conv2.weight"], ["c"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"], "relu2"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], "pool"),
        helper.make_node("Flatten", ["e"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "head.weight"], ["scores"], "head", transB=1),
    ]
    pictures = helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", 3, side, side])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "tiny", [pictures], [scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "tiny.onnx")
    x = rng.standard_normal((samples, 3, side, side)).astype("f4")
    np.savez(folder / "tiny.npz", x=x, y=predict(folder / "tiny.onnx", x))
    return Task(folder / "tiny.onnx", folder / "tiny.npz")


def predict(model: Path, x: Any) -> Any:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0].argmax(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A job of it takes about a second."""
    return _make_task(tmp_path_factory.mktemp("tiny"), width=64, side=12, samples=64)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Each step of a recipe takes long enough to be interrupted in."""
    return _make_task(tmp_path_factory.mktemp("slow"), width=64, side=32, samples=600)


@pytest.fixture(scope="session")
def score() -> Callable[[Path, Path], float]:
    """Share of a data file's samples that a model gets right, by ONNX Runtime."""

    def share_right(model: Path, data: Path) -> float:
        arrays = np.load(data)
        return float((predict(model, arrays["x"]) == arrays["y"]).mean())

    return share_right
