"""Trained floats become integers again: ONNX Runtime computes with them what the module did, by the same kernels."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from worker.engine.graph import Graph
from worker.engine.measure.kernels import count_kernels
from worker.engine.session import Array, open_session, run_session
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.optimization import is_scale
from worker.engine.training.quantized import QuantizedRewriting

Builder = Callable[..., onnx.ModelProto]
Quantize = Callable[..., tuple[Graph, Any]]
Attached = Callable[[Graph], tuple[QuantizedRewriting, TorchGraph]]
QuantizeOn = Callable[[Graph, str, Path], Graph]
CASES = [
    ("make_cnn", "quantize.static"),
    ("make_cnn", "quantize.static:weights.bits=4"),
    ("make_cnn", "quantize.static:weights.per_channel=false,weights.symmetric=false"),
    ("make_cnn", "quantize.static:target=tensorrt"),
    ("make_mlp", "quantize.static"),
    ("make_attention", "quantize.static"),
    ("make_attention", "quantize.weights:bits=4,kernel=standard"),
    ("make_if_model", "quantize.static"),
]


def shake(rewriting: QuantizedRewriting, module: TorchGraph) -> None:
    """As a training would leave it: everything has moved."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise * (1 if is_scale(parameter) else parameter.abs().mean()))
    rewriting.constrain(module)


@pytest.mark.parametrize(("model", "recipe"), CASES)
def test_onnx_runtime_gives_what_the_module_gave(
    model: str, recipe: str, quantize: Quantize, attached: Attached, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    graph, run = quantize(request.getfixturevalue(model)(), recipe)
    rewriting, module = attached(graph)
    shake(rewriting, module)
    trained = run.torch(module)
    finished = rewriting.finish(module)
    assert distance_db(run.torch(graph), trained) < 40, "nothing has moved"
    # Sums are added in another order, and 4-bit weights may be multiplied by inputs rounded to 8 bits.
    assert distance_db(run.torch(finished), run.ort(finished, optimize=False)) > 60
    assert distance_db(trained, run.ort(finished)) > 40
    assert kernels(graph, tmp_path) == kernels(finished, tmp_path)
    assert outline(graph) == outline(finished)

    # Only biases were rounded on the way: with those of the file the module gives the same to the last bit.
    again = QuantizedRewriting(finished).graph
    with torch.no_grad():
        for name in (each.name or "" for each in again.initializers()):
            if name.endswith("bias_quantized"):
                module.get_parameter(name).copy_(torch.from_numpy(again.array(name).copy()))
    assert np.array_equal(run.torch(module), run.torch(finished))


def distance_db(expected: Array, got: Array) -> float:
    """Infinite where they are equal."""
    found = sqnr_db(expected, got)
    return math.inf if found is None else found


def kernels(graph: Graph, folder: Path) -> Counter[str]:
    graph.save(folder / "graph.onnx")
    return count_kernels(folder / "graph.onnx").operators


def outline(graph: Graph) -> list[Any]:
    nodes = [(node.name, node.op_type, [value and value.name for value in node.inputs]) for node in graph.nodes()]
    return [*nodes, *((each.name, each.dtype, str(each.shape)) for each in graph.initializers())]


def test_a_bias_takes_the_new_product_of_scales(make_cnn: Builder, quantize: Quantize, attached: Attached) -> None:
    graph, _ = quantize(make_cnn(), "quantize.static")
    rewriting, module = attached(graph)
    shake(rewriting, module)
    finished = rewriting.finish(module)
    product = finished.array("x_scale") * finished.array("conv1.weight_scale")
    assert np.array_equal(finished.array("conv1.bias_scale"), product)
    assert not np.allclose(graph.array("conv1.bias_scale"), product, rtol=1e-3)
    restored = finished.array("conv1.bias_quantized") * product.astype(np.float64)
    error = np.abs(restored - rewriting.graph.array("conv1.bias_quantized"))
    assert (error <= 0.5001 * product).all()


def test_a_weight_that_two_layers_read_stays_one(make_mlp: Builder, quantize: Quantize, attached: Attached) -> None:
    model = make_mlp(features=16, hidden=16, classes=16)
    model.graph.node[3].CopyFrom(helper.make_node("MatMul", ["r1", "fc1.weight"], ["y"], "fc2"))
    graph, run = quantize(model, "quantize.static")
    rewriting, module = attached(graph)
    (weight,) = {layer.weight.name for layer in rewriting.graph.layers()}
    shake(rewriting, module)
    trained = run.torch(module)
    finished = rewriting.finish(module)
    assert {layer.weight.name for layer in finished.layers()} == {weight}
    assert distance_db(trained, run.ort(finished)) > 40


def test_training_in_four_bits_shows_in_onnx_runtime(shared: Path, quantize_on: QuantizeOn, attached: Attached) -> None:
    # 256 samples of calibration alone are learned by heart: most of the others are trained on too.
    calibration, evaluation = (np.load(shared / "data" / f"digits32_{name}.npz") for name in ("calibrate", "evaluate"))
    every = [torch.from_numpy(np.concatenate([calibration[key], evaluation[key]])) for key in "xy"]
    x, seen = every[0].split([956, 491])
    labels, true = every[1].long().split([956, 491])
    graph = quantize_on(
        Graph.load(shared / "models" / "digits32_resnet18.onnx"),
        "quantize.static:weights.bits=4",
        shared / "data" / "digits32_calibrate.npz",
    )
    rewriting, module = attached(graph)
    optimizer = torch.optim.Adam([each for each in module.parameters() if each.requires_grad], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    for order in (torch.randperm(len(x), generator=generator) for _ in range(2)):
        for rows in order.split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[rows])[0], labels[rows]).backward()
            optimizer.step()
            falling.step()
            rewriting.constrain(module)

    def accuracy(graph: Graph) -> float:
        session = open_session(graph.proto().SerializeToString())
        parts = (run_session(session, {graph.inputs[0].name: part.numpy()})[0] for part in seen.split(64))
        return float((np.concatenate(list(parts)).argmax(1) == true.numpy()).mean())

    with torch.no_grad():
        own = torch.cat([module(part)[0] for part in seen.split(64)]).argmax(1)
    finished = rewriting.finish(module)
    assert accuracy(finished) > accuracy(graph)
    assert accuracy(finished) == pytest.approx(float((own == true).float().mean()), abs=0.003)
