"""Pass: what can be computed from constants alone is computed. Weights that other nodes still read stay as they are."""

import hashlib
import importlib.util
import logging
import math
import re
from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from worker.engine.graph import shapes
from worker.engine.graph.files import size_of_weights
from worker.engine.graph.graph import Graph
from worker.engine.graph.passes.dead import remove_dead
from worker.engine.graph.passes.normalize import record_sources

_LARGEST_RESULT = 1 << 18
"""Elements a folded result may have, unless it only rearranges weights."""
_LARGEST_FILLED = 1 << 12
"""Elements that a ConstantOfShape may have: larger ones take less room as a node."""
_LARGEST_WEIGHT = 1 << 30
_ROOM = 1 << 16
"""Bytes by which folding may make the model larger."""
_REARRANGES = frozenset({"Concat", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Flatten"})
_KEPT = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
_FLOAT_BITS = 32
_FOLDED_FROM = "pkg.onnxscript.optimizer.folded_from"
_ROUNDS = 4
_QUOTED = re.compile(r"'([^']*)'")


def fold_constants(graph: Graph) -> list[str]:
    """Fold with onnxscript's optimizer; without it, or where it stumbles, the graph stays and a note says so."""
    if importlib.util.find_spec("onnxscript") is None:
        return ["constants were not folded: the package onnxscript is not installed"]
    try:
        folded = _fold(graph, _should_fold)
        if size_of_weights(folded.model) > size_of_weights(graph.model) + _ROOM:
            folded = _fold(graph, lambda node: _should_fold(node) and not any(map(_is_matrix, node.inputs)))
    except (RuntimeError, ValueError, ir.passes.PassError) as error:
        return [f"constants were not folded: {error}"]
    graph.model = folded.model
    return []


def _fold(graph: Graph, should_fold: Callable[[ir.Node], bool]) -> Graph:
    from onnxscript.optimizer import fold_constants_ir  # noqa: PLC0415 - optional and heavy

    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    folded = graph.clone()
    before = {value.name for value in folded.initializers()}
    for _ in range(_ROUNDS):
        fold_constants_ir(
            folded.model,
            onnx_shape_inference=True,
            input_size_limit=_LARGEST_RESULT,
            output_size_limit=_LARGEST_WEIGHT,
            should_fold=should_fold,
        )
        # Sizes that it finds become Constant nodes; what reads them can be folded once they are stored.
        if not LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(folded.model).modified:
            break
    _drop_notes(folded, before)
    folded = folded.clone()  # nodes of branches that were folded away no longer count as readers
    remove_dead(folded)
    _tie(folded, before)
    return folded


def _should_fold(node: ir.Node) -> bool:
    """Whether a node with constant inputs goes."""
    if node.op_type in _KEPT or _widens_weights(node) or any(_outlives(value) for value in node.inputs):
        return False
    match node.op_type:
        case "ConstantOfShape":
            limit = _LARGEST_FILLED
        case op if op in _REARRANGES:
            limit = _LARGEST_WEIGHT
        case _:
            limit = _LARGEST_RESULT
    sizes = shapes.sizes(node.outputs[0])
    return sizes is not None and math.prod(sizes) <= limit


def _widens_weights(node: ir.Node) -> bool:
    """Whether it makes floats of a matrix that is stored in fewer bits to be small."""
    stored = node.inputs[0] if node.op_type == "Cast" else None
    if stored is None or stored.dtype is None or stored.shape is None or stored.dtype == ir.DataType.BOOL:
        return False
    return stored.shape.rank() > 1 and stored.dtype.bitwidth < _FLOAT_BITS


def _outlives(value: ir.Value | None) -> bool:
    """Whether `value` is a matrix of weights that also a node reads that stays: folding would untie the two."""
    if value is None or not _is_matrix(value):
        return False
    return value.is_graph_output() or any(not _is_constant(user) for user, _ in value.uses())


def _is_matrix(value: ir.Value | None) -> bool:
    if value is None or value.shape is None or value.dtype is None:
        return False
    return value.dtype.is_floating_point() and value.shape.rank() > 1


def _is_constant(node: ir.Node) -> bool:
    return node.op_type not in _KEPT and all(
        value is None or (value.const_value is not None and not value.is_graph_input()) for value in node.inputs
    )


def _drop_notes(graph: Graph, before: set[str | None]) -> None:
    """Put into the manifest what a new weight was made of; drop the optimizer's own notes, but not the exporter's."""
    for node in graph.nodes():
        for value in node.outputs:
            value.metadata_props.pop(_FOLDED_FROM, None)
    renamed: dict[str, str] = {}
    for value in graph.initializers():
        if value.name not in before:
            sources = _QUOTED.findall(value.metadata_props.pop(_FOLDED_FROM, ""))
            if len(sources) == 1:
                renamed[value.name or ""] = sources[0]
    record_sources(graph, renamed)


def _tie(graph: Graph, before: set[str | None]) -> None:
    """Store once what bodies computed alike from a weight they share: it was one tensor, and stays one."""
    kept: dict[tuple[object, ...], ir.Value] = {}
    for value in [value for value in graph.initializers() if value.name not in before and _is_matrix(value)]:
        tensor, owner = value.const_value, value.graph
        if tensor is None or owner is None or value.is_graph_output():
            continue
        key = (tensor.dtype, tuple(tensor.shape.numpy()), hashlib.sha256(tensor.tobytes()).digest())
        first = kept.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            _move(first, graph.model.graph)
            del owner.initializers[value.name or ""]


def _move(value: ir.Value, owner: ir.Graph) -> None:
    if value.graph is not None and value.graph is not owner:
        del value.graph.initializers[value.name or ""]
        owner.register_initializer(value)
