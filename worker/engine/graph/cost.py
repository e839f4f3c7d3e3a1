"""Multiply-accumulates of a graph for one sample, from inferred shapes. Counting weights is in `weights`."""

import math
from collections.abc import Callable, Mapping

import onnx_ir as ir

from worker.engine.graph import shapes
from worker.engine.graph.graph import Graph
from worker.engine.graph.passes.constants import fold_constants
from worker.engine.graph.stand_ins import DOMAIN, STAND_INS
from worker.engine.graph.weights import WeightCount, count_weights

__all__ = ["WeightCount", "count_weights", "macs", "macs_per_node"]


class _UnknownError(Exception):
    """A shape that the count needs is not known."""


def macs(graph: Graph) -> int | None:
    """For one sample: a symbolic batch counts as 1, a fixed one is divided by. None where a shape stays unknown.

    Of an If the dearer branch counts; a Loop counts where its number of trips is constant.
    """
    sample, batch = _one_sample(graph)
    try:
        return _total(sample.model.graph) // batch
    except _UnknownError:
        return None


def macs_per_node(graph: Graph) -> dict[str, int | None]:
    """By node name, for one sample and one execution of each node that multiplies and accumulates, bodies included."""
    sample, batch = _one_sample(graph)
    found: dict[str, int | None] = {}
    for node in sample.nodes():
        if node.op_type in _RULES:
            count = _count(node)
            found[node.name or ""] = None if count is None else count // batch
    return found


def _count(node: ir.Node) -> int | None:
    try:
        return _RULES[node.op_type](node)
    except _UnknownError:
        return None


def _one_sample(graph: Graph) -> tuple[Graph, int]:
    """A copy with shapes for a batch of 1, and the number to divide by where the batch is fixed."""
    sample = graph.clone()
    batch = _bind_batch(sample.model.graph)
    sample.infer_shapes()
    if any(_count(node) is None for node in sample.nodes() if node.op_type in _RULES):
        # With the inputs' sizes known, the arithmetic of shapes is constant where inference alone cannot follow it.
        fold_constants(sample)
        sample.infer_shapes()
    return sample, batch


def _bind_batch(graph: ir.Graph) -> int:
    """Make the batch 1 where it is symbolic or unknown; gives the number to divide by where it is fixed."""
    inputs = [value for value in graph.inputs if not value.is_initializer() and value.shape]
    known = [shapes.dims(value) or [] for value in inputs]
    leading = [dims[0] for dims in known]
    names = {dim for dims in known for dim in dims if isinstance(dim, str)}
    batch = {dim for dim in leading if isinstance(dim, str)} or (names if len(names) == 1 else set())
    shapes.bind(graph, dict.fromkeys(batch, 1))
    for value, dim in zip(inputs, leading, strict=True):
        if dim is None and value.shape is not None:
            value.shape = ir.Shape([1, *value.shape.dims[1:]])
    outputs = [(shapes.dims(value) or [None])[0] for value in graph.outputs]
    fixed = {dim for dim in (*leading, *outputs) if isinstance(dim, int)}
    is_fixed = not names and None not in leading and len(fixed) == 1
    return max(1, *fixed) if is_fixed else 1


def _total(graph: ir.Graph) -> int:
    total = 0
    for node in graph:
        bodies = [_total(attribute.as_graph()) for attribute in node.attributes.values() if _holds_body(attribute)]
        if bodies:
            total += max(bodies) * (_trips(node) if max(bodies) else 1)
        elif node.op_type in _RULES:
            total += _RULES[node.op_type](node)
        elif node.op_type in _UNCOUNTED or (node.domain == DOMAIN and node.op_type not in STAND_INS):
            raise _UnknownError
    return total


def _trips(node: ir.Node) -> int:
    """How often a body runs."""
    match node.op_type:
        case "If":
            return 1
        case "Loop" if node.inputs[0] is not None and node.inputs[0].const_value is not None:
            return int(node.inputs[0].const_value.numpy())
        case "Scan":
            axes = node.attributes["scan_input_axes"].as_ints() if "scan_input_axes" in node.attributes else (0,)
            scanned = node.inputs[len(node.inputs) - node.attributes["num_scan_inputs"].as_int()]
            return _shape(scanned)[axes[0]]
        case _:
            raise _UnknownError


def _holds_body(attribute: ir.Attr) -> bool:
    return attribute.type == ir.AttributeType.GRAPH


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    sizes = shapes.sizes(value)
    if sizes is None:
        raise _UnknownError
    return sizes


def _elements(value: ir.Value | None) -> int:
    return math.prod(_shape(value))


def _int(node: ir.Node, name: str, default: int = 0) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _convolution(weight: int) -> Callable[[ir.Node], int]:
    """Each output element sums over I / groups x kernel; the weight is O x I / groups x kernel."""
    return lambda node: _elements(node.outputs[0]) * math.prod(_shape(node.inputs[weight])[1:])


def _transposed_convolution(node: ir.Node) -> int:
    """Each input element is spread over O / groups x kernel; the weight is I x O / groups x kernel."""
    return _elements(node.inputs[0]) * math.prod(_shape(node.inputs[1])[1:])


def _matrix(node: ir.Node) -> int:
    """Each output element sums over the columns of A."""
    return _elements(node.outputs[0]) * _shape(node.inputs[0])[-2 if _int(node, "transA") else -1]


def _packed_matrix(node: ir.Node) -> int:
    return _elements(node.inputs[0]) * _int(node, "N")


def _recurrent(node: ir.Node) -> int:
    """Each step of each sample multiplies with all of W and R. X is steps x samples x features."""
    return math.prod(_shape(node.inputs[0])[:2]) * (_elements(node.inputs[1]) + _elements(node.inputs[2]))


def _attention(node: ir.Node) -> int:
    """Scores: every element of Q meets every key; then every element of Y sums over the values."""
    if node.domain == DOMAIN:
        return _packed_attention(node)
    keys = _shape(node.inputs[1])[-2]
    if len(node.inputs) > _PAST_KEY and node.inputs[_PAST_KEY] is not None:
        keys += _shape(node.inputs[_PAST_KEY])[-2]
    return keys * (_elements(node.inputs[0]) + _elements(node.outputs[0]))


def _packed_attention(node: ir.Node) -> int:
    """ONNX Runtime's own: X [samples, steps, features] meets one weight for Q, K and V; then as above, without past."""
    samples, steps, features = _shape(node.inputs[0])
    columns = _shape(node.inputs[1])[-1]
    query, _, value = (
        node.attributes["qkv_hidden_sizes"].as_ints() if "qkv_hidden_sizes" in node.attributes else [columns // 3] * 3
    )
    return samples * steps * (features * columns + steps * (query + value))


def _einsum(node: ir.Node) -> int:
    """Every combination of index values once; one operand alone multiplies nothing."""
    terms = node.attributes["equation"].as_string().replace(" ", "").partition("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if any("." in term for term in terms):
        raise _UnknownError
    sizes = {
        index: size
        for term, value in zip(terms, node.inputs, strict=True)
        for index, size in zip(term, _shape(value), strict=True)
    }
    return math.prod(sizes.values())


_PAST_KEY = 4
_RULES: Mapping[str, Callable[[ir.Node], int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv", "DeformConv"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul"), _matrix),
    **dict.fromkeys(("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), _matrix),
    "MatMulNBits": _packed_matrix,
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
    "Attention": _attention,
    "QAttention": _packed_attention,
    "Einsum": _einsum,
}
_UNCOUNTED = frozenset({"LinearAttention", "CausalConvWithState", "SequenceMap"})
