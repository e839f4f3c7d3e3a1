"""Every model that is not let in: its code, what it is about, and that the refusal says what to do."""

import contextlib
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from app.contracts.failure import Failure, FaultKind, SlimlineError
from worker.engine.ingest import ingest_model

Builder = Callable[..., onnx.ModelProto]
Damage = Callable[[onnx.ModelProto], object]
MESSAGE_LIMIT = 600


def refusal_of(path: Path, **options: Any) -> Failure:
    """The failure, which must be the user's, readable and helpful; no output may be left."""
    output = path.parent / "ingested" / "out.onnx"
    with pytest.raises(SlimlineError) as refusal:
        ingest_model(path, output=output, **options)
    failure = refusal.value.failure
    assert failure.kind is FaultKind.USER
    assert failure.hint
    assert len(failure.message) < MESSAGE_LIMIT
    assert "Traceback" not in failure.message
    assert not output.parent.exists() or not list(output.parent.iterdir())
    return failure


def written(folder: Path, content: bytes, name: str = "m.onnx") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def zipped(folder: Path, members: dict[str, bytes], name: str = "m.zip") -> Path:
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return folder / name


SAFETENSORS = struct.pack("<Q", 20) + b'{"w":{"dtype":"F32"}}'
TORCH_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + b"..."


@pytest.mark.parametrize(
    ("content", "code", "hint"),
    [
        (b"", "MODEL_EMPTY", "cut off"),
        (b"\x00not a model" * 1000, "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"hello", "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"\x08", "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"\x08\x0a", "MODEL_NOT_RECOGNIZED", ".onnx"),
        (bytes(range(256)) * 64, "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"<!DOCTYPE html><html>404</html>", "MODEL_NOT_RECOGNIZED", "download"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"\xff\xd8\xff\xe0" + bytes(64), "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"\x93NUMPY\x01\x00" + bytes(64), "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"version https://git-lfs.github.com/spec/v1\n", "MODEL_NOT_RECOGNIZED", "git lfs pull"),
        (b'{"layers": []}', "MODEL_NOT_RECOGNIZED", ".onnx"),
        (b"\x1f\x8b\x08\x00" + bytes(64), "MODEL_NOT_RECOGNIZED", "unpack"),
        (b"\x7fELF" + bytes(64), "MODEL_NOT_RECOGNIZED", ".onnx"),
        (pickle.dumps({"w": np.ones(3)}), "MODEL_PICKLED", "torch.onnx.export"),
        (pickle.dumps([1, 2], protocol=2), "MODEL_PICKLED", "torch.onnx.export"),
        (b"cos\nsystem\n(S'id'\ntR.", "MODEL_PICKLED", "torch.onnx.export"),
        (TORCH_LEGACY, "MODEL_PICKLED", "torch.onnx.export"),
        (zlib.compress(pickle.dumps(np.arange(1000))), "MODEL_PICKLED", "skl2onnx"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "MODEL_KERAS", "model.export"),
        (SAFETENSORS, "MODEL_WEIGHTS_ONLY", "torch.onnx.export"),
        (b"GGUF" + bytes(64), "MODEL_WEIGHTS_ONLY", "torch.onnx.export"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(64), "MODEL_TENSORFLOW", "tf2onnx"),
        (b"\x08\x01\x12\x20\x0a\x05serve" + bytes(32), "MODEL_TENSORFLOW", "tf2onnx"),
    ],
)
def test_files_that_are_no_onnx(tmp_path: Path, content: bytes, code: str, hint: str) -> None:
    failure = refusal_of(written(tmp_path, content), filename="upload.bin")
    assert failure.code == code
    assert hint in (failure.hint or "")


@pytest.mark.parametrize(
    ("members", "code"),
    [
        (["m/data.pkl", "m/data/0", "m/version"], "MODEL_PICKLED"),
        (["m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"], "MODEL_TORCHSCRIPT"),
        (["archive/archive_format", "archive/models/model.json"], "MODEL_TORCHSCRIPT"),
        (["config.json", "metadata.json", "model.weights.h5"], "MODEL_KERAS"),
        (["m/saved_model.pb", "m/variables/variables.index"], "MODEL_TENSORFLOW"),
        (["model.safetensors"], "MODEL_WEIGHTS_ONLY"),
        (["x.npy", "y.npy"], "MODEL_NOT_RECOGNIZED"),
        (["readme.txt"], "MODEL_NOT_RECOGNIZED"),
        ([], "MODEL_NOT_RECOGNIZED"),
    ],
)
def test_zips_that_hold_no_onnx(tmp_path: Path, members: list[str], code: str) -> None:
    assert refusal_of(zipped(tmp_path, dict.fromkeys(members, b"x"))).code == code


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "owned",)

    for content in (pickle.dumps(Evil()), zlib.compress(pickle.dumps(Evil()))):
        assert refusal_of(written(tmp_path, content, "evil.pt")).code == "MODEL_PICKLED"
    assert refusal_of(zipped(tmp_path, {"m/data.pkl": pickle.dumps(Evil())}, "evil.pth")).code == "MODEL_PICKLED"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_truncated(tmp_path: Path, make_cnn: Builder, share: float) -> None:
    whole = make_cnn(channels=32).SerializeToString()
    failure = refusal_of(written(tmp_path, whole[: int(len(whole) * share)]))
    assert failure.code == "MODEL_TRUNCATED"


def test_damaged_inside(tmp_path: Path, make_cnn: Builder) -> None:
    whole = bytearray(make_cnn().SerializeToString())
    at = whole.index(b"conv2.weight")
    whole[at - 1] = 0xFF  # the length of a name inside the graph
    assert refusal_of(written(tmp_path, bytes(whole))).code == "MODEL_UNREADABLE"


def test_a_format_that_is_not_read(tmp_path: Path, make_mlp: Builder) -> None:
    path = written(tmp_path, make_mlp().SerializeToString())
    assert refusal_of(path, format="keras").code == "FORMAT_UNKNOWN"


def change_operator(op: str, domain: str = "") -> Damage:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[2].op_type, model.graph.node[2].domain = op, domain
        if domain:
            model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


def add_node(op: str, inputs: list[str], constants: dict[str, Any] | None = None, **attributes: Any) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        for name, value in (constants or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        model.graph.node.append(helper.make_node(op, inputs, ["added"], "added", **attributes))
        model.graph.output.append(helper.make_empty_tensor_value_info("added"))

    return change


def set_import(version: int) -> Damage:
    return lambda model: model.opset_import[0].CopyFrom(helper.make_opsetid("", version))


def sparse() -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.ones(2, np.float32), "sparse")
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 3]), "where"), [4])


def external(**entries: str) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)

    return change


def resize(dims: list[int], data: bytes | None = None) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        if data is not None:
            model.graph.initializer[0].raw_data = data

    return change


DAMAGES: list[tuple[str, str | None, Damage]] = [
    ("OPSET_UNSUPPORTED", None, set_import(999)),
    ("OPSET_UNSUPPORTED", None, lambda m: m.ClearField("opset_import")),
    ("OPSET_UNSUPPORTED", None, lambda m: setattr(m, "ir_version", 99)),
    ("OPERATOR_UNKNOWN", "relu1", change_operator("Rellu")),
    ("DOMAIN_CUSTOM", "relu1", change_operator("Relu", "my.domain")),
    ("DOMAIN_CUSTOM", "relu1", change_operator("Relu", "ai.onnx.preview.training")),
    ("MODEL_NOT_A_NETWORK", "relu1", change_operator("Normalizer", "ai.onnx.ml")),
    ("MODEL_DOES_NOT_LOAD", None, change_operator("NoSuchKernel", "com.microsoft")),
    ("GRAPH_EMPTY", None, lambda m: m.graph.ClearField("node")),
    ("GRAPH_EMPTY", None, lambda m: m.graph.ClearField("output")),
    ("VALUE_MISSING", "relu1", lambda m: m.graph.node[2].input.__setitem__(0, "nobody")),
    ("VALUE_MISSING", None, lambda m: setattr(m.graph.output[0], "name", "nobody")),
    ("VALUE_MISSING", "fc1", lambda m: m.graph.ClearField("input")),
    ("GRAPH_CYCLE", None, lambda m: m.graph.node[1].input.__setitem__(1, "r1")),
    ("NAME_DUPLICATE", "relu1", lambda m: m.graph.node[2].output.__setitem__(0, "a1")),
    ("NAME_DUPLICATE", "fc1.weight", lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    ("NAME_DUPLICATE", "x", lambda m: m.graph.input.append(m.graph.input[0])),
    ("GRAPH_INVALID", "relu1", lambda m: m.graph.node[2].attribute.append(helper.make_attribute("slope", 0.1))),
    ("TENSOR_SIZE_MISMATCH", "fc1.weight", resize([16, 33])),
    ("TENSOR_SIZE_MISMATCH", "fc1.weight", lambda m: m.graph.initializer[0].ClearField("raw_data")),
    ("TENSOR_TYPE_UNSUPPORTED", "fc1.weight", lambda m: setattr(m.graph.initializer[0], "data_type", 99)),
    ("SHAPE_ABSURD", "fc1.weight", resize([1 << 20, 1 << 20])),
    ("SHAPE_ABSURD", "fc1.weight", resize([-1, 32])),
    ("SHAPE_ABSURD", "added", add_node("ConstantOfShape", ["s"], {"s": [1 << 20, 1 << 20]})),
    ("SHAPE_ABSURD", "added", add_node("Expand", ["x", "s"], {"s": [1 << 40, 1]})),
    ("SHAPE_ABSURD", "added", add_node("Tile", ["x", "s"], {"s": [1 << 20, 1 << 20]})),
    ("SHAPE_ABSURD", "added", add_node("RandomNormal", [], shape=[1 << 20, 1 << 20])),
    ("SHAPE_ABSURD", "x", lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 1 << 40)),
    ("TENSOR_SPARSE", "sparse", lambda m: m.graph.sparse_initializer.append(sparse())),
    ("TENSOR_SPARSE", "added", add_node("Constant", [], sparse_value=sparse())),
    ("EXTERNAL_DATA_MISSING", "fc1.weight", external(location="weights.bin")),
    ("EXTERNAL_DATA_UNSAFE", "fc1.weight", external(location="/etc/passwd")),
    ("EXTERNAL_DATA_UNSAFE", "fc1.weight", external(location="../weights.bin")),
    ("EXTERNAL_DATA_UNSAFE", "fc1.weight", external(location="a/../../weights.bin")),
    ("EXTERNAL_DATA_MISSING", "fc1.weight", external(location="m.onnx", offset="1000000")),
    ("MODEL_UNREADABLE", None, external(location="m.onnx", offset="-8")),
]


@pytest.mark.parametrize(("code", "node", "damage"), DAMAGES, ids=[f"{i}-{d[0]}" for i, d in enumerate(DAMAGES)])
def test_models_that_are_not_let_in(
    tmp_path: Path, make_mlp: Builder, code: str, node: str | None, damage: Damage
) -> None:
    model = make_mlp()
    damage(model)
    failure = refusal_of(written(tmp_path, model.SerializeToString()))
    assert failure.code == code
    if node:
        assert failure.node == node


def test_external_data_behind_a_link(tmp_path: Path, make_mlp: Builder) -> None:
    secret = written(tmp_path, bytes(4096), "secret.bin")
    folder = tmp_path / "model"
    folder.mkdir()
    model = make_mlp()
    external(location="weights.bin")(model)
    path = written(folder, model.SerializeToString())
    (folder / "weights.bin").symlink_to(secret)
    assert refusal_of(path).code == "EXTERNAL_DATA_UNSAFE"
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").hardlink_to(secret)
    assert refusal_of(path).code == "EXTERNAL_DATA_UNSAFE"


def test_an_input_that_is_no_tensor(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2]))
    graph = helper.make_graph(
        [helper.make_node("SequenceLength", ["s"], ["y"], "n")],
        "g",
        [helper.make_value_info("s", kind)],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [])],
    )
    path = written(tmp_path, helper.make_model(graph, ir_version=10).SerializeToString())
    failure = refusal_of(path)
    assert (failure.code, failure.node) == ("TENSOR_TYPE_UNSUPPORTED", "s")


def test_shapes_that_contradict_each_other_name_the_node(tmp_path: Path, make_mlp: Builder) -> None:
    model = make_mlp()
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.ones((33, 4), np.float32), "fc2.weight"))
    failure = refusal_of(written(tmp_path, model.SerializeToString()))
    assert (failure.code, failure.node) == ("MODEL_DOES_NOT_LOAD", "fc2")


def test_what_can_neither_be_converted_nor_kept(tmp_path: Path, make_mlp: Builder) -> None:
    model = make_mlp(opset=12)
    model.graph.node[2].attribute.append(helper.make_attribute("unknown", 1))
    assert refusal_of(written(tmp_path, model.SerializeToString())).code == "OPSET_UNSUPPORTED"


def test_a_zip_of_two_models(tmp_path: Path, make_mlp: Builder) -> None:
    model = make_mlp().SerializeToString()
    failure = refusal_of(zipped(tmp_path, {"a.onnx": model, "b.onnx": model}))
    assert (failure.code, failure.node) == ("MODEL_NOT_ALONE", "b.onnx")


def test_a_zip_that_leads_out(tmp_path: Path, make_mlp: Builder) -> None:
    failure = refusal_of(zipped(tmp_path, {"m.onnx": make_mlp().SerializeToString(), "../w.bin": b"x"}))
    assert failure.code == "ARCHIVE_PATH_UNSAFE"
    assert not (tmp_path.parent / "w.bin").exists()


def test_a_zip_without_the_weights(tmp_path: Path, make_mlp: Builder) -> None:
    model = make_mlp()
    external(location="weights.bin")(model)
    assert refusal_of(zipped(tmp_path, {"m.onnx": model.SerializeToString()})).code == "EXTERNAL_DATA_MISSING"


def test_a_bomb_named_onnx(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("m.onnx", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    assert refusal_of(written(tmp_path, packed.getvalue(), "m.zip")).code == "ARCHIVE_TOO_LARGE"


def test_bodies_nested_too_deeply(tmp_path: Path) -> None:
    graph = b""
    for _ in range(1000):
        graph = field(1, field(5, field(6, graph)))  # a node with an attribute with a graph
    assert refusal_of(written(tmp_path, b"\x08\x0a" + field(7, graph))).code == "GRAPH_TOO_DEEP"


def test_nested_types_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    """A type of sequences of sequences of ...: protobuf itself stops at 100."""
    kind = field(1, b"\x08\x01")
    for _ in range(5000):
        kind = field(4, field(1, kind))
    graph = field(1, field(2, b"y")) + field(11, field(1, b"x") + field(2, kind))
    assert refusal_of(written(tmp_path, b"\x08\x0a" + field(7, graph))).code == "MODEL_UNREADABLE"


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_refused_or_harmless(tmp_path: Path, make_mlp: Builder, data: st.DataObject) -> None:
    content = bytearray(make_mlp(features=2, hidden=3, classes=2).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    with contextlib.suppress(SlimlineError):  # any other exception fails the test
        graph, _ = ingest_model(written(tmp_path, bytes(content)))
        assert graph.outputs


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
