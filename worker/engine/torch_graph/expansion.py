"""Function bodies: what ONNX itself says an operator consists of. They stand in for operators that the table lacks."""

from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from app.contracts.failure import SlimlineError
from worker.engine.graph import shapes
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.source import Source

_DOMAIN = "slimline.body"


def body_of(source: Source, node: ir.Node, described: Node) -> tuple[ir.Graph, int]:
    """The body of `node`'s operator with its attributes filled in, and the opset version it is written in.

    Raises SlimlineError OPERATOR_UNSUPPORTED where ONNX gives none.
    """
    if node not in source.bodies:
        function = _find_function(node, described)
        if function is None:
            domain = f"{node.domain}::" if node.domain else ""
            raise SlimlineError(
                "OPERATOR_UNSUPPORTED",
                f"operator {domain}{node.op_type} cannot be run in torch",
                node=described.name,
                hint="the documentation lists the operators that can",
            )
        source.add_body(node, *_fill_in(function, node, source.model.opset_imports))
    return source.bodies[node]


def _find_function(node: ir.Node, described: Node) -> onnx.FunctionProto | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    if not onnx.defs.has(node.op_type, described.version, domain):
        return None
    schema: Any = onnx.defs.get_schema(node.op_type, described.version, domain)  # its functions are in no stub
    body: bytes | onnx.FunctionProto | None = None
    if schema.has_function:
        body = schema.get_function_with_opset_version(max(schema.function_opset_versions))
    elif schema.has_context_dependent_function and all(value is None or value.type for value in node.inputs):
        body = schema.get_context_dependent_function_with_opset_version(
            max(schema.context_dependent_function_opset_versions),
            ir.serde.serialize_node(node).SerializeToString(),
            [_serialized_type(value) for value in node.inputs],
        )
    if isinstance(body, bytes):
        return onnx.FunctionProto.FromString(body) if body else None
    return body


def _serialized_type(value: ir.Value | None) -> bytes:
    return ir.serde.serialize_type(value.type).SerializeToString() if value is not None and value.type else b""


def _fill_in(function: onnx.FunctionProto, node: ir.Node, imports: Mapping[str, int]) -> tuple[ir.Graph, int]:
    """The function called once with `node`'s attributes, and inlined; `imports` hold where it names no version."""
    function.domain = _DOMAIN
    del function.output[len(node.outputs) :]  # those nobody wants may have no maker in the body
    called = ir.serde.deserialize_function(function)
    inputs = [ir.Value(name=value.name) for value in called.inputs]
    for inner, outer in zip(inputs, node.inputs, strict=False):
        if outer is not None:
            inner.type, inner.shape = outer.type, outer.shape
    # A body that a node brings is written out in the function already.
    known = [each for name, each in node.attributes.items() if name in called.attributes]
    attributes = [each for each in known if each.type is not ir.AttributeType.GRAPH]
    call = ir.Node(_DOMAIN, function.name, inputs, attributes, num_outputs=len(called.outputs))
    versions = {**imports, **called.opset_imports}
    called.opset_imports.update(versions)
    graph = ir.Graph(inputs, call.outputs, nodes=[call], opset_imports={_DOMAIN: 1, **versions})
    model = ir.Model(graph, ir_version=10, functions=[called])
    common.InlinePass()(model)
    shapes.infer(model)
    return model.graph, versions.get("", 1)
