"""Smoothing of whole graphs: the same outputs, which tensors it reaches, and what it is worth in 8 bits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.ingest import ingest_model
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.smoothing import channel_extremes, find_smoothable, smooth
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session, run_session
from worker.engine.tensors.affine import IntegerRange, affine_parameters, dequantize, quantize

Builder = Callable[..., onnx.ModelProto]


def samples_of(graph: Graph) -> Samples:
    return make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)


def outputs(graph: Graph, samples: Samples) -> list[np.ndarray]:
    session = open_session(graph.proto().SerializeToString())
    return [array for batch in samples.batches(limit=3) for array in run_session(session, batch.feed)]


def smoothed(graph: Graph, strength: float = 0.5) -> tuple[Graph, list[str]]:
    """A smoothed copy, which has to compute the same, and the tensors that were smoothed."""
    samples, copy = samples_of(graph), graph.clone()
    names = find_smoothable(copy)
    notes = smooth(copy, channel_extremes(copy, names, Pass(samples, 8)), strength)
    assert len(notes) == bool(names)
    for expected, got in zip(outputs(graph, samples), outputs(copy, samples), strict=True):
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())
    return copy, names


def with_outliers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The tiny attention computing the same, two channels after its normalization a hundred times as large."""
    gains = np.ones(16, np.float32)
    gains[[3, 9]] = 100
    for each in model.graph.initializer:
        array = numpy_helper.to_array(each)
        if each.name.startswith("norm."):
            each.CopyFrom(numpy_helper.from_array(array * gains, each.name))
        if each.name in ("query.weight", "key.weight", "value.weight"):
            each.CopyFrom(numpy_helper.from_array(array / gains[:, None], each.name))
    return model


def product_error(graph: Graph) -> float:
    """Relative error of the query products with 8-bit activations (per tensor) and weights (per channel)."""
    samples = samples_of(graph)
    proto = graph.proto()
    proto.graph.output.append(helper.make_tensor_value_info("n", TensorProto.FLOAT, None))
    session = open_session(proto.SerializeToString())
    x = np.concatenate([run_session(session, batch.feed)[-1].reshape(-1, 16) for batch in samples.batches(limit=8)])
    w = graph.array("query.weight")
    scale, zero = affine_parameters(
        float(x.min()), float(x.max()), unsigned := IntegerRange.of(8, signed=False), symmetric=False
    )
    steps = np.abs(w).max(axis=0) / 127
    rounded_x = dequantize(quantize(x, scale, zero, unsigned), scale, zero)
    rounded_w = dequantize(quantize(w, steps, 0, IntegerRange.of(8, signed=True)), steps, 0)
    return float(np.sum((x @ w - rounded_x @ rounded_w) ** 2) / np.sum((x @ w) ** 2))


def test_attention_reads_smoothed_tensors(make_attention: Builder) -> None:
    graph = Graph.from_proto(with_outliers(make_attention()))
    after, names = smoothed(graph)
    assert names == ["n", "merged"]  # what normalization gives, and the mixed values that become the output projection
    assert product_error(after) < product_error(graph) / 10


def test_extremes_are_those_of_the_channels_that_are_summed_over(make_cnn: Builder) -> None:
    graph = Graph.from_proto(make_cnn())
    names = find_smoothable(graph)
    assert names == ["p1", "r2", "f"]
    samples = samples_of(graph)
    found = channel_extremes(graph, names[:2], Pass(samples, 100))
    proto = graph.proto()
    proto.graph.output.append(helper.make_tensor_value_info("r2", TensorProto.FLOAT, None))
    session = open_session(proto.SerializeToString())
    expected = np.max([run_session(session, batch.feed)[-1].max((0, 2, 3)) for batch in samples.batches()], axis=0)
    assert list(found) == ["p1", "r2"]
    np.testing.assert_allclose(found["r2"], expected, rtol=1e-5)


def test_activations_become_alike(make_cnn: Builder) -> None:
    graph = Graph.from_proto(make_cnn())
    after, names = smoothed(graph, strength=1)
    for name, extremes in channel_extremes(after, names, Pass(samples_of(after), 8)).items():
        np.testing.assert_allclose(extremes[extremes > 0], 1, rtol=1e-4, err_msg=name)


def test_a_feed_forward_gate_passes_scales_of_the_other_branch() -> None:
    """Llama's: down(silu(gate(x)) * up(x)), with the gain of a decomposed normalization before it."""
    generator = np.random.default_rng(0)
    shapes = {"gain": (8,), "gate": (8, 12), "up": (8, 12), "down": (12, 8)}
    nodes = [
        helper.make_node("ReduceL2", ["x", "last"], ["length"], "length"),
        helper.make_node("Div", ["x", "length"], ["unit"], "unit"),
        helper.make_node("Mul", ["unit", "gain"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "gate"], ["g"], "gate_product"),
        helper.make_node("Sigmoid", ["g"], ["s"], "sigmoid"),
        helper.make_node("Mul", ["g", "s"], ["silu"], "silu"),
        helper.make_node("MatMul", ["n", "up"], ["u"], "up_product"),
        helper.make_node("Mul", ["silu", "u"], ["h"], "gated"),
        helper.make_node("MatMul", ["h", "down"], ["y"], "down_product"),
    ]
    weights = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    made = helper.make_graph(
        nodes,
        "gated",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 8])],
        [*weights, numpy_helper.from_array(np.array([-1]), "last")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    after, names = smoothed(Graph.from_proto(model))
    assert names == ["n", "h"]
    assert not np.array_equal(after.array("up"), numpy_helper.to_array(weights[2]))


NORMALIZATIONS = {
    "LayerNormalization": ("", ["x", "gain", "shift"]),
    "SimplifiedLayerNormalization": ("", ["x", "gain"]),
    "SkipLayerNormalization": ("com.microsoft", ["x", "x", "gain", "shift"]),
    "SkipSimplifiedLayerNormalization": ("com.microsoft", ["x", "x", "gain"]),
}


@pytest.mark.parametrize("op", NORMALIZATIONS)
def test_gains_of_normalizations(op: str) -> None:
    generator, (domain, inputs) = np.random.default_rng(0), NORMALIZATIONS[op]
    weights = {"gain": (8,), "shift": (8,), "w": (8, 4)}
    made = helper.make_graph(
        [
            helper.make_node(op, inputs, ["n"], "norm", domain=domain),
            helper.make_node("MatMul", ["n", "w"], ["y"], "product"),
        ],
        "normalized",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5, 4])],
        [
            numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
            for name, shape in weights.items()
            if name in (*inputs, "w")
        ],
    )
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    graph = Graph.from_proto(helper.make_model(made, opset_imports=imports, ir_version=10))
    assert find_smoothable(graph) == ["n"]
    samples = {"x": generator.standard_normal((2, 5, 8)).astype(np.float32)}
    before = run_session(open_session(graph.proto().SerializeToString()), samples)[0]
    assert smooth(graph, {"n": np.arange(1.0, 9)}) == ["smoothed 1 tensor that linear layers read"]
    after = run_session(open_session(graph.proto().SerializeToString()), samples)[0]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


TENSORS = {
    "digits32_vit": 10,
    "exports/bert": 3,
    "exports/hfvit": 7,
    "exports/gpt2": 7,
    "exports/llama": 9,
    "exports/convnext": 9,
    "exports/segformer": 31,
}
"""Tensors that can be smoothed. GELU, the sum after a normalization and the model's input let no scale pass."""


@pytest.mark.parametrize("name", TENSORS)
def test_sample_models_compute_the_same(name: str, shared: Path, tmp_path: Path) -> None:
    graph, _ = ingest_model(shared / f"models/{name}.onnx", filename="model.onnx", output=tmp_path / "model.onnx")
    assert len(smoothed(graph)[1]) == TENSORS[name]
