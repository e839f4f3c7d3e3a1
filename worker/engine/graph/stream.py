"""Writes a model into one protobuf file, tensor by tensor, so that memory does not grow with the model.

The bytes are those that serializing the whole model deterministically gives. Field numbers are those of onnx.proto.
"""

from collections.abc import Iterable, Iterator
from typing import IO

import onnx
import onnx_ir as ir

_GRAPH, _INITIALIZER = 7, 5
"""Numbers of the fields `graph` of ModelProto and `initializer` of GraphProto."""
_GRAPH_TAG, _INITIALIZER_TAG = bytes([_GRAPH << 3 | 2]), bytes([_INITIALIZER << 3 | 2])
"""The fields' numbers with the wire type of what has a length before it."""


def write(frame: onnx.ModelProto, initializers: Iterable[ir.Value], file: IO[bytes]) -> None:
    """Write `frame`, whose graph has no initializers of its own, with `initializers` in their place."""
    values = [value for value in initializers if value.const_value is not None]
    sizes = [_to_proto(value).ByteSize() for value in values]
    graph_head, graph_tail = _split(frame.graph, _INITIALIZER)
    length = len(graph_head) + len(graph_tail)
    length += sum(len(_INITIALIZER_TAG) + len(_varint(size)) + size for size in sizes)
    frame.ClearField("graph")
    model_head, model_tail = _split(frame, _GRAPH)
    file.writelines((model_head, _GRAPH_TAG, _varint(length), graph_head))
    for value, size in zip(values, sizes, strict=True):
        file.writelines((_INITIALIZER_TAG, _varint(size), _to_proto(value).SerializeToString(deterministic=True)))
    file.writelines((graph_tail, model_tail))


def _to_proto(value: ir.Value) -> onnx.TensorProto:
    tensor = value.const_value
    if isinstance(tensor, ir.ExternalTensor):
        tensor = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, doc_string=tensor.doc_string)
    assert tensor is not None
    proto = ir.serde.serialize_tensor(tensor)
    proto.name = value.name or ""
    return proto


def _split(message: onnx.ModelProto | onnx.GraphProto, place: int) -> tuple[bytes, bytes]:
    """The serialized fields with numbers below `place` and above it; that field itself is empty."""
    whole = message.SerializeToString(deterministic=True)
    head = type(message)()
    head.CopyFrom(message)
    for field in message.DESCRIPTOR.fields:
        if field.number > place:
            head.ClearField(field.name)
    size = head.ByteSize()
    return whole[:size], whole[size:]


def _varint(number: int) -> bytes:
    return bytes(_groups(number))


def _groups(number: int) -> Iterator[int]:
    """Seven bits at a time, the lowest first; the eighth says that more follow."""
    while number > 0x7F:  # noqa: PLR2004 - seven bits
        yield number & 0x7F | 0x80
        number >>= 7
    yield number
