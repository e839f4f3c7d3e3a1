"""How much work is planned for graphs of different costs."""

from collections.abc import Callable

import onnx

from worker.engine.graph import Graph
from worker.engine.synthesis.effort import plan, rows_for

Builder = Callable[..., onnx.ModelProto]


def test_dear_graphs_get_fewer_steps_and_then_fewer_samples(make_cnn: Builder) -> None:
    plans = [plan(Graph.from_proto(make_cnn(size=size)), 8, 64) for size in (8, 500, 1000, 4096)]
    assert [(each.steps, each.samples) for each in plans] == [(60, 64), (39, 64), (20, 32), (20, 16)]


def test_a_batch_is_as_large_as_memory_allows() -> None:
    assert [rows_for(size) for size in (0, 3 * 32 * 32 * 4, 3 * 224 * 224 * 4, 1 << 30)] == [32, 32, 8, 8]
