"""How a model is read from and written to files. Nothing is checked here beyond what reading it safely needs."""

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it ships no stubs

from app.contracts.failure import FaultKind, SlimlineError
from worker.engine.graph import stream

LARGEST_FILE = 1_900_000_000
"""Weights above this many bytes go beside the model: protobuf ends at 2 GiB, and names and shapes need room too."""
DECLARED = "slimline.declared"
"""Marks values whose shape stood in the file. Others are not written: anyone can infer them, and they take room."""
_SMALL = 1024


def load(path: Path) -> ir.Model:
    """The model at `path`. Raises SlimlineError MODEL_UNREADABLE, EXTERNAL_DATA_MISSING or EXTERNAL_DATA_UNSAFE."""
    return adopt(parse(path), path.absolute().parent)


def parse(path: Path) -> onnx.ModelProto:
    """The protobuf in the file, without external data. Raises SlimlineError MODEL_UNREADABLE."""
    try:
        return onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise _unreadable(error) from error


def adopt(proto: onnx.ModelProto, folder: Path | None = None) -> ir.Model:
    """`proto` as onnx-ir, sharing its bytes; external data is mapped from `folder`.

    A node without a name gets that of its first output. Raises SlimlineError as `load` does.
    """
    _name_nodes(proto.graph)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        raise _unreadable(error) from error
    for graph in model.graphs():
        if folder:
            ir.external_data.set_base_dir(graph, folder)
    for tensor in _external(model):
        _refuse_unsafe(tensor, folder)
    _read_constants(model)
    for graph in model.graphs():
        for value in ir.convenience.create_value_mapping(graph).values():
            value.meta[DECLARED] = value.shape is not None
    return model


def save(model: ir.Model, path: Path) -> None:
    """Write `model`, atomically for each of its files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        if size_of_weights(model) > LARGEST_FILE:
            data = path.with_name(path.name + ".data")
            ir.save(
                model, Path(folder) / path.name, format="protobuf", external_data=data.name, size_threshold_bytes=_SMALL
            )
            (Path(folder) / data.name).replace(data)
        else:
            with (Path(folder) / path.name).open("wb") as file:
                stream.write(*_framed(model), file)
        (Path(folder) / path.name).replace(path)


def _framed(model: ir.Model) -> tuple[onnx.ModelProto, list[ir.Value]]:
    """The model as protobuf without the weights of the main graph, and those."""
    bare = model.clone()
    bare.graph.initializers.clear()
    return _serialize(bare, model), list(model.graph.initializers.values())


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model with every weight inside. Raises SlimlineError GRAPH_TOO_LARGE."""
    if size_of_weights(model) > LARGEST_FILE:
        raise SlimlineError(
            "GRAPH_TOO_LARGE",
            f"the model holds {size_of_weights(model):,} bytes of weights; protobuf ends at 2 GiB",
            kind=FaultKind.OURS,
            hint="work on the saved file by its path",
        )
    return _serialize(model.clone(), model)


def _serialize(copy: ir.Model, model: ir.Model) -> onnx.ModelProto:
    """`copy`, a clone of `model`, which it may change, as protobuf."""
    if _external(copy):
        copy = ir.external_data.load_to_model(copy)
    proto = ir.serde.serialize_model(copy)
    declared = {
        value.name for graph in model.graphs() for node in graph for value in node.outputs if value.meta.get(DECLARED)
    }
    _drop_inferred(proto.graph, declared)
    return proto


def size_of_weights(model: ir.Model) -> int:
    """Bytes of all initializers as stored."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _name_nodes(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        if not node.name:
            node.name = next(iter(node.output), "")
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _name_nodes(body)


def _drop_inferred(graph: onnx.GraphProto, declared: set[str | None]) -> None:
    kept = [value for value in graph.value_info if value.name in declared]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _drop_inferred(body, declared)


def _external(model: ir.Model) -> list[ir.ExternalTensor]:
    """Weights in files, of initializers and of Constant nodes."""
    initializers = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    constants = (
        attribute.value
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        for attribute in node.attributes.values()
    )
    return [tensor for tensor in (*initializers, *constants) if isinstance(tensor, ir.ExternalTensor)]


def _read_constants(model: ir.Model) -> None:
    """Take the weights of Constant nodes into memory: onnx-ir writes back only those of initializers."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for name, attribute in node.attributes.items():
            if isinstance(attribute.value, ir.ExternalTensor):
                tensor = attribute.value
                node.attributes[name] = ir.AttrTensor(name, ir.Tensor(tensor.numpy().copy(), name=tensor.name))


def _refuse_unsafe(tensor: ir.ExternalTensor, folder: Path | None) -> None:
    """Raises SlimlineError for weights outside `folder`, behind a link, or not there in full."""
    location = Path(tensor.location)
    if location.is_absolute() or ".." in location.parts or "\\" in str(location):
        raise _refusal(tensor, "EXTERNAL_DATA_UNSAFE", "lies outside the model's folder")
    if folder is None or not (folder / location).is_file():
        raise _refusal(tensor, "EXTERNAL_DATA_MISSING", "was not sent with the model")
    place = folder / location
    if place.resolve() != folder.resolve() / location or place.stat().st_nlink > 1:
        raise _refusal(tensor, "EXTERNAL_DATA_UNSAFE", "is a link")
    offset = tensor.offset or 0
    if offset < 0 or offset + tensor.nbytes > place.stat().st_size:
        what = f"does not hold {tensor.nbytes:,} bytes at offset {offset:,}"
        raise _refusal(tensor, "EXTERNAL_DATA_MISSING", what)


def _refusal(tensor: ir.ExternalTensor, code: str, what: str) -> SlimlineError:
    return SlimlineError(
        code,
        f"the weights of {tensor.name!r} are said to be in {str(tensor.location)!r}, which {what}",
        node=tensor.name,
        hint="send one .onnx file with its weights inside, or a .zip of the .onnx and its data files",
    )


def _unreadable(error: Exception) -> SlimlineError:
    return SlimlineError(
        "MODEL_UNREADABLE", f"the file is damaged: {error}", hint="send it again, or export the model again"
    )
