"""`quantize.dynamic`: integer weights ahead of time, activation ranges found by ONNX Runtime at run time."""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from app.contracts.recipe.quantize_dynamic import QuantizeDynamic
from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.dynamic import DynamicRewriter
from worker.engine.quantization.gate import check_gain, obstacle_in_weights, refuse_quantized
from worker.engine.quantization.nodes import attribute

_HINT = "It works on MatMul, Gemm and LSTM; for convolutions use quantize.static, or convolutions=true."
_MATRIX = 2


class DynamicQuantization(Method[QuantizeDynamic]):
    """Dynamic quantization, in the main graph and in bodies alike."""

    step_type = QuantizeDynamic
    takes_integers, makes_integers = False, True

    def apply(self, graph: Graph, step: QuantizeDynamic, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_QUANTIZE, ALREADY_QUANTIZED or QUANTIZATION_WITHOUT_EFFECT."""
        refuse_quantized(graph, step.method)
        quantized = graph.clone()
        layers = split_layers(quantized, step, context, lambda _, layer: _obstacle(layer, step.convolutions))
        if not layers:
            raise context.record.refusal("NOTHING_TO_QUANTIZE", _HINT)
        rewriter = DynamicRewriter(quantized, per_channel=step.weights.per_channel)
        for index, layer in enumerate(layers):
            context.progress(index / len(layers), layer.name)
            context.record.done(layer, bits=8, sqnr_db=rewriter.rewrite(layer))
        context.record.note_held_back()
        context.record.note(check_gain(graph, quantized).told())
        if any(layer.op == "Conv" for layer in layers):
            context.record.note("dynamic integer convolutions run several times slower than float ones on a CPU")
        return quantized

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        del graph
        return _obstacle(layer, convolutions=False)


def _obstacle(layer: Layer, convolutions: bool) -> str | None:  # noqa: FBT001 - the step's own option
    if layer.op == "Conv" and not convolutions:
        return "dynamic integer convolution is slower than float; set convolutions=true to do it all the same"
    if layer.op not in _OBSTACLES:
        return f"ONNX Runtime has no dynamic integer kernel for {layer.op}"
    return obstacle_in_weights(layer) or _OBSTACLES[layer.op](layer.node)


def _in_matmul(node: ir.Node) -> str | None:
    traced = trace_weight(node.inputs[1])
    if traced is None:
        return "its weight is the left operand"
    return None if len(traced[1]) == _MATRIX else "its weight is a stack of matrices"


def _in_gemm(node: ir.Node) -> str | None:
    if attribute(node, "transA", 0):
        return "its input comes transposed (transA)"
    return "its bias is scaled (beta)" if attribute(node, "beta", 1) != 1 else None


def _in_conv(node: ir.Node) -> str | None:
    is_plain = all(each is None or each.is_initializer() for each in node.inputs[1:])
    return None if is_plain else "its weight or bias is computed"


def _in_lstm(node: ir.Node) -> str | None:
    if attribute(node, "layout", 0):
        return "it has layout=1, which the integer kernel does not know"
    is_plain = all(each is not None and each.is_initializer() for each in node.inputs[1:3])
    return None if is_plain else "its weights are computed"


_OBSTACLES: Mapping[str, Callable[[ir.Node], str | None]] = {
    "MatMul": _in_matmul,
    "Gemm": _in_gemm,
    "Conv": _in_conv,
    "LSTM": _in_lstm,
}
