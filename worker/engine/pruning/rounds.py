"""A round of iterative pruning: how much is gone after it. What a round does is the method's, the loop `iterative`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from app.contracts.recipe.channel_pruning import ChannelPruning
from app.contracts.recipe.prune_magnitude import PruneMagnitude

CurveName = Literal["linear", "cubic", "exponential"]
SharesT = TypeVar("SharesT", ChannelPruning, PruneMagnitude)

_CURVES: Mapping[str, Callable[[float, float], float]] = {
    "linear": lambda done, share: share * done,
    "cubic": lambda done, share: share * (1 - (1 - done) ** 3),
    "exponential": lambda done, share: 1 - (1 - share) ** done,
}


@dataclass(frozen=True)
class Round:
    """The round `number` of `count`, from 1."""

    number: int = 1
    count: int = 1
    curve: CurveName = "linear"

    @property
    def is_first(self) -> bool:
        """Whether nothing was pruned before."""
        return self.number == 1

    @property
    def is_last(self) -> bool:
        """Whether what was asked for is reached."""
        return self.number == self.count

    def share(self, final: float) -> float:
        """What is gone after it, of all there was before the first, where after the last `final` is; 0 to 1.

        cubic: Zhu and Gupta 2017; exponential: the same share of what is left goes in every round.
        """
        return final if self.is_last else _CURVES[self.curve](self.number / self.count, final)

    def __str__(self) -> str:
        return f"round {self.number} of {self.count}"


ONLY = Round()
"""Of pruning in one shot."""


def on_the_way(step: SharesT, to: Round) -> SharesT:
    """The step that asks for what is to be gone after the round `to`.

    Where it has a target, that is on the way; `ratios` only say at what pace groups go then.
    """
    if to.is_last:
        return step
    if isinstance(step, ChannelPruning) and step.target is not None:
        left = step.target.model_dump(exclude_none=True)
        target = step.target.model_copy(update={name: 1 - to.share(1 - what) for name, what in left.items()})
        return step.model_copy(update={"target": target})
    amount = None if step.amount is None else to.share(step.amount)
    ratios = {name: to.share(share) for name, share in step.ratios.items()}
    return step.model_copy(update={"amount": amount, "ratios": ratios})
