"""What an operator's definition and ONNX Runtime's kernels say of float16. The numbers that flow are in `islands`."""

from collections.abc import Callable, Mapping, Sequence

import onnx
import onnx_ir as ir

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
LARGEST = 65504.0
_HALF_TENSOR = "tensor(float16)"
_TYPED_BY_ATTRIBUTE = frozenset(
    {
        "BlackmanWindow", "Constant", "ConstantOfShape", "EyeLike", "HammingWindow", "HannWindow", "MelWeightMatrix",
        "Multinomial", "RandomNormal", "RandomUniform",
    }
)  # fmt: skip
_TYPED_BY_DTYPE = frozenset({"Bernoulli", "RandomNormalLike", "RandomUniformLike"})
_SCALES_AND_REGION = frozenset({"Resize", "Upsample"})


def _reduces(node: ir.Node) -> bool:
    return "reduction" in node.attributes and node.attributes["reduction"].as_string() != "none"


_WITHOUT_KERNEL: Mapping[str, Callable[[ir.Node], bool]] = {
    "BitCast": lambda _: True,
    "MeanVarianceNormalization": lambda _: True,
    "ScatterElements": _reduces,
    "ScatterND": _reduces,
}
"""Operators, or forms of them, that the standard allows in float16 and ONNX Runtime refuses on a CPU. Found by running
the standard's own tests in float16, where nothing else failed; no kernel overflows inside while its results fit, since
it computes sums, squares and exponentials in float32."""


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is a float32 tensor."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.dtype == FLOAT


def bodies(node: ir.Node) -> list[ir.Graph]:
    """The graphs that an If, Loop, Scan or SequenceMap holds."""
    graphs = [each.as_graph() for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH]
    lists = [each.as_graphs() for each in node.attributes.values() if each.type == ir.AttributeType.GRAPHS]
    return [*graphs, *(graph for several in lists for graph in several)]


def obstacle_in_operator(node: ir.Node, opset: int) -> str | None:
    """Why a node's operator cannot work on float16; None if it can, or if its bodies do the work."""
    if bodies(node):
        return "SequenceMap passes elements of sequences to its body" if node.op_type == "SequenceMap" else None
    values = [value for value in (*node.inputs, *node.outputs) if value is not None and value.name]
    if any(not isinstance(value.type, ir.TensorType) for value in values):
        return f"{node.op_type} has values of unknown type or that are no tensors"
    if node.domain or not onnx.defs.has(node.op_type, ""):
        return f"{node.op_type} is no standard operator"
    if node.op_type in _TYPED_BY_ATTRIBUTE or (node.op_type in _TYPED_BY_DTYPE and "dtype" in node.attributes):
        return f"{node.op_type} states its type itself"
    if node.op_type in _WITHOUT_KERNEL and _WITHOUT_KERNEL[node.op_type](node):
        return f"ONNX Runtime runs no {node.op_type} of this form in float16"
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    touched = [(value, schema.inputs, index) for index, value in enumerate(node.inputs)]
    touched += [(value, schema.outputs, index) for index, value in enumerate(node.outputs)]
    floats = [_takes_half(schema, formal, index) for value, formal, index in touched if is_float(value)]
    return f"{node.op_type} takes no float16" if floats and not any(floats) else None


def wants_half(node: ir.Node, index: int, opset: int) -> bool:
    """Whether input `index` of a standard operator may be float16."""
    if node.op_type in _SCALES_AND_REGION and index > 0:
        return False
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    return _takes_half(schema, schema.inputs, index)


def gives_half(node: ir.Node, index: int, opset: int) -> bool:
    """Whether output `index` of a standard operator may be float16."""
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    return _takes_half(schema, schema.outputs, index)


def _takes_half(schema: onnx.defs.OpSchema, formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> bool:
    parameter = formal[min(index, len(formal) - 1)]  # the last one may be variadic
    constraint = next((each for each in schema.type_constraints if each.type_param_str == parameter.type_str), None)
    return _HALF_TENSOR in (constraint.allowed_type_strs if constraint else [parameter.type_str])
