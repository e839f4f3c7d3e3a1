"""Cross-layer equalization: the same outputs, ranges brought together, and what that is worth in 8 bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from worker.engine.graph import Graph
from worker.engine.quantization.equalization import equalize
from worker.engine.session import open_session, run_session

Builder = Callable[..., onnx.ModelProto]


def spread(model: onnx.ModelProto) -> onnx.ModelProto:
    """The tiny CNN computing the same, channels of conv2 and conv3 a hundredth to a hundred times as large."""
    scales = np.geomspace(0.01, 100, 8).astype(np.float32)
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    arrays["conv2.weight"] = arrays["conv2.weight"] * scales.reshape(-1, 1, 1, 1)
    arrays["conv2.bias"] = arrays["conv2.bias"] * scales
    arrays["conv3.weight"] = arrays["conv3.weight"] / scales.reshape(1, -1, 1, 1)
    del model.graph.initializer[:]
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def all_outputs_of(graph: Graph) -> list[np.ndarray]:
    feed = {"x": np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)}
    return run_session(open_session(graph.proto().SerializeToString()), feed)


def outputs_of(graph: Graph) -> np.ndarray:
    return all_outputs_of(graph)[0]


def test_outputs_stay_and_ranges_meet(make_cnn: Builder) -> None:
    graph = Graph.from_proto(spread(make_cnn()))
    before = outputs_of(graph)
    assert equalize(graph) == ["equalized 32 channels between 4 layers"]
    np.testing.assert_allclose(outputs_of(graph), before, rtol=1e-4, atol=1e-6)
    first, second = np.abs(graph.array("conv2.weight")), np.abs(graph.array("conv3.weight"))
    np.testing.assert_allclose(first.max((1, 2, 3)), second.max((0, 2, 3)), rtol=0.01)
    assert first.max((1, 2, 3)).max() / first.max((1, 2, 3)).min() < 20


@pytest.mark.parametrize("shared", ["output", "reader"])
def test_what_others_read_stays(make_cnn: Builder, shared: str) -> None:
    model = spread(make_cnn())
    names = {node.name: node for node in model.graph.node}
    match shared:
        case "output":
            model.graph.output.add(name=names["conv2"].output[0])
        case "reader":
            model.graph.node.add(op_type="Identity", input=[names["relu2"].output[0]], output=["also"], name="also")
            model.graph.output.add(name="also")
    graph = Graph.from_proto(model)
    weight, before = graph.array("conv3.weight").copy(), all_outputs_of(graph)
    equalize(graph)
    gains = graph.array("conv3.weight") / weight
    np.testing.assert_allclose(gains, np.repeat(gains[:, :1], 8, axis=1), rtol=1e-6)  # its outputs alone are scaled
    for expected, got in zip(before, all_outputs_of(graph), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_static_quantization_keeps_it_where_it_measures_better(
    make_cnn: Builder, apply_step: Callable[..., Any]
) -> None:
    applied = apply_step(spread(make_cnn()), "quantize.static")
    notes = " ".join(applied.record.notes)
    assert "after cross-layer equalization" in notes
    wanted, got = (np.concatenate(side) for side in applied.outputs())
    assert 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - got) ** 2)) > 25
