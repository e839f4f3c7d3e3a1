"""Random weights: each tensor by what it is, by its own seed, at a scale that does not depend on depth; they train."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from worker.engine.graph import Graph
from worker.engine.samples import Samples
from worker.engine.students.initialization import initialize
from worker.engine.students.roles import Role, find_parts
from worker.engine.torch_graph import TorchGraph

MakeGraph = Callable[..., Graph]
MakeSamples = Callable[..., Samples]
Builder = Callable[..., onnx.ModelProto]


def _roles(graph: Graph) -> dict[str, Role]:
    return {part.value.name or "": part.role for part in find_parts(graph)}


def _deviations(graph: Graph, samples: Samples) -> dict[str, float]:
    """Of what each layer gives, by its name."""
    found: dict[str, float] = {}
    module = TorchGraph(graph)
    for layer in graph.layers():

        def seen(values: torch.Tensor, name: str = layer.name) -> None:
            found[name] = float(values.std(correction=0))

        module.observe(layer.node.outputs[0].name or "", seen)
    feed = next(samples.batches()).feed
    with torch.no_grad():
        module(*(torch.tensor(feed[spec.name]) for spec in graph.inputs))
    return found


def test_roles_in_a_transformer(make_transformer: MakeGraph) -> None:
    roles = _roles(make_transformer(1))
    assert roles.pop("table") is Role.TABLE
    assert roles.pop("position") is Role.POSITION
    assert "mask" not in roles
    assert {name for name, role in roles.items() if role is Role.SCALE} == {"norm1_w", "post1_w", "last_w"}
    assert {name for name, role in roles.items() if role is Role.SHIFT} == {"norm1_b", "post1_b", "last_b"}
    assert {role for name, role in roles.items() if name[-2:] == "_w"} == {Role.WEIGHT, Role.SCALE}


def test_roles_in_other_networks(make_lstm: Builder, make_attention: Builder, make_mlp: Builder) -> None:
    lstm = _roles(Graph.from_proto(make_lstm()))
    assert {lstm[f"lstm.{part}"] for part in "WRB"} == {Role.RECURRENT}
    attention = _roles(Graph.from_proto(make_attention()))
    assert attention["embedding"] is Role.TIED_TABLE
    assert "root" not in attention
    assert attention["query.bias"] is Role.SHIFT
    assert _roles(Graph.from_proto(make_mlp()))["fc1.bias"] is Role.SHIFT


def test_constants_before_the_first_and_after_the_last_layer_stay(make_graph: MakeGraph) -> None:
    text = """g (float[n, 4] x) => (float[n, 4] y) {
        c = Add (x, mean)  s = Mul (c, deviation)  m = MatMul (s, w)  r = Relu (m)  g = Mul (r, gamma)
        k = MatMul (g, v)  b = Add (k, bias)  q = Sigmoid (b)  y = Mul (q, strides) }"""
    vectors = {name: np.arange(1, 5, dtype=np.float32) for name in ("mean", "deviation", "gamma", "bias", "strides")}
    graph = make_graph(text, w=np.eye(4, dtype=np.float32), v=np.eye(4, dtype=np.float32), **vectors)
    assert _roles(graph) == {"w": Role.WEIGHT, "v": Role.WEIGHT, "gamma": Role.SCALE, "bias": Role.SHIFT}


def test_distributions(make_residual_cnn: MakeGraph, make_lstm: Builder, make_transformer: MakeGraph) -> None:
    cnn = make_residual_cnn()
    initialize(cnn, 0)
    assert cnn.array("one5_w").std() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    assert not cnn.array("one5_b").any()
    lstm = Graph.from_proto(make_lstm(hidden=32))
    initialize(lstm, 0)
    for name in ("lstm.W", "lstm.R", "lstm.B"):
        assert np.abs(lstm.array(name)).max() == pytest.approx(32**-0.5, rel=0.05)
    transformer = make_transformer(1)
    initialize(transformer, 0)
    assert transformer.array("position").std() == pytest.approx(0.02, rel=0.25)
    assert (transformer.array("norm1_w") == 1).all()
    assert np.isneginf(transformer.array("mask")).any()


def test_numbers_depend_on_seed_and_name_alone(make_residual_cnn: MakeGraph) -> None:
    graphs = [make_residual_cnn(), make_residual_cnn(2, 2), make_residual_cnn()]
    for graph, seed in zip(graphs, (3, 3, 4), strict=True):
        initialize(graph, seed)
    first, smaller, other = (graph.array("one1_w") for graph in graphs)
    np.testing.assert_array_equal(first, smaller)
    assert not np.allclose(first, other)
    assert not np.allclose(first, graphs[0].array("two1_w"))


@pytest.mark.parametrize("blocks", [2, 8])
def test_layers_give_unit_variance_and_branches_end_in_less(
    make_residual_cnn: MakeGraph, make_samples: MakeSamples, student_of: Any, blocks: int
) -> None:
    graph = make_residual_cnn(blocks, blocks)
    samples = make_samples(graph)
    student = student_of(graph, samples, weights="random").graph
    for name, deviation in _deviations(student, samples).items():
        expected = 1 / (2 * blocks) if name.startswith("two") else 1.0
        assert deviation == pytest.approx(expected, rel=1e-3), name


def test_the_same_students_again(make_residual_cnn: MakeGraph, student_of: Any) -> None:
    graph = make_residual_cnn()
    made = [
        student_of(graph, seed=seed, width=0.5, depth=0.5, weights="random").graph.proto().SerializeToString(
            deterministic=True
        )
        for seed in (5, 5, 6)
    ]  # fmt: skip
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_random_weights_train(
    make_residual_cnn: MakeGraph, make_transformer: MakeGraph, student_of: Any, kind: str
) -> None:
    """Inputs of random numbers with random labels are learnt by heart in 50 steps."""
    graph = make_residual_cnn() if kind == "cnn" else make_transformer()
    module = TorchGraph(student_of(graph, width=0.5, depth=0.5, weights="random").graph)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(16, 3, 8, 8, generator=generator)
    if kind == "transformer":
        inputs = torch.randint(0, 11, (16, 6), generator=generator)
    labels = torch.randint(0, 5, (16,), generator=generator)
    optimizer = torch.optim.AdamW([each for each in module.parameters() if each.requires_grad], lr=5e-3)
    losses = []
    for _ in range(50):
        outputs = module(inputs)[0]
        loss = torch.nn.functional.cross_entropy(outputs if outputs.dim() == 2 else outputs[:, -1], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 4
    assert losses[-1] < 0.25 * losses[0]
