"""`quantize.bfloat16`: weights stored as bfloat16, arithmetic in float32."""

import numpy as np
import onnx_ir as ir

from app.contracts.recipe.quantize_bfloat16 import QuantizeBfloat16
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.bfloat16 import store_in_bfloat16, to_bfloat16
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.gate import refuse_quantized
from worker.engine.quantization.layer_errors import find_errors
from worker.engine.quantization.sensitivity import QuantizedLayer
from worker.engine.quantization.weight_facts import weight_facts
from worker.engine.session import Array

_WATCHED_SAMPLES = 16


class Bfloat16Weights(Method[QuantizeBfloat16]):
    """Conversion of weights to bfloat16, in the main graph and in bodies alike."""

    step_type = QuantizeBfloat16

    def apply(self, graph: Graph, step: QuantizeBfloat16, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_CONVERT, or ALREADY_QUANTIZED where integers are all there is."""
        result = graph.clone()
        layers = split_layers(result, step, context, lambda _, layer: _obstacle(layer))
        if not layers:
            refuse_quantized(graph, step.method)
            raise context.record.refusal("NOTHING_TO_CONVERT", "It works on layers with float32 weights.")
        _record(result, layers, context)
        store_in_bfloat16(result, [weight for layer in layers for weight in layer.weights])
        context.record.note_held_back()
        context.record.note(
            "weights only: the file halves; ONNX Runtime makes float32 of the weights as it loads them, so memory and "
            "speed stay as they were, but for embeddings, whose tables stay in 16 bits"
        )
        return result

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        del graph
        return _obstacle(layer)


def _obstacle(layer: Layer) -> str | None:
    for weight in layer.weights:
        if weight.dtype != ir.DataType.FLOAT:
            return f"its weights are {weight.dtype.name.lower() if weight.dtype else 'of unknown type'}"
        if weight.is_graph_output():
            return "its weights are an output of the model"
    return None


def _record(graph: Graph, layers: list[Layer], context: StepContext) -> None:
    """Measure each layer and record it; `graph` is still as it was."""

    def rounded(layer: Layer) -> dict[str, Array]:
        return {weight.name or "": to_bfloat16(graph.array(weight)).astype(np.float32) for weight in layer.weights}

    run = Pass(
        context.samples,
        _WATCHED_SAMPLES,
        context.device,
        lambda share: context.progress(0.9 * share, "measuring each layer's error"),
    )
    errors = find_errors(graph, layers, lambda layer: QuantizedLayer(layer, rounded(layer)), run)
    for layer in layers:
        old = np.concatenate([graph.array(weight).ravel() for weight in layer.weights])
        new = np.concatenate([array.ravel() for array in rounded(layer).values()])
        context.record.done(layer, bits=16, **weight_facts(old, new), **errors.facts.get(layer.name, {}))
    if errors.note:
        context.record.note(errors.note)
