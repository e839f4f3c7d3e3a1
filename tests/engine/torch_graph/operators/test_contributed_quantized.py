"""Microsoft's quantized operators beside ONNX Runtime's kernels: no other implementation of them exists."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto as P
from onnx import helper, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph
from worker.engine.torch_graph.table import MICROSOFT

RNG = np.random.default_rng(0)


def codes(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.asarray(RNG.integers(limits.min, limits.max + 1, shape)).astype(dtype)


def scales(*shape: int) -> np.ndarray:
    return np.asarray(RNG.uniform(0.003, 0.05, shape)).astype(np.float32)


def node_of(op: str, inputs: Sequence[np.ndarray | None], result: int, attributes: dict[str, Any]) -> onnx.ModelProto:
    """All inputs but the first are constants, as some of ONNX Runtime's kernels want them."""
    names = ["" if each is None else f"x{index}" for index, each in enumerate(inputs)]
    constants = [numpy_helper.from_array(each, name) for name, each in zip(names, inputs, strict=True) if name][1:]
    node = onnx.NodeProto(op_type=op, name=op, domain=MICROSOFT, input=names, output=["y"])
    node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    first = helper.make_tensor_value_info("x0", helper.np_dtype_to_tensor_dtype(inputs[0].dtype), inputs[0].shape)
    graph = helper.make_graph([node], "one", [first], [helper.make_tensor_value_info("y", result, None)], constants)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def check(op: str, inputs: Sequence[np.ndarray | None], result: int, *, rtol: float = 0, **attributes: Any) -> None:
    model = node_of(op, inputs, result, attributes)
    (wanted,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x0": inputs[0]})
    with torch.no_grad():
        (got,) = TorchGraph(Graph.from_proto(model))(torch.from_numpy(inputs[0]))
    assert got.numpy().dtype == wanted.dtype
    np.testing.assert_allclose(got.numpy(), wanted, rtol=rtol, atol=rtol)


EIGHT_BITS = pytest.mark.parametrize(("dtype", "kind"), [(np.uint8, P.UINT8), (np.int8, P.INT8)])


@EIGHT_BITS
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("shape", [(3, 8), (8,), (1,), ()])
def test_element_by_element(op: str, shape: tuple[int, ...], dtype: type, kind: int) -> None:
    a, b = codes(dtype, 3, 8), codes(dtype, *shape)
    step = np.array(0.07, np.float32)
    check(op, [a, scales(), codes(dtype), b, scales(), codes(dtype), step, codes(dtype)], kind)


@EIGHT_BITS
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("QLinearSigmoid", {}),
        ("QLinearLeakyRelu", {"alpha": 0.3}),
        ("QLinearSoftmax", {"axis": 1, "opset": 13}),
        ("QLinearSoftmax", {"axis": 1, "opset": 12}),
        ("QLinearGlobalAveragePool", {}),
        ("QLinearGlobalAveragePool", {"channels_last": 1}),
        ("QLinearAveragePool", {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 0, 0, 2]}),
        ("QLinearAveragePool", {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
        ("QLinearAveragePool", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1, "channels_last": 1}),
        ("QLinearAveragePool", {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ],
)
def test_of_one_tensor(op: str, attributes: dict[str, Any], dtype: type, kind: int) -> None:
    x = codes(dtype, 2, 3, 6, 7)
    # ONNX Runtime's Softmax cuts 1 / scale down to a whole number, which this is.
    step = np.array(1 / 256, np.float32)
    check(op, [x, np.array(0.031, np.float32), codes(dtype), step, codes(dtype)], kind, **attributes)


@EIGHT_BITS
def test_joined_and_chosen(dtype: type, kind: int) -> None:
    parts = [x for size in (1, 4, 2) for x in (codes(dtype, 2, size, 3), scales(), codes(dtype))]
    check("QLinearConcat", [scales(), codes(dtype), *parts], kind, axis=-2)
    x, y = ([codes(dtype, 4, 5), scales(), codes(dtype)] for _ in range(2))
    check("QLinearWhere", [RNG.random((4, 5)) < 0.5, *x, *y, scales(), codes(dtype)], kind)


@pytest.mark.parametrize("is_last", [0, 1])
def test_convolution_with_channels_last(is_last: int) -> None:
    x, weight = codes(np.uint8, *((1, 6, 7, 3) if is_last else (1, 3, 6, 7))), codes(np.int8, 4, 3, 2, 3)
    zeros = np.array(140, np.uint8), np.zeros(4, np.int8), np.array(90, np.uint8)
    inputs = [x, scales(), zeros[0], weight, scales(4), zeros[1], np.array(0.5, np.float32), zeros[2]]
    check("QLinearConv", inputs, P.UINT8, channels_last=is_last, pads=[1, 0, 1, 1])


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("quantizes", [False, True])
def test_gemm(turns: int, quantizes: bool) -> None:
    a, b = codes(np.uint8, *((9, 4) if turns else (4, 9))), codes(np.int8, *((5, 9) if turns else (9, 5)))
    rest = [np.array(0.9, np.float32), codes(np.uint8)] if quantizes else []
    inputs = [a, scales(), codes(np.uint8), b, scales(5), codes(np.int8, 5), codes(np.int8, 5).astype(np.int32) * 99]
    kind = P.UINT8 if quantizes else P.FLOAT
    check("QGemm", inputs + rest, kind, rtol=1e-6, transA=turns, transB=turns, alpha=0.5)


@pytest.mark.parametrize("has_rest", [False, True])
def test_products_that_give_numbers(has_rest: bool) -> None:
    b, step, bias = codes(np.int8, 9, 5), scales(5), scales(5)
    rest = [codes(np.uint8), codes(np.int8, 5), bias] if has_rest else []
    check("MatMulIntegerToFloat", [codes(np.uint8, 2, 4, 9), b, scales(), step, *rest], P.FLOAT, rtol=1e-5)
    a = RNG.normal(size=(4, 9)).astype(np.float32)
    check("DynamicQuantizeMatMul", [a, b, step, *rest[1:]], P.FLOAT, rtol=1e-5)


@pytest.mark.parametrize(
    ("bits", "zero"), [(2, "float"), (4, "float"), *((bits, zero) for bits in (2, 4, 8) for zero in (None, "packed"))]
)
def test_weights_of_few_bits(bits: int, zero: str | None) -> None:
    rows, columns, size = 3, 48, 32 if bits == 8 else 16
    blocks = -(-columns // size)
    packed = codes(np.uint8, rows, blocks, size * bits // 8)
    zero_points = {
        None: None,
        "packed": codes(np.uint8, rows, -(-blocks * bits // 8)),
        "float": RNG.uniform(0, 2**bits, (rows, blocks)).astype(np.float32),
    }[zero]
    inputs = [
        RNG.normal(size=(2, columns)).astype(np.float32),
        packed,
        scales(rows, blocks),
        zero_points,
        None,
        scales(rows),
    ]
    check("MatMulNBits", inputs, P.FLOAT, rtol=1e-4, K=columns, N=rows, bits=bits, block_size=size)


def test_weights_sorted_into_blocks() -> None:
    order = RNG.integers(0, 3, 48).astype(np.int32)
    inputs = [np.eye(48, dtype=np.float32), codes(np.uint8, 3, 3, 8), scales(3, 3), None, order]
    check("MatMulNBits", inputs, P.FLOAT, rtol=1e-4, K=48, N=3, bits=4, block_size=16)
    inputs[3] = codes(np.uint8, 3, 2)
    with pytest.raises(SlimlineError, match="g_idx"):
        check("MatMulNBits", inputs, P.FLOAT, K=48, N=3, bits=4, block_size=16)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("has_zero", [False, True])
def test_rows_of_a_packed_table(bits: int, has_zero: bool) -> None:
    zero_points = codes(np.uint8, 5, -(-3 * bits // 8)) if has_zero else None
    inputs = [codes(np.uint8, 5, 48 * bits // 8), np.array([[0, -1], [4, 2]]), scales(5, 3), zero_points]
    check("GatherBlockQuantized", inputs, P.FLOAT, rtol=1e-6, bits=bits, block_size=16)


def test_gradients_reach_floats_and_scales() -> None:
    a = np.linspace(-1, 1, 32, dtype=np.float32).reshape(2, 16)
    inputs = [a, codes(np.uint8, 3, 1, 8), scales(3, 1)]
    module = TorchGraph(Graph.from_proto(node_of("MatMulNBits", inputs, P.FLOAT, {"K": 16, "N": 3, "block_size": 16})))
    x = torch.from_numpy(a).requires_grad_()
    module(x)[0].sum().backward()
    numbers = np.stack([inputs[1] & 15, inputs[1] >> 4], -1).reshape(3, 16).astype(np.float32) - 8
    np.testing.assert_allclose(x.grad.numpy(), np.tile((numbers * inputs[2]).sum(0), (2, 1)), rtol=1e-5)
    (step,) = module.parameters()
    np.testing.assert_allclose(step.grad.numpy().ravel(), (a.sum(0) * numbers).sum(1), rtol=1e-4, atol=1e-4)


def test_dynamic_quantization_is_straight_through() -> None:
    a, b = np.array([[-1.0, 0.3, 1.0]], np.float32), codes(np.int8, 3, 2)
    module = TorchGraph(Graph.from_proto(node_of("DynamicQuantizeMatMul", [a, b, scales(2)], P.FLOAT, {})))
    x = torch.from_numpy(a).requires_grad_()
    module(x)[0].sum().backward()
    (step,) = module.parameters()
    np.testing.assert_allclose(x.grad.numpy(), [(b * step.detach().numpy()).sum(1)], rtol=1e-5)
