"""The pass that makes spatial means poolings: same numbers, and only where all spatial axes are meant."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.graph.passes.pool_means import pool_means
from worker.engine.session import open_session, run_session


def build(axes: list[int], keepdims: int, opset: int) -> onnx.ModelProto:
    inputs = ["x", "axes"] if opset >= 18 else ["x"]
    attributes = {} if opset >= 18 else {"axes": axes}
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", inputs, ["y"], "mean", keepdims=keepdims, **attributes)],
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 4, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(axes, np.int64), "axes")] if opset >= 18 else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("axes", "is_spatial"), [([2, 3], True), ([-1, -2], True), ([3], False), ([1, 2, 3], False)])
def test_spatial_means_and_no_others(axes: list[int], is_spatial: bool, keepdims: int, opset: int) -> None:
    model = build(axes, keepdims, opset)
    graph = Graph.from_proto(model)
    graph.infer_shapes()
    assert bool(pool_means(graph)) is is_spatial
    assert ("GlobalAveragePool" in {node.op_type for node in graph.nodes()}) is is_spatial
    graph.check()
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)}
    before, after = (
        run_session(open_session(each.SerializeToString()), feed)[0]
        for each in (build(axes, keepdims, opset), graph.proto())
    )
    assert after == pytest.approx(before, rel=1e-5, abs=1e-6)
