"""Thinner students: what is left in numbers, with and without fewer blocks, in both runtimes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.cost import count_weights, macs
from worker.engine.ingest import ingest_model
from worker.engine.samples import Samples
from worker.engine.session import Array

MakeGraph = Callable[..., Graph]
MakeSamples = Callable[..., Samples]
RunBoth = Callable[[Graph, int], tuple[list[Array], list[Array]]]


def test_half_the_width_is_about_a_quarter_of_the_cost(make_residual_cnn: MakeGraph, student_of: Any) -> None:
    graph = make_residual_cnn()
    student = student_of(graph, width=0.5).graph
    assert student.array("one1_w").shape == (8, 8, 3, 3)
    assert student.array("two5_w").shape == (16, 16, 3, 3)
    assert student.array("head_w").shape == (5, 16)
    assert count_weights(student).count / count_weights(graph).count == pytest.approx(0.25, abs=0.02)
    assert (macs(student) or 0) / (macs(graph) or 1) == pytest.approx(0.25, abs=0.02)


def test_channels_that_nothing_reads_go(make_residual_cnn: MakeGraph, student_of: Any) -> None:
    graph = make_residual_cnn(1, 1)
    weight = graph.array("two1_w").copy()
    weight[:, ::2] = 0
    graph.set_array("two1_w", weight)
    student = student_of(graph, width=0.5).graph
    assert (np.abs(student.array("two1_w")).sum((0, 2, 3)) > 0).all()


def test_depth_and_width_together(make_residual_cnn: MakeGraph, student_of: Any, run_both: RunBoth) -> None:
    made = student_of(make_residual_cnn(), depth=0.5, width=0.5)
    assert sum(node.op_type == "Add" for node in made.graph.nodes()) == 3
    assert made.graph.array("stem_w").shape[0] == 8
    assert [note.split(" ")[0] for note in made.notes[:2]] == ["3", "channels"]
    for theirs, ours in zip(*run_both(made.graph, 5), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_student_of_a_shared_model_runs_alike(
    shared: Path, make_samples: MakeSamples, student_of: Any, run_both: RunBoth
) -> None:
    graph, _ = ingest_model(shared / "models" / "resnet20_cifar10_jpegtuned.onnx")
    student = student_of(graph, make_samples(graph), depth=0.5, width=0.5).graph
    assert (macs(student) or 0) / (macs(graph) or 1) < 0.2
    assert student.outputs == graph.outputs
    for theirs, ours in zip(*run_both(student, 3), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_refuses_where_no_channel_can_go(make_graph: MakeGraph, student_of: Any) -> None:
    graph = make_graph("g (float[n, 4] x) => (float[n, 4] y) { y = MatMul (x, w) }", w=np.eye(4, dtype=np.float32))
    with pytest.raises(SlimlineError) as refused:
        student_of(graph, width=0.5)
    assert refused.value.failure.code == "NOTHING_TO_PRUNE"
