"""Pass: parameters that an exporter merged because they were equal become separate again; true ties stay.

Exporters store equal tensors once: all zero biases of one size, all unit scales of normalization. Training or pruning
one layer would then change the others. What counts as a tie, and stays one tensor:

- a matrix or kernel (rank 2 and up) read by several layers, directly or through Transpose: an embedding that is also
  the output projection, a head applied at several scales. Equal random matrices do not happen by accident; only one
  whose elements are all the same may, and is separated.
- a bias, scale or slope of layers that share their matrix too: the same module called twice.
- a number, or a vector read outside these places: a constant of the arithmetic.
"""

from collections.abc import Hashable, Mapping

import numpy as np
import onnx_ir as ir

from worker.engine.graph.graph import Array, Graph
from worker.engine.graph.layers import trace_weight
from worker.engine.graph.passes.normalize import free_names, record_sources
from worker.engine.wording import counted

_LAYERS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "LSTM": (1, 2, 3, 7),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
}
_AFTER_LAYERS: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "RMSNormalization": (1,),
    "PRelu": (1,),
}
_ELEMENTWISE: Mapping[str, tuple[int, ...]] = {"Add": (0, 1), "Mul": (0, 1)}
_PARAMETERS = {**_LAYERS, **_AFTER_LAYERS, **_ELEMENTWISE}
"""Inputs that training would change."""
_MATRIX_RANK = 2

Use = tuple[ir.Node, int]


def unshare(graph: Graph) -> list[str]:
    """Give each owner of a merged parameter a tensor of its own; the first keeps the name."""
    taken = {value.name for node in graph.nodes() for value in node.outputs if value.name}
    taken |= {value.name for value in graph.initializers() if value.name}
    renamed: dict[str, str] = {}
    for value in list(graph.initializers()):
        merged = _merged(value)
        numbers = value.const_value.numpy() if merged and value.const_value else None  # once: each call may copy
        for uses in merged:
            name = next(free_names(f"{value.name}.{uses[0][0].name}", taken))
            taken.add(name)
            _separate(value, numbers, name, uses)
            renamed[name] = value.name or ""
    record_sources(graph, renamed)
    return [f"separated {counted(len(renamed), 'parameter')} stored once for being equal"] if renamed else []


def _separate(value: ir.Value, numbers: Array | None, name: str, uses: list[Use]) -> None:
    tensor = value.const_value
    if tensor is None or numbers is None or value.graph is None or value.shape is None:
        return
    own = ir.Tensor(numbers, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name)
    copy = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=value.shape.copy(), const_value=own)
    value.graph.register_initializer(copy)
    for node, index in uses:
        node.replace_input_with(index, copy)


def _merged(value: ir.Value) -> list[list[Use]]:
    """The uses of `value` by owners other than the first: what is a tie has one owner."""
    if (
        value.const_value is None
        or value.dtype is None
        or not value.dtype.is_floating_point()
        or len(value.uses()) == 1
    ):
        return []
    uniform = _is_uniform(value)
    owners: dict[Hashable, list[Use]] = {}
    for node, index in value.uses():
        owners.setdefault(_owner(value, node, index, uniform=uniform), []).append((node, index))
    first = None if None in owners or value.is_graph_output() else next(iter(owners), None)
    return [uses for owner, uses in owners.items() if owner != first]


def _owner(value: ir.Value, node: ir.Node, index: int, *, uniform: bool) -> Hashable:
    """Whose parameter `value` is there; None where it is nobody's and must stay as it is."""
    size, rank = (value.const_value.size, value.const_value.shape.rank()) if value.const_value else (0, 0)
    if index not in _PARAMETERS.get(node.op_type, ()):
        return None
    if node.op_type in _ELEMENTWISE and (size == 1 or size not in (value.shape or ())):
        return None  # a number, or a map over positions
    if uniform:
        return node, index
    if rank >= _MATRIX_RANK and node.op_type in _LAYERS:
        return None
    matrix = _matrix(node, index)
    if matrix is None and node.op_type in _ELEMENTWISE:
        return None
    return matrix or node, index


def _matrix(node: ir.Node, index: int) -> ir.Value | None:
    """The matrix of the layer that this parameter belongs to."""
    if node.op_type not in _LAYERS:
        before = node.inputs[1 - index] if node.op_type in _ELEMENTWISE else node.inputs[0]
        layer = before.producer() if before is not None else None
        if layer is None or layer.op_type not in _LAYERS:
            return None
        node = layer
    traced = trace_weight(node.inputs[1])
    return traced[0] if traced else None


def _is_uniform(value: ir.Value) -> bool:
    numbers = value.const_value.numpy().reshape(-1) if value.const_value else np.empty(0)
    return bool(numbers.size and (numbers == numbers[0]).all())
