"""Finds the scales of a graph that can be folded away, and folds them. What they should be is for others to say."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.graph.edit import ORT_DOMAIN
from worker.engine.quantization.folding.between import BETWEEN
from worker.engine.quantization.folding.flow import Flow, Reading, Rule, Scaled
from worker.engine.quantization.folding.labels import FIXED
from worker.engine.quantization.folding.layers import CONTRIBUTED, LAYERS
from worker.engine.quantization.folding.rearranging import REARRANGING
from worker.engine.session import Array

_RULES: Mapping[str, Mapping[str, Rule]] = {
    "": {**BETWEEN, **REARRANGING, **LAYERS},
    ORT_DOMAIN: CONTRIBUTED,
}


@dataclass(frozen=True)
class Channels:
    """The scales of a graph, 0 to `count` - 1, of which number 0 is 1, and where each takes part.

    Whatever the others are, as long as they are positive, the graph computes the same: the constants in `scaled` are
    multiplied and divided by them, and every tensor between is divided by its own.
    """

    count: int
    scaled: Sequence[Scaled]
    readings: Sequence[Reading]


def find_channels(graph: Graph, left_alone: Collection[str] = ()) -> Channels:
    """Walk `graph`, bodies too, and infer its shapes first; no constant of the nodes `left_alone` is scaled.

    Raises SlimlineError SHAPES_CONFLICT.
    """
    graph.infer_shapes()
    flow = Flow(graph)
    for node in graph.nodes():
        _visit(flow, node, has_rule=node.name not in left_alone)
    for each in graph.model.graphs():
        for value in each.outputs:
            flow.fix(flow.of(value))
    return _collect(flow)


def _visit(flow: Flow, node: ir.Node, *, has_rule: bool) -> None:
    rules = _RULES.get(node.domain.removeprefix("ai.onnx"), {}) if has_rule else {}
    rule = rules.get(node.op_type)
    labels = rule(flow, node) if rule else None
    if labels is None:
        for value in node.inputs:
            flow.fix(flow.of(value))
    known = [*(labels or ()), *[FIXED] * len(node.outputs)]
    for made, label in zip(node.outputs, known, strict=False):
        flow.label(made, label)


def _collect(flow: Flow) -> Channels:
    numbers = flow.numbered()
    scaled = [
        Scaled(each.constant, numbers[each.reads], numbers[each.writes], each.is_weight)
        for each in flow.scaled
        if numbers[each.reads].any() or numbers[each.writes].any()
    ]
    readings = [Reading(each.value, each.axis, numbers[each.labels]) for each in flow.readings]
    return Channels(int(numbers.max()) + 1, scaled, [each for each in readings if each.labels.any()])


def fold(graph: Graph, channels: Channels, scales: Array) -> None:
    """Fold `scales` [count], positive and the first of them 1, into the constants of `graph`, in place."""
    for each in channels.scaled:
        multipliers, divisors = (scales[labels].astype(np.float32) for labels in (each.reads, each.writes))
        if (multipliers != 1).any() or (divisors != 1).any():
            graph.set_array(each.constant, graph.array(each.constant) * multipliers / divisors)
