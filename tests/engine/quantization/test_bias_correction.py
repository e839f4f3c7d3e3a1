"""Shifts of the mean of layers' outputs: against the mean difference of all outputs, computed in float64."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.engine.quantization.sketch import SIDE, Sketch
from worker.engine.graph import Graph, Layer
from worker.engine.quantization.bias_correction import find_bias_shifts
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.sensitivity import QuantizedLayer
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session, run_session

Builder = Callable[..., onnx.ModelProto]


def coarse(graph: Graph, layer: Layer) -> QuantizedLayer:
    """The layer with weights rounded down to quarters: a shift that shows."""
    return QuantizedLayer(layer, {layer.weight.name or "": np.floor(graph.array(layer.weight) * 4) / 4})


def samples_of(graph: Graph) -> Samples:
    return make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)


def brute_force(graph: Graph, quantized: QuantizedLayer, samples: Samples, axis: int) -> np.ndarray:
    """Mean over samples and places of what the layer gives with the new weights, less what it gave."""
    changed = graph.clone()
    for name, array in quantized.weights.items():
        changed.set_array(name, array)
    means = []
    for each in (graph, changed):
        proto = each.proto()
        output = quantized.layer.node.outputs[0].name
        if output not in {value.name for value in proto.graph.output}:
            proto.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
        session = open_session(proto.SerializeToString())
        index = [value.name for value in session.get_outputs()].index(output)
        arrays = [run_session(session, batch.feed)[index].astype(np.float64) for batch in samples.batches()]
        means.append(np.mean([np.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]).mean(0) for a in arrays], axis=0))
    difference: np.ndarray = means[1] - means[0]
    return difference


def compare(graph: Graph) -> dict[str, np.ndarray]:
    """Expect the shifts of all layers but those tied to others; each is changed alone."""
    graph.infer_shapes()
    samples = samples_of(graph)
    layers = [coarse(graph, layer) for layer in graph.layers() if len(layer.weight.uses()) == 1]
    found = find_bias_shifts(graph, layers, Pass(samples, 100))
    for each in layers:
        expected = brute_force(graph, each, samples, 1 if "Conv" in each.layer.op else -1)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found[each.layer.name], expected, atol=1e-4 * np.abs(expected).max())
    return found


def test_convolutions_and_a_gemm(make_cnn: Builder) -> None:
    assert {name: len(shift) for name, shift in compare(Graph.from_proto(make_cnn())).items()} == {
        "conv1": 8, "conv2": 8, "conv3": 16, "fc": 4,
    }  # fmt: skip


def test_matrix_products(make_attention: Builder) -> None:
    assert set(compare(Graph.from_proto(make_attention()))) == {"query", "key", "value", "out"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"group": 2, "pads": [2, 0, 1, 1], "strides": [2, 3]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 2], "group": 4},
    ],
)
def test_borders_and_strides_count(attributes: dict[str, object]) -> None:
    sketch = Sketch(0)
    weight = sketch.weight(8, 4 // int(str(attributes.get("group", 1))), 3, 3)
    assert len(compare(sketch.graph(sketch.node("Conv", ["x", weight], 8, **attributes)))) == 1


def test_a_transposed_convolution() -> None:
    sketch = Sketch(0)
    node = sketch.node("ConvTranspose", ["x", sketch.weight(4, 3, 3, 3)], 6, group=2, strides=[2, 2], pads=[1] * 4)
    assert len(compare(sketch.graph(node))) == 1


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"transB": 1, "alpha": 2.0}])
def test_a_gemm(attributes: dict[str, object]) -> None:
    sketch = Sketch(0)
    flat = sketch.node("Flatten", ["x"], 4 * SIDE**2)
    shape = (3, 4 * SIDE**2) if "transB" in attributes else (4 * SIDE**2, 3)
    assert len(compare(sketch.graph(sketch.node("Gemm", [flat, sketch.weight(*shape)], 3, **attributes)))) == 1


def test_images_of_several_sizes_count_by_their_places() -> None:
    """The Loop doubles the image's height each time round, so that one layer sees several sizes."""
    sketch = Sketch(0)
    weight = sketch.weight(2, 4, 3, 3)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"], "still"),
            helper.make_node("Conv", ["image", weight], ["inside"], "inside", pads=[1] * 4),
            helper.make_node("Concat", ["image", "image"], ["larger"], "larger", axis=2),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("image", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("larger", TensorProto.FLOAT, None),
        ],
    )
    sketch.weights["times"], sketch.weights["yes"] = np.array(2), np.array(True)
    graph = sketch.graph(sketch.node("Loop", ["times", "yes", "x"], 4, body=body))
    (layer,) = graph.layers()
    samples = samples_of(graph)
    quantized = coarse(graph, layer)
    change = torch.from_numpy(quantized.weights[weight] - graph.array(weight)).double()
    images = torch.cat([torch.from_numpy(batch.feed["x"]).double() for batch in samples.batches()])
    twice = torch.cat([images, images], 2)
    outputs = [torch.conv2d(each, change, padding=1).movedim(1, -1).reshape(-1, 2) for each in (images, twice)]
    found = find_bias_shifts(graph, [quantized], Pass(samples, 100))
    np.testing.assert_allclose(found["inside"], torch.cat(outputs).mean(0).numpy(), rtol=1e-4, atol=1e-6)


def test_a_quantized_input_counts(make_mlp: Builder) -> None:
    graph = Graph.from_proto(make_mlp())
    samples, layer = samples_of(graph), graph.layers()[0]
    weight = graph.array(layer.weight)
    found = find_bias_shifts(
        graph, [QuantizedLayer(layer, {layer.weight.name or "": weight}, torch.floor)], Pass(samples, 100)
    )
    x = np.concatenate([batch.feed["x"] for batch in samples.batches()]).astype(np.float64)
    np.testing.assert_allclose(found["fc1"], ((np.floor(x) - x) @ weight).mean(0), rtol=1e-4, atol=1e-6)


def test_what_is_not_covered_is_left_out(make_lstm: Builder) -> None:
    graph = Graph.from_proto(make_lstm())
    layers = [
        QuantizedLayer(each, {value.name or "": graph.array(value) for value in each.weights})
        for each in graph.layers()
    ]
    assert set(find_bias_shifts(graph, layers, Pass(samples_of(graph), 4))) == {"fc"}


def test_inputs_that_are_not_finite_have_no_mean(make_mlp: Builder) -> None:
    model = make_mlp()
    next(each for each in model.graph.initializer if each.name == "fc1.bias").raw_data = np.full(
        32, np.inf, "f4"
    ).tobytes()
    graph = Graph.from_proto(model)
    layers = [coarse(graph, each) for each in graph.layers()]
    assert set(find_bias_shifts(graph, layers, Pass(samples_of(graph), 4))) == {"fc1"}
