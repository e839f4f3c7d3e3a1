"""The engine: a library that compresses graphs. Its face, loaded when asked for: `Graph`, `TorchGraph`, `compress`."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.engine.compression import compress
    from worker.engine.graph import Graph
    from worker.engine.torch_graph import TorchGraph

# ONNX Runtime reads this when it is first imported; a library has no business phoning home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenMP reads these when torch is first imported. By default idle threads spin, and where several processes share the
# cores each waits for the others' spinning: calibration then takes several times as long. Not to spin at all costs a
# sixth on a free machine; to spin for a moment, which GNU's OpenMP can, hardly anything.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "300")

__all__ = ["Graph", "TorchGraph", "compress"]


def __getattr__(name: str) -> Any:
    match name:
        case "Graph":
            from worker.engine.graph import Graph  # noqa: PLC0415 - loads onnx only when asked for

            return Graph
        case "TorchGraph":
            from worker.engine.torch_graph import TorchGraph  # noqa: PLC0415 - loads torch only when asked for

            return TorchGraph
        case "compress":
            from worker.engine.compression import compress  # noqa: PLC0415 - loads ONNX Runtime only when asked for

            return compress
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
