"""What one call of a graph gives: outputs, and tensors inside that losses compare. No loss is known here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch


@dataclass(frozen=True)
class Call:
    """Outputs in order, and watched tensors by name: of the batch's samples only, not of what fills up a fixed batch.

    A tensor in a branch that was not taken is not among `seen`.
    """

    outputs: tuple[Any, ...]
    seen: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Watch:
    """Shows tensors of a module while it runs for a loss, and keeps none of them afterwards.

    Deep copies of the module are not watched.
    """

    def __init__(self, module: TorchGraph, names: Iterable[str]) -> None:
        """Raises SlimlineError TENSOR_UNKNOWN."""
        self._is_open = False
        self._seen: dict[str, torch.Tensor] = {}
        for name in dict.fromkeys(names):
            module.observe(name, self._observer(name))

    def run(self, module: Callable[..., Any], batch: TrainingBatch) -> Call:
        """Call `module` with the inputs of `batch`."""
        self._is_open = True
        try:
            outputs = module(*batch.inputs)
            seen = dict(self._seen)
        finally:
            self._is_open = False
            self._seen.clear()
        fed = count_fed(batch)
        return Call(
            tuple(_samples_of(each, fed, len(batch)) for each in outputs),
            {name: _samples_of(each, fed, len(batch)) for name, each in seen.items()},
        )

    def _observer(self, name: str) -> Callable[[torch.Tensor], None]:
        def keep(tensor: torch.Tensor) -> None:
            if self._is_open:
                self._seen[name] = tensor

        return keep


def count_fed(batch: TrainingBatch) -> int:
    """How many samples go through the network, with those that only fill up a fixed batch."""
    return next((len(each) for each in batch.inputs if each.dim()), len(batch))


def is_float(value: object) -> bool:
    """Whether an output is a tensor of real numbers."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def in_full(tensor: torch.Tensor) -> torch.Tensor:
    """In float32, or as it is where that is more: losses are never computed in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _samples_of(value: Any, fed: int, samples: int) -> Any:
    is_filled = fed > samples and isinstance(value, torch.Tensor) and value.dim() and len(value) == fed
    return value[:samples] if is_filled else value
