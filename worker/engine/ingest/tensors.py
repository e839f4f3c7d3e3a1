"""Whether stored tensors are what their shapes say, and whether anything would blow up into absurdly much memory."""

import math
from collections.abc import Iterable, Iterator, Mapping

import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from app.contracts.failure import SlimlineError
from worker.engine.graph.structure import label
from worker.engine.ingest.operators import walk

MOST_ELEMENTS = 1 << 33
"""Elements a tensor of any real network stays below."""
MOST_DIMENSIONS = 64
"""NumPy has no more."""
_MOST_GENERATED = 1 << 28
"""Elements a node may make out of constants alone: nobody stores or computes more of them on purpose."""
_TYPED: Mapping[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT64: "uint64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.STRING: "string_data",
    **dict.fromkeys(
        (
            TensorProto.INT32,
            TensorProto.INT16,
            TensorProto.INT8,
            TensorProto.UINT16,
            TensorProto.UINT8,
            TensorProto.BOOL,
            TensorProto.FLOAT16,
            TensorProto.BFLOAT16,
        ),
        "int32_data",
    ),
}
_SIZE_INPUT: Mapping[str, int] = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators whose output grows with the numbers in this input."""
_SIZE_ATTRIBUTE = frozenset({"RandomNormal", "RandomUniform"})


def check_tensors(model: onnx.ModelProto) -> None:
    """Raises SlimlineError TENSOR_SIZE_MISMATCH, TENSOR_TYPE_UNSUPPORTED, TENSOR_SPARSE or SHAPE_ABSURD."""
    _check_types(model.graph)
    nodes = [*walk(model.graph.node), *(node for function in model.functions for node in walk(function.node))]
    constants: dict[str, TensorProto] = {}
    for tensor in _initializers(model.graph, nodes):
        _check(tensor, tensor.name)
        constants[tensor.name] = tensor
    for node in nodes:
        for tensor in _attribute_tensors(node):
            _check(tensor, label(node))
            if node.op_type == "Constant":
                constants[node.output[0]] = tensor
    for node in nodes:
        _check_generated(node, constants)


def _check_types(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output):
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            raise SlimlineError(
                "TENSOR_TYPE_UNSUPPORTED",
                f"{value.name!r} is a sequence, map or optional, not a tensor",
                node=value.name,
                hint="export the model so that each input and output is one tensor",
            )


def _initializers(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
    bodies = (body for node in nodes for each in node.attribute for body in (each.g, *each.graphs))
    for each in (graph, *bodies):
        for sparse in each.sparse_initializer:
            raise _sparse(sparse.values.name)
        yield from each.initializer


def _attribute_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise _sparse(label(node))
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _check(tensor: TensorProto, name: str) -> None:
    count = math.prod(tensor.dims[:MOST_DIMENSIONS])
    if len(tensor.dims) > MOST_DIMENSIONS:
        raise _absurd(f"tensor {name!r} has {len(tensor.dims):,} dimensions", name)
    if any(size < 0 for size in tensor.dims) or count > MOST_ELEMENTS:
        raise _absurd(f"tensor {name!r} has the shape {list(tensor.dims)}", name)
    try:
        bits = ir.DataType(tensor.data_type).bitwidth if tensor.data_type != TensorProto.STRING else 0
    except (ValueError, TypeError) as error:
        raise SlimlineError(
            "TENSOR_TYPE_UNSUPPORTED",
            f"tensor {name!r} has the unknown element type {tensor.data_type}",
            node=name,
            hint="the file is damaged: send it again, or export the model again",
        ) from error
    if tensor.data_location == TensorProto.EXTERNAL:
        return
    if tensor.HasField("raw_data"):
        want, have, unit = -(-count * bits // 8), len(tensor.raw_data), "bytes"
    elif tensor.data_type in _TYPED:
        want, have, unit = count, len(getattr(tensor, _TYPED[tensor.data_type])), "numbers"
    else:
        return
    if want != have:
        raise SlimlineError(
            "TENSOR_SIZE_MISMATCH",
            f"tensor {name!r} has {have:,} {unit}; its shape {list(tensor.dims)} needs {want:,}",
            node=name,
            hint="the file is damaged: send it again, or export the model again",
        )


def _check_generated(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> None:
    sizes: list[int] = []
    if node.op_type in _SIZE_ATTRIBUTE:
        sizes = [size for attribute in node.attribute if attribute.name == "shape" for size in attribute.ints]
    elif node.op_type in _SIZE_INPUT and len(node.input) > _SIZE_INPUT[node.op_type]:
        tensor = constants.get(node.input[_SIZE_INPUT[node.op_type]])
        if tensor is not None and tensor.data_location != TensorProto.EXTERNAL and len(tensor.dims) == 1:
            sizes = [int(size) for size in numpy_helper.to_array(tensor)]
    if math.prod(max(size, 1) for size in sizes) > _MOST_GENERATED:
        raise _absurd(f"node {label(node)!r} would make a tensor of shape {sizes}", label(node))


def check_inferred(model: ir.Model) -> None:
    """Raises SlimlineError SHAPE_ABSURD for a value that inference found to be absurdly large."""
    for graph in model.graphs():
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            sizes = [dim for dim in value.shape or () if isinstance(dim, int)]
            if len(value.shape or ()) > MOST_DIMENSIONS:
                raise _absurd(f"value {value.name!r} has {len(value.shape or ()):,} dimensions", value.name)
            if math.prod(sizes) > MOST_ELEMENTS:
                raise _absurd(f"value {value.name!r} has the shape {sizes}", value.name)


def _sparse(name: str) -> SlimlineError:
    return SlimlineError(
        "TENSOR_SPARSE",
        f"{name!r} is stored as a sparse tensor",
        node=name,
        hint="store weights densely; zeros cost little once the file is compressed",
    )


def _absurd(what: str, node: str | None) -> SlimlineError:
    return SlimlineError(
        "SHAPE_ABSURD", f"{what}, more than any real network needs", node=node, hint="check the exporter's shapes"
    )
