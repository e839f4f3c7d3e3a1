"""Times graphs beside the one that they were made from: how methods choose between ways where time counts."""

from collections.abc import Mapping

from worker.engine.graph import Graph
from worker.engine.measure.latency import interleaved
from worker.engine.session import Array, open_graph

_BUDGET_S = 2.0


class Race:
    """Calls of graphs and of `reference` on `feed` take turns, on one thread of the CPU."""

    def __init__(self, reference: Graph, feed: Mapping[str, Array]) -> None:
        self._reference, self._feed = open_graph(reference, threads=1), feed

    def ratio(self, graph: Graph) -> float:
        """Median time of `graph` over that of the reference. Raises SlimlineError where it does not load or run."""
        sessions = [self._reference, open_graph(graph, threads=1)]
        ours, theirs = interleaved(sessions, self._feed, budget_s=_BUDGET_S, threads=1, device="cpu")
        return theirs.p50 / ours.p50
