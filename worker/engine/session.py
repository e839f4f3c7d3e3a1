"""The one place where ONNX Runtime sessions are made and run, with options that give the same numbers every time."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native

from app.contracts.failure import FaultKind, SlimlineError
from worker.engine.graph import Graph

Array = NDArray[Any]
Device = Literal["cpu", "cuda"]
ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
"""What ONNX Runtime raises; its exceptions have no base class of their own."""
_LOAD_ERRORS: tuple[type[Exception], ...] = (*ERRORS, UnicodeDecodeError)  # the message quotes bytes of the model
_RUN_ERRORS: tuple[type[Exception], ...] = (*ERRORS, ValueError)  # ValueError: an input is missing or unknown

_FLOATS: Mapping[str, type[np.floating[Any]]] = {
    "tensor(float16)": np.float16,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
}
_ONLY_FATAL = 4
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed: ?)?")
_NODE = re.compile(
    r"Name:'(?P<running>[^']+)'|[Nn]ode(?: with name)?[:,]? ?\(?[\"']?(?P<loading>[^\s\"'(),.][^\s\"'(),]*)"
)
_PROVIDERS: Mapping[Device, list[str]] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
}


def open_session(
    model: Path | str | bytes,
    *,
    threads: int | None = None,
    optimize: bool = True,
    device: Device = "cpu",
    optimized_path: Path | None = None,
    profile_prefix: Path | None = None,
) -> ort.InferenceSession:
    """A session for the file or the bytes `model`.

    Without `threads` ONNX Runtime chooses. Threads never spin, so that sessions side by side do not slow each other
    down. `optimized_path` is where the graph goes as ONNX Runtime rewrote it; with `profile_prefix` times of kernels
    are written to a file that `end_profiling` names. Raises SlimlineError MODEL_DOES_NOT_LOAD, with the node where
    ONNX Runtime names one, or DEVICE_UNAVAILABLE.
    """
    if _PROVIDERS[device][0] not in ort.get_available_providers():
        raise SlimlineError(
            "DEVICE_UNAVAILABLE", f"ONNX Runtime has no {device} support here", kind=FaultKind.TRANSIENT, hint="use cpu"
        )
    options = _options(threads, optimize=optimize)
    if optimized_path:
        options.optimized_model_filepath = str(optimized_path)
    if profile_prefix:
        options.enable_profiling, options.profile_file_prefix = True, str(profile_prefix)
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, options, providers=_PROVIDERS[device])
    except _LOAD_ERRORS as error:
        raise _told("MODEL_DOES_NOT_LOAD", "cannot load the model", error) from error


def open_graph(graph: Graph, *, threads: int | None = None) -> ort.InferenceSession:
    """A session for a graph in memory, as ONNX Runtime optimizes it. Raises as `open_session` does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        graph.save(path)
        return open_session(path, threads=threads)


def fit_feed(session: ort.InferenceSession, feed: Mapping[str, Array]) -> dict[str, Array]:
    """`feed` with floats in the precision that `session` takes: a step may have changed that of the inputs."""
    wanted = {spec.name: _FLOATS.get(spec.type) for spec in session.get_inputs()}
    with np.errstate(over="ignore"):
        return {name: _cast_float(array, wanted.get(name)) for name, array in feed.items()}


def run_session(session: ort.InferenceSession, feed: Mapping[str, Array]) -> list[Array]:
    """Every output, in order; see `fit_feed`.

    Raises SlimlineError MODEL_DOES_NOT_RUN, with the node where there is one.
    """
    try:
        return list(session.run(None, fit_feed(session, feed)))
    except _RUN_ERRORS as error:
        raise _told("MODEL_DOES_NOT_RUN", "cannot run the model on this input", error) from error


def _cast_float(array: Array, wanted: type[np.floating[Any]] | None) -> Array:
    return array.astype(wanted, copy=False) if wanted and array.dtype.kind == "f" else array


def _options(threads: int | None, *, optimize: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _ONLY_FATAL
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = 1
    if threads:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _told(code: str, what: str, error: Exception) -> SlimlineError:
    reason = _PREFIX.sub("", " ".join(str(error).split()))
    found = _NODE.search(reason)
    return SlimlineError(
        code,
        f"ONNX Runtime {ort.__version__} {what}: {reason}",
        node=found["running"] or found["loading"] if found else None,
        hint="the file has to run in ONNX Runtime on its own",
    )
