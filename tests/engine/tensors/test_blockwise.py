"""Blocks of weights: the error within half a step, the best range, and bytes as ONNX Runtime reads them."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from worker.engine.tensors.blockwise import Grid, fit, output_error, pack


def weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(
    grid=st.builds(
        Grid, bits=st.sampled_from([4, 8]), symmetric=st.booleans(), block_size=st.sampled_from([16, 32, 64])
    ),
    rows=st.integers(1, 3),
    columns=st.integers(1, 150),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 100),
)
def test_inside_the_range_no_weight_is_off_by_more_than_half_a_step(
    grid: Grid, rows: int, columns: int, exponent: int, seed: int
) -> None:
    weight = weights(rows, columns, seed) * 10.0**exponent
    blocks = fit(weight, grid)
    assert blocks.scale.shape == blocks.zero.shape == (rows, -(-columns // grid.block_size))
    codes = blocks.encode(weight)
    assert ((codes >= 0) & (codes <= 2**grid.bits - 1) & (codes == codes.round())).all()
    scale, zero = blocks.spread(columns)
    inside = (weight >= -zero * scale) & (weight <= (2**grid.bits - 1 - zero) * scale)
    assert ((blocks.decode(codes) - weight).abs() <= scale * 0.5001)[inside].all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_with_8_bits_the_range_holds_every_weight_to_half_a_step(symmetric: bool) -> None:
    weight = weights(8, 100)
    blocks = fit(weight, Grid(8, symmetric, 32))
    assert ((blocks.decode(blocks.encode(weight)) - weight).abs() <= blocks.spread(100)[0] * 0.5001).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.5, -1.5, 3e38, -3e38, 1e-42])
def test_blocks_of_one_value(value: float, symmetric: bool) -> None:
    weight = torch.full((2, 40), value)
    blocks = fit(weight, Grid(4, symmetric, 32))
    restored = blocks.decode(blocks.encode(weight))
    assert restored.isfinite().all()
    if symmetric or abs(value) < 1e-38:
        assert ((restored - weight).abs() <= blocks.spread(40)[0] * 0.5001).all()
    else:
        np.testing.assert_allclose(restored, weight, rtol=1e-6)


def test_zero_stays_zero() -> None:
    weight = weights(4, 64).clamp(min=0.5) * torch.randint(0, 2, (4, 64), generator=torch.Generator().manual_seed(1))
    for grid in (Grid(4, symmetric=False, block_size=32), Grid(4, symmetric=True, block_size=32)):
        blocks = fit(weight, grid)
        assert (blocks.decode(blocks.encode(weight))[weight == 0] == 0).all()


def test_the_range_with_least_error_is_found() -> None:
    """Against a search in steps twenty times as fine."""
    weight = weights(64, 32, seed=3)
    blocks = fit(weight, Grid(4, symmetric=True, block_size=32))
    found = (blocks.decode(blocks.encode(weight)) - weight).square().sum(1)
    widest = weight.abs().amax(1, keepdim=True) / 7.5
    scales = [widest * share for share in np.linspace(1, 0.6, 401)]
    errors = torch.stack([((weight / s).round().clamp(-8, 7) * s - weight).square().sum(1) for s in scales])
    assert (found <= errors[0] * 1.0001).all()
    assert found.sum() < 0.95 * errors[0].sum()
    assert found.sum() < 1.05 * errors.amin(0).sum()


def test_what_counts_more_comes_out_closer() -> None:
    weight = weights(16, 32)
    weight[:, 0] *= 6
    grid = Grid(4, symmetric=True, block_size=32)
    importance = torch.ones(16, 32)
    importance[:, 0] = 1e4
    plain, weighted = fit(weight, grid), fit(weight, grid, importance)
    errors = [(blocks.decode(blocks.encode(weight)) - weight)[:, 0].square().sum() for blocks in (plain, weighted)]
    assert errors[1] < errors[0]


def test_output_error_is_that_of_the_outputs() -> None:
    inputs, delta = weights(500, 20).double(), weights(6, 20, seed=1).double()
    expected = (inputs @ delta.T).square().mean(0)
    np.testing.assert_allclose(output_error(delta, (inputs.T @ inputs / 500).unsqueeze(0)), expected, rtol=1e-9)


def test_packing_puts_the_first_code_in_the_lowest_bits() -> None:
    assert pack(np.array([[1, 2, 3]], np.uint8), 4).tolist() == [[0x21, 0x03]]
    assert pack(np.array([[1, 2, 3]], np.uint8), 8).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(5, 64), (1, 40), (3, 100)])
def test_onnx_runtime_multiplies_by_what_the_codes_stand_for(
    bits: int, symmetric: bool, rows: int, columns: int
) -> None:
    """The packed form, K not divisible by the block and N = 1 included, multiplied by the identity in float."""
    weight, grid = weights(rows, columns), Grid(bits, symmetric, 32)
    blocks = fit(weight, grid)
    codes, count = blocks.encode(weight), grid.count_blocks(columns)
    padded = np.zeros((rows, count * 32), np.uint8)
    padded[:, :columns] = codes.numpy()
    arrays = {
        "b": pack(padded.reshape(rows, count, 32), bits),
        "scale": blocks.scale.numpy(),
        "zero": pack(blocks.zero.numpy().astype(np.uint8), bits),
    }
    if symmetric:
        del arrays["zero"]
    node = helper.make_node(
        "MatMulNBits", ["x", *arrays], ["y"], domain="com.microsoft", K=columns, N=rows, bits=bits, block_size=32
    )
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [columns, columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [columns, rows])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)], ir_version=10
    )
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"x": np.eye(columns, dtype=np.float32)})
    np.testing.assert_allclose(got.T, blocks.decode(codes), rtol=1e-5, atol=1e-6)
