"""Weights stored as codes: made floats behind a QuantizeLinear, where that gives the same numbers to the last bit."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor, owner_of
from worker.engine.torch_graph.dtypes import TRAINABLE
from worker.engine.torch_graph.kernels.affine_quantization import bounds, has_bounds
from worker.engine.training.quantized.codes import limits_of, restored, round_to_codes
from worker.engine.training.quantized.tensors import CodedWeight, Placing, is_constant

_COPIED = ("axis", "block_size")
_PRUNED = 2
"""Zeros for each number rounded to one step, in either direction, above which they were made on purpose."""


def unfold_weights(graph: Graph) -> tuple[list[CodedWeight], dict[str, str]]:
    """Edit `graph`; gives what was unfolded, and why other constant codes were not, by their names."""
    editor, found, held_back = Editor(graph), list[CodedWeight](), dict[str, str]()
    for codes in _find_codes(graph):
        readers = [use.node for use in codes.uses()]
        reason = _obstacle(codes, readers)
        weight = None if reason else _unfold(graph, editor, codes, readers)
        if weight is not None:
            found.append(weight)
        else:
            held_back[codes.name or ""] = reason or "its scales are too small, or zero, to give the same codes again"
    return found, held_back


def _find_codes(graph: Graph) -> Iterator[ir.Value]:
    """Constants that a DequantizeLinear reads as codes."""
    for value in list(graph.initializers()):
        is_read = any(use.node.op_type == "DequantizeLinear" and use.idx == 0 for use in value.uses())
        if is_read and has_bounds(value.dtype) and not value.is_graph_input():
            yield value


def _obstacle(codes: ir.Value, readers: list[ir.Node]) -> str | None:
    if codes.is_graph_output() or any(node.op_type != "DequantizeLinear" for node in readers):
        return "its codes are read by other nodes than DequantizeLinear too"
    if len({(*node.inputs[1:], node.domain, Placing.of(node)) for node in readers}) > 1:
        return "its codes are read with several scales"
    scale, zero_point = (*readers[0].inputs[1:], None)[:2]
    if not is_constant(scale, TRAINABLE) or scale is None:
        return "its scales are not constant"
    if zero_point is not None and (codes.dtype is None or not is_constant(zero_point, {codes.dtype})):
        return "its zero points are not constant"
    asked = readers[0].attributes.get("output_dtype")
    if asked is not None and asked.as_int() not in (0, scale.dtype):
        return "its floats have another type than its scales"
    return None


def _unfold(graph: Graph, editor: Editor, codes: ir.Value, readers: list[ir.Node]) -> CodedWeight | None:
    """None, and nothing done, where floats would not give the codes back."""
    first, scale, dtype, stored = readers[0], readers[0].inputs[1], codes.dtype, codes.const_value
    if scale is None or scale.const_value is None or dtype is None or stored is None:
        return None
    floats, placing, limits = restored(first), Placing.of(first), bounds(dtype)
    zero_point = first.inputs[2] if len(first.inputs) > len(("codes", "scale")) else None
    zeros = ir.Tensor(np.zeros(scale.const_value.shape.numpy(), dtype.numpy()))
    zero = zeros if zero_point is None or zero_point.const_value is None else zero_point.const_value
    numbers = stored.numpy()
    with np.errstate(all="ignore"):
        again = round_to_codes((ir.Tensor(floats, dtype=scale.dtype), scale.const_value, zero), placing, limits)
    if not np.array_equal(again, numbers):
        return None
    if zero_point is None:
        zero_point = editor.initializer(owner_of(scale), f"{codes.name}_zero_point", zeros.numpy())
    narrow = limits_of(numbers.astype(np.int64), limits)
    graph.set_array(codes, floats)
    for node in readers:
        _quantize_before(editor, node, zero_point, dtype)
    return CodedWeight(
        name=codes.name or "",
        scale=scale.name or "",
        zero_point=zero_point.name or "",
        placing=placing,
        dtype=dtype,
        limits=narrow,
        is_narrow=narrow != limits,
        is_pruned=_is_pruned(numbers.astype(np.int64), floats),
    )


def _is_pruned(codes: np.ndarray, floats: np.ndarray) -> bool:
    """Whether zeros are far more than the numbers rounded to one step up or down: rounding makes about as many.

    Zero points are not looked at: a code stands for zero where its float is zero, and one step is the next code.
    """
    zero_codes = np.unique(codes[floats == 0])
    beside = sum(np.count_nonzero(codes == code + step) for code in zero_codes for step in (-1, 1)) / 2
    return bool(np.count_nonzero(floats == 0) > _PRUNED * beside)


def _quantize_before(editor: Editor, node: ir.Node, zero_point: ir.Value, dtype: ir.DataType) -> None:
    """A QuantizeLinear that makes the codes which `node` reads; its scales and zero points are the same tensors."""
    floats, scale = node.inputs[:2]
    if floats is None or scale is None:
        return
    attributes = [node.attributes[name] for name in _COPIED if name in node.attributes]
    down = editor.node("QuantizeLinear", [floats, scale, zero_point], [f"{floats.name}_codes"], attributes, node.domain)
    down.outputs[0].type, down.outputs[0].shape = ir.TensorType(dtype), floats.shape
    node.replace_input_with(0, down.outputs[0])
    node.resize_inputs(3)
    node.replace_input_with(2, zero_point)
    if node.outputs[0].dtype is None:
        node.outputs[0].type = ir.TensorType(scale.dtype or ir.DataType.FLOAT)
    owner_of(node).insert_before(node, down)
