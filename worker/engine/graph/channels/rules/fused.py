"""ONNX Runtime's fused operators: the rule of what they begin with, then what comes behind it."""

import onnx_ir as ir

from worker.engine.graph.channels.rules.broadcasting import broadcast
from worker.engine.graph.channels.table import MICROSOFT, find_rule, rule
from worker.engine.graph.channels.walk import Walk, attribute, called

_BEGINS_WITH = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}
_TURNS = ("transA", "transB", "transBatchA", "transBatchB")
_ZERO_AT_ZERO = frozenset({"", "LeakyRelu", "Relu", "Tanh"})
_ADDED = 3


@rule(*_BEGINS_WITH, domain=MICROSOFT)
def _fused(walk: Walk, node: ir.Node) -> None:
    """activation(Conv + Z), activation(Gemm), alpha * MatMul."""
    begins_with, output = find_rule("", _BEGINS_WITH[node.op_type]), node.outputs[0]
    is_turned = node.op_type == "FusedMatMul" and any(attribute(node, name, 0) for name in _TURNS)
    if begins_with is None or is_turned or attribute(node, "group", 1) > 1:
        return walk.give_up(node, f"{called(node)} has groups or transposes")
    begins_with(walk, node)
    axes, zero = walk.known_axes(output), walk.is_zero(output)
    added = node.inputs[_ADDED] if len(node.inputs) > _ADDED else None
    if added is not None and axes is not None:
        axes = broadcast(walk, [output, added], list(map(len, axes)))
        zero = zero and walk.is_zero(added)
    function = node.attributes["activation"].as_string() if "activation" in node.attributes else ""
    return walk.give(output, axes, zero=zero and function in _ZERO_AT_ZERO)
