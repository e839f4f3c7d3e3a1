"""How ONNX element types are held in torch. Conversions between values are in `operators/casting.py`."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError

T = ir.DataType
HELD_AS: Mapping[ir.DataType, torch.dtype] = {
    T.FLOAT: torch.float32,
    T.FLOAT16: torch.float16,
    T.BFLOAT16: torch.bfloat16,
    T.DOUBLE: torch.float64,
    T.COMPLEX64: torch.complex64,
    T.COMPLEX128: torch.complex128,
    T.BOOL: torch.bool,
    T.INT8: torch.int8,
    T.INT16: torch.int16,
    T.INT32: torch.int32,
    T.INT64: torch.int64,
    T.UINT8: torch.uint8,
    T.UINT16: torch.uint16,
    T.UINT32: torch.uint32,
    T.UINT64: torch.uint64,
    T.FLOAT8E4M3FN: torch.float8_e4m3fn,
    T.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    T.FLOAT8E5M2: torch.float8_e5m2,
    T.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    T.FLOAT8E8M0: torch.float8_e8m0fnu,
    # torch has no arithmetic under 8 bits: one element takes a whole number that holds it exactly.
    T.INT4: torch.int8,
    T.INT2: torch.int8,
    T.UINT4: torch.uint8,
    T.UINT2: torch.uint8,
    T.FLOAT4E2M1: torch.float16,
    T.FLOAT6E2M3: torch.float16,
    T.FLOAT6E3M2: torch.float16,
}
TRAINABLE = frozenset({T.FLOAT, T.FLOAT16, T.BFLOAT16, T.DOUBLE})


def held_as(dtype: ir.DataType) -> torch.dtype:
    """The torch type that holds `dtype`. Raises SlimlineError TENSOR_TYPE_UNSUPPORTED, as for strings."""
    if dtype not in HELD_AS:
        raise SlimlineError("TENSOR_TYPE_UNSUPPORTED", f"tensors of {dtype.name.lower()} are not run in torch")
    return HELD_AS[dtype]


def to_torch(tensor: ir.TensorProtocol) -> torch.Tensor:
    """A copy of `tensor` as torch holds it, on the CPU."""
    held, array = held_as(tensor.dtype), np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape.numpy())
    match held:
        case torch.bfloat16:
            return torch.from_numpy(array.view(np.uint16).copy()).view(held)
        case _ if tensor.dtype in (T.INT4, T.INT2):
            return torch.from_numpy(array.astype(np.int8))
        case _ if tensor.dtype in (T.UINT4, T.UINT2):
            return torch.from_numpy(array.astype(np.uint8))
        case _ if tensor.dtype in (T.FLOAT4E2M1, T.FLOAT6E2M3, T.FLOAT6E3M2):
            return torch.from_numpy(array.astype(np.float16))
        case _ if held.itemsize == 1 and held.is_floating_point:
            return torch.from_numpy(array.view(np.uint8).copy()).view(held)
        case _:
            return torch.from_numpy(array.copy())


def to_array(tensor: torch.Tensor, dtype: ir.DataType) -> np.ndarray:
    """What `to_torch` undoes: the array onnx-ir keeps for elements of `dtype`."""
    tensor = tensor.detach().cpu().contiguous()
    match tensor.dtype:
        case torch.bfloat16:
            return tensor.view(torch.uint16).numpy().view(dtype.numpy())
        case held if held.itemsize == 1 and held.is_floating_point:
            return tensor.view(torch.uint8).numpy().view(dtype.numpy())
        case _:
            return tensor.numpy().astype(dtype.numpy(), copy=False)
