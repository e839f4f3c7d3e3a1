"""How a model is read from and written to files. Nothing is checked here beyond what reading it safely needs."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from app.contracts.failure import FaultKind, SlimlineError

if TYPE_CHECKING:
    import onnx

LARGEST_FILE = 1_900_000_000
"""Weights above this many bytes go beside the model: protobuf ends at 2 GiB, and names and shapes need room too."""
_SMALL = 1024


def load(path: Path) -> ir.Model:
    """The model at `path`. Raises SlimlineError MODEL_UNREADABLE or EXTERNAL_DATA_UNSAFE."""
    import onnx  # noqa: PLC0415 - heavy; `import worker.engine` stays light
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - comes with onnx

    path = path.absolute()  # onnx-ir checks containment of external data only under a base folder it knows
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
        model = ir.serde.deserialize_model(proto)
    except (DecodeError, ir.serde.SerdeError) as error:
        raise SlimlineError(
            "MODEL_UNREADABLE", f"{path.name} is no readable ONNX model: {error}", hint="export it again"
        ) from error
    for graph in model.graphs():
        ir.external_data.set_base_dir(graph, path.parent)
    for value in _external(model):
        _refuse_unsafe(value, path.parent)
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
            (Path(folder) / path.name).write_bytes(to_proto(model).SerializeToString(deterministic=True))
        (Path(folder) / path.name).replace(path)


def to_proto(model: ir.Model) -> "onnx.ModelProto":
    """The model with every weight inside. Raises SlimlineError GRAPH_TOO_LARGE."""
    if size_of_weights(model) > LARGEST_FILE:
        raise SlimlineError(
            "GRAPH_TOO_LARGE",
            f"the model holds {size_of_weights(model):,} bytes of weights; protobuf ends at 2 GiB",
            kind=FaultKind.OURS,
            hint="work on the saved file by its path",
        )
    if any(True for _ in _external(model)):
        model = ir.external_data.load_to_model(model.clone())
    return ir.serde.serialize_model(model)


def size_of_weights(model: ir.Model) -> int:
    """Bytes of all initializers as stored."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _external(model: ir.Model) -> list[ir.ExternalTensor]:
    return [
        value.const_value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]


def _refuse_unsafe(tensor: ir.ExternalTensor, folder: Path) -> None:
    """Raises SlimlineError for weights outside `folder`, behind a link, or not there in full."""
    place = folder / tensor.location
    name = tensor.name or str(tensor.location)
    reason = None
    if Path(tensor.location).is_absolute() or ".." in Path(tensor.location).parts:
        reason = "lies outside the model's folder"
    elif not place.is_file():
        reason = "is not there"
    elif place.is_symlink() or not place.resolve().is_relative_to(folder.resolve()) or place.stat().st_nlink > 1:
        reason = "is a link"
    elif (tensor.offset or 0) + tensor.nbytes > place.stat().st_size:
        reason = f"is too short for {tensor.nbytes} bytes at offset {tensor.offset or 0}"
    if reason:
        raise SlimlineError(
            "EXTERNAL_DATA_UNSAFE",
            f"the weights of {name!r} are said to be in {str(tensor.location)!r}, which {reason}",
            node=name,
            hint="send one .onnx file with its weights inside, or a .zip of the .onnx and its data files",
        )
