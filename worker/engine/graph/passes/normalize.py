"""Pass: one flat, sorted graph with unique names, whose weights are initializers and no inputs."""

import json
from collections.abc import Iterator

from onnx_ir.passes import common

from worker.engine.graph.graph import Graph

_OLDEST_IR = 8
"""From IR version 4 initializers need not be inputs; 8 goes with opset 18."""
MANIFEST = "slimline.source_names"
"""Key of the graph's metadata: a JSON object, name of an initializer now -> name in the file as uploaded."""


def normalize(graph: Graph) -> list[str]:
    """Inline functions, take weights out of the inputs, make Constant nodes initializers, sort, name uniquely."""
    model = graph.model
    if model.functions:
        common.InlinePass()(model)
    common.RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    model.graph.sort()
    _name_nodes(graph)
    _name_initializers(graph)
    return []


def record_source(graph: Graph, name: str, source: str) -> None:
    """Remember under which name initializer `name` was uploaded."""
    properties = graph.model.graph.metadata_props
    known = json.loads(properties.get(MANIFEST, "{}"))
    known[name] = known.get(source, source)
    properties[MANIFEST] = json.dumps(known, sort_keys=True)


def free_names(name: str, taken: set[str]) -> Iterator[str]:
    """`name`, then name_2, name_3 and so on, those not in `taken`."""
    number = 1
    while True:
        candidate = name if number == 1 else f"{name}_{number}"
        if candidate not in taken:
            yield candidate
        number += 1


def _name_nodes(graph: Graph) -> None:
    taken: set[str] = set()
    for node in graph.nodes():
        wanted = node.name or node.outputs[0].name or node.op_type
        node.name = next(free_names(wanted, taken))
        taken.add(node.name)


def _name_initializers(graph: Graph) -> None:
    """Bodies beside each other may use a name twice; a method that asks for an initializer by name may not."""
    taken = {value.name for node in graph.nodes() for value in node.outputs if value.name}
    taken |= {value.name for value in graph.model.graph.inputs if value.name}
    for value in list(graph.initializers()):
        source = value.name or ""
        name = next(free_names(source, taken))
        if name != source:
            value.name = name
            record_source(graph, name, source)
        taken.add(name)
