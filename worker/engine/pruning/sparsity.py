"""Regularizers that bring units of a network to zero while it trains. What goes with a unit is `unit_slices`.

They act on the weights after each update, as proximal steps do: of a penalty's gradient an adaptive optimizer would
take out the size. Legend: U units.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.engine.graph.channels import Member
from worker.engine.pruning.unit_slices import UnitSlices
from worker.engine.torch_graph import TorchGraph

_TINY = 1e-30


@dataclass(frozen=True)
class Drawn:
    """What shrinks of units, and its norms [U] before the training; and the whole of them, which is zero in the end."""

    members: Sequence[Member]
    norms: torch.Tensor
    whole: Sequence[Member]


class Sparsity(ABC):
    """Shrinks units until the share `until` of the training; from then on those that go are zero."""

    bears_normalization = False

    def __init__(self, drawn: Drawn, until: float) -> None:
        self.drawn = drawn
        self._until = until
        self._slices: UnitSlices | None = None
        self._whole: UnitSlices | None = None
        self._zeroed: torch.Tensor | None = None
        self.left: float | None = None
        """The most of its former norm that a unit had when it was set to zero; None before."""

    def after_backward(self, student: TorchGraph) -> None:  # noqa: B027 - for most, gradients are as they are
        """See `Regularizer.after_backward`."""

    def after_update(self, student: TorchGraph, done: float) -> None:
        """Shrink units of the student, or keep them at zero."""
        count = len(self.drawn.norms)
        if self._zeroed is None:
            slices = self._slices = self._slices or UnitSlices(student, self.drawn.members, count)
            norms = slices.norms()
            if done < self._until:
                slices.scale(self._factors(norms, done))
                return
            self._zeroed = self.choose(norms.cpu())
            self.left = share_left(norms.cpu(), self.drawn.norms, self._zeroed)
        whole = self._whole = self._whole or UnitSlices(student, self.drawn.whole, count)
        whole.scale((~self._zeroed).float().to(whole.device))

    @abstractmethod
    def choose(self, norms: torch.Tensor) -> torch.Tensor:
        """Which units go where these are their norms, [U]; those that are zero already stay chosen."""

    @abstractmethod
    def _factors(self, norms: torch.Tensor, done: float) -> torch.Tensor:
        """What units whose norms are these are multiplied by, both [U]."""

    def state(self) -> dict[str, Any]:
        """See `Regularizer.state`."""
        return {"zeroed": self._zeroed, "left": self.left}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Regularizer.load_state`."""
        self._zeroed, self.left = state["zeroed"], state["left"]


class Vanishing(Sparsity):
    """Chosen units shrink: the norm of each stays below a line that falls evenly from what it was to zero.

    The strength that this takes grows, as in growing regularization (Wang et al. 2021), and needs no tuning. They do
    not learn meanwhile: behind a normalization, small weights would have large gradients, and grow again.
    """

    bears_normalization = True

    def __init__(self, drawn: Drawn, until: float, going: torch.Tensor) -> None:
        """`going` [U] is True for the chosen."""
        super().__init__(drawn, until)
        self._going = going

    def after_backward(self, student: TorchGraph) -> None:
        """Take the gradients of the chosen."""
        slices = self._slices = self._slices or UnitSlices(student, self.drawn.members, len(self.drawn.norms))
        slices.scale_gradients((~self._going).float().to(slices.device))

    def choose(self, norms: torch.Tensor) -> torch.Tensor:
        """Always the same."""
        return self._going.to(norms.device)

    def _factors(self, norms: torch.Tensor, done: float) -> torch.Tensor:
        line = self.drawn.norms.to(norms.device) * (1 - done / self._until)
        return torch.where(self._going.to(norms.device), line / norms.clamp_min(_TINY), 1).clamp_max(1)

    def state(self) -> dict[str, Any]:
        """See `Regularizer.state`."""
        return {**super().state(), "going": self._going}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Regularizer.load_state`."""
        super().load_state(state)
        self._going = state["going"]


class GroupLasso(Sparsity):
    """All units lose the same in norm with every update; then the smallest of each group go.

    Group lasso (Wen et al. 2016); on scales of BatchNormalization alone, network slimming (Liu et al. 2017).
    """

    def __init__(self, drawn: Drawn, until: float, counts: Sequence[tuple[torch.Tensor, int]], strength: float) -> None:
        """`counts`: the units of each group, and how many go. `strength`: what all updates take, in mean norms."""
        super().__init__(drawn, until)
        self._counts = counts
        self._taken = torch.zeros_like(drawn.norms)
        for units, _ in counts:
            self._taken[units] = strength * drawn.norms[units].mean()
        self._done = 0.0

    def choose(self, norms: torch.Tensor) -> torch.Tensor:
        """The smallest."""
        if self._zeroed is not None:
            return self._zeroed
        going = torch.zeros(len(norms), dtype=torch.bool)
        for units, count in self._counts:
            going[units[norms[units].argsort(stable=True)[:count]]] = True
        return going

    def _factors(self, norms: torch.Tensor, done: float) -> torch.Tensor:
        taken = self._taken.to(norms.device) * ((done - self._done) / self._until)
        self._done = done
        return (1 - taken / norms.clamp_min(_TINY)).clamp_min(0)

    def state(self) -> dict[str, Any]:
        """See `Regularizer.state`."""
        return {**super().state(), "done": self._done}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `Regularizer.load_state`."""
        super().load_state(state)
        self._done = state["done"]


def share_left(norms: torch.Tensor, before: torch.Tensor, going: torch.Tensor) -> float:
    """The most of its norm `before` that a unit that goes has; 0 where none does. All are [U]."""
    shares = norms[going] / before[going].clamp_min(_TINY)
    return float(shares.max()) if len(shares) else 0.0
