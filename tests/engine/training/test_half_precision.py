"""Weights in half precision learn by float32 copies, and are written back in their own type."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.half_precision import HalfPrecisionRewriting
from worker.engine.training.quantized import QuantizedRewriting
from worker.engine.training.rewritings import rewrite

Builder = Callable[..., onnx.ModelProto]


def halved(model: onnx.ModelProto, dtype: type) -> Graph:
    """The MLP with weights of `dtype`, and a Cast behind each."""
    casts = []
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight).astype(dtype)
        weight.CopyFrom(numpy_helper.from_array(array, f"{weight.name}.stored"))
        name = weight.name.removesuffix(".stored")
        casts.append(helper.make_node("Cast", [weight.name], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return Graph.from_proto(model)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_updates_too_small_for_the_type_add_up(dtype: type, make_mlp: Builder) -> None:
    graph = halved(make_mlp(), dtype)
    before = graph.proto().SerializeToString()
    rewriting = rewrite(graph)
    module = TorchGraph(rewriting.graph)
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = module(x)[0]
        rewriting.attach(module)
        assert torch.equal(plain, module(x)[0])
    assert {each.dtype for each in module.parameters()} == {torch.float32}

    start = graph.array("fc1.weight.stored").astype(np.float64)
    step = np.abs(start).mean() * 1e-5
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    for _ in range(1000):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, -step)
        optimizer.step()
        rewriting.constrain(module)
    finished = rewriting.finish(module)
    moved = finished.array("fc1.weight.stored")
    assert moved.dtype == dtype
    assert np.allclose(moved.astype(np.float64), start + 1000 * step, rtol=5e-3, atol=step)
    with torch.no_grad():
        assert torch.equal(module(x)[0], TorchGraph(finished)(x)[0])
    assert graph.proto().SerializeToString() == before


def test_gradients_reach_the_copies(make_mlp: Builder) -> None:
    rewriting = rewrite(halved(make_mlp(), np.float16))
    module = TorchGraph(rewriting.graph)
    rewriting.attach(module)
    module(torch.ones(2, 16))[0].sum().backward()
    gradients = [each.grad for each in module.parameters()]
    assert all(each is not None and each.dtype == torch.float32 and each.any() for each in gradients)


def test_a_graph_that_was_never_trained_comes_back_as_it_was(make_mlp: Builder) -> None:
    for graph in (Graph.from_proto(make_mlp()), halved(make_mlp(), np.float16), halved(make_mlp(), ml_dtypes.bfloat16)):
        rewriting = rewrite(graph)
        module = TorchGraph(rewriting.graph)
        rewriting.attach(module)
        rewriting.constrain(module)
        finished = rewriting.finish(module)
        assert finished.proto().SerializeToString() == graph.proto().SerializeToString()
        assert finished.model is not rewriting.graph.model
        assert not rewriting.untrained


def test_codes_whose_scales_are_in_half_precision_are_trained_both_ways() -> None:
    """x + DequantizeLinear(codes, float16 scales) -> y."""
    codes, scale = np.arange(-8, 8, dtype=np.int8).reshape(4, 4), np.array([0.1, 0.2, 0.3, 0.4], np.float16)
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], "restore", axis=0),
        helper.make_node("Add", ["x", "w"], ["y"], "sum"),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [4, 4]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "one", tensors[:1], tensors[1:]), opset_imports=[helper.make_opsetid("", 21)]
    )
    model.graph.initializer.extend([numpy_helper.from_array(codes, "codes"), numpy_helper.from_array(scale, "scale")])
    graph = Graph.from_proto(model)
    rewriting = rewrite(graph)
    assert isinstance(rewriting, HalfPrecisionRewriting)
    module = TorchGraph(rewriting.graph)
    rewriting.attach(module)
    assert {each.dtype for each in module.parameters()} == {torch.float32}
    module(torch.zeros(4, 4, dtype=torch.float16))[0].sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.add_(0.1)
    rewriting.constrain(module)
    finished = rewriting.finish(module)
    assert finished.initializer("codes").dtype == ir.DataType.INT8
    assert finished.array("scale").dtype == np.float16
    x = torch.zeros(4, 4, dtype=torch.float16)
    with torch.no_grad():
        assert torch.equal(module(x)[0], TorchGraph(finished)(x)[0])


def test_the_rewriting_is_chosen_by_what_is_stored(make_mlp: Builder) -> None:
    assert not isinstance(rewrite(Graph.from_proto(make_mlp())), (HalfPrecisionRewriting, QuantizedRewriting))
    assert isinstance(rewrite(halved(make_mlp(), np.float16)), HalfPrecisionRewriting)


def test_a_weight_with_a_name_of_torch_is_trained_as_it_is_stored(make_mlp: Builder) -> None:
    graph = halved(make_mlp(), np.float16)
    graph.initializer("fc1.weight.stored").name = "fc1.half"
    rewriting = rewrite(graph)
    module = TorchGraph(rewriting.graph)
    rewriting.attach(module)
    assert module.get_submodule("fc1")._parameters["half"].dtype == torch.float16
