"""What is let in: the graph computes what the upload computed, and the facts are right."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.facts import Applicability, ChannelFacts
from worker.engine.graph import Graph
from worker.engine.ingest import ingest_model
from worker.engine.session import Array, open_session, run_session

Builder = Callable[..., onnx.ModelProto]

SIZES = {"silero_vad": {"input": [1, 576], "state": [2, 1, 128]}}
VALUES = {"silero_vad": {"sr": 16000}}
DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}


def random_feed(path: Path, name: str) -> dict[str, Array]:
    """Inputs for the file; free dimensions become 2, tokens stay small."""
    rng = np.random.default_rng(0)
    feed = {}
    for spec in open_session(path).get_inputs():
        shape = SIZES.get(name, {}).get(spec.name) or [size if isinstance(size, int) else 2 for size in spec.shape]
        dtype = DTYPES[spec.type]
        array = rng.standard_normal(shape) if dtype is np.float32 else rng.integers(0, 5, shape)
        feed[spec.name] = np.asarray(VALUES.get(name, {}).get(spec.name, array)).astype(dtype)
    return feed


def assert_same_outputs(before: Path, after: Path, name: str = "") -> None:
    feed = random_feed(before, name)
    for want, got in zip(run_session(open_session(before), feed), run_session(open_session(after), feed), strict=True):
        assert want.shape == got.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(float(np.abs(want).max()), 1e-6))


@pytest.mark.parametrize("folder", ["models", "models/exports"])
def test_every_sample_model_is_let_in_and_computes_the_same(shared: Path, tmp_path: Path, folder: str) -> None:
    paths = sorted((shared / folder).glob("*.onnx"))
    assert paths
    for path in paths:
        graph, facts = ingest_model(path, output=tmp_path / "out.onnx")
        assert_same_outputs(path, tmp_path / "out.onnx", path.stem)
        assert graph.opset >= 18
        assert facts.layers, path.name
        assert facts.parameters >= sum(layer.parameters for layer in facts.layers if layer.op == "Conv")
        assert facts.macs or path.stem == "silero_vad", path.name
        assert len({value.name for value in graph.initializers()}) == len(list(graph.initializers()))


def test_known_counts(shared: Path) -> None:
    _, facts = ingest_model(shared / "models" / "resnet20_cifar10_jpegtuned.onnx")
    assert facts.macs == 40_551_040  # published: 40.55 M, with option-A shortcuts
    assert 268_000 < facts.parameters < 270_000  # published: 0.27 M; the rest are folded BatchNorm biases


@pytest.mark.parametrize("build", ["make_cnn", "make_mlp", "make_lstm", "make_attention", "make_if_model"])
def test_tiny_models_compute_the_same(request: pytest.FixtureRequest, tmp_path: Path, build: str) -> None:
    for opset in (17, 18, 21) if build != "make_attention" else (17, 20):
        onnx.save(request.getfixturevalue(build)(opset=opset), tmp_path / "in.onnx")
        graph, facts = ingest_model(tmp_path / "in.onnx", output=tmp_path / "out.onnx")
        assert_same_outputs(tmp_path / "in.onnx", tmp_path / "out.onnx")
        assert (facts.opset, graph.opset) == (opset, max(opset, 18))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


def test_facts(tmp_path: Path, make_mlp: Builder) -> None:
    onnx.save(make_mlp(features=16, hidden=32, classes=4), tmp_path / "m.onnx")

    def applicability(graph: Graph) -> dict[str, dict[str, Applicability]]:
        return {layer.name: {"some.method": Applicability(applies=True)} for layer in graph.layers()}

    def channels(graph: Graph) -> dict[str, ChannelFacts]:
        first = next(iter(graph.layers()))
        return {first.name: ChannelFacts(total=32, units=32)}

    _, facts = ingest_model(tmp_path / "m.onnx", applicability=applicability, channels=channels)
    assert (facts.format, facts.producer, facts.parameters, facts.macs) == ("onnx", "slimline-tests", 676, 640)
    assert [spec.model_dump() for spec in facts.inputs] == [{"name": "x", "dtype": "float", "shape": ["batch", 16]}]
    first, last = facts.layers
    assert (first.name, first.op, first.weights, first.parameters, first.macs) == (
        "fc1",
        "MatMul",
        ["fc1.weight"],
        512,
        512,
    )
    assert (last.parameters, last.input_shapes, last.output_shapes) == (132, [["batch", 32]], [["batch", 4]])
    assert first.methods["some.method"].applies
    assert (first.channels, last.channels) == (ChannelFacts(total=32, units=32), None)


def test_the_same_upload_gives_the_same_bytes(tmp_path: Path, make_attention: Builder) -> None:
    onnx.save(make_attention(opset=17), tmp_path / "m.onnx")
    for name in ("a.onnx", "b.onnx"):
        ingest_model(tmp_path / "m.onnx", output=tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("folder", ["", "net/"])
def test_a_zip_with_external_data(tmp_path: Path, make_cnn: Builder, folder: str) -> None:
    plain, split = tmp_path / "plain.onnx", tmp_path / "split"
    split.mkdir()
    onnx.save(make_cnn(), plain)
    onnx.save(make_cnn(), split / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for file in ("m.onnx", "m.bin"):
            archive.write(split / file, folder + file)
        archive.writestr("__MACOSX/._m.onnx", b"junk")
    graph, _ = ingest_model(tmp_path / "m.zip", output=tmp_path / "out.onnx")
    assert_same_outputs(plain, tmp_path / "out.onnx")
    held, _ = ingest_model(tmp_path / "m.zip")
    np.testing.assert_array_equal(held.array("conv1.weight"), graph.array("conv1.weight"))


def test_external_data_beside_the_file(tmp_path: Path, make_cnn: Builder) -> None:
    onnx.save(make_cnn(), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    ingest_model(tmp_path / "m.onnx", output=tmp_path / "out.onnx")
    assert_same_outputs(tmp_path / "m.onnx", tmp_path / "out.onnx")


def test_an_opset_nine_model_with_weights_among_its_inputs(tmp_path: Path) -> None:
    """As Keras and PyTorch wrote them in 2019: IR version 3, Upsample, attributes that became inputs."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c"], ["r"], min=0.0, max=6.0),
        helper.make_node("Upsample", ["r", "scales"], ["u"], mode="nearest"),
        helper.make_node("Squeeze", ["u"], ["s"], axes=[0]),
        helper.make_node("Unsqueeze", ["s"], ["us"], axes=[0]),
        helper.make_node("ReduceMean", ["us"], ["y"], axes=[2, 3], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [4]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])]
    graph = helper.make_graph(nodes, "old", inputs, outputs, [weight, scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3)
    onnx.save(model, tmp_path / "in.onnx")
    ingested, facts = ingest_model(tmp_path / "in.onnx", output=tmp_path / "out.onnx")
    assert [spec.name for spec in facts.inputs] == ["x"]
    assert [layer.name for layer in ingested.layers()] == ["c"]
    assert facts.notes == ["converted from opset 9 to 18"]
    assert_same_outputs_of(tmp_path, {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)})


def assert_same_outputs_of(folder: Path, feed: dict[str, Array]) -> None:
    want = run_session(open_session(folder / "in.onnx"), feed)
    got = run_session(open_session(folder / "out.onnx"), feed)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)


def test_a_quantized_upload(tmp_path: Path, make_mlp: Builder) -> None:
    model = make_mlp()
    weight = model.graph.initializer[0]
    integers = np.clip(np.round(numpy_helper.to_array(weight) / 0.01), -127, 127).astype(np.int8)
    weight.CopyFrom(numpy_helper.from_array(integers, "fc1.q"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.01, np.float32), "fc1.s"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["fc1.q", "fc1.s"], ["fc1.weight"], "dq"))
    onnx.save(model, tmp_path / "in.onnx")
    _, facts = ingest_model(tmp_path / "in.onnx", output=tmp_path / "out.onnx")
    assert facts.layers[0].weights == ["fc1.q"]
    assert facts.parameters == 676
    assert_same_outputs(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_nodes_in_any_order(tmp_path: Path, make_mlp: Builder) -> None:
    model = make_mlp()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "in.onnx")
    graph, _ = ingest_model(tmp_path / "in.onnx")
    assert [node.name for node in graph.nodes()] == ["fc1", "fc1_bias", "relu1", "fc2"]
