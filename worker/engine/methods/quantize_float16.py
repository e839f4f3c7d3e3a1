"""`quantize.float16`: half-precision weights and arithmetic, with float32 islands where half does not reach."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from app.contracts.recipe.quantize_float16 import QuantizeFloat16
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.gate import refuse_quantized
from worker.engine.quantization.half_precision.islands import find_islands
from worker.engine.quantization.half_precision.operators import HALF, is_float, obstacle_in_operator
from worker.engine.quantization.half_precision.rewriter import HalfRewriter, to_half
from worker.engine.quantization.layer_errors import LayerErrors, find_errors
from worker.engine.quantization.sensitivity import QuantizedLayer
from worker.engine.quantization.weight_facts import weight_facts
from worker.engine.session import Array
from worker.engine.wording import counted

_WATCHED_SAMPLES = 32


class HalfPrecision(Method[QuantizeFloat16]):
    """Conversion to float16, in the main graph and in bodies alike."""

    step_type = QuantizeFloat16
    takes_integers = False

    def apply(self, graph: Graph, step: QuantizeFloat16, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_CONVERT or ALREADY_QUANTIZED."""
        refuse_quantized(graph, step.method)
        half = graph.clone()
        half.infer_shapes()
        islands = find_islands(half, _pass(context, 0.0, 0.5, "looking for large values"))
        layers = split_layers(half, step, context, lambda _, layer: islands.obstacle(layer) or _obstacle(layer))
        if not layers:
            hint = "It works on float32 layers whose values stay within the range of float16."
            raise context.record.refusal("NOTHING_TO_CONVERT", hint)
        errors = find_errors(half, layers, lambda layer: _halved(half, layer), _pass(context, 0.5, 0.4, "measuring"))
        before = {id(weight): half.array(weight) for layer in layers for weight in layer.weights}
        left_out = _left_out(half, layers, only_layers=bool(step.include))
        HalfRewriter(half, left_out | islands.reasons.keys(), keep_io=step.keep_io).run()
        for layer in layers:
            _record(half, layer, before, errors, context)
        context.record.note_held_back()
        context.record.note("float16 saves size; a CPU without half arithmetic runs it no faster")
        if islands.reasons:
            told = f"{counted(len(islands.reasons), 'node')}, such as {_told(islands.reasons)}"
            context.record.note(f"kept in float32: {told}")
        for note in filter(None, (islands.note, errors.note)):
            context.record.note(note)
        return half

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return _obstacle(layer) or obstacle_in_operator(layer.node, graph.opset)


def _obstacle(layer: Layer) -> str | None:
    if not any(is_float(value) for value in layer.node.inputs):
        return "it does not work on float32"
    kinds = {weight.dtype.name.lower() for weight in layer.weights if weight.dtype} - {"float"}
    return f"its weights are {', '.join(sorted(kinds))}" if kinds else None


def _pass(context: StepContext, begin: float, share: float, message: str) -> Pass:
    """A run over samples that is `share` of the step and starts at `begin` of it."""

    def told(done: float) -> None:
        context.progress(begin + share * done, message)

    return Pass(context.samples, _WATCHED_SAMPLES, context.device, told)


def _halved(graph: Graph, layer: Layer) -> QuantizedLayer:
    weights = {weight.name or "": to_half(graph.array(weight)).astype(np.float32) for weight in layer.weights}
    return QuantizedLayer(layer, weights, lambda values: values.to(torch.float16).to(values.dtype))


def _left_out(graph: Graph, layers: Sequence[Layer], *, only_layers: bool) -> set[ir.Node]:
    """Nodes the step does not touch: layers it leaves out and, where it names layers, whatever is none."""
    chosen = {layer.node for layer in layers}
    weighted = {layer.node for layer in graph.layers()}
    return {node for node in graph.nodes() if node not in chosen and (only_layers or node in weighted)}


def _record(graph: Graph, layer: Layer, before: Mapping[int, Array], errors: LayerErrors, context: StepContext) -> None:
    halves = [weight for weight in layer.weights if weight.dtype == HALF]
    if not halves:
        context.record.skipped(layer, "its weights are shared with a node that stays float32")
        return
    old = np.concatenate([before[id(weight)].ravel() for weight in halves])
    new = np.concatenate([graph.array(weight).ravel() for weight in halves])
    facts = weight_facts(old, new.astype(np.float32))
    context.record.done(layer, bits=16, activation_bits=16, **facts, **errors.facts.get(layer.name, {}))


def _told(islands: Mapping[ir.Node, str]) -> str:
    node, reason = next(iter(islands.items()))
    return f"{node.name!r} ({reason})"
