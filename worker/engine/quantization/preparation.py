"""Brings a copy of a graph into the form in which static quantization works on it. Nothing is quantized here."""

from worker.engine.graph import Graph
from worker.engine.graph.passes.fold_batch_norm import fold_batch_norm
from worker.engine.graph.passes.opset import raise_opset
from worker.engine.graph.passes.pool_means import pool_means

_OPSET_OF_SMALL_TYPES = 21
"""From here on Q/DQ nodes know 4 and 16 bits."""


def prepare(graph: Graph, *, has_small_types: bool, is_partial: bool) -> tuple[Graph, list[str]]:
    """A copy that computes the same with fewer, better known operators, and notes.

    Of a graph that is worked on in part alone, nothing is changed that does not belong to a layer.
    """
    prepared = graph.clone()
    notes = fold_batch_norm(prepared)
    if has_small_types:
        notes += raise_opset(prepared, _OPSET_OF_SMALL_TYPES, _OPSET_OF_SMALL_TYPES)
    prepared.infer_shapes()
    if not is_partial:
        notes += pool_means(prepared)
    return prepared, notes
