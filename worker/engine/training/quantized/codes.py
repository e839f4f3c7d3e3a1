"""Between codes and the floats they stand for, as TorchGraph computes both: arrays in, arrays out."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch

from worker.engine.session import Array
from worker.engine.torch_graph.dtypes import to_array, to_torch
from worker.engine.torch_graph.kernels.affine_quantization import align, decode, divide, encode
from worker.engine.training.quantized.tensors import Placing

_NARROWEST = 2


def restored(node: ir.Node) -> Array:
    """The floats that a DequantizeLinear of constants gives, in the type of its scale."""
    tensors = [value.const_value if value is not None else None for value in (*node.inputs, None)[:3]]
    codes, scale, zero_point = (None if each is None else to_torch(each) for each in tensors)
    if codes is None or scale is None or tensors[1] is None:
        raise ValueError(f"{node.name} reads no constants")
    axis, block_size = Placing.of(node)
    zero = None if zero_point is None else align(zero_point, codes, axis, block_size)
    floats = decode(codes, align(scale, codes, axis, block_size), zero).to(scale.dtype)
    return to_array(floats, tensors[1].dtype)


def round_to_codes(tensors: Sequence[ir.TensorProtocol], placing: Placing, limits: tuple[int, int]) -> Array:
    """The codes that QuantizeLinear gives, within `limits`; `tensors` are floats, scale and zero point, as stored."""
    x, scale, zero_point = map(to_torch, tensors)
    codes = encode(divide(x, align(scale, x, *placing)), align(zero_point, x, *placing), *limits)
    return to_array(codes.to(torch.int32), ir.DataType.INT32).astype(tensors[-1].dtype.numpy())


def align_array(scale: Array, shape: tuple[int, ...], placing: Placing) -> Array:
    """`scale` in a shape that broadcasts against `shape`."""
    aligned = align(torch.from_numpy(np.array(scale)), torch.empty(shape), *placing)
    return aligned.numpy()


def limits_of(codes: Array, bounds: tuple[int, int]) -> tuple[int, int]:
    """The range of the fewest whole bits that holds all `codes`; a signed one without its lowest code if unused.

    `bounds` are those of their type: given back where all of its bits are used, or nothing but zeros is there.
    """
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    if low == high:
        return bounds
    is_signed = bounds[0] < 0
    for bits in range(_NARROWEST, (bounds[1] - bounds[0]).bit_length()):
        top = 2 ** (bits - 1) - 1 if is_signed else 2**bits - 1
        for least in (-top, -top - 1) if is_signed else (0,):
            if least <= low and high <= top:
                return least, top
    return bounds
