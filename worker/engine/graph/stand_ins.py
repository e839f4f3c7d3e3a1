"""Operators that stand in, while shapes are inferred, for those without rules in onnx: com.microsoft's and one more."""

from collections.abc import Callable, Mapping, Sequence

import onnx
from onnx import helper

DOMAIN = "com.microsoft"
StandIn = Callable[[onnx.NodeProto], Sequence[onnx.NodeProto]]


def lend_rules(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace, in place, nodes without rules whose output shapes follow a standard operator's."""
    _lend(model.graph)
    return model


def _lend(graph: onnx.GraphProto) -> None:
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _lend(body)
        stand_in = {DOMAIN: STAND_INS, "": _OWN}.get(node.domain, {}).get(node.op_type)
        lent = _stand_in(node, stand_in) if stand_in else (node,)
        nodes += [onnx.NodeProto.FromString(each.SerializeToString()) for each in lent]
    del graph.node[:]
    graph.node.extend(nodes)


def _stand_in(node: onnx.NodeProto, stand_in: StandIn) -> Sequence[onnx.NodeProto]:
    """What stands in for `node`; itself where it lacks what its operator needs, which ONNX Runtime then refuses."""
    try:
        return stand_in(node)
    except LookupError:
        return (node,)


def _like(op: str, *inputs: int, attributes: Sequence[str] = ()) -> StandIn:
    """`op` over some of the node's inputs, with those of its attributes that `op` knows too."""

    def stand_in(node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
        lent = helper.make_node(op, [node.input[i] for i in inputs if i < len(node.input)], node.output, node.name)
        lent.attribute.extend(attribute for attribute in node.attribute if attribute.name in attributes)
        return (lent,)

    return stand_in


def _same(node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
    """The shape of the first input; SkipLayerNormalization also gives the sum it normalized, as its fourth output."""
    outputs = [name for name in (*node.output[:1], *node.output[3:4]) if name]
    return [helper.make_node("Identity", node.input[:1], [name], f"{node.name}/{name}") for name in outputs]


def _concat(node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
    """QLinearConcat: output scale and zero point, then (tensor, scale, zero point) for each part."""
    lent = helper.make_node("Concat", node.input[2::3], node.output, node.name)
    lent.attribute.extend(node.attribute)
    return (lent,)


def _product(node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
    """FusedMatMul without transposition; with it the shape stays unknown."""
    if any(attribute.name.startswith("trans") and attribute.i for attribute in node.attribute):
        return (node,)
    return _like("MatMul", 0, 1)(node)


def _integer_product(node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
    """MatMulIntegerToFloat: the type of its output is that of its scales."""
    product = helper.make_node("MatMul", node.input[:2], [f"{node.output[0]}/integer"])
    return (product, helper.make_node("CastLike", [product.output[0], node.input[2]], node.output, node.name))


def _packed_product(node: onnx.NodeProto) -> Sequence[onnx.NodeProto]:
    """MatMulNBits: B is packed; its shape is in the attributes K and N."""
    size = {attribute.name: attribute.i for attribute in node.attribute}
    shape, unpacked = f"{node.output[0]}/shape", f"{node.output[0]}/unpacked"
    return (
        helper.make_node("Constant", [], [shape], value_ints=[size["K"], size["N"]]),
        helper.make_node("Expand", [node.input[2], shape], [unpacked]),
        helper.make_node("MatMul", [node.input[0], unpacked], node.output, node.name),
    )


_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "ceil_mode", "count_include_pad")
_GEMM = ("alpha", "beta", "transA", "transB")
_SAME = ("Gelu", "FastGelu", "BiasGelu", "QuickGelu", "QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax")
_NORMS = ("GroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
STAND_INS: Mapping[str, StandIn] = {
    **dict.fromkeys((*_SAME, *_NORMS), _same),
    "FusedConv": _like("Conv", 0, 1, 2, attributes=_WINDOW),
    "FusedGemm": _like("Gemm", 0, 1, 2, attributes=_GEMM),
    "FusedMatMul": _product,
    "DynamicQuantizeMatMul": _like("MatMul", 0, 1),
    "MatMulIntegerToFloat": _integer_product,
    "MatMulNBits": _packed_product,
    "DynamicQuantizeLSTM": _like("LSTM", 0, 1, 2, attributes=("hidden_size", "direction")),
    "QGemm": _like("Gemm", 0, 3, attributes=_GEMM),
    "QLinearAdd": _like("Add", 0, 3),
    "QLinearMul": _like("Mul", 0, 3),
    "QLinearConcat": _concat,
    "QLinearAveragePool": _like("AveragePool", 0, attributes=_WINDOW),
    "QLinearGlobalAveragePool": _like("GlobalAveragePool", 0),
    "QuantizeLinear": _like("QuantizeLinear", 0, 1, 2, attributes=("axis",)),
    "DequantizeLinear": _like("DequantizeLinear", 0, 1, 2, attributes=("axis",)),
}
_OWN: Mapping[str, StandIn] = {"GroupNormalization": _same}
"""Operators of the default domain."""
