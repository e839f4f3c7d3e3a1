"""`quantize.static`: integer weights and activations with ranges from calibration data, as Q/DQ pairs."""

from app.contracts.recipe.quantize_static import QuantizeStatic
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.gate import refuse_quantized, tell_small_share
from worker.engine.quantization.obstacles import find_obstacle
from worker.engine.quantization.preparation import prepare
from worker.engine.quantization.report import record_layers
from worker.engine.quantization.search import SearchRun, StaticSearch
from worker.engine.quantization.source import find_samples
from worker.engine.quantization.target import find_target

_HINT = "It works on Conv, Gemm and MatMul; for LSTM and GRU use quantize.dynamic."
_BYTE = 8
_SYNTHESIS, _SEARCHING = 0.4, 0.85
"""Shares of the work after which inputs are made, where there are none, and the search is over."""


class StaticQuantization(Method[QuantizeStatic]):
    """Post-training static quantization (Jacob et al. 2018)."""

    step_type = QuantizeStatic
    takes_integers, makes_integers = False, True

    def apply(self, graph: Graph, step: QuantizeStatic, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_QUANTIZE, ALREADY_QUANTIZED or QUANTIZATION_WITHOUT_EFFECT."""
        refuse_quantized(graph, step.method)
        has_small_types = step.weights.bits < _BYTE or step.activations.bits > _BYTE
        prepared, notes = prepare(graph, has_small_types=has_small_types, is_partial=bool(step.include))
        context.record.notes += notes
        target = find_target(step.target)
        layers = split_layers(prepared, step, context, lambda _, layer: find_obstacle(prepared, layer, target))
        if not layers:
            raise context.record.refusal("NOTHING_TO_QUANTIZE", _HINT)
        start = 0.0 if context.calibration is not None else _SYNTHESIS
        samples = find_samples(graph, context, lambda share: context.progress(start * share, "synthesising inputs"))
        run = SearchRun(samples, context.device, context.progress)
        names = frozenset(layer.node.name or "" for layer in layers)
        search = StaticSearch(prepared, names, step, target, run.part(start, _SEARCHING))
        best = search.run()
        measuring = run.watching(len(samples), _SEARCHING, 1, "measuring each layer alone")
        record_layers(layers, best, search.story, context.record, measuring)
        context.record.notes += search.story.notes
        context.record.note_held_back()
        context.record.note(best.kernels.told())
        if not target.is_here:
            context.record.note(f"kernels were counted on this machine; the artifact is made for {target.name}")
        done = [layer for layer in layers if layer.node.name in best.quantized.weights]
        context.record.notes += tell_small_share(prepared, done)
        return best.quantized.graph

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return find_obstacle(graph, layer, find_target("device"))
