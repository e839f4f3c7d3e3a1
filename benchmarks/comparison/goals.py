"""A goal: a figure of ours and what it must reach. Which goals there are is said by each benchmark."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """A figure of ours and what it must reach. Without a `value` it is missed, and `note` says why there is none."""

    case: str
    what: str
    value: float | None
    bound: Literal["at most", "at least"]
    limit: float
    unit: str
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether it holds."""
        if self.value is None:
            return False
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit

    @property
    def margin(self) -> float | None:
        """By how much it is met, below 0: missed."""
        if self.value is None:
            return None
        return self.limit - self.value if self.bound == "at most" else self.value - self.limit
