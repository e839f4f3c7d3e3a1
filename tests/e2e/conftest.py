"""One server for many tests, and networks and data made for them."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A suite that a shell started in the background ignores Ctrl-C, and so would every program it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def service(make_up: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server for all tests that leave it running."""
    up = make_up(tmp_path_factory.mktemp("e2e") / "data")
    try:
        yield up.start()
    finally:
        status = up.stop()
    assert status == 0, up.log.read_text()[-4000:]


@dataclass(frozen=True)
class Task:
    """A network, samples it gets all right, and the job that compresses it."""

    model: Path
    data: Path

    def send(self, up: Any, recipe: list[dict[str, Any]], **wishes: Any) -> Any:
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
