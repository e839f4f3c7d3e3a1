"""BatchNormalization put back while a network trains: nothing changes by it, and nothing is left of it."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from worker.engine.graph import Graph
from worker.engine.session import open_session, run_session
from worker.engine.tensors.channel_moments import ChannelMoments
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.batch_norm import BatchNorms
from worker.engine.training.quantized.weights import _is_pruned
from worker.engine.training.renormalization import RenormalizedRewriting, can_be_renormalized
from worker.engine.training.rewritings import rewrite

Builder = Callable[..., onnx.ModelProto]


def make_batches(count: int = 3) -> Sequence[TrainingBatch]:
    generator = torch.Generator().manual_seed(0)
    return [
        TrainingBatch([torch.randn(32, 3, 8, 8, generator=generator) * 2 + 1], None, torch.arange(32))
        for _ in range(count)
    ]


def begin(graph: Graph) -> tuple[RenormalizedRewriting, TorchGraph]:
    rewriting = RenormalizedRewriting(graph)
    module = TorchGraph(rewriting.graph)
    rewriting.attach(module)
    rewriting.begin(module, make_batches())
    return rewriting, module


@pytest.fixture
def graph(make_cnn: Builder) -> Graph:
    return Graph.from_proto(make_cnn())


def test_it_begins_as_the_function_it_was(graph: Graph) -> None:
    _, module = begin(graph)
    [x] = make_batches(1)[0].inputs
    torch.testing.assert_close(module(x)[0], TorchGraph(graph)(x)[0], rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_the_data(graph: Graph) -> None:
    rewriting, module = begin(graph)
    before = [tensor.clone() for tensor in module.buffers() if tensor.is_floating_point() and tensor.numel() > 1]
    norms = BatchNorms(rewriting.graph, module)
    assert len(norms) == 6
    norms.estimate(iter(make_batches()))
    after = [tensor for tensor in module.buffers() if tensor.is_floating_point() and tensor.numel() > 1]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=0.05, atol=0.02)  # a network of batches is not quite the same


def test_training_is_folded_into_the_weights(graph: Graph) -> None:
    rewriting, module = begin(graph)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for batch in make_batches(4):
        module.train()
        optimizer.zero_grad()
        module(*batch.inputs)[0].square().mean().backward()
        optimizer.step()
    module.eval()
    finished = rewriting.finish(module)
    [x] = make_batches(1)[0].inputs
    trained, before = module(x)[0].detach(), TorchGraph(graph)(x)[0]
    assert (trained - before).abs().max() > 0.1
    [output] = run_session(open_session(finished.proto().SerializeToString()), {"x": x.numpy()})
    np.testing.assert_allclose(output, trained.numpy(), rtol=1e-4, atol=1e-5)
    assert [node.op_type for node in finished.nodes()] == [node.op_type for node in graph.nodes()]
    assert {each.name for each in finished.initializers()} == {each.name for each in graph.initializers()}


def test_zeros_stay_zeros(graph: Graph) -> None:
    weight = graph.array("conv3.weight").copy()
    weight[:, ::2] = 0
    graph.set_array("conv3.weight", weight)
    rewriting, module = begin(graph)
    assert ((rewriting.finish(module).array("conv3.weight") == 0) == (weight == 0)).all()


def test_only_networks_of_convolutions_without_a_normalization_get_one(
    graph: Graph, make_attention: Builder, make_mlp: Builder
) -> None:
    assert can_be_renormalized(graph)
    assert not any(can_be_renormalized(Graph.from_proto(make())) for make in (make_attention, make_mlp))
    assert isinstance(rewrite(graph, may_renormalize=True), RenormalizedRewriting)
    assert not isinstance(rewrite(graph), RenormalizedRewriting)


def test_a_shared_or_visible_convolution_is_left_alone(make_cnn: Builder) -> None:
    model = make_cnn()
    model.graph.output.append(helper.make_tensor_value_info("c2", onnx.TensorProto.FLOAT, None))
    rewriting = RenormalizedRewriting(Graph.from_proto(model))
    normalized = [node.inputs[0].name for node in rewriting.graph.nodes() if node.op_type == "BatchNormalization"]
    assert normalized == ["c1_raw", "c3_raw"]


def test_moments_are_numpy_s() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (7, 4, 5))
    moments = ChannelMoments()
    for part in (x[:3], x[3:]):
        moments.add(torch.from_numpy(part), axis=1)
    np.testing.assert_allclose(moments.mean.numpy(), x.mean((0, 2)))
    np.testing.assert_allclose(moments.variance.numpy(), x.var((0, 2)))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_zeros_of_rounding_are_told_from_pruned_ones(bits: int, share: float) -> None:
    weights = np.random.default_rng(0).standard_normal(4096)
    weights[np.abs(weights) < np.quantile(np.abs(weights), share)] = 0
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    codes = np.rint(weights / step).astype(np.int64)
    assert _is_pruned(codes, codes * step) == (share > 0)
