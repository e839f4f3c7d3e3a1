"""What is rewritten before a graph can be trained, and back. Only the border; each rewriting has its own file."""

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch


class Rewriting(Protocol):
    """A trainable form of a graph. Nodes keep their names in it."""

    graph: Graph
    """A graph of its own, whose floats are what is trained."""
    untrained: Mapping[str, str]
    """Why the weights of a node stay as they are, by its name."""
    rounded: Collection[str]
    """Weights in which zeros are numbers that were rounded, not pruned."""

    def attach(self, module: TorchGraph) -> None:
        """Parametrize weights of `module`, which was made from `graph`."""

    def begin(self, module: TorchGraph, batches: Iterable[TrainingBatch]) -> None:
        """Learn from samples, unchanged ones, what must be known before training; `module` computes what it did."""

    def constrain(self, module: TorchGraph) -> None:
        """Bring weights back, in place, to what the original form can hold; called after every update."""

    def finish(self, module: TorchGraph) -> Graph:
        """The trained weights in the original form: a graph of its own."""
