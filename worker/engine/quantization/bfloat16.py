"""Stores weights as bfloat16 and gives their readers float32 again. Arithmetic stays as it is."""

from collections.abc import Iterable

import ml_dtypes
import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor
from worker.engine.session import Array

BFLOAT16 = ml_dtypes.bfloat16
_LARGEST = 3.3895313892515355e38
_TO_FLOAT = "to", ir.DataType.FLOAT.value


def to_bfloat16(array: Array) -> Array:
    """Nearest bfloat16, halves to even; finite values stay finite, NaN and infinities stay what they are."""
    finite = np.where(np.isfinite(array), np.clip(array, -_LARGEST, _LARGEST), array)
    return finite.astype(BFLOAT16)


def store_in_bfloat16(graph: Graph, weights: Iterable[ir.Value]) -> None:
    """Convert initializers in place; all readers of one share a Cast, but those that gather rows cast only these.

    ONNX Runtime folds the first kind as it loads, and keeps the second.
    """
    editor = Editor(graph)
    for weight in dict.fromkeys(weights):
        graph.set_array(weight, to_bfloat16(graph.array(weight)))
        others = []
        for node, index in weight.uses():
            if node.op_type == "Gather" and index == 0:
                _cast_rows(editor, node)
            else:
                others.append((node, index))
        if others and weight.graph is not None:
            cast = editor.node("Cast", [weight], [f"{weight.name}_float"], [ir.AttrInt64(*_TO_FLOAT)])
            cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), weight.shape
            weight.graph.insert_before(weight.graph[0], cast)
            for node, index in others:
                node.replace_input_with(index, cast.outputs[0])


def _cast_rows(editor: Editor, node: ir.Node) -> None:
    rows = editor.node("Gather", node.inputs, [f"{node.outputs[0].name}_rows"], list(node.attributes.values()))
    cast = editor.node("Cast", rows.outputs, [f"{node.outputs[0].name}_float"], [ir.AttrInt64(*_TO_FLOAT)])
    editor.replace(node, [rows, cast], cast.outputs)
