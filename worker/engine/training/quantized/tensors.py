"""Plain records of what became of integer tensors when a graph was made trainable. Nothing is rewritten here."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import onnx_ir as ir


class Placing(NamedTuple):
    """How scales lie on a tensor: the attributes of QuantizeLinear and DequantizeLinear."""

    axis: int
    block_size: int

    @classmethod
    def of(cls, node: ir.Node) -> "Placing":
        """Those of `node`, with the defaults of the operators."""
        axis, block_size = (node.attributes.get(name) for name in ("axis", "block_size"))
        return cls(axis.as_int() if axis else 1, block_size.as_int() if block_size else 0)


@dataclass(frozen=True)
class CodedWeight:
    """A weight whose codes became floats under the same name. The others are names in the trainable graph."""

    name: str
    scale: str
    zero_point: str
    placing: Placing
    dtype: ir.DataType
    limits: tuple[int, int]
    """Lowest and highest code: those of `dtype`, or fewer where the codes never used all of its bits."""
    is_narrow: bool
    is_pruned: bool
    """Whether more of its codes stand for zero than rounding explains."""


@dataclass(frozen=True)
class CodedBias:
    """An int32 tensor that became floats under the same name. `scale` is in the source alone."""

    name: str
    scale: str
    placing: Placing
    factors: tuple[str, str] | None
    """Scales of the layer's input and weight where `scale` is their product, as integer kernels take it to be."""


def is_constant(value: ir.Value | None, dtypes: Collection[ir.DataType]) -> bool:
    """Whether `value` is an initializer of one of these types that no caller gives or takes."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.is_graph_output():
        return False
    return value.dtype in dtypes
