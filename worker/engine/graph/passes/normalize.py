"""Pass: one flat, sorted graph with unique names, whose weights are initializers and no inputs."""

import json
from collections.abc import Iterator, Mapping

from onnx_ir.passes import common

from worker.engine.graph.graph import Graph

_OLDEST_IR = 8
"""From IR version 4 initializers need not be inputs; 8 goes with opset 18."""
MANIFEST = "slimline.source_names"
"""Key of the graph's metadata: a JSON object, name of an initializer now -> name in the file as uploaded."""


def normalize(graph: Graph) -> list[str]:
    """Inline functions, take weights out of the inputs, make Constant nodes initializers, sort, name uniquely."""
    model = graph.model
    _drop_foreign_manifest(graph)
    if model.functions:
        common.InlinePass()(model)
    common.RemoveInitializersFromInputsPass()(model)
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    model.graph.sort()
    _name_nodes(graph)
    _name_initializers(graph)
    return []


def record_sources(graph: Graph, renamed: Mapping[str, str]) -> None:
    """Remember under which names initializers were uploaded: `renamed` is their name now -> before."""
    if not renamed:
        return
    properties = graph.model.graph.metadata_props
    known = json.loads(properties.get(MANIFEST, "{}"))
    for name, source in renamed.items():
        known[name] = known.get(source, source)
    properties[MANIFEST] = json.dumps(known, sort_keys=True)


def _drop_foreign_manifest(graph: Graph) -> None:
    """What stands under our key in an upload is ours only if it reads so."""
    properties = graph.model.graph.metadata_props
    try:
        known = json.loads(properties.get(MANIFEST, "{}"))
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict) or not all(isinstance(source, str) for source in known.values()):
        del properties[MANIFEST]


def free_names(name: str, taken: set[str]) -> Iterator[str]:
    """`name`, then name_2, name_3 and so on, those not in `taken`."""
    number = 1
    while True:
        candidate = name if number == 1 else f"{name}_{number}"
        if candidate not in taken:
            yield candidate
        number += 1


class _Names:
    """Names given out once each. Of many that want the same, each goes on where the one before ended."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._free: dict[str, Iterator[str]] = {}

    def take(self, wanted: str) -> str:
        """`wanted`, or with a number behind it."""
        name = next(self._free.setdefault(wanted, free_names(wanted, self._taken)))
        self._taken.add(name)
        return name


def _name_nodes(graph: Graph) -> None:
    names = _Names(set())
    for node in graph.nodes():
        wanted = node.name or next((value.name for value in node.outputs if value.name), node.op_type)
        node.name = names.take(wanted)


def _name_initializers(graph: Graph) -> None:
    """Bodies beside each other may use a name twice; a method that asks for an initializer by name may not."""
    taken = {value.name for node in graph.nodes() for value in node.outputs if value.name}
    taken |= {value.name for value in graph.model.graph.inputs if value.name}
    names, renamed = _Names(taken), {}
    for value in list(graph.initializers()):
        source = value.name or ""
        name = names.take(source)
        if name != source:
            value.name = name
            renamed[name] = source
    record_sources(graph, renamed)
