import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.numpy_helper import saturate_cast, to_float8e8m0

from worker.engine.torch_graph.dtypes import to_array
from worker.engine.torch_graph.kernels.rounding import from_code, to_code, to_type

FLOAT8 = [ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ]
EVERY_HALF = np.arange(1 << 16, dtype=np.uint16).view(np.float16)


def _same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))


@pytest.mark.parametrize("dtype", FLOAT8)
def test_every_half_becomes_the_float8_that_ml_dtypes_gives(dtype: ir.DataType) -> None:
    halves = torch.from_numpy(EVERY_HALF)
    with np.errstate(all="ignore"):
        _same(to_array(to_type(halves, dtype, saturate=False), dtype), EVERY_HALF.astype(dtype.numpy()))
        _same(to_array(to_type(halves, dtype), dtype), saturate_cast(EVERY_HALF, dtype.numpy()))


@pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [True, False])
def test_float8e8m0_is_onnxs(round_mode: str, saturate: bool) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 10_000, dtype=np.uint32)
    values = np.concatenate([bits.view(np.float32), np.array([0, np.inf, np.nan, 3.0e38, 1e-45, 3, 6], np.float32)])
    got = to_type(torch.from_numpy(values), ir.DataType.FLOAT8E8M0, saturate=saturate, round_mode=round_mode)
    want = to_float8e8m0(values, saturate, round_mode).view(np.uint8)
    np.testing.assert_array_equal(got.view(torch.uint8).numpy(), want)


def test_every_half_becomes_the_float4_that_ml_dtypes_gives() -> None:
    numbers = EVERY_HALF[~np.isnan(EVERY_HALF)]
    got = to_array(to_type(torch.from_numpy(numbers), ir.DataType.FLOAT4E2M1), ir.DataType.FLOAT4E2M1)
    _same(got, numbers.astype(ml_dtypes.float4_e2m1fn))


def test_whole_numbers_wrap_to_4_bits_and_2() -> None:
    numbers = torch.tensor([-9, -8, -1, 0, 7, 8, 15, 16, 300])
    assert to_type(numbers, ir.DataType.INT4).tolist() == [7, -8, -1, 0, 7, -8, -1, 0, -4]
    assert to_type(numbers, ir.DataType.UINT4).tolist() == [7, 8, 15, 0, 7, 8, 15, 0, 12]
    assert to_type(numbers, ir.DataType.UINT2).tolist() == [3, 0, 3, 0, 3, 0, 3, 0, 0]


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT4E2M1, ir.DataType.INT4, ir.DataType.UINT2])
def test_codes_are_those_of_ml_dtypes_and_back(dtype: ir.DataType) -> None:
    codes = np.arange(1 << dtype.bitwidth, dtype=np.uint8)
    values = from_code(torch.from_numpy(codes), dtype)
    _same(to_array(values, dtype), codes.view(dtype.numpy()))
    np.testing.assert_array_equal(to_code(values, dtype).numpy(), codes)
