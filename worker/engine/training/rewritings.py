"""Picks how a graph is rewritten for training. Each rewriting has a file or folder of its own."""

from collections.abc import Collection, Iterable, Mapping

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.half_precision import HalfPrecisionRewriting, has_halves
from worker.engine.training.quantized import QuantizedRewriting, has_codes
from worker.engine.training.renormalization import RenormalizedRewriting, can_be_renormalized
from worker.engine.training.rewriting import Rewriting


def rewrite(graph: Graph, *, may_renormalize: bool = False) -> Rewriting:
    """The rewriting that `graph` needs, or gains by; `graph` itself stays as it is."""
    inner: Rewriting
    if has_codes(graph):
        inner = QuantizedRewriting(graph)
    elif may_renormalize and can_be_renormalized(graph):
        inner = RenormalizedRewriting(graph)
    else:
        inner = _Floats(graph)
    return HalfPrecisionRewriting(inner) if has_halves(inner.graph) else inner


class _Floats:
    """Of a graph that can be trained as it is."""

    untrained: Mapping[str, str] = {}
    rounded: Collection[str] = ()

    def __init__(self, source: Graph) -> None:
        self.graph = source.clone()

    def attach(self, module: TorchGraph) -> None:
        """Nothing is parametrized."""

    def begin(self, module: TorchGraph, batches: Iterable[TrainingBatch]) -> None:
        """Nothing is to be learned."""

    def constrain(self, module: TorchGraph) -> None:
        """Nothing is held back."""

    def finish(self, module: TorchGraph) -> Graph:
        """See `Rewriting.finish`."""
        module.write_back()
        return self.graph.clone()
