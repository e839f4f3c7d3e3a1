"""Pass: the default opset becomes at least 18, or what a method asks for, by onnx's version converter."""

import onnx
import onnx_ir as ir
from onnx import version_converter

from app.contracts.failure import SlimlineError
from worker.engine.graph.graph import Graph
from worker.engine.graph.skeleton import give_back_weights, to_skeleton

TARGET = 18
OLDEST_KEPT = 13
"""Oldest opset worked on as it is where conversion fails: from 13 on, Q/DQ nodes have an axis."""


def raise_opset(graph: Graph, target: int = TARGET, oldest_kept: int = OLDEST_KEPT) -> list[str]:
    """Convert up to opset `target`; newer graphs stay as they are.

    Raises SlimlineError OPSET_UNSUPPORTED for what cannot be converted and is older than `oldest_kept`.
    """
    source = graph.opset
    if source >= target:
        return []
    try:
        proto = version_converter.convert_version(to_skeleton(graph.model), target)
        onnx.checker.check_model(proto)
    except (version_converter.ConvertError, onnx.checker.ValidationError, RuntimeError) as error:
        if source >= oldest_kept:
            return [f"stays at opset {source}: conversion to {target} failed ({_first_line(error)})"]
        raise SlimlineError(
            "OPSET_UNSUPPORTED",
            f"opset {source} could not be converted to {target}: {_first_line(error)}",
            hint=f"export with opset_version={target} or higher; {oldest_kept} is the oldest that is taken as it is",
        ) from error
    converted = ir.serde.deserialize_model(proto)
    give_back_weights(converted, graph.model)
    _carry_over(graph.model, converted)
    graph.model = converted
    return [f"converted from opset {source} to {target}"]


def _carry_over(old: ir.Model, new: ir.Model) -> None:
    """What the converter drops: metadata and documentation of model, graph, nodes and values."""
    new.metadata_props.update(old.metadata_props)
    new.ir_version = max(new.ir_version, old.ir_version)
    new.graph.metadata_props.update(old.graph.metadata_props)
    before = {node.name: node for node in ir.traversal.RecursiveGraphIterator(old.graph)}
    for node in ir.traversal.RecursiveGraphIterator(new.graph):
        if node.name in before:
            node.metadata_props.update(before[node.name].metadata_props)
            node.doc_string = before[node.name].doc_string
    values = ir.convenience.create_value_mapping(old.graph)
    for name, value in ir.convenience.create_value_mapping(new.graph).items():
        if name in values:
            value.metadata_props.update(values[name].metadata_props)
            value.doc_string = values[name].doc_string
            value.meta.update(values[name].meta)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
