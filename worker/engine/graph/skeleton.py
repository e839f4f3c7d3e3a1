"""A model without its large weights, small enough for the C++ calls of onnx however large the model is."""

from collections.abc import Mapping

import onnx
import onnx_ir as ir

_SMALL = 1000
"""Bytes up to which a tensor stays: shapes and axes, which inference must read."""


def to_skeleton(model: ir.Model) -> onnx.ModelProto:
    """`model` as protobuf, large weights of the main graph turned into inputs. `model` stays as it is."""
    return ir.serde.serialize_model(strip(model)[0])


def strip(model: ir.Model) -> tuple[ir.Model, Mapping[str, ir.TensorProtocol]]:
    """A clone whose large weights in the main graph became inputs, and those weights by name."""
    bare = model.clone()
    taken: dict[str, ir.TensorProtocol] = {}
    for name, value in list(bare.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _SMALL:
            continue
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        taken[name] = tensor
        del bare.graph.initializers[name]
        if not value.is_graph_input():
            bare.graph.inputs.append(value)
    return ir.external_data.load_to_model(bare), taken


def restore(model: ir.Model, taken: Mapping[str, ir.TensorProtocol]) -> None:
    """Put back, in the order they were in, the weights that `strip` took out."""
    kept = [value for value in model.graph.inputs if value.name not in taken]
    back = [value for value in model.graph.inputs if value.name in taken]
    model.graph.inputs[:] = kept
    for value in back:
        value.const_value = taken[value.name or ""]
        model.graph.register_initializer(value)
