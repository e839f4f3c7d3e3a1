"""A model without its large weights, small enough for the C++ calls of onnx however large the model is."""

import onnx
import onnx_ir as ir

_SMALL = 1000
"""Bytes up to which a tensor stays: shapes and axes, which inference must read."""


def to_skeleton(model: ir.Model) -> onnx.ModelProto:
    """`model` as protobuf, large weights of the main graph turned into inputs. `model` stays as it is."""
    bare = model.clone()
    for name, value in list(bare.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.nbytes <= _SMALL:
            continue
        value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
        del bare.graph.initializers[name]
        if not value.is_graph_input():
            bare.graph.inputs.append(value)
    return ir.serde.serialize_model(ir.external_data.load_to_model(bare))


def give_back_weights(bare: ir.Model, original: ir.Model) -> None:
    """Put the weights of `original` into a model made from its skeleton, in the order they had there."""
    inputs = {value.name for value in original.graph.inputs}
    values = {value.name: value for value in bare.graph.inputs} | dict(bare.graph.initializers)
    bare.graph.inputs[:] = [value for value in bare.graph.inputs if value.name in inputs]
    added = [value for name, value in bare.graph.initializers.items() if name not in original.graph.initializers]
    bare.graph.initializers.clear()
    for name, source in original.graph.initializers.items():
        if name in values:
            values[name].const_value = source.const_value
            bare.graph.register_initializer(values[name])
    for value in added:
        bare.graph.register_initializer(value)
