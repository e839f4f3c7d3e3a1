"""Operators that change the element type: Cast, CastLike, BitCast. The conversions themselves are in `rounding`."""

from typing import Any

import onnx_ir as ir
import torch

from worker.engine.torch_graph.dtypes import HELD_AS, held_as
from worker.engine.torch_graph.host import HOST_TYPES
from worker.engine.torch_graph.kernels.host_arithmetic import elementwise
from worker.engine.torch_graph.kernels.rounding import FLOAT8, MINIFLOATS, SMALL_WHOLE, from_code, to_code, to_type
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule, operator

T = ir.DataType
_ROUND_MODES = ("up", "down", "nearest")
_INT32_RANGE = 1 << 32


@operator("Cast")
def cast(node: Node) -> Run:
    """Whole numbers lose high bits, floats round to even; `saturate` and `round_mode` are for 8-bit floats."""
    return _conversion(node, ir.DataType(node.need("to")))


@operator("CastLike", fixed=(1,))
def cast_like(node: Node) -> Run:
    """To the type of the second input."""
    to = node.output_type() or node.input_type(1)
    if to is None:
        raise node.refuse("the type of its second input cannot be told", "use Cast")
    convert = _conversion(node, to)
    return lambda x, _: convert(x)


@operator("BitCast")
def bit_cast(node: Node) -> Run:
    """The same bits read as another type of the same width."""
    source, to = node.input_type(0), ir.DataType(node.need("to"))
    _check_held(node, to)
    if source is None:
        raise node.refuse("the type of its input cannot be told")
    if source.bitwidth != to.bitwidth:
        raise node.refuse(f"{source} and {to} differ in width", "choose a type of as many bits")
    if to.bitwidth < held_as(to).itemsize * 8:
        return lambda x: from_code(to_code(x, source), to)
    held = held_as(to)
    return lambda x: x.view(held)


@host_rule("Cast")
def cast_host(node: Node) -> Run | None:
    """Between int64, int32 and truth values."""
    source, to = node.input_type(0), ir.DataType(node.need("to"))
    if source is not None and source not in HOST_TYPES:
        return None
    match to:
        case T.BOOL:
            return elementwise(lambda number: number != 0)
        case T.INT32 if node.constant(0) is not None:
            return elementwise(_wrap)
        case _ if to in HOST_TYPES:
            return elementwise(_as_number)
    return None


def _conversion(node: Node, to: ir.DataType) -> Run:
    _check_held(node, to)
    saturate, round_mode = bool(node.get("saturate", 1)), node.get("round_mode", "up")
    if round_mode not in _ROUND_MODES:
        raise node.refuse(f"round_mode {round_mode!r} is not one", f"use {', '.join(_ROUND_MODES)}")
    if to in FLOAT8 or to in MINIFLOATS or to in SMALL_WHOLE or to is T.FLOAT8E8M0:
        return lambda x: to_type(x, to, saturate=saturate, round_mode=round_mode)
    held = held_as(to)
    return lambda x: x.to(held)


def _check_held(node: Node, dtype: ir.DataType) -> None:
    if dtype not in HELD_AS:
        raise node.refuse(f"there are no tensors of {dtype} in torch")


def _wrap(number: Any) -> Any:
    """The low 32 bits. Sizes of a traced graph fit and are left alone: this would make them formulas."""
    half = _INT32_RANGE // 2
    return (int(number) + half) % _INT32_RANGE - half


def _as_number(value: Any) -> Any:
    return int(value) if isinstance(value, bool | torch.SymBool) else value
