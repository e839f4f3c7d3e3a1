"""Whether cross-layer equalization brings rounded weights closer: tried with rounding to nearest, kept if it does."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from app.contracts.events import Repair
from app.contracts.recipe.quantize_weights import QuantizeWeights
from worker.engine.graph import Graph
from worker.engine.graph.passes.fold_batch_norm import fold_batch_norm
from worker.engine.measure.comparison import Judge
from worker.engine.quantization.equalization import equalize
from worker.engine.quantization.gate import load_counted
from worker.engine.quantization.stored_weights import obstacle_in_layer, plan_storage
from worker.engine.quantization.weight_rounding import round_to_nearest
from worker.engine.samples import Samples

_JUDGED_SAMPLES = 64


@dataclass(frozen=True)
class Prepared:
    """A float graph that computes the same as the one given, what was tried to get there, and notes."""

    graph: Graph
    repairs: list[Repair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def equalize_if_closer(
    graph: Graph, step: QuantizeWeights, samples: Samples, left_alone: Collection[str] = ()
) -> Prepared:
    """`graph` equalized, BatchNormalization folded before, where rounding its weights then changes outputs less.

    Nodes `left_alone`, by name, keep their weights; where there are any, nothing is folded.
    """
    equalized = graph.clone()
    notes = [] if left_alone else fold_batch_norm(equalized)
    equalized.infer_shapes()
    told = equalize(equalized, left_alone)
    if not told:
        return Prepared(graph)
    judge = Judge(graph, samples, _JUDGED_SAMPLES)
    before, after = (_fidelity(each, step, judge) for each in (graph, equalized))
    gain = after - before if math.isfinite(before) and math.isfinite(after) else None
    repair = Repair(name="cross-layer equalization", gain_db=gain, kept=after > before)
    return Prepared(equalized, [repair], notes + told) if repair.kept else Prepared(graph, [repair])


def _fidelity(graph: Graph, step: QuantizeWeights, judge: Judge) -> float:
    """SQNR of the outputs with all weights rounded to nearest, dB."""
    rounded = graph.clone()
    layers = [layer for layer in graph.layers() if obstacle_in_layer(layer, step) is None]
    for weight in plan_storage(graph, layers, step):
        rounded.set_array(weight.name, round_to_nearest(graph, weight).restored())
    return judge.compare(load_counted(rounded)[0])
