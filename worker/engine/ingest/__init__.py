"""The door: an upload becomes a checked `Graph` and its facts, or a refusal that says what to send instead."""

import tempfile
from pathlib import Path

import onnx_ir as ir

from app.contracts.facts import ModelFacts
from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.passes.constants import fold_constants
from worker.engine.graph.passes.dead import remove_dead
from worker.engine.graph.passes.normalize import normalize
from worker.engine.graph.passes.opset import raise_opset
from worker.engine.graph.passes.unshare import unshare
from worker.engine.ingest.facts import Applicabilities, ChannelDescriber, describe_model
from worker.engine.ingest.growth import check_computed, check_weights
from worker.engine.ingest.onnx import read_onnx
from worker.engine.ingest.tensors import check_inferred
from worker.engine.session import open_graph, open_session

__all__ = ["ingest_model"]

PASSES = (raise_opset, normalize, fold_constants, remove_dead, unshare)
"""In this order, on a graph that was normalized once and has shapes; what the converter makes is normalized again."""
_FORMATS = {"onnx": read_onnx}


def ingest_model(
    path: str | Path,
    *,
    filename: str | None = None,
    format: str | None = None,  # noqa: A002 - the API's word
    output: str | Path | None = None,
    applicability: Applicabilities | None = None,
    channels: ChannelDescriber | None = None,
) -> tuple[Graph, ModelFacts]:
    """Check the upload at `path`, which the user calls `filename`, and clean it up; `output` is where the graph goes.

    `applicability` says which methods work on which layers, `channels` what of them can be removed.
    Raises SlimlineError for whatever is not let in.
    """
    path = Path(path)
    if format not in (None, *_FORMATS):
        raise SlimlineError("FORMAT_UNKNOWN", f"models of format {format!r} are not read", hint="send format=onnx")
    target = Path(output).absolute() if output else None
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ingest-", dir=target.parent if target else None) as folder:
        unpacked, checked = Path(folder, "unpacked"), Path(folder, "checked")
        graph = Graph(_FORMATS[format or "onnx"](path, filename or path.name, unpacked))
        opset = graph.opset
        try:
            notes = _clean(graph)
        except (ir.serde.SerdeError, UnicodeError) as error:  # names that are no UTF-8 show when they are written
            raise SlimlineError(
                "MODEL_UNREADABLE", f"the file is damaged: {error}", hint="send it again, or export the model again"
            ) from error
        uploaded = [path, *(file for file in unpacked.rglob("*") if file.is_file())]
        check_weights(graph.model, sum(file.stat().st_size for file in uploaded))
        graph.save(checked / (target or path).name)
        open_session(checked / (target or path).name, optimize=False)
        if target:
            for file in checked.iterdir():
                file.replace(target.parent / file.name)
            graph = Graph.load(target)
        else:
            ir.external_data.load_to_model(graph.model)  # the files it is mapped from may go with the folder
    try:
        facts = describe_model(graph, opset=opset, notes=notes, applicability=applicability, channels=channels)
    except (ArithmeticError, LookupError, ValueError):
        _refuse_what_does_not_run(graph)  # as an index out of range, which shows only when it is used
        raise
    return graph, facts


def _refuse_what_does_not_run(graph: Graph) -> None:
    """Raises SlimlineError MODEL_DOES_NOT_RUN where ONNX Runtime takes no input that can be made up."""
    from worker.engine.samples import make_up  # noqa: PLC0415 - readers of datasets import this package

    try:
        make_up(graph.inputs, open_graph(graph), seed=0)
    except SlimlineError as error:
        raise SlimlineError(
            "MODEL_DOES_NOT_RUN",
            f"the model loads, but runs on no input that could be made up: {error.failure.message.partition(': ')[2]}",
            node=error.failure.node,
            hint="run it with onnxruntime where it was made, and export it again",
        ) from error


def _clean(graph: Graph) -> list[str]:
    """Bring the graph into its one form; gives the passes' notes."""
    notes = normalize(graph)
    _infer(graph)
    notes += [note for run in PASSES for note in run(graph)]
    _infer(graph)
    graph.check()
    return notes


def _infer(graph: Graph) -> None:
    graph.infer_shapes()
    check_inferred(graph.model)
    check_computed(graph.model)
