"""Conv with a constant weight. Legend: O output channels, I inputs, K kernel."""

import onnx_ir as ir

from worker.engine.graph import Layer
from worker.engine.graph.edit import owner_of
from worker.engine.quantization.dynamic.draft import Draft, Product, source_of
from worker.engine.quantization.dynamic.operand import Operand, operand_at

_WEIGHT, _BIAS = 1, 2


def obstacle(node: ir.Node) -> str | None:
    """Why a Conv stays as it is."""
    bias = _bias(node)
    return None if bias is None or bias.is_initializer() else "its bias is computed"


def operands(node: ir.Node) -> tuple[Operand, ...]:
    """The weight [O, I, K...]."""
    shape = source_of(node, _WEIGHT).shape
    return (operand_at(node, _WEIGHT, tuple(range(shape.rank() if shape else 0)), (0,)),)


def rewrite(layer: Layer, draft: Draft) -> None:
    """Replace a Conv; ONNX Runtime has no kernel that does it in one."""
    node, operand = layer.node, operands(layer.node)[0]
    scale = draft.weights.scale(operand)
    by_channel = (-1, *(1 for _ in scale.shape[2:]))
    bias = _bias(node)
    if bias is not None:
        shaped = draft.graph.array(bias).reshape(by_channel)
        bias = draft.constant(owner_of(bias), f"{bias.name}_channels", shaped)
    made, quantized = draft.quantized(source_of(node), owner_of(node))
    product = Product(
        operand,
        scale.reshape(by_channel),
        node.outputs[0].name or layer.name,
        operator="ConvInteger",
        attributes=list(node.attributes.values()),
        bias=bias,
    )
    chain = draft.product(quantized, product)
    draft.editor.replace(node, [*made, *chain], chain[-1].outputs)


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
