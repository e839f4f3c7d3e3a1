"""Whether a graph is valid ONNX, by the ONNX checker. What ONNX Runtime makes of it is `worker.engine.session`."""

import re

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.graph.skeleton import to_skeleton

_NODE = re.compile(r"(?:[Nn]ode ?\(|Node with name:? ?|node name: ?)\"?([^\s\"()]+)")


def check(model: ir.Model) -> None:
    """Raises SlimlineError GRAPH_INVALID with the first fault the checker finds."""
    try:
        onnx.checker.check_model(to_skeleton(model))
    except onnx.checker.ValidationError as error:
        found = _NODE.search(str(error))
        raise SlimlineError(
            "GRAPH_INVALID",
            f"the graph breaks the rules of ONNX: {str(error).strip()}",
            node=found.group(1) if found else None,
            hint="export the model again; onnx.checker.check_model shows the same fault",
        ) from error
