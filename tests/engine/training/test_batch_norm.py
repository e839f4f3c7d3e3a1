"""Statistics of BatchNormalization, estimated again: against their definition in float64."""

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.batch_norm import BatchNorms


def _normed(momentum: float) -> onnx.ModelProto:
    """x [batch, 2] -> BatchNormalization, twice, with statistics that are wrong."""
    vectors = {"scale": [2.0, 3.0], "bias": [1.0, -1.0], "mean": [9.0, 9.0], "var": [50.0, 50.0]}
    tensors = [
        numpy_helper.from_array(np.array(values, np.float32), f"{name}{i}")
        for i in (1, 2)
        for name, values in vectors.items()
    ]
    nodes = [
        helper.make_node(
            "BatchNormalization", [x, *(f"{name}{i}" for name in vectors)], [y], f"norm{i}", momentum=momentum
        )
        for i, (x, y) in enumerate((("x", "h"), ("h", "y")), start=1)
    ]
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "normed", floats[:1], floats[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_statistics_are_the_means_over_batches() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.normal((3, -2), (2, 0.5), (64, 2)).astype(np.float32) for _ in range(5)]
    for momentum in (0.9, 0.0):
        graph = Graph.from_proto(_normed(momentum))
        student = TorchGraph(graph)
        norms = BatchNorms(graph, student)
        assert len(norms) == 4
        norms.estimate(iter([TrainingBatch([torch.from_numpy(each)], None, torch.arange(64)) for each in batches]))
        assert not student.training
        means = np.mean([each.astype(np.float64).mean(0) for each in batches], 0)
        variances = np.mean([each.astype(np.float64).var(0, ddof=1) for each in batches], 0)
        np.testing.assert_allclose(student.mean1.numpy(), means, rtol=1e-5)
        np.testing.assert_allclose(student.var1.numpy(), variances, rtol=1e-5)
        # The second sees what the first makes of each batch: scale and bias of the first.
        np.testing.assert_allclose(student.mean2.numpy(), [1, -1], atol=1e-5)
        np.testing.assert_allclose(student.var2.numpy(), np.array([4.0, 9.0]) * 64 / 63, rtol=1e-4)


def test_without_batches_they_stay() -> None:
    graph = Graph.from_proto(_normed(0.9))
    student = TorchGraph(graph)
    BatchNorms(graph, student).estimate(iter([]))
    assert student.mean1.tolist() == [9.0, 9.0]
