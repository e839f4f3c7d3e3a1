"""Random operators: their distributions, their seeds, and when Dropout is active."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from onnx import TensorProto

from worker.engine import Graph, TorchGraph

NodeRunner = Callable[..., list[np.ndarray]]

SHAPE = [200, 200]


def parse(text: str, opset: int = 20) -> TorchGraph:
    return TorchGraph(
        Graph.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}'))
    )


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_normal_and_uniform_numbers(run_node: NodeRunner, dtype: Any) -> None:
    torch.manual_seed(0)
    (normal,) = run_node("RandomNormal", [], shape=SHAPE, mean=3.0, scale=2.0, dtype=dtype)
    (uniform,) = run_node("RandomUniform", [], shape=SHAPE, low=-1.0, high=3.0, dtype=dtype)
    assert normal.dtype == uniform.dtype == onnx.helper.tensor_dtype_to_np_dtype(dtype)
    assert abs(normal.mean(dtype=np.float64) - 3) < 0.05
    assert abs(normal.std(dtype=np.float64) - 2) < 0.05
    assert abs(uniform.mean(dtype=np.float64) - 1) < 0.05
    assert uniform.min() >= -1
    assert uniform.max() <= 3


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"])
def test_a_seed_makes_every_call_the_same(run_node: NodeRunner, op: str) -> None:
    x = np.full((3, 40), 0.5, np.float32)
    sizes = {"sample_size": 40} if op == "Multinomial" else {}
    first, second = (run_node(op, [x], seed=7.0, **sizes)[0] for _ in range(2))
    other = run_node(op, [x], seed=8.0, **sizes)[0]
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_multinomial_draws_by_log_probability(run_node: NodeRunner) -> None:
    odds = np.log(np.array([[0.1, 0.9, 0.0], [0.5, 0.0, 0.5]], np.float32) * 7 + 1e-30)
    (drawn,) = run_node("Multinomial", [odds], seed=1.0, sample_size=4000, dtype=TensorProto.INT64)
    assert drawn.dtype == np.int64
    assert abs((drawn[0] == 1).mean() - 0.9) < 0.03
    assert set(drawn[1]) == {0, 2}


def test_bernoulli_of_another_type(run_node: NodeRunner) -> None:
    (drawn,) = run_node("Bernoulli", [np.full(SHAPE, 0.3, np.float16)], seed=1.0, dtype=TensorProto.INT32)
    assert drawn.dtype == np.int32
    assert abs(drawn.mean() - 0.3) < 0.02


@pytest.mark.parametrize("opset", [7, 10, 13])
def test_dropout_follows_the_mode_of_the_module(opset: int) -> None:
    ratio = "<ratio = 0.25>" if opset < 12 else ""
    given, constant = ("", "") if opset < 12 else (", r", "<float r = {0.25}>")
    mask = "float[N]" if opset < 10 else "bool[N]"
    module = parse(
        f"g (float[N] x) => (float[N] y, {mask} m) {constant} {{ y, m = Dropout {ratio} (x{given}) }}", opset
    )
    x = torch.rand(10_000) + 0.5
    y, m = module.eval()(x)
    assert torch.equal(y, x)
    assert m.all()
    y, m = module.train()(x)
    assert m.dtype == (torch.float32 if opset < 10 else torch.bool)
    assert torch.allclose(y, x * m / 0.75)
    assert abs(float(m.float().mean()) - 0.75) < 0.03


def test_dropout_without_a_mask_passes_gradients() -> None:
    module = parse("g (float[N] x) => (float[N] y) { y = Dropout (x) }").train()
    x = torch.ones(1000, requires_grad=True)
    (y,) = module(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_a_graph_that_asks_for_training_drops_in_eval_mode_too(expect_node: NodeRunner) -> None:
    inputs = [np.ones((3, 4), np.float32), np.array(0.5, np.float32), np.array(True)]
    expect_node("Dropout", inputs, outputs=2, seed=5)
