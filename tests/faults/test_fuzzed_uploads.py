"""Uploads damaged at random, in real confined children: each is taken or refused, in time, and tells no secrets."""

import importlib
import io
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from app.contracts.events import Log
from worker.child import Order
from worker.confinement import Confinement
from worker.forkserver import ForkServer
from worker.outcome import Completed, Refused
from worker.supervisor import Command, Supervisor, Watch

GIB = 1024**3
CASES, A_CHILD = 400, 100
MANY = 6000
LARGEST_SAMPLE = 250_000
"""Bytes of a sample model up to which it is damaged too: larger ones take seconds each."""
Fuzz = Callable[[range], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def supervisor() -> Iterator[Supervisor]:
    folder = str(Path(__file__).parent)
    sys.path.append(folder)
    server = ForkServer(
        preload=(importlib.import_module("fuzzing").__name__, "worker.engine.ingest", "worker.engine.methods")
    )
    yield Supervisor(server)
    server.stop()
    sys.path.remove(folder)


def convolutional() -> onnx.ModelProto:
    """Convolutions with normalization, a shortcut, arithmetic of shapes and a classifier."""
    rng = np.random.default_rng(0)
    weights = {"c1": (4, 2, 3, 3), "c2": (4, 4, 3, 3), "fc": (3, 4)}
    weights |= dict.fromkeys(("scale", "bias", "mean", "variance"), (4,))
    stored = [numpy_helper.from_array(rng.random(shape).astype("f4"), name) for name, shape in weights.items()]
    stored += [numpy_helper.from_array(np.array(value), name) for name, value in {"zero": [0], "rest": [-1]}.items()]
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "c1"], ["a"], "conv1", pads=[1, 1, 1, 1], strides=[1, 1]),
        make("BatchNormalization", ["a", "scale", "bias", "mean", "variance"], ["b"], "norm"),
        make("Relu", ["b"], ["r"], "relu"),
        make("Conv", ["r", "c2"], ["d"], "conv2", pads=[1, 1, 1, 1], group=1),
        make("Add", ["d", "r"], ["e"], "add"),
        make("GlobalAveragePool", ["e"], ["g"], "pool"),
        make("Shape", ["x"], ["s"], "shape"),
        make("Gather", ["s", "zero"], ["n"], "gather"),
        make("Concat", ["n", "rest"], ["to"], "sizes", axis=0),
        make("Reshape", ["g", "to"], ["f"], "reshape"),
        make("Gemm", ["f", "fc"], ["y"], "head", transB=1),
    ]
    return pack(nodes, ["n", 2, 8, 8], ["n", 3], stored)


def recurrent() -> onnx.ModelProto:
    """A Loop, an If, an LSTM, and integers."""
    rng = np.random.default_rng(1)
    make, info = helper.make_node, helper.make_tensor_value_info
    shapes = {"W": (1, 16, 4), "R": (1, 16, 4), "w8": (4, 4)}
    stored = [numpy_helper.from_array(rng.random(shape).astype("f4"), name) for name, shape in shapes.items()]
    stored[2] = numpy_helper.from_array(rng.integers(-9, 9, (4, 4)).astype("i1"), "w8")
    plain = {"step": np.float32(0.1), "three": np.array(3), "yes": np.array(True), "squeezed": np.array([1])}
    stored += [numpy_helper.from_array(np.asarray(value), name) for name, value in plain.items()]
    body = helper.make_graph(
        [make("Identity", ["going"], ["go"]), make("MatMul", ["v", "w"], ["m"]), make("Tanh", ["m"], ["next"])],
        "body",
        [info("i", TensorProto.INT64, []), info("going", TensorProto.BOOL, []), info("v", TensorProto.FLOAT, None)],
        [info("go", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, None)],
    )
    sides = [
        helper.make_graph([make(op, ["l"], [op])], op, [], [info(op, TensorProto.FLOAT, None)])
        for op in ("Relu", "Neg")
    ]
    nodes = [
        make("LSTM", ["x", "W", "R"], ["h"], "lstm", hidden_size=4),
        make("Squeeze", ["h", "squeezed"], ["q"], "squeeze"),
        make("DequantizeLinear", ["w8", "step"], ["w"], "dequantize"),
        make("Loop", ["three", "yes", "q"], ["l"], "loop", body=body),
        make("If", ["yes"], ["y"], "if", then_branch=sides[0], else_branch=sides[1]),
    ]
    return pack(nodes, [2, "n", 4], [2, "n", 4], stored)


def pack(nodes: list[onnx.NodeProto], x: list[Any], y: list[Any], stored: list[TensorProto]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", x), ("y", y))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def zipped(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def picture(kind: str) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)).save(packed, kind)
    return packed.getvalue()


def apart() -> bytes:
    """A model with its weights in a file beside it."""
    model = convolutional()
    weight = model.graph.initializer[0]
    content, weight.raw_data = weight.raw_data, b""
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    return zipped({"net.onnx": model.SerializeToString(), "weights.bin": content})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound uploads of every kind, that are small."""
    folder = tmp_path_factory.mktemp("bases")
    old = convolutional()
    old.opset_import[0].version = 11
    kinds = ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP")
    images = {f"{name}/1.{kind.lower()}": picture(kind) for kind in kinds for name in ("cat", "dog")}
    files = {
        "conv.onnx": convolutional().SerializeToString(),
        "old.onnx": old.SerializeToString(),
        "recurrent.onnx": recurrent().SerializeToString(),
        "model.zip": apart(),
        "images.zip": zipped(images),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    rng = np.random.default_rng(2)
    np.savez(folder / "data.npz", x=rng.random((9, 3, 2)), y=np.arange(9) % 3)
    np.savez_compressed(
        folder / "named.npz", a=rng.random((5, 2)).astype("f4"), b=np.asfortranarray(np.ones((5, 4))), scale=1.5
    )
    return folder


@pytest.fixture
def fuzz(supervisor: Supervisor, bases: Path, tmp_path: Path) -> Fuzz:
    """What came of each number, in children that take A_CHILD each. A child that dies or hangs fails the test."""

    def run(numbers: range) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        for start in range(numbers.start, numbers.stop, A_CHILD):
            told += one(start, min(start + A_CHILD, numbers.stop), tmp_path / str(start))
        return told

    def one(start: int, stop: int, folder: Path) -> list[dict[str, Any]]:
        folder.mkdir()
        for file in bases.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        told: list[dict[str, Any]] = []

        def hear(event: object) -> None:
            assert isinstance(event, Log)
            told.append(json.loads(event.message))

        limits = Confinement(memory_bytes=3 * GIB, cpu_s=200, file_bytes=GIB, may_start_processes=False)
        order = Order(entry="fuzzing:fuzz", arguments={"start": start, "stop": stop}, confinement=limits)
        outcome = supervisor.run(order, folder, Watch(250, 4 * GIB, hear, lambda: Command.CONTINUE))
        # It has nothing to finish with: the last word of a child that came to its end is that of its last file.
        assert (told[-1]["number"], "found" in told[-1]) == (stop - 1, True), (told[-2:], outcome)
        assert not isinstance(outcome, Completed | Refused), outcome
        return [each for each in told if "found" in each]

    return run


def check(told: list[dict[str, Any]], count: int) -> None:
    assert len(told) == count
    wrong = [each for each in told if each["found"].startswith("!")]
    assert not wrong, "\n".join(f"{each['number']} {each['name']}: {each['found']}" for each in wrong[:20])
    found = Counter(each["found"] for each in told)
    assert found["accepted"] > count / 50  # damage that nobody notices
    assert len(found) > 15  # refusals of many kinds: the fuzzing gets past the first check


def test_damage_is_refused_or_harmless(fuzz: Fuzz) -> None:
    check(fuzz(range(CASES)), CASES)


@pytest.fixture
def bases_with_samples(bases: Path, shared: Path) -> None:
    for file in sorted((shared / "models").glob("*.onnx")):
        if file.stat().st_size < LARGEST_SAMPLE:
            (bases / f"sample-{file.name}").write_bytes(file.read_bytes())


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.usefixtures("bases_with_samples")
def test_much_damage_is_refused_or_harmless(fuzz: Fuzz) -> None:
    check(fuzz(range(CASES, CASES + MANY)), MANY)
