"""Pass: parameters that `unshare` separated, and that are still equal, are stored once again."""

import json

import numpy as np
import onnx_ir as ir

from worker.engine.graph.graph import Graph
from worker.engine.graph.passes.normalize import MANIFEST
from worker.engine.wording import counted


def retie(graph: Graph) -> list[str]:
    """For a file at rest. A method that will train or prune the graph needs the parameters apart."""
    properties = graph.model.graph.metadata_props
    sources: dict[str, str] = json.loads(properties.get(MANIFEST, "{}"))
    values = {value.name or "": value for value in graph.initializers()}
    tied = 0
    for name, source in list(sources.items()):
        copy, first = values.get(name), values.get(source)
        if copy is None or first is None or copy.graph is not first.graph or not _are_equal(copy, first):
            continue
        if copy.graph is None or copy.is_graph_output():
            continue
        copy.replace_all_uses_with(first)
        del copy.graph.initializers[name]
        del sources[name]
        tied += 1
    if tied:
        properties[MANIFEST] = json.dumps(sources, sort_keys=True)
        if not sources:
            del properties[MANIFEST]
    return [f"{counted(tied, 'parameter')} stored once again, still equal"] if tied else []


def _are_equal(one: ir.Value, other: ir.Value) -> bool:
    """To the last bit: -0.0 is not 0.0."""
    tensor, first = one.const_value, other.const_value
    if tensor is None or first is None or tensor.dtype != first.dtype or tensor.shape != first.shape:
        return False
    return np.array_equal(tensor.numpy(), first.numpy()) and tensor.tobytes() == first.tobytes()
