"""Microsoft's Attention, whose one weight makes queries, keys and values. ONNX's own has no weights.

The products of activations with each other, queries with keys and attention with values, stay in float here and in
QAttention. Where they stand as MatMul they stay too: in integers they cost 0.4 to 2.4 dB and 6 to 8 % more time on
small transformers, and gained 4 to 10 % at 128 to 512 tokens while their own error rose to 20 dB.
"""

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.graph.edit import ORT_DOMAIN, owner_of
from worker.engine.quantization.dynamic.draft import Draft, source_of
from worker.engine.quantization.dynamic.operand import Operand, operand_at

_WEIGHT, _BIAS, _MASK, _PAST, _SCORE_BIAS, _PAST_LENGTH = range(1, 7)
_FLAT = 3
_KNOWN = ("num_heads", "unidirectional", "mask_filter_value", "scale")
"""Attributes of both operators."""


def obstacle(node: ir.Node) -> str | None:
    """Why an Attention stays as it is: what QAttention does not know."""
    given = {index for index, value in enumerate(node.inputs) if value is not None}
    if _BIAS not in given:
        return "it has no bias, which the integer kernel needs"
    if given & {_SCORE_BIAS, _PAST_LENGTH}:
        return "it has inputs that the integer kernel does not know"
    mask = node.inputs[_MASK] if _MASK in given else None
    if mask is not None and (mask.shape is None or mask.shape.rank() > _FLAT):
        return "its mask has four axes, or nobody knows how many"
    unknown = sorted(name for name, each in node.attributes.items() if name not in _KNOWN and each.value)
    return f"the integer kernel does not know {unknown[0]}" if unknown else None


def operands(node: ir.Node) -> tuple[Operand, ...]:
    """The matrix [inputs, queries + keys + values]."""
    return (operand_at(node, _WEIGHT, (0, 1), (1,)),)


def rewrite(layer: Layer, draft: Draft) -> None:
    """Replace an Attention by QAttention."""
    node, operand = layer.node, operands(layer.node)[0]
    owner, name = owner_of(operand.weight), operand.weight.name
    scale = draft.weights.scale(operand)
    scale = scale.reshape(-1) if scale.size > 1 else scale.reshape(())
    made, (codes, input_scale, input_zero) = draft.quantized(source_of(node), owner_of(node))
    mask, past = (node.inputs[index] if index < len(node.inputs) else None for index in (_MASK, _PAST))
    inputs = [
        codes,
        draft.weights.codes(operand),
        node.inputs[_BIAS],
        input_scale,
        draft.constant(owner, f"{name}_scale", scale),
        mask,
        input_zero,
        draft.constant(owner, f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
        past,
    ]
    attributes = [node.attributes[each] for each in _KNOWN if each in node.attributes]
    outputs = [output.name or f"{layer.name}_unused" for output in node.outputs]
    attention = draft.editor.node("QAttention", inputs, outputs, attributes, ORT_DOMAIN)
    draft.editor.replace(node, [*made, attention], attention.outputs)
