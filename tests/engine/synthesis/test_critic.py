"""What a critic asks of classifiers, and that other graphs are left alone."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from worker.engine.graph import Graph
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session, run_session
from worker.engine.synthesis import SynthesisRun, synthesize
from worker.engine.synthesis.critic import Critic

Builder = Callable[..., onnx.ModelProto]
Parse = Callable[..., Graph]


def entropy(graph: Graph, samples: Samples) -> float:
    """Of the classes predicted, bits."""
    session = open_session(graph.proto().SerializeToString())
    scores = [run_session(session, batch.feed)[0] for batch in samples.batches()]
    counts = np.bincount(np.concatenate(scores).argmax(1))
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def test_classes_come_up_evenly(make_cnn: Builder) -> None:
    graph = Graph.from_proto(make_cnn(classes=4))
    graph.infer_shapes()
    noise = make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)
    assert entropy(graph, noise) < 1.5
    assert entropy(graph, synthesize(graph, SynthesisRun())) > 1.9


@pytest.mark.parametrize(
    ("signature", "node", "classes"),
    [
        ("(float[N, 5] x) => (float[N, 5] y)", "y = Relu (x)", 5),
        ("(float[N, 5] x) => (float[N, 5] y)", "y = Sigmoid (x)", None),
        ("(float[N, 5] x) => (float[N, 1] y)", "y = ReduceMax (x, last)", None),
        ("(float[N, 5, 4] x) => (float[N, 5, 4] y)", "y = Relu (x)", None),
        ("(float[N, 5] x) => (float[N, 5] y, float[N, 5] z)", "y = Relu (x) z = Neg (x)", None),
        ("(float[N, 5] x) => (int64[N, 5] y)", "y = Cast <to = 7> (x)", None),
    ],
)
def test_what_is_taken_for_a_classifier(parse_graph: Parse, signature: str, node: str, classes: int | None) -> None:
    graph = parse_graph(f"g {signature} {{ {node} }}", last=np.array([1]))
    assert Critic(graph, [], "cpu").classes == classes


def test_probabilities_and_logits_are_judged_alike(parse_graph: Parse) -> None:
    logits = parse_graph("g (float[N, 5] x) => (float[N, 5] y) { y = Identity (x) }")
    probabilities = parse_graph("g (float[N, 5] x) => (float[N, 5] y) { y = Softmax (x) }")
    inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % 5
    one, other = (float(Critic(graph, [], "cpu").judge([inputs], labels)) for graph in (logits, probabilities))
    assert one == pytest.approx(other, rel=1e-5)
    assert one == pytest.approx(0.1 * float(torch.nn.functional.cross_entropy(inputs, labels)), rel=1e-5)
