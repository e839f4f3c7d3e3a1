"""Nodes that multiply integers: no gradient reaches their weights. Which they are, and what of them is fixed."""

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from worker.engine.graph import Graph

_SUMS = "it multiplies integers, and ONNX gives no gradient to what is rounded for it"
_PACKED = "its weights are packed integers, which no gradient reaches"
WITHOUT_GRADIENT: Mapping[str, str] = {
    **dict.fromkeys(
        ("MatMulInteger", "ConvInteger", "QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat",
         "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QAttention"), _SUMS
    ),
    **dict.fromkeys(("MatMulNBits", "GatherBlockQuantized"), _PACKED),
}  # fmt: skip
_SCALES: Mapping[str, tuple[int, ...]] = {
    "MatMulNBits": (2,),
    "GatherBlockQuantized": (2,),
    "MatMulIntegerToFloat": (2, 3),
    "DynamicQuantizeMatMul": (2,),
    "DynamicQuantizeLSTM": (8, 10),
    "QAttention": (3, 4),
    "QLinearConv": (1, 4, 6),
    "QLinearMatMul": (1, 4, 6),
    "QGemm": (1, 4, 7),
}
"""Inputs that are scales. Those of MatMulInteger and ConvInteger are operands of a Mul behind them."""
_SUMMED = frozenset({"MatMulInteger", "ConvInteger"})
_SCALED_BY = frozenset({"Cast", "Mul"})


def untrained_products(graph: Graph) -> dict[str, str]:
    """Names of nodes whose weights stay as they are, and why."""
    found = (node for node in graph.nodes() if node.op_type in WITHOUT_GRADIENT)
    return {node.name or "": WITHOUT_GRADIENT[node.op_type] for node in found}


def fixed_scales(graph: Graph) -> set[ir.Value]:
    """Initializers that scale such products: moved alone, they would only undo what was calibrated."""
    found = {value for node in graph.nodes() for value in _scales_of(node)}
    return {value for value in found if value.is_initializer()}


def _scales_of(node: ir.Node) -> Iterator[ir.Value]:
    for index in _SCALES.get(node.op_type, ()):
        if index < len(node.inputs) and (value := node.inputs[index]) is not None:
            yield value
    if node.op_type in _SUMMED:
        yield from _operands_behind(node.outputs[0])
    elif node.op_type == "DynamicQuantizeLinear":
        yield from _operands_behind(node.outputs[1])


def _operands_behind(value: ir.Value) -> Iterator[ir.Value]:
    for use in value.uses():
        if use.node.op_type in _SCALED_BY:
            yield from (each for each in use.node.inputs if each is not None and each is not value)
            if use.node.op_type == "Cast" or all(
                each is value or (each is not None and each.is_initializer()) for each in use.node.inputs
            ):
                yield from _operands_behind(use.node.outputs[0])
