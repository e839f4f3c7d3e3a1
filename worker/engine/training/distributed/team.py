"""`Team`: the processes that train together, as one of them sees them. One that is alone shares nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """Process `rank` of `world`. Rank 0 leads: it judges, writes and tells, and its clock is that of all."""

    rank: int = 0
    world: int = 1

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to agree with."""
        return self.world == 1

    @property
    def is_led_here(self) -> bool:
        """Whether this process leads."""
        return self.rank == 0

    def follow(self, value: T) -> T:
        """The leader's `value`, which is plain data, in every process."""
        if self.is_alone:
            return value
        held = [value]
        distributed.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def smallest(self, value: int) -> int:
        """The smallest of all processes' values."""
        if self.is_alone:
            return value
        held = torch.tensor(value)
        distributed.all_reduce(held, op=distributed.ReduceOp.MIN)
        return int(held)

    def mean(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Means over all processes of scalars on one device; each process must have the same ones."""
        if self.is_alone:
            return dict(values)
        held = torch.stack([value.float() for value in values.values()])
        distributed.all_reduce(held)
        return dict(zip(values, (held / self.world).unbind(), strict=True))


ALONE = Team()
