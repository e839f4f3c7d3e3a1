"""`quantize.float16`: half-precision weights and arithmetic, with float32 islands where half does not reach."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from app.contracts.recipe.quantize_float16 import QuantizeFloat16
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.calibration import Pass, find_extremes
from worker.engine.quantization.gate import refuse_quantized
from worker.engine.quantization.half_precision import HALF, LARGEST, HalfRewriter, is_float, obstacle_in_operator
from worker.engine.tensors.extremes import Extremes
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.wording import counted

_WATCHED_SAMPLES = 32
_ROOM = 2
"""Values up to half of the largest float16 pass: other inputs may go further than those that were seen."""


class HalfPrecision(Method[QuantizeFloat16]):
    """Conversion to float16, in the main graph and in bodies alike."""

    step_type = QuantizeFloat16
    takes_integers = False

    def apply(self, graph: Graph, step: QuantizeFloat16, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_CONVERT or ALREADY_QUANTIZED."""
        refuse_quantized(graph, step.method)
        half = graph.clone()
        half.infer_shapes()
        islands = _find_islands(half, context)
        layers = split_layers(half, step, context, lambda _, layer: islands.get(layer.node) or _obstacle(layer))
        if not layers:
            hint = "It works on float32 layers whose values stay within the range of float16."
            raise context.record.refusal("NOTHING_TO_CONVERT", hint)
        before = {id(weight): half.array(weight) for layer in layers for weight in layer.weights}
        left_out = _left_out(half, layers, only_layers=bool(step.include))
        HalfRewriter(half, left_out | islands.keys(), keep_io=step.keep_io).run()
        for layer in layers:
            _record(half, layer, before, context)
        context.record.note_held_back()
        context.record.note("float16 saves size; a CPU without half arithmetic runs it no faster")
        if islands:
            context.record.note(f"kept in float32: {counted(len(islands), 'node')}, such as {_told(islands)}")
        return half

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return _obstacle(layer) or obstacle_in_operator(layer.node, graph.opset)


def _obstacle(layer: Layer) -> str | None:
    is_float32 = any(is_float(value) for value in layer.node.inputs)
    return None if is_float32 else "it does not work on float32"


def _find_islands(graph: Graph, context: StepContext) -> dict[ir.Node, str]:
    """Nodes that must stay float32, with the reason: their operator, or values beyond the range of float16."""
    run = Pass(
        context.samples,
        _WATCHED_SAMPLES,
        context.device,
        lambda share: context.progress(0.8 * share, "looking for large values"),
    )
    seen = find_extremes(graph, run)
    reasons = {
        node: obstacle_in_operator(node, graph.opset) or _obstacle_in_values(graph, node, seen)
        for node in graph.nodes()
        if any(is_float(value) for value in (*node.inputs, *node.outputs))
    }
    return {node: reason for node, reason in reasons.items() if reason}


def _obstacle_in_values(graph: Graph, node: ir.Node, seen: Mapping[str, Extremes]) -> str | None:
    for value in (*node.inputs, *node.outputs):
        if value is None or not is_float(value):
            continue
        if value.is_initializer() and value.const_value is not None:
            array = graph.array(value)
            if _largest(array) > LARGEST / _ROOM:
                return f"{value.name!r} holds values beyond the range of float16"
            if array.size == 1 and array.any() and not array.astype(np.float16).any():
                return f"{value.name!r} is too small for float16"
        elif (value.name or "") in seen and seen[value.name or ""].largest > LARGEST / _ROOM:
            return f"{value.name!r} reaches {seen[value.name or ''].largest:.3g}, beyond the range of float16"
    return None


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def _left_out(graph: Graph, layers: list[Layer], *, only_layers: bool) -> set[ir.Node]:
    """Nodes the step does not touch: layers it leaves out and, where it names layers, whatever is none."""
    chosen = {layer.node for layer in layers}
    weighted = {layer.node for layer in graph.layers()}
    return {node for node in graph.nodes() if node not in chosen and (only_layers or node in weighted)}


def _record(graph: Graph, layer: Layer, before: Mapping[int, np.ndarray], context: StepContext) -> None:
    halves = [weight for weight in layer.weights if weight.dtype == HALF]
    if not halves:
        context.record.skipped(layer, "its weights are shared with a node that stays float32")
        return
    old = np.concatenate([before[id(weight)].ravel() for weight in halves])
    new = np.concatenate([graph.array(weight).ravel() for weight in halves])
    context.record.done(layer, bits=16, sqnr_db=sqnr_db(old, new.astype(np.float32)))


def _told(islands: Mapping[ir.Node, str]) -> str:
    node, reason = next(iter(islands.items()))
    return f"{node.name!r} ({reason})"
