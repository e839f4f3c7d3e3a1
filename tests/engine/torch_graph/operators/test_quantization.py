"""Q/DQ beyond the official node tests, and fake quantization beside the two nodes and beside LSQ's formulas."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.kernels.affine_quantization import align, decode, divide, encode
from worker.engine.torch_graph.kernels.fake_quantize import bounds, fake_quantize, fake_quantize_float

T = ir.DataType
Node = Callable[..., list[np.ndarray]]
X = np.linspace(-9, 9, 42, dtype=np.float32).reshape(2, 7, 3)
SCALES = {
    "tensor": (np.array(0.37, np.float32), {}),
    "one": (np.array([0.37], np.float32), {}),
    "axis": (np.array([0.1, 0.5, 2.0], np.float32), {"axis": -1}),
    "blocks": (np.linspace(0.1, 2, 18, dtype=np.float32).reshape(2, 3, 3), {"axis": 1, "block_size": 3}),
}


@pytest.mark.parametrize("granularity", SCALES)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_codes_and_values_are_the_reference_s(expect_node: Node, granularity: str, dtype: type) -> None:
    scale, attributes = SCALES[granularity]
    zero_point = np.full(scale.shape, 3, dtype)
    codes = expect_node("QuantizeLinear", [X, scale, zero_point], opset=23, rtol=0, atol=0, **attributes)
    expect_node("DequantizeLinear", [*codes, scale, zero_point], opset=23, rtol=0, atol=0, **attributes)


def test_ties_go_to_even_before_the_zero_point(run_node: Node) -> None:
    x = np.array([0.5, 1.5, -0.5, 300, -300], np.float32)
    codes = run_node("QuantizeLinear", [x, np.array(1, np.float32), np.array(1, np.uint8)])
    assert codes[0].tolist() == [1, 3, 1, 255, 0]


def test_whole_numbers_are_divided_in_float64(expect_node: Node) -> None:
    x = np.array([3, 2**24 + 1, -5], np.int32)
    codes = expect_node("QuantizeLinear", [x, np.array(0.4, np.float32)], opset=13, rtol=0, atol=0)
    assert codes[0].tolist() == [7, 255, 0]


def test_a_half_ratio_beyond_the_largest_half_saturates(run_node: Node) -> None:
    x = np.array([6e4, -6e4], np.float16)
    codes = run_node("QuantizeLinear", [x, np.array(0.1, np.float16), np.array(0, np.int8)], opset=21)
    assert codes[0].tolist() == [127, -128]


def test_clashing_result_types_are_refused(run_node: Node) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node(
            "QuantizeLinear",
            [X, np.array(1, np.float32), np.array(0, np.int8)],
            opset=21,
            output_dtype=onnx.TensorProto.UINT8,
        )
    assert refusal.value.failure.code == "GRAPH_INVALID"


def test_dynamic_range_always_holds_zero(expect_node: Node) -> None:
    for x in (X + 20, X - 20, np.zeros((2, 2), np.float32)):
        expect_node("DynamicQuantizeLinear", [x], outputs=3, opset=11, rtol=0, atol=0)


@pytest.mark.parametrize("granularity", SCALES)
@pytest.mark.parametrize("zero_type", [None, T.UINT8, T.INT4, T.UINT16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_fake_quantization_is_the_pair_of_nodes_bit_for_bit(
    granularity: str, zero_type: ir.DataType | None, dtype: torch.dtype
) -> None:
    array, attributes = SCALES[granularity]
    axis, block_size = attributes.get("axis", 1), attributes.get("block_size", 0)
    x, scale = torch.from_numpy(X).to(dtype), torch.from_numpy(array).to(dtype)
    zero_point = None if zero_type is None else torch.full(scale.shape, 3, dtype=torch.uint8)
    low, high = bounds(zero_type or T.INT8)

    step = align(scale, x, axis, block_size)
    offset = None if zero_point is None else align(zero_point, x, axis, block_size)
    codes = encode(divide(x, step), offset, low, high).to(torch.int32)
    offset = None if offset is None else offset.to(torch.int16)
    wanted = decode(codes, step, offset).to(dtype)

    got = fake_quantize(x, scale, zero_point, axis=axis, block_size=block_size, low=low, high=high)
    assert got.dtype == dtype
    assert got.view(torch.uint8).equal(wanted.view(torch.uint8))


def test_gradients_are_those_of_learned_step_size_quantization() -> None:
    x = torch.tensor([0.6, -0.4, 9.0, -9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    quantized = fake_quantize(x, scale, torch.tensor(1, dtype=torch.int8), axis=1, block_size=0, low=-8, high=7)
    quantized.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0]))
    assert quantized.tolist() == [0.5, -0.5, 3.0, -4.5]
    assert x.grad.tolist() == [1, 10, 0, 0]
    # round(v) - v within: 1 - 1.2 and -1 + 0.8; the bounds less the zero point outside: 6 and -9.
    assert scale.grad.item() == pytest.approx(-0.2 - 2 + 600 - 9000)


@pytest.mark.parametrize("granularity", SCALES)
def test_the_scale_s_gradient_has_its_shape(granularity: str) -> None:
    array, attributes = SCALES[granularity]
    scale = torch.from_numpy(array).double().requires_grad_()
    axis, block_size = attributes.get("axis", 1), attributes.get("block_size", 0)
    fake_quantize(
        torch.from_numpy(X).double(), scale, None, axis=axis, block_size=block_size, low=-8, high=7
    ).sum().backward()
    step = align(scale.detach(), torch.from_numpy(X), axis, block_size)
    ratio = torch.from_numpy(X).double() / step
    slope = torch.where((ratio < -8) | (ratio > 7), ratio.clamp(-8, 7), ratio.round() - ratio)
    wanted = torch.zeros_like(scale)
    for place in np.ndindex(*X.shape):
        target = {"tensor": (), "one": (0,), "axis": place[2:], "blocks": (place[0], place[1] // 3, place[2])}
        wanted[target[granularity]] += slope[place]
    torch.testing.assert_close(scale.grad, wanted)


def test_fake_quantization_compiles_whole() -> None:
    def loss(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return fake_quantize(x, scale, None, axis=1, block_size=0, low=-8, high=7).square().sum()

    inputs = torch.randn(4, 5, requires_grad=True), torch.rand(5, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for one, other in zip(
        torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(loss(*inputs), inputs), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_float_types_pass_gradients_straight_through() -> None:
    x = torch.tensor([1.1, 1000.0], requires_grad=True)
    scale = torch.tensor([1.0], requires_grad=True)
    quantized = fake_quantize_float(x, scale, axis=0, block_size=0, dtype=T.FLOAT8E4M3FN, saturate=True)
    quantized.sum().backward()
    assert quantized.tolist() == [1.125, 448]
    assert x.grad.tolist() == [1, 0]
    assert scale.grad.item() == pytest.approx(0.025 + 448)
