"""What it is that a node's own constants can scale and shift its output channels. Which nodes can is elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from worker.engine.graph import Graph

Numbers = NDArray[np.float64]
NORM = "BatchNormalization"
AXES: Mapping[str, int] = {NORM: 1, "Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1}
"""Where the output has its channels."""
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class Rescalable(ABC):
    """A node of which `rescale` works."""

    node: ir.Node

    @property
    def tensor(self) -> str:
        """The name of the output whose channels are scaled and shifted: the first."""
        return self.node.outputs[0].name or ""

    @property
    def axis(self) -> int:
        """Where the channels are in it."""
        return AXES[self.node.op_type]

    @abstractmethod
    def rescale(self, graph: Graph, gain: Numbers, shift: Numbers) -> None:
        """Have it count as gain x + shift, both [C], for all that read it as x; `graph` is the node's."""


def is_own(value: ir.Value | None) -> bool:
    """Whether it holds floats that one node alone reads."""
    if value is None or not value.is_initializer() or value.is_graph_input() or value.is_graph_output():
        return False
    return value.dtype in _FLOATS and len(value.uses()) == 1


def read(graph: Graph, value: ir.Value | None) -> Numbers:
    """A constant in float64. Raises ValueError for None."""
    numbers: Numbers = graph.array(_present(value)).astype(np.float64)
    return numbers


def store(graph: Graph, value: ir.Value | None, numbers: Numbers) -> None:
    """Replace a constant by `numbers`, in the type that it has. Raises ValueError for None."""
    graph.set_array(_present(value), numbers.astype(graph.array(_present(value)).dtype))


def _present(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise ValueError("a node lost an input that it cannot be without")
    return value
