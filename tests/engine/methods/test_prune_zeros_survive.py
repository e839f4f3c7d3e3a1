"""Zeros of a pruning step survive every quantization step after it, and its records show them.

One-hot inputs read the weights of a layer back through ONNX Runtime: where a weight is 0, its output is that of no
input at all.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.contracts.recipe import METHODS
from worker.engine.graph import Graph
from worker.engine.graph.weights import count_weights
from worker.engine.session import open_session, run_session

Builder = Callable[..., onnx.ModelProto]
Apply = Callable[[onnx.ModelProto, str], Any]

K, N = 64, 32
PRUNERS = ("prune.magnitude:amount=0.7", "prune.nm")
QUANTIZERS = (
    "quantize.static",
    "quantize.static:weights.symmetric=false,weights.per_channel=false",
    "quantize.static:weights.bits=4,repairs=[]",
    "quantize.mixed:budget.size_ratio=0.2",
    "quantize.dynamic",
    "quantize.weights:bits=4,symmetric=true",
    "quantize.weights:bits=4,symmetric=false",
    "quantize.weights:bits=4,rounding=gptq,symmetric=true",
    "quantize.weights:bits=4,rounding=gptq,symmetric=false",
    "quantize.weights:bits=4,rounding=gptq,kernel=standard",
    "quantize.weights:bits=4,rounding=adaround,symmetric=true",
    "quantize.weights:bits=4,rounding=adaround,symmetric=false",
    "quantize.weights:bits=8,rounding=gptq",
    "quantize.weights:bits=8,rounding=adaround",
    "quantize.float16",
    "quantize.bfloat16",
)
ROUNDING = 1e-6
"""Of a float sum whose terms cancel, against weights near 1."""


def make_product() -> onnx.ModelProto:
    """x [batch, K] -> MatMul -> y [batch, N]: inputs that hang together, so that roundings differ."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", K])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", N])],
        [numpy_helper.from_array(rng.normal(size=(K, N)).astype(np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def read_back(graph: Graph) -> np.ndarray:
    """What each input adds to each output, [K, N]."""
    session = open_session(graph.proto().SerializeToString())
    (name,) = (spec.name for spec in graph.inputs)
    probes = np.vstack([np.zeros(K), np.eye(K)]).astype(np.float32)
    outputs = np.vstack([run_session(session, {name: probe[None]})[0] for probe in probes]).astype(np.float64)
    return outputs[1:] - outputs[0]


def zeros(graph: Graph) -> int:
    counted = count_weights(graph)
    return counted.count - counted.nonzero


def test_every_quantization_is_tried() -> None:
    assert {recipe.partition(":")[0] for recipe in QUANTIZERS} == {name for name in METHODS if "quantize." in name}


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_where_a_weight_was_zero_it_is_zero(apply_step: Apply, pruner: str, quantizer: str) -> None:
    pruned = apply_step(make_product(), pruner)
    quantized = apply_step(pruned.after.proto(), quantizer)
    is_zero = pruned.after.array("w") == 0
    assert is_zero.mean() >= 0.5
    contributions = read_back(quantized.after)
    assert np.abs(contributions[is_zero]).max() < ROUNDING
    assert np.count_nonzero(contributions[~is_zero]) > 0.5 * np.count_nonzero(~is_zero)
    (record,) = quantized.record.layers
    assert record.sparsity is not None
    assert record.sparsity >= is_zero.mean()


@pytest.mark.parametrize("method", [name for name in METHODS if "quantize." in name])
@pytest.mark.parametrize("make", ["make_cnn", "make_mlp", "make_lstm", "make_attention", "make_if_model"])
def test_no_zero_is_lost_in_any_network(
    request: pytest.FixtureRequest, apply_step: Apply, make: str, method: str
) -> None:
    pruned = apply_step(request.getfixturevalue(make)(), "prune.magnitude:amount=0.5")
    needed = ":budget.size_ratio=0.3" if method == "quantize.mixed" else ""
    quantized = apply_step(pruned.after.proto(), method + needed)
    assert zeros(quantized.after) >= zeros(pruned.after)
    sparse = {record.layer: record.sparsity for record in pruned.record.layers if record.done}
    done = [record for record in quantized.record.layers if record.done and record.layer in sparse]
    assert done
    assert all(record.sparsity >= sparse[record.layer] for record in done)


def test_dense_weights_are_told_no_sparsity(make_mlp: Builder, apply_step: Apply) -> None:
    records = apply_step(make_mlp(), "quantize.dynamic").record.layers
    assert [record.sparsity for record in records] == [None, None]
