"""In which settings latency is measured. The measuring itself is what benchmarks share."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """How calls are made. `has_goal`: whether a result is judged by it."""

    threads: int
    batch: int
    has_goal: bool

    @property
    def name(self) -> str:
        """As it stands above a column: threads, and the batch where it is not 1."""
        return f"{self.threads}t" + (f" b{self.batch}" if self.batch > 1 else "")


SETTINGS: Sequence[Setting] = (Setting(1, 1, True), Setting(2, 1, True), Setting(1, 16, False))
