"""Tensors made from numbers: constants, ranges, unit matrices, one-hot codes. Random ones are in `random.py`."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from worker.engine.torch_graph.context import Context, check_size
from worker.engine.torch_graph.dtypes import held_as
from worker.engine.torch_graph.host import HOST_TYPES, MOST_ELEMENTS, as_scalar
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator

_COUNTS_BACK = 11
"""The opset from which a negative index of OneHot counts from the end."""


@operator("ConstantOfShape", host=(0,), wants_context=True)
def constant_of_shape(node: Node) -> Run:
    """`value`, the float 0 by default, at every place."""
    value = node.get("value", np.zeros(1, np.float32)).reshape(-1)
    dtype, number = held_as(ir.DataType.from_numpy(value.dtype)), _number(value)

    def run(context: Context, sizes: list[int]) -> torch.Tensor:
        check_size(sizes, dtype)
        return torch.full(sizes, number, dtype=dtype, device=context.device)

    return run


@host_rule("ConstantOfShape")
def constant_of_shape_host(node: Node) -> Run | None:
    """A scalar or a small vector of whole numbers, where the size is known beforehand."""
    value, (sizes,) = node.get("value"), node.output_sizes
    if value is None or ir.DataType.from_numpy(value.dtype) not in HOST_TYPES:
        return None
    if sizes is None or len(sizes) > 1 or math.prod(sizes) > MOST_ELEMENTS:
        return None
    number = _number(value.reshape(-1))
    return lambda numbers: [number] * numbers[0] if numbers else number


def _number(value: np.ndarray) -> Any:
    """The only element: some types of ONNX are none of Python's, but convert."""
    return value[0].item() if value.dtype.kind in "biufc" else float(value[0])


@operator("Range", host=(0, 1, 2), wants_context=True)
def range_(node: Node) -> Run:
    """Numbers start + i * delta before `limit`. float16 and bfloat16 count in the type that `stash_type` names."""
    element = node.output_type() or next((node.input_type(i) for i in range(3) if node.input_type(i)), None)
    if element is None:
        raise node.refuse("numbers of unknown type", "run shape inference on the model")
    dtype, stash = held_as(element), ir.DataType(node.get("stash_type", 1))
    if not element.is_floating_point():
        return _whole_range(dtype)
    counted = torch.float64
    if element in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        if stash not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
            raise node.refuse(f"stash_type {stash.name}", "use FLOAT or DOUBLE")
        counted = held_as(stash)

    def run(context: Context, start: Any, limit: Any, delta: Any) -> torch.Tensor:
        start, limit, delta = _checked(start, limit, delta)
        count = max(0, math.ceil((limit - start) / delta))
        check_size([count], dtype)
        numbers: torch.Tensor = torch.arange(count, dtype=counted, device=context.device) * delta + start
        return numbers.to(dtype)

    return run


def _whole_range(dtype: torch.dtype) -> Run:
    def run(context: Context, start: Any, limit: Any, delta: Any) -> torch.Tensor:
        start, limit, delta = _checked(start, limit, delta)
        count = max(0, -((start - limit) // delta))
        check_size([count], dtype)
        return torch.arange(start, start + count * delta, delta, dtype=dtype, device=context.device)

    return run


def _checked(*numbers: Any) -> tuple[Any, Any, Any]:
    start, limit, delta = map(as_scalar, numbers)
    if delta == 0:
        raise ValueError("a range cannot go in steps of 0")
    return start, limit, delta


@operator("EyeLike")
def eye_like(node: Node) -> Run:
    """Ones on diagonal `k` of a matrix of the input's shape."""
    diagonal, named = node.get("k", 0), node.get("dtype")
    dtype = None if named is None else held_as(ir.DataType(named))

    def run(x: torch.Tensor) -> torch.Tensor:
        rows, columns = x.shape
        row = torch.arange(rows, device=x.device)[:, None]
        is_one: torch.Tensor = torch.arange(columns, device=x.device) - row == diagonal
        return is_one.to(dtype or x.dtype)

    return run


@operator("OneHot", host=(1,))
def one_hot(node: Node) -> Run:
    """values[1] where the new axis stands at the index, values[0] elsewhere; an index out of range matches nothing."""
    axis = node.get("axis", -1)
    counts_back = node.version >= _COUNTS_BACK and node.input_type(0) is not ir.DataType.UINT64

    def run(indices: torch.Tensor, depth: Any, values: torch.Tensor) -> torch.Tensor:
        depth, indices = int(as_scalar(depth)), indices.to(torch.int64)
        place = axis + indices.ndim + 1 if axis < 0 else axis
        check_size([*indices.shape, depth], values.dtype)
        if counts_back:
            indices = torch.where(indices < 0, indices + depth, indices)
        code = torch.arange(depth, device=indices.device).reshape(-1, *[1] * (indices.ndim - place))
        return torch.where(indices.unsqueeze(place) == code, values[1], values[0])

    return run
