"""Types and shapes of every value, by ONNX's own inference; com.microsoft operators are lent a standard one's rules."""

import re

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.graph.skeleton import to_skeleton
from worker.engine.graph.stand_ins import lend_rules

Dims = list[int | str | None]
_NODE = re.compile(r"node name: ([^\s),]+)")
_LONGEST = 1 << 16
"""Elements of a vector above which values are not followed through the graph: onnx makes one dimension of each."""


def dims(value: ir.Value | None) -> Dims | None:
    """A value's dimensions as sizes, names or None where unknown; None where not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape where every dimension is a number, else None."""
    known = dims(value)
    if known is None or not all(isinstance(dim, int) for dim in known):
        return None
    return tuple(dim for dim in known if isinstance(dim, int))


def infer(model: ir.Model) -> None:
    """Write inferred types and shapes into `model`.

    Raises SlimlineError SHAPES_CONFLICT where what is declared and what is inferred cannot both be true.
    """
    proto = lend_rules(to_skeleton(model))
    try:
        inferred = onnx.shape_inference.infer_shapes(proto)
        if not _has_long_vector(inferred.graph):
            inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        found = _NODE.search(str(error))
        raise SlimlineError(
            "SHAPES_CONFLICT",
            f"the shapes in the graph contradict each other: {error}",
            node=found.group(1) if found else None,
            hint="export the model again",
        ) from error
    for target, source in zip(model.graphs(), ir.serde.deserialize_model(inferred).graphs(), strict=True):
        _copy_shapes(source, target)


def _has_long_vector(graph: onnx.GraphProto) -> bool:
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes = (value.type.tensor_type.shape.dim for value in values)
    return any(len(shape) == 1 and shape[0].dim_value > _LONGEST for shape in shapes)


def bind(main: ir.Graph, bindings: dict[str, int]) -> None:
    """Give symbolic dimensions numbers, everywhere they appear in `main` and its bodies."""
    for graph in (main, *main.subgraphs()):
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            if value.shape is not None:
                value.shape = ir.Shape([_bound(dim, bindings) for dim in value.shape])


def _bound(dim: int | ir.SymbolicDim, bindings: dict[str, int]) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    if dim.value in bindings:
        return bindings[dim.value]
    try:
        return dim.evaluate(bindings)
    except ValueError:  # a name such as `unk__6#2`, which is no expression
        return dim


def _copy_shapes(source: ir.Graph, target: ir.Graph) -> None:
    known = ir.convenience.create_value_mapping(source)
    for name, value in ir.convenience.create_value_mapping(target).items():
        if name not in known or value.is_initializer():
            continue
        if known[name].shape is not None:
            value.shape = known[name].shape
        if known[name].type is not None:
            value.type = known[name].type
