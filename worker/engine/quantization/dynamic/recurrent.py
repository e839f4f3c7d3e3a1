"""LSTM, for which ONNX Runtime has an integer kernel. GRU and RNN, for which it has none, are in `scanned`.

Legend: D directions, G gates x hidden, H hidden, I inputs.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.graph.edit import ORT_DOMAIN, owner_of
from worker.engine.quantization.dynamic.draft import Draft
from worker.engine.quantization.dynamic.operand import Operand, operand_at
from worker.engine.quantization.nodes import attribute

_WEIGHTS = (1, 2)
_INPUTS = 8


def operands(node: ir.Node) -> tuple[Operand, ...]:
    """The weights of the input [D, I, G] and of the state [D, H, G]; a scale for each gate of each hidden unit."""
    return tuple(operand_at(node, slot, (0, 2, 1), (0, 1)) for slot in _WEIGHTS)


def obstacle(node: ir.Node) -> str | None:
    """Why a recurrent layer stays as it is."""
    return "it has layout=1, for which ONNX Runtime has no kernel at all" if attribute(node, "layout", 0) else None


def rewrite_lstm(layer: Layer, draft: Draft) -> None:
    """Replace an LSTM by DynamicQuantizeLSTM, which takes every form of it: peepholes, lengths, clip, activations."""
    node = layer.node
    inputs = [*node.inputs, *([None] * (_INPUTS - len(node.inputs)))]
    for slot, operand in zip(_WEIGHTS, operands(node), strict=True):
        scale = np.broadcast_to(draft.weights.scale(operand), (operand.size(0), 1, operand.size(2)))[:, 0]
        owner, name = owner_of(operand.weight), operand.weight.name
        inputs[slot] = draft.weights.codes(operand)
        inputs.append(draft.constant(owner, f"{name}_scale", scale))
        inputs.append(draft.constant(owner, f"{name}_zero_point", np.zeros(scale.shape, np.int8)))
    attributes = [each for name, each in node.attributes.items() if name != "layout"]
    names = [output.name or f"{layer.name}_unused" for output in node.outputs]
    new = draft.editor.node("DynamicQuantizeLSTM", inputs, names, attributes, ORT_DOMAIN)
    draft.editor.replace(node, [new], new.outputs)
