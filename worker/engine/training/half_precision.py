"""Training of weights stored in half precision: float32 copies are trained, and cast whenever they are read."""

from collections.abc import Collection, Iterable, Mapping

import onnx_ir as ir
import torch
from torch import nn
from torch.nn.utils import parametrize

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.rewriting import Rewriting

_HALVES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


class Master(nn.Module):
    """Parametrizes a weight by a float32 copy: an update too small for half precision adds up in it."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, master: torch.Tensor) -> torch.Tensor:
        """Rounded to the type that is stored."""
        return master.to(self._dtype)

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor]:
        """Exact."""
        return (weight.detach().float(),)


class HalfPrecisionRewriting:
    """A `Rewriting` around another: what that one leaves of float16 and bfloat16 weights gets float32 copies."""

    graph: Graph
    untrained: Mapping[str, str]
    rounded: Collection[str]

    def __init__(self, inner: Rewriting) -> None:
        self._inner = inner
        self.graph, self.untrained, self.rounded = inner.graph, inner.untrained, inner.rounded
        self._halves = [value.name or "" for value in inner.graph.initializers() if value.dtype in _HALVES]

    def attach(self, module: TorchGraph) -> None:
        """See `Rewriting.attach`: weights that no gradient reaches stay as they are."""
        self._inner.attach(module)
        for name in self._halves:
            try:
                holder, leaf = module.place(name)
            except SlimlineError:  # a name that means something to torch modules: it is trained as it is stored
                continue
            weight = getattr(holder, leaf)
            if not parametrize.is_parametrized(holder, leaf) and weight.requires_grad:
                parametrize.register_parametrization(holder, leaf, Master(weight.dtype))

    def begin(self, module: TorchGraph, batches: Iterable[TrainingBatch]) -> None:
        """See `Rewriting.begin`."""
        self._inner.begin(module, batches)

    def constrain(self, module: TorchGraph) -> None:
        """See `Rewriting.constrain`."""
        self._inner.constrain(module)

    def finish(self, module: TorchGraph) -> Graph:
        """See `Rewriting.finish`: weights are rounded to their type as they are read."""
        return self._inner.finish(module)


def has_halves(graph: Graph) -> bool:
    """Whether weights of `graph` are stored in half precision."""
    return any(value.dtype in _HALVES for value in graph.initializers())
