"""Gather of rows from a table: a row has its own scale, and only the rows that are read become floats."""

import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.graph.edit import owner_of
from worker.engine.quantization.dynamic.draft import Draft, source_of
from worker.engine.quantization.dynamic.operand import Operand, operand_at

_TABLE, _ROWS = 0, 1


def operands(node: ir.Node) -> tuple[Operand, ...]:
    """The table, its rows along axis 0."""
    return (operand_at(node, _TABLE, (0, 1), (0,)),)


def rewrite(layer: Layer, draft: Draft) -> None:
    """Gather codes and scales, Cast, Mul."""
    node, operand, editor = layer.node, operands(layer.node)[0], draft.editor
    scale, table = draft.weights.scale(operand), draft.weights.codes(operand)
    rows, name = source_of(node, _ROWS), node.outputs[0].name or layer.name
    codes = editor.node("Gather", [table, rows], [f"{name}_codes"])
    cast = editor.node("Cast", codes.outputs, [f"{name}_cast"], [ir.AttrInt64("to", ir.DataType.FLOAT.value)])
    stored = draft.constant(owner_of(operand.weight), f"{operand.weight.name}_row_scale", scale)
    if scale.size == 1:
        made, scales = [], stored
    else:
        gathered = editor.node("Gather", [stored, rows], [f"{name}_scales"])
        made, scales = [gathered], gathered.outputs[0]
    scaled = editor.node("Mul", [cast.outputs[0], scales], [f"{name}_scaled"])
    editor.replace(node, [codes, cast, *made, scaled], scaled.outputs)
