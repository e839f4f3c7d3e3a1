"""Whether a graph is valid ONNX, by the ONNX checker. What ONNX Runtime makes of it is `worker.engine.session`."""

import re

import onnx
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.graph.skeleton import to_skeleton

_NODE = re.compile(r"[Nn]ame: (\S+) OpType")


def check(model: ir.Model) -> None:
    """Raises SlimlineError GRAPH_INVALID with the first fault the checker finds."""
    proto = to_skeleton(model)
    for value in (*proto.graph.input, *proto.graph.output):
        # The checker wants a shape, though of any rank; ONNX Runtime does without, and so do graphs that run.
        value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        found = _NODE.search(str(error))
        raise SlimlineError(
            "GRAPH_INVALID",
            f"the graph breaks the rules of ONNX: {' '.join(str(error).split())}",
            node=found.group(1) if found else None,
            hint="export the model again; onnx.checker.check_model shows the same fault",
        ) from error
