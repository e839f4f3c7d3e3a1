"""Reads ONNX uploads: one `.onnx`, or a `.zip` of one `.onnx` and its external data. Refuses before memory is spent."""

from pathlib import Path

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.graph import files
from worker.engine.graph.structure import check_structure
from worker.engine.ingest.archive import Archive
from worker.engine.ingest.growth import check_functions
from worker.engine.ingest.operators import check_operators
from worker.engine.ingest.signatures import UNKNOWN, ZIP, Signature, recognize, recognize_members
from worker.engine.ingest.tensors import check_tensors
from worker.engine.ingest.wire import scan

_SUFFIX = ".onnx"


def read_onnx(path: Path, filename: str, folder: Path) -> ir.Model:
    """The model at `path`, which the user calls `filename`; a zip is unpacked into the empty `folder`.

    Weights in files beside the model stay there and are mapped. Raises SlimlineError.
    """
    found = recognize(path)
    if found is ZIP:
        path = _unpack(path, filename, folder)
        found = recognize(path)
    if found is not UNKNOWN:
        raise _refusal(found, filename)
    scan(path)
    proto = files.parse(path)
    _forget_negative_sizes(proto.graph)
    check_operators(proto)
    check_structure(proto)
    check_tensors(proto)
    check_functions(proto)
    return files.adopt(proto, path.absolute().parent)


def _forget_negative_sizes(graph: onnx.GraphProto) -> None:
    """Some exporters write -1 for a size that is not known."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.ClearField("dim_value")


def _unpack(path: Path, filename: str, folder: Path) -> Path:
    """The one model in the archive, unpacked with all that lies beside it."""
    with Archive(path) as archive:
        models = [name for name in archive.names if name.lower().endswith(_SUFFIX)]
        if not models:
            raise _refusal(recognize_members(archive.names), filename)
        if len(models) > 1:
            raise SlimlineError(
                "MODEL_NOT_ALONE",
                f"{filename!r} holds {len(models)} models: {', '.join(models[:5])}",
                node=models[1],
                hint="send a .zip of one .onnx and its external data files",
            )
        archive.unpack(folder)
        return folder / models[0]


def _refusal(found: Signature, filename: str) -> SlimlineError:
    return SlimlineError(found.code, f"{filename!r} is {found.what}", hint=found.instead)
