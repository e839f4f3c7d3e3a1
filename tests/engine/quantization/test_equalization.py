"""Cross-layer equalization of whole graphs: the same outputs, and ranges that are more alike."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.quantization.sketch import STEPS, Sketch, residual, run
from worker.engine.graph import Graph
from worker.engine.graph.passes.fold_batch_norm import fold_batch_norm
from worker.engine.ingest import ingest_model
from worker.engine.quantization.equalization import equalize


def spread(array: np.ndarray, axis: int) -> float:
    """The largest channel range over the smallest."""
    ranges = np.abs(array).max(axis=tuple(i for i in range(array.ndim) if i != axis))
    return float(ranges.max() / ranges.min())


@settings(max_examples=25, deadline=None, database=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), st.integers(0, 100))
def test_random_graphs_compute_the_same(steps: list[str], seed: int) -> None:
    sketch = Sketch(seed)
    tensor = sketch.conv(sketch.conv("x", 4), 4)
    for step in steps:
        tensor = STEPS[step](sketch, tensor)
        if sketch.tensors[tensor] > 40:
            break
    graph = sketch.finish(tensor)
    before = run(graph)[0]
    assert equalize(graph)
    np.testing.assert_allclose(run(graph)[0], before, rtol=1e-4, atol=1e-5 * np.abs(before).max())


def test_a_residual_stream_is_equalized_as_one() -> None:
    sketch = Sketch(0)
    stem = sketch.conv("x", 4)
    out = residual(sketch, residual(sketch, stem))
    writers, readers = ("w0", "w4", "w8"), ("w2", "w6")
    scales = np.geomspace(0.01, 100, 4).astype(np.float32)
    for name in writers:
        sketch.weights[name] *= scales.reshape(-1, 1, 1, 1)
    for name in readers:
        sketch.weights[name] /= scales.reshape(1, -1, 1, 1)
    graph = sketch.finish(out)
    before = run(graph)[0]
    assert equalize(graph) == ["equalized 14 channels between 6 layers"]
    np.testing.assert_allclose(run(graph)[0], before, rtol=1e-3, atol=1e-4 * np.abs(before).max())
    for name in writers:
        assert spread(sketch.weights[name], 0) > 1000
        assert spread(graph.array(name), 0) < 20
    for name in readers:
        assert spread(graph.array(name), 1) < 20


def test_dead_channels_stay() -> None:
    sketch = Sketch(0)
    tensor = sketch.conv(sketch.conv("x", 4), 4)
    sketch.weights["w0"][1] = 0
    sketch.weights["w2"][:, 2] = 0
    graph = sketch.finish(tensor)
    bias = graph.array("w1").copy()
    equalize(graph)
    assert np.array_equal(graph.array("w1") == bias, [False, True, True, False])


def test_scales_are_bounded() -> None:
    sketch = Sketch(0)
    tensor = sketch.conv(sketch.conv("x", 4), 4)
    sketch.weights["w0"] *= np.float32(1e15)
    sketch.weights["w2"] *= np.float32(1e-15)
    graph = sketch.finish(tensor)
    weight = graph.array("w0").copy()
    equalize(graph)
    np.testing.assert_allclose(weight / graph.array("w0"), 1e4, rtol=1e-5)


LAYERS = {
    "digits32_mbv2hard": 53,
    "digits32_resnet18": 21,
    "resnet20_cifar10_jpegtuned": 20,
    "kws_dscnn": 10,
    "efficientnet_lite0": 32,
    "exports/densenet": 36,
    "exports/unet_ct": 13,
    "exports/yolo": 0,
}
"""Linear layers that are changed. Sigmoids leave none in yolo, ReLU6 some in efficientnet_lite0."""


@pytest.mark.parametrize("name", LAYERS)
def test_sample_models_compute_the_same(name: str, shared: Path, tmp_path: Path) -> None:
    graph, _ = ingest_model(shared / f"models/{name}.onnx", filename="model.onnx", output=tmp_path / "model.onnx")
    fold_batch_norm(graph)
    before = graph.clone()
    (note,) = equalize(graph) or ["between 0 layers"]
    assert f"between {LAYERS[name]} layers" in note
    for expected, got in zip(run(before), run(graph), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_ranges_of_a_hard_model_meet(shared: Path) -> None:
    graph = Graph.load(shared / "models/digits32_mbv2hard.onnx")
    before = [spread(graph.array(layer.weight), layer.output_axis) for layer in graph.layers()]
    equalize(graph)
    after = [spread(graph.array(layer.weight), layer.output_axis) for layer in graph.layers()]
    assert np.median(before) > 100
    assert np.median(after) < 10
