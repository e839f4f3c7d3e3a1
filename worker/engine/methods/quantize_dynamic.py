"""`quantize.dynamic`: integer weights ahead of time, activation ranges found by ONNX Runtime at run time."""

from collections.abc import Sequence

import numpy as np

from app.contracts.recipe.quantize_dynamic import QuantizeDynamic
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.dynamic.activations import quantize_dynamically
from worker.engine.quantization.dynamic.draft import Draft
from worker.engine.quantization.dynamic.rules import RULES
from worker.engine.quantization.gate import check_gain, refuse_quantized
from worker.engine.quantization.layer_errors import find_errors
from worker.engine.quantization.obstacles import obstacle_in_numbers, obstacle_in_types
from worker.engine.quantization.saturation import saturates
from worker.engine.quantization.sensitivity import QuantizedLayer
from worker.engine.quantization.weight_facts import weight_facts
from worker.engine.wording import counted

_HINT = "It works on matrix products, recurrent layers and embeddings; for convolutions use quantize.static."
_SATURATES = (
    "this CPU adds products of 8-bit numbers in 16 bits (no VNNI), which overflows where both are large: "
    "judge the accuracy on the machine that will serve the model"
)
_WATCHED_SAMPLES = 16


class DynamicQuantization(Method[QuantizeDynamic]):
    """Dynamic quantization, in the main graph and in bodies alike."""

    step_type = QuantizeDynamic
    takes_integers, makes_integers = False, True

    def apply(self, graph: Graph, step: QuantizeDynamic, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_QUANTIZE, ALREADY_QUANTIZED or QUANTIZATION_WITHOUT_EFFECT."""
        refuse_quantized(graph, step.method)
        quantized = graph.clone()

        def obstacle(_: Graph, layer: Layer) -> str | None:
            return _obstacle(layer, step.convolutions) or obstacle_in_numbers(quantized, layer)

        layers = split_layers(quantized, step, context, obstacle)
        if not layers:
            raise context.record.refusal("NOTHING_TO_QUANTIZE", _HINT)
        operands = [operand for layer in layers for operand in RULES[layer.op].operands(layer.node)]
        draft = Draft(quantized, operands, per_channel=step.weights.per_channel)
        _record(draft, layers, context)
        for layer in layers:
            RULES[layer.op].rewrite(layer, draft)
        draft.weights.settle()
        context.record.note_held_back()
        context.record.note(check_gain(graph, quantized).told())
        if any(layer.op == "Conv" for layer in layers):
            context.record.note("dynamic integer convolutions run several times slower than float ones on a CPU")
        if saturates():
            context.record.note(_SATURATES)
        return quantized

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        del graph
        return _obstacle(layer, convolutions=False)


def _obstacle(layer: Layer, convolutions: bool) -> str | None:  # noqa: FBT001 - the step's own option
    if layer.op == "Conv" and not convolutions:
        return "dynamic integer convolution is slower than float; set convolutions=true to do it all the same"
    if layer.op not in RULES:
        return f"ONNX Runtime has no dynamic integer kernel for {layer.op}"
    return obstacle_in_types(layer) or RULES[layer.op].obstacle(layer.node)


def _record(draft: Draft, layers: Sequence[Layer], context: StepContext) -> None:
    """Measure each layer and record it; the graph of `draft` is still in floats."""
    graph, weights = draft.graph, draft.weights

    def quantized(layer: Layer) -> QuantizedLayer:
        restored = {weight.name or "": weights.restored(weight) for weight in layer.weights}
        return QuantizedLayer(layer, restored, quantize_dynamically if _multiplies(layer) else None)

    run = Pass(
        context.samples,
        _WATCHED_SAMPLES,
        context.device,
        lambda share: context.progress(0.9 * share, "measuring each layer's error"),
    )
    errors = find_errors(graph, layers, quantized, run)
    for layer in layers:
        pairs = [(graph.array(weight).ravel(), weights.restored(weight).ravel()) for weight in layer.weights]
        original, restored = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        context.record.done(
            layer,
            bits=8,
            activation_bits=8 if _multiplies(layer) else None,
            integer_kernel=_multiplies(layer),
            **weight_facts(original, restored),
            **errors.facts.get(layer.name, {}),
        )
    if errors.note:
        context.record.note(errors.note)
    if small := sum(layer.op in ("GRU", "RNN") and not _multiplies(layer) for layer in layers):
        told = "got integer weights only: smaller, and as fast as before"
        context.record.note(f"{counted(small, 'recurrent layer')} {told}")


def _multiplies(layer: Layer) -> bool:
    return RULES[layer.op].multiplies(layer.node)
