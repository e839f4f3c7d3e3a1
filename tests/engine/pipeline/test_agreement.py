"""Torch and ONNX Runtime agree on what a step made, or the output where they differ is named."""

from collections.abc import Callable

import numpy as np
import onnx

from worker.engine.graph import Graph
from worker.engine.session import open_session, run_session
from worker.engine.stages.agreement import find_disagreement

Builder = Callable[..., onnx.ModelProto]


def test_a_sound_graph(make_cnn: Builder) -> None:
    model = make_cnn()
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    outputs = run_session(open_session(model.SerializeToString()), feed)
    assert find_disagreement(Graph.from_proto(model), feed, outputs) is None
    assert find_disagreement(Graph.from_proto(model), feed, [outputs[0] * 1.01]) == ("y", "40 dB, less than 50")


def test_what_torch_does_not_run_is_not_judged(make_cnn: Builder) -> None:
    model = make_cnn()
    model.graph.node[1].op_type, model.graph.node[1].domain = "QLinearReduceMean", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    feed = {"x": np.zeros((1, 3, 8, 8), np.float32)}
    assert find_disagreement(Graph.from_proto(model), feed, [np.ones((1, 4), np.float32)]) is None
