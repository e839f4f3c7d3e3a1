"""`quantize.mixed`: the bits of each layer's weights under a budget, by what each layer's error and cost measure."""

from collections.abc import Sequence

from app.contracts.failure import SlimlineError
from app.contracts.recipe.quantize_mixed import QuantizeMixed
from app.contracts.recipe.quantize_static import QuantizeStatic, WeightQuantization
from worker.engine.graph import Graph, Layer
from worker.engine.measure.comparison import Judge
from worker.engine.methods.method import Method, Record, StepContext, split_layers
from worker.engine.quantization.bit_options import FLOAT
from worker.engine.quantization.budget_report import tell_budget
from worker.engine.quantization.gate import refuse_quantized
from worker.engine.quantization.mixed import Found, MixedSearch
from worker.engine.quantization.obstacles import find_obstacle
from worker.engine.quantization.preparation import prepare
from worker.engine.quantization.report import record_layers
from worker.engine.quantization.search import SearchRun, StaticSearch
from worker.engine.quantization.source import find_samples
from worker.engine.quantization.target import find_target
from worker.engine.quantization.trials import Trials

_HINT = "It works on Conv, Gemm and MatMul; for LSTM and GRU use quantize.dynamic."
_IN_FLOAT = "stays in float, as the budget allows"
_SMALL = 4
_SYNTHESIS, _SEARCHING, _CHOOSING = 0.3, 0.5, 0.9
"""Shares of the work after which inputs are made, where there are none, float graph and ranges are found, and bits."""
_JUDGED_SAMPLES = 64


class MixedQuantization(Method[QuantizeMixed]):
    """Mixed-precision static quantization (Hubara et al. 2020).

    Under a budget of latency it depends on measured times, which no seed makes the same; else it is deterministic.
    """

    step_type = QuantizeMixed
    takes_integers, makes_integers = False, True

    def apply(self, graph: Graph, step: QuantizeMixed, context: StepContext) -> Graph:
        """See `Method.apply`.

        Raises NOTHING_TO_QUANTIZE, ALREADY_QUANTIZED, QUANTIZATION_WITHOUT_EFFECT or BUDGET_OUT_OF_REACH.
        """
        refuse_quantized(graph, step.method)
        prepared = _prepare(graph, step, context.record)
        target = find_target("device")
        layers = split_layers(prepared, step, context, lambda _, layer: find_obstacle(prepared, layer, target))
        if not layers:
            raise context.record.refusal("NOTHING_TO_QUANTIZE", _HINT)
        start = 0.0 if context.calibration is not None else _SYNTHESIS
        samples = find_samples(graph, context, lambda share: context.progress(start * share, "synthesising inputs"))
        run = SearchRun(samples, context.device, context.progress)
        names = frozenset(layer.node.name or "" for layer in layers)
        search = StaticSearch(prepared, names, _everywhere(step), target, run.part(start, _SEARCHING))
        best = search.run()
        trials = Trials(prepared, Judge(prepared, samples, _JUDGED_SAMPLES))
        mixing = MixedSearch(graph, best, trials, step, run.part(_SEARCHING, _CHOOSING))
        found = mixing.run()
        chosen = _split_float(layers, found, context.record)
        measuring = run.watching(len(samples), _CHOOSING, 1, "measuring each layer alone")
        record_layers(chosen, found.outcome.candidate, search.story, context.record, measuring)
        context.record.notes += [*search.story.notes, *mixing.notes, *tell_budget(graph, step, found)]
        context.record.note_held_back()
        context.record.note(found.outcome.candidate.kernels.told())
        return found.outcome.candidate.quantized.graph

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return find_obstacle(graph, layer, find_target("device"))


def _prepare(graph: Graph, step: QuantizeMixed, record: Record) -> Graph:
    """A copy in the form that is worked on; where it cannot be told of 4 bits, they turn out to be no choice later."""
    is_partial = bool(step.include)
    try:
        prepared, notes = prepare(graph, has_small_types=_SMALL in step.choices, is_partial=is_partial)
    except SlimlineError as error:
        prepared, notes = prepare(graph, has_small_types=False, is_partial=is_partial)
        record.note(error.failure.message)
    record.notes += notes
    return prepared


def _everywhere(step: QuantizeMixed) -> QuantizeStatic:
    """The same with 8 bits for every layer; 4 bits need a scale for each channel."""
    scales = WeightQuantization(per_channel=None if step.asks_for_speed else True)
    return QuantizeStatic(
        weights=scales,
        preset="speed" if step.asks_for_speed else "balanced",
        include=step.include,
        exclude=step.exclude,
        calibrator=step.calibrator,
        samples=step.samples,
        repairs=("equalization", "smoothing", "range_search", "bias_correction"),
    )


def _split_float(layers: Sequence[Layer], found: Found, record: Record) -> list[Layer]:
    """Those of `layers` that do not stay in float by choice; the others are recorded as skipped."""
    bits = found.outcome.bits
    in_float = [layer for layer in layers if bits.get(layer.node.name or "") == FLOAT]
    for layer in in_float:
        record.skipped(layer, _IN_FLOAT)
    return [layer for layer in layers if layer not in in_float]
