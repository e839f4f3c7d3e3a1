"""The worst uploads, over HTTP, to one real server: each is rejected, nothing of it runs or stays, the server lives."""

import io
import pickle
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.xdist_group("e2e")

PATIENCE_S = 120
TELLTALES = ("Traceback", "site-packages", ".py", 'File "', "/tmp", "ingest-")


def mebibytes_of_zeros(count: int) -> bytes:
    return bytes(count << 20)


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def with_link(target: str, name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        link = zipfile.ZipInfo(name)
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target)
    return packed.getvalue()


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=allow_pickle)
    return packed.getvalue()


def lying_npy(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def overlapping(copies: int) -> bytes:
    """A zip whose directory names one packed stream again and again."""
    packed = zipped({"aaaaaa.npy": mebibytes_of_zeros(64)})
    start, end = packed.index(b"PK\x01\x02"), packed.index(b"PK\x05\x06")
    entry = packed[start:end]
    directory = b"".join(entry.replace(b"aaaaaa", f"{number:06}".encode()) for number in range(copies))
    tail = packed[end : end + 8] + struct.pack("<HHLLH", copies, copies, len(directory), start, 0)
    return packed[:start] + directory + tail


def png_bomb(side: int) -> bytes:
    """A picture of `side` x `side` black pixels in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))

    header = struct.pack(">2L5B", side, side, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


def model(nodes: list[onnx.NodeProto], constants: dict[str, Any] | None = None, **parts: Any) -> bytes:
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]), helper.make_empty_tensor_value_info("y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], stored)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=10, **parts).SerializeToString())


def making(op: str, inputs: dict[str, Any]) -> bytes:
    """A model whose node `bomb` makes something of constants alone."""
    make = helper.make_node
    nodes = [
        make(op, list(inputs), ["made"], "bomb"),
        make("ReduceSum", ["made"], ["sum"]),
        make("Add", ["x", "sum"], ["y"]),
    ]
    return model(nodes, inputs)


def doubling(times: int) -> bytes:
    make = helper.make_node
    names = ["x", *(f"c{number}" for number in range(times - 1)), "y"]
    return model([make("Concat", [before, before], [after], axis=0) for before, after in pairwise(names)])


def functions(bodies: dict[str, list[tuple[str, int]]]) -> bytes:
    """A model that calls the last of functions; each calls others in a chain, so and so often."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    made = []
    for name, calls in bodies.items():
        chain = [op for op, count in calls for _ in range(count)]
        ends = ["a", *(f"t{number}" for number in range(len(chain) - 1)), "b"]
        nodes = [
            helper.make_node(op, [ends[at]], [ends[at + 1]], domain="" if op == "Relu" else "mine")
            for at, op in enumerate(chain)
        ]
        made.append(helper.make_function("mine", name, ["a"], ["b"], nodes, imports))
    return model([helper.make_node(list(bodies)[-1], ["x"], ["y"], domain="mine")], functions=made)


def chain(length: int) -> bytes:
    nodes = b"".join(
        field(1, field(1, b"x" if number == 0 else b"%d" % number) + field(2, b"%d" % (number + 1)) + field(4, b"Relu"))
        for number in range(length)
    )
    return b"\x08\x0a" + field(7, nodes)


def nested(depth: int) -> bytes:
    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return b"\x08\x0a" + field(7, graph)


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def outside(location: str) -> bytes:
    loaded = onnx.load_from_string(model([helper.make_node("Add", ["x", "w"], ["y"], "add")], {"w": np.ones(4, "f4")}))
    weight = loaded.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return bytes(loaded.SerializeToString())


Make = Callable[[Path], bytes]
"""Makes an upload; what it runs, were it run, would leave the given file."""
MODELS: dict[str, Make] = {
    "MODEL_PICKLED": lambda mark: pickle.dumps(Evil(mark)),
    "MODEL_PICKLED zipped": lambda mark: zipped({"m/data.pkl": pickle.dumps(Evil(mark))}),
    "MODEL_PICKLED joblib": lambda mark: zlib.compress(pickle.dumps(Evil(mark))),
    "MODEL_TORCHSCRIPT": lambda mark: zipped({"m/constants.pkl": pickle.dumps(Evil(mark)), "m/code/__torch__.py": b""}),
    "MODEL_KERAS": lambda _: zipped({"config.json": b'{"class_name": "Lambda"}', "model.weights.h5": b"x"}),
    "DOMAIN_CUSTOM": lambda _: model([helper.make_node("Run", ["x"], ["y"], domain="mine")]),
    "EXTERNAL_DATA_UNSAFE": lambda _: outside("/etc/passwd"),
    "EXTERNAL_DATA_UNSAFE up": lambda _: outside("../../slimline.db"),
    "EXTERNAL_DATA_MISSING": lambda _: outside("upload.onnx.data"),
    "ARCHIVE_PATH_UNSAFE": lambda mark: zipped({"m.onnx": chain(1), "../" * 5 + mark.name: b"x"}),
    "ARCHIVE_LINK": lambda _: with_link("/etc/passwd", "m.onnx"),
    "ARCHIVE_TOO_LARGE": lambda _: zipped({"m.onnx": mebibytes_of_zeros(400)}),
    "SHAPE_ABSURD range": lambda _: making("Range", {"a": np.int64(0), "b": np.int64(1 << 32), "c": np.int64(1)}),
    "SHAPE_ABSURD expand": lambda _: making("Expand", {"w": np.ones((1, 1), "f4"), "s": np.array([1 << 20, 1 << 20])}),
    "SHAPE_ABSURD resize": lambda _: making(
        "Resize", {"w": np.ones((1, 1, 8, 8), "f4"), "": np.zeros(0, "f4"), "f": np.array([1, 1, 1e4, 1e4], "f4")}
    ),
    "SHAPE_ABSURD doubling": lambda _: doubling(45),
    "GRAPH_TOO_DEEP": lambda _: nested(2000),
    "GRAPH_TOO_LARGE": lambda _: chain(200_000),
    "GRAPH_TOO_LARGE functions": lambda _: functions(
        {"F0": [("Relu", 9)], **{f"F{number}": [(f"F{number - 1}", 10)] for number in range(1, 12)}}
    ),
    "GRAPH_CYCLE": lambda _: functions({"F": [("F", 1)]}),
}  # fmt: skip
DATASETS: dict[str, Make] = {
    "DATA_PICKLED": lambda mark: zipped({"x.npy": npy(np.array([Evil(mark)], object), allow_pickle=True)}),
    "DATA_TRUNCATED": lambda _: zipped({"x.npy": lying_npy(f"({1 << 20}, {1 << 30})")}),
    "DATA_BROKEN": lambda _: zipped({"x.npy": lying_npy("(-4, 4)")}),
    "ARCHIVE_TOO_LARGE": lambda _: zipped({"x.npy": mebibytes_of_zeros(400)}),
    "ARCHIVE_TOO_LARGE overlapping": lambda _: overlapping(2000),
    "ARCHIVE_PATH_UNSAFE": lambda mark: zipped({"cat/1.png": b"x", "../" * 5 + mark.name: b"x"}),
    "IMAGE_BROKEN": lambda _: zipped({"cat/1.png": png_bomb(60_000)}),
}


@pytest.fixture
def up(own_up: Any) -> Iterator[Any]:
    yield own_up.start()
    assert own_up.stop() == 0


def test_each_is_rejected_and_nothing_is_left(up: Any, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    before = set(tmp_path.iterdir())
    sent = {
        (kind, name): send(up, kind, make(mark))
        for kind, table in (("models", MODELS), ("datasets", DATASETS))
        for name, make in table.items()
    }
    ended = {key: settle(up, key[0], id_) for key, id_ in sent.items()}
    told = {key: (row["state"], row["problem"] and row["problem"]["code"]) for key, row in ended.items()}
    assert told == {key: ("rejected", key[1].split()[0]) for key in sent}
    for key, row in ended.items():
        assert (row["problem"]["kind"], bool(row["problem"]["hint"])) == ("user", True), key
        assert not [word for word in (*TELLTALES, str(up.data)) if word in str(row["problem"])], row["problem"]
    assert up.is_ready()
    assert not mark.exists()
    assert set(tmp_path.iterdir()) == before
    assert_nothing_is_left(up)


def send(up: Any, kind: str, content: bytes) -> str:
    answer = httpx.post(f"{up.url}/v1/{kind}", files={"file": ("upload", content)}, timeout=60)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def settle(up: Any, kind: str, id_: str) -> Any:
    give_up_at = time.monotonic() + PATIENCE_S
    while (row := up.ask(f"/v1/{kind}/{id_}"))["state"] not in ("ready", "rejected"):
        assert time.monotonic() < give_up_at, row
        time.sleep(0.05)
    return row


def assert_nothing_is_left(up: Any) -> None:
    """No child of a fork server, no workspace, no trace in the log; the next upload is taken."""
    servers = [
        each
        for each in psutil.Process(up.process.pid).children(recursive=True)
        if "worker.forkserver" in each.cmdline()
    ]
    assert servers
    give_up_at = time.monotonic() + PATIENCE_S
    while left := [*(child for server in servers for child in server.children()), *(up.data / "work").iterdir()]:
        assert time.monotonic() < give_up_at, left
        time.sleep(0.05)
    assert "Traceback" not in up.log.read_text()
    sound = send(up, "models", model([helper.make_node("Relu", ["x"], ["y"])]))
    assert settle(up, "models", sound)["state"] == "ready"
