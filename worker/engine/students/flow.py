"""How data flows through a whole graph, into bodies and out of them: what depends on what, in either direction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.students.dependence import SHAPES, bodies_of

Links = Mapping[ir.Value, Sequence[ir.Value]]


class Flow:
    """Links between the values of a graph. What only the size of a value leads to does not depend on it."""

    def __init__(self, graph: Graph) -> None:
        self._after: dict[ir.Value, list[ir.Value]] = defaultdict(list)
        self._before: dict[ir.Value, list[ir.Value]] = defaultdict(list)
        for node in graph.nodes():
            if node.op_type not in SHAPES:
                self._link(node.inputs, node.outputs)
                for body in bodies_of(node):
                    self._link([*node.inputs, *body.outputs], body.inputs)
                    self._link(body.outputs, node.outputs)

    def after(self, starts: Iterable[ir.Value]) -> set[ir.Value]:
        """What depends on `starts`, with themselves."""
        return _follow(self._after, starts)

    def before(self, ends: Iterable[ir.Value]) -> set[ir.Value]:
        """What `ends` depend on, with themselves."""
        return _follow(self._before, ends)

    def _link(self, sources: Sequence[ir.Value | None], targets: Sequence[ir.Value]) -> None:
        for source in filter(None, sources):
            for target in targets:
                self._after[source].append(target)
                self._before[target].append(source)


def _follow(links: Links, starts: Iterable[ir.Value]) -> set[ir.Value]:
    reached = set(starts)
    waiting = list(reached)
    while waiting:
        fresh = [each for each in links.get(waiting.pop(), ()) if each not in reached]
        reached.update(fresh)
        waiting.extend(fresh)
    return reached
