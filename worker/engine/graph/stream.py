"""Writes a model into one protobuf file, tensor by tensor, so that memory does not grow with the model.

The bytes are those that serializing the whole model deterministically gives. Field numbers are those of onnx.proto.
"""

from collections.abc import Iterable, Iterator
from typing import IO

import onnx
import onnx_ir as ir

_MODEL_AFTER_GRAPH = ("opset_import", "metadata_props", "training_info", "functions", "configuration")
_GRAPH_AFTER_INITIALIZERS = (
    "doc_string",
    "input",
    "output",
    "value_info",
    "quantization_annotation",
    "sparse_initializer",
    "metadata_props",
)
_GRAPH_TAG, _INITIALIZER_TAG = b"\x3a", b"\x2a"
"""Field 7 of ModelProto and field 5 of GraphProto, both with a length before them."""


def write(frame: onnx.ModelProto, initializers: Iterable[ir.Value], file: IO[bytes]) -> None:
    """Write `frame`, whose graph has no initializers of its own, with `initializers` in their place."""
    values = [value for value in initializers if value.const_value is not None]
    sizes = [_to_proto(value).ByteSize() for value in values]
    graph_head, graph_tail = _split(frame.graph, _GRAPH_AFTER_INITIALIZERS)
    length = len(graph_head) + len(graph_tail)
    length += sum(len(_INITIALIZER_TAG) + len(_varint(size)) + size for size in sizes)
    frame.ClearField("graph")
    model_head, model_tail = _split(frame, _MODEL_AFTER_GRAPH)
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


def _split(message: onnx.ModelProto | onnx.GraphProto, after: Iterable[str]) -> tuple[bytes, bytes]:
    """The serialized fields before and after a place; `after`: those behind it, where the release of onnx has them."""
    whole = message.SerializeToString(deterministic=True)
    head = type(message)()
    head.CopyFrom(message)
    for name in after:
        if name in message.DESCRIPTOR.fields_by_name:
            head.ClearField(name)
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
