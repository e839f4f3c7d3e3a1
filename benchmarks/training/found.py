"""`Found`: what a section of trials found, its comparisons and its goals. Which there are is said by each section."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.comparison.goals import Goal
from benchmarks.training.trials import Difference, Result


@dataclass(frozen=True)
class Versus:
    """Two trials beside each other: `better` is expected to be it. `difference` is None where one has failed."""

    better: Result
    worse: Result
    difference: Difference | None

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        return f"{self.better.trial.name} - {self.worse.trial.name}"

    def as_json(self) -> dict[str, Any]:
        """The figures."""
        figures = asdict(self.difference) if self.difference else None
        return {"case": self.better.case, "what": self.name, "difference": figures}


@dataclass
class Found:
    """Filled trial by trial."""

    title: str
    results: list[Result] = field(default_factory=list)
    versus: list[Versus] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def compare(self, better: Result, worse: Result) -> Versus:
        """Put two trials beside each other, without a goal."""
        versus = Versus(better, worse, Difference.between(better, worse))
        self.versus.append(versus)
        return versus

    def expect(self, better: Result, worse: Result) -> None:
        """The goal that `better` is at least as good."""
        versus = self.compare(better, worse)
        found = versus.difference
        told = found.told() if found else better.failure or worse.failure
        value = found.value if found else None
        self.goals.append(Goal(better.case, f"gain, {versus.name}", value, "at least", 0.0, "pt", told))

    def expect_near(self, result: Result, original: Result, most_lost: float) -> None:
        """The goal that `result` loses no more than so many points."""
        versus = self.compare(result, original)
        found = versus.difference
        told = f"±{found.noise:.2f}" if found else result.failure or original.failure
        lost = -found.value if found else None
        self.goals.append(Goal(result.case, f"lost, {result.trial.name}", lost, "at most", most_lost, "pt", told))

    def as_json(self) -> dict[str, Any]:
        """Every figure but the goals'."""
        return {
            "trials": [result.as_json() for result in self.results],
            "differences": [versus.as_json() for versus in self.versus],
        }


def best_of(results: Sequence[Result]) -> Result:
    """The one with the highest top-1; the first where all have failed."""
    return max(results, key=lambda result: -1.0 if result.top1 is None else result.top1)
