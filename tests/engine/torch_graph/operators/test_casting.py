from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph

Node = Callable[..., list[np.ndarray]]


@pytest.mark.parametrize(
    "to", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.uint64, np.float32, bool]
)
@pytest.mark.parametrize("source", [np.int64, np.uint64, np.float32])
def test_casts_between_the_types_of_numpy(source: type, to: type, expect_node: Node) -> None:
    numbers = np.array([0, 1, 2, 100, 127], source)
    if source is not np.float32:
        numbers = np.append(numbers, np.array([128, 255, 256, 70_000, 2**40 + 3], source))
    expect_node("Cast", [numbers], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(to)))


def test_a_cast_to_text_is_refused(run_node: Node) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node("Cast", [np.zeros(1, np.float32)], to=TensorProto.STRING)
    assert (refusal.value.failure.code, refusal.value.failure.node) == ("OPERATOR_UNSUPPORTED", "Cast")


def test_bits_of_another_width_are_refused(run_node: Node) -> None:
    with pytest.raises(SlimlineError, match="width"):
        run_node("BitCast", [np.zeros(1, np.float32)], opset=26, to=TensorProto.INT64)


def test_the_gradient_passes_a_cast_to_another_float() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]> g (float[N] x) => (y)
    { half = Cast <to = 10> (x) y = CastLike(half, x) }"""
    module = TorchGraph(Graph.from_proto(onnx.parser.parse_model(text)))
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    (y,) = module(x)
    (y * torch.tensor([2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2, 3]
