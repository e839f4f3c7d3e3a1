"""Errors of layers that are each quantized alone, for their records, as far as they are cheap to have."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph, Layer
from worker.engine.graph.cost import macs
from worker.engine.graph.edit import Editor
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.sensitivity import QuantizedLayer, affordable_samples, measure_errors, shares

_MOST_MACS = 1e12
"""Of all runs on one sample, about a minute on two cores: each layer runs the whole graph once more."""
_NOT_MEASURED = "the error of each layer alone was not measured"
_NOT_RUN = frozenset({"OPERATOR_UNSUPPORTED", "TENSOR_TYPE_UNSUPPORTED"})


@dataclass(frozen=True)
class LayerErrors:
    """`facts` of LayerRecord by layer name, empty where there are none; then `note` says why."""

    facts: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    note: str | None = None


def find_errors(
    graph: Graph, layers: Sequence[Layer], quantized: Callable[[Layer], QuantizedLayer], run: Pass
) -> LayerErrors:
    """The errors of `layers` of `graph`, each as `quantized` makes it, on at most 8 samples.

    Fewer samples for large graphs, and for very large ones none at all.
    """
    if (macs(graph) or 0) * len(layers) > _MOST_MACS:
        return LayerErrors(note=f"{_NOT_MEASURED}: the model is too large for it")
    limited = replace(run, limit=min(run.limit, affordable_samples(graph, len(layers))))
    named = _with_outputs_named(graph)
    try:
        errors = measure_errors(named, [quantized(layer) for layer in layers], limited)
    except SlimlineError as error:
        if error.failure.code not in _NOT_RUN:
            raise
        return LayerErrors(note=f"{_NOT_MEASURED}: {error.failure.message}")
    if not all(math.isfinite(error.final_noise) for error in errors.values()):
        return LayerErrors(note=f"{_NOT_MEASURED}: the outputs hold NaN or infinity")
    share = shares(errors)
    return LayerErrors(
        {name: {"output_sqnr_db": error.output_sqnr_db, "error_share": share[name]} for name, error in errors.items()}
    )


def _with_outputs_named(graph: Graph) -> Graph:
    """A copy in which a node that leaves out its first output makes it, so that it can be watched."""
    named = graph.clone()
    editor = Editor(named)
    for node in named.nodes():
        node.outputs[0].name = node.outputs[0].name or editor.free_name(f"{node.name}_output")
    return named
