"""`quantize.static`: integer weights and activations with ranges from calibration data, as Q/DQ pairs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from app.contracts.failure import SlimlineError
from app.contracts.recipe.quantize_static import QuantizeStatic
from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.graph.passes.fold_batch_norm import fold_batch_norm
from worker.engine.measure.comparison import compare_outputs
from worker.engine.measure.kernels import KernelCount
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.quantization.calibration import Pass, find_extremes, find_histograms
from worker.engine.quantization.equalization import equalize
from worker.engine.quantization.gate import check_gain, obstacle_in_weights, refuse_quantized
from worker.engine.quantization.nodes import attribute, weight_after
from worker.engine.quantization.placement import CORE, WIDE, Placement, Range, place
from worker.engine.samples import Samples
from worker.engine.tensors.histogram import central_range
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.wording import counted

ONE_BIT_DB = 6.0
"""What a bit more is worth. A faster placement may cost no more fidelity than that."""
_HINT = "It works on Conv, ConvTranspose, Gemm and MatMul outside of bodies; for LSTM use quantize.dynamic."
_UNBOUNDED = "a tensor it reads or writes holds infinities"
_JUDGED_SAMPLES = 64
_CALIBRATING = 0.6
"""Share of the work; the rest is measuring candidates."""
_MATRIX = 2


class StaticQuantization(Method[QuantizeStatic]):
    """Post-training static quantization (Jacob et al. 2018)."""

    step_type = QuantizeStatic
    takes_integers, makes_integers = False, True

    def apply(self, graph: Graph, step: QuantizeStatic, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_QUANTIZE, ALREADY_QUANTIZED or QUANTIZATION_WITHOUT_EFFECT."""
        refuse_quantized(graph, step.method)
        folded = graph.clone()
        context.record.notes += fold_batch_norm(folded)
        folded.infer_shapes()
        layers = split_layers(folded, step, context, self.obstacle)
        if not layers or context.calibration is None:
            raise context.record.refusal("NOTHING_TO_QUANTIZE", _HINT)
        samples = Samples(folded.inputs, context.calibration)
        candidates, variants = list[_Candidate](), list(_variants(folded, step))
        for number, (source, what) in enumerate(variants):
            share = number / len(variants), 1 / len(variants)
            ranges, unbounded = _calibrate(source, samples, step, _part_of(context, share))
            left_out = _left_out(source, layers, unbounded)
            if all(layer.node.name in left_out for layer in layers):
                for layer in layers:
                    context.record.skipped(layer, _UNBOUNDED)
                raise context.record.refusal("NOTHING_TO_QUANTIZE", _HINT)
            candidates += _candidates(source, left_out, ranges, step, what)
        best = _choose(folded, candidates, samples, context)
        for layer in layers:
            _record(layer, best.source, best.graph, context)
        context.record.note_held_back()
        context.record.note(best.kernels.told())
        return best.graph

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        if layer.op in ("LSTM", "GRU", "RNN"):
            return f"static quantization does nothing for {layer.op}; quantize.dynamic does it for LSTM"
        if layer.op not in CORE:
            return f"{layer.op} has no static integer kernel"
        if layer.node.graph is not graph.model.graph:
            return "it lies in the body of an If, Loop or Scan, where activations cannot be observed"
        return obstacle_in_weights(layer) or _obstacle_in_node(layer)


def _obstacle_in_node(layer: Layer) -> str | None:
    weight = layer.node.inputs[1]
    traced = trace_weight(weight)
    if weight is None or traced is None:
        return "its weight is the left operand"
    if not weight.is_initializer():
        return "its weight comes through a Transpose"
    if layer.op == "MatMul" and len(traced[1]) != _MATRIX:
        return "its weight is a stack of matrices"
    if layer.op == "Gemm" and (attribute(layer.node, "transA", 0) or attribute(layer.node, "alpha", 1) != 1):
        return "its input is transposed or scaled (transA, alpha)"
    return None


@dataclass(frozen=True)
class _Candidate:
    """One way to place the pairs, and what came of it. `source`: the float graph they were put into."""

    source: Graph
    graph: Graph
    kernels: KernelCount
    what: str


def _part_of(context: StepContext, share: tuple[float, float]) -> StepContext:
    """The context of a part of the work, which begins at a share of its progress and is a share of it."""
    start, length = share
    return replace(
        context, progress=lambda done, message: context.progress(start * _CALIBRATING + length * done, message)
    )


def _calibrate(
    graph: Graph, samples: Samples, step: QuantizeStatic, context: StepContext
) -> tuple[dict[str, Range], set[str]]:
    """The range of every tensor, and the names of those that held infinities."""

    def progress(share: float) -> None:
        context.progress(_CALIBRATING * share, f"calibrating on {min(step.samples, len(samples))} samples")

    if step.calibrator == "percentile":
        histograms = find_histograms(graph, Pass(samples, step.samples, context.device, progress))
        ranges = {name: central_range(each, step.percentile) for name, each in histograms.items()}
        return ranges, {name for name, each in histograms.items() if each.non_finite}
    extremes = find_extremes(graph, Pass(samples, step.samples, context.device, progress))
    ranges = {name: (min(each.low, 0.0), max(each.high, 0.0)) for name, each in extremes.items()}
    return ranges, {name for name, each in extremes.items() if not each.are_finite}


def _left_out(graph: Graph, layers: list[Layer], unbounded: set[str]) -> set[str]:
    """Names of the nodes that stay in float: layers not chosen, and whatever touches a tensor without a range."""
    chosen = {layer.node.name for layer in layers}
    weighted = {layer.node.name for layer in graph.layers()}
    return {
        node.name or ""
        for node in graph.model.graph
        if (node.name in weighted and node.name not in chosen)
        or any(value is not None and value.name in unbounded for value in (*node.inputs, *node.outputs))
    }


def _variants(graph: Graph, step: QuantizeStatic) -> Iterator[tuple[Graph, str]]:
    """Float graphs that compute the same, and how they are told apart; with an `include` nothing else is touched."""
    yield graph, ""
    equalized = graph.clone()
    if not step.include and not step.exclude and equalize(equalized):
        yield equalized, " after cross-layer equalization"


def _candidates(
    graph: Graph, left_out: set[str], ranges: Mapping[str, Range], step: QuantizeStatic, variant: str
) -> list[_Candidate]:
    """The ways that gain something; with an `include` only the layers it names are touched.

    Raises the first way's refusal where none gains.
    """
    ways = (
        {"the layers alone": CORE}
        if step.include
        else {"the layers and what lies between": WIDE, "the layers alone": CORE}
    )
    found, refusals = [], list[SlimlineError]()
    for what, operators in ways.items():
        quantized = place(graph, Placement(operators, left_out), ranges, step)
        try:
            found.append(_Candidate(graph, quantized, check_gain(graph, quantized), what + variant))
        except SlimlineError as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return found


def _choose(graph: Graph, candidates: list[_Candidate], samples: Samples, context: StepContext) -> _Candidate:
    """The most integer candidate whose fidelity lies within one bit of the best. It is measured, not told by name."""
    judged = []
    for index, candidate in enumerate(candidates):
        context.progress(_CALIBRATING + (1 - _CALIBRATING) * index / len(candidates), f"measuring: {candidate.what}")
        decibels = compare_outputs(graph, candidate.graph, samples, _JUDGED_SAMPLES)
        borders = counted(candidate.kernels.borders, "conversion")
        context.record.note(f"quantizing {candidate.what}: {decibels:.1f} dB, {borders}")
        judged.append((candidate, decibels))
    best = max(decibels for _, decibels in judged)
    near = [(candidate, decibels) for candidate, decibels in judged if decibels >= best - ONE_BIT_DB]
    return min(near, key=lambda pair: (pair[0].kernels.borders, -pair[0].kernels.integer, -pair[1]))[0]


def _record(layer: Layer, before: Graph, after: Graph, context: StepContext) -> None:
    found = weight_after(after, layer.node.name or "")
    if found is None:
        context.record.skipped(layer, _UNBOUNDED)
    else:
        context.record.done(layer, bits=8, sqnr_db=sqnr_db(before.array(layer.weight), found))
