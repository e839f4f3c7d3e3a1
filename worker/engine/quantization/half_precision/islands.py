"""Which nodes stay float32: for their operator, for the values that flow through them, for the weights they read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph, Layer
from worker.engine.quantization.calibration import Pass, find_extremes
from worker.engine.quantization.half_precision.operators import LARGEST, bodies, is_float, obstacle_in_operator
from worker.engine.session import Array
from worker.engine.tensors.extremes import Extremes

_ROOM = 2
"""Values up to half of the largest float16 pass: other inputs may go further than those that were seen."""
_MOST_LOST = 0.01
"""Share of a tensor's numbers other than 0 that may become 0: below 3e-8 float16 has nothing."""
_NOT_RUN = frozenset({"OPERATOR_UNSUPPORTED", "TENSOR_TYPE_UNSUPPORTED"})


@dataclass(frozen=True)
class Islands:
    """Nodes and weights with the reason why they stay float32; `note` where the values that flow were not seen."""

    reasons: Mapping[ir.Node, str]
    of_weights: Mapping[ir.Value, str]
    note: str | None

    def obstacle(self, layer: Layer) -> str | None:
        """Why a layer stays float32; its weights may come through a Transpose."""
        of_weights = (self.of_weights[weight] for weight in layer.weights if weight in self.of_weights)
        return self.reasons.get(layer.node) or next(of_weights, None)


def find_islands(graph: Graph, run: Pass) -> Islands:
    """The islands of `graph`, whose shapes are inferred, by its weights and by what flows on samples."""
    note, seen = None, dict[str, Extremes]()
    try:
        seen = find_extremes(graph, run)
    except SlimlineError as error:
        if error.failure.code not in _NOT_RUN:
            raise
        note = f"nobody looked whether values leave the range of float16: {error.failure.message}"
    of_weights = {
        value: reason for value in graph.initializers() if (reason := _obstacle_in_numbers(graph, value)) is not None
    }
    reasons = {
        node: obstacle_in_operator(node, graph.opset) or _obstacle_in_values(node, of_weights, seen)
        for node in graph.nodes()
        if any(is_float(value) for value in _touched(node))
    }
    return Islands({node: reason for node, reason in reasons.items() if reason}, of_weights, note)


def _touched(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads and makes, and what its bodies give."""
    yield from (value for value in (*node.inputs, *node.outputs) if value is not None)
    for body in bodies(node):
        yield from body.outputs


def _obstacle_in_values(node: ir.Node, of_weights: Mapping[ir.Value, str], seen: Mapping[str, Extremes]) -> str | None:
    for value in _touched(node):
        if value in of_weights:
            return of_weights[value]
        if is_float(value) and (value.name or "") in seen and seen[value.name or ""].largest > LARGEST / _ROOM:
            return f"{value.name!r} reaches {seen[value.name or ''].largest:.3g}, beyond the range of float16"
    return None


def _obstacle_in_numbers(graph: Graph, value: ir.Value) -> str | None:
    if not is_float(value) or value.const_value is None:
        return None
    array = graph.array(value)
    if np.abs(array[np.isfinite(array)]).max(initial=0.0) > LARGEST / _ROOM:
        return f"{value.name!r} holds values beyond the range of float16"
    lost = share_lost(array)
    return f"{lost:.0%} of {value.name!r} is too small for float16" if lost > _MOST_LOST else None


def share_lost(array: Array) -> float:
    """The share of numbers other than 0 that float16 rounds to 0."""
    used = array != 0
    return float(np.mean(array[used].astype(np.float16) == 0)) if used.any() else 0.0
