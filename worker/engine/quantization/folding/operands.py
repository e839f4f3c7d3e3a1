"""Reads what a node is given: constants, ranks, optional inputs. Labels are in `flow`."""

import onnx_ir as ir

from worker.engine.graph.shapes import dims
from worker.engine.session import Array


def constant(node: ir.Node, index: int) -> Array | None:
    """The numbers of an input that is constant; None where it is computed or absent."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def rank_of(value: ir.Value | None) -> int | None:
    """The number of axes of a tensor, where known."""
    known = dims(value)
    return None if known is None else len(known)


def is_given(node: ir.Node, index: int) -> bool:
    """Whether a node has its optional input `index`."""
    return index < len(node.inputs) and node.inputs[index] is not None
