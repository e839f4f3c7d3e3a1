"""What a user asks of the result, and the verdict on whether it was met, clause by clause."""

from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from app.contracts.measurement import Comparison


class Targets(BaseModel):
    """Limits the final artifact should keep. A missed one is a verdict, never an empty failure."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_accuracy_drop: float | None = Field(
        None, ge=0, le=1, description="Original minus final, absolute", examples=[0.01]
    )
    min_accuracy: float | None = Field(None, ge=0, le=1)
    max_size_ratio: float | None = Field(None, gt=0, description="Final bytes over original bytes", examples=[0.3])
    max_size_bytes: int | None = Field(None, gt=0)
    max_latency_ratio: float | None = Field(None, gt=0, description="Final p50 over original p50", examples=[0.5])
    max_latency_ms: float | None = Field(None, gt=0, description="Final p50")
    max_macs_ratio: float | None = Field(None, gt=0)
    max_parameters_ratio: float | None = Field(None, gt=0)

    @property
    def need_labels(self) -> bool:
        """Whether a clause can be judged only with labelled evaluation data."""
        return self.max_accuracy_drop is not None or self.min_accuracy is not None


class Clause(BaseModel):
    """One target with what was measured for it; `measured` is null where it could not be."""

    target: str
    limit: float
    measured: float | None
    met: bool


class Verdict(BaseModel):
    """Whether every target was met."""

    met: bool
    clauses: list[Clause]


_MEASURED: Mapping[str, Callable[[Comparison], float | None]] = {
    "max_accuracy_drop": lambda c: c.ratios.accuracy_drop if c.ratios else None,
    "min_accuracy": lambda c: c.final.accuracy.value if c.final and c.final.accuracy else None,
    "max_size_ratio": lambda c: c.ratios.size if c.ratios else None,
    "max_size_bytes": lambda c: c.final.size_bytes if c.final else None,
    "max_latency_ratio": lambda c: c.ratios.latency if c.ratios else None,
    "max_latency_ms": lambda c: c.final.latency_ms.p50 if c.final and c.final.latency_ms else None,
    "max_macs_ratio": lambda c: c.ratios.macs if c.ratios else None,
    "max_parameters_ratio": lambda c: c.ratios.parameters if c.ratios else None,
}


def judge(targets: Targets, comparison: Comparison, *, asks_for_speed: bool = False) -> Verdict | None:
    """The verdict on `comparison`, or None when no target was given. What was not measured is not met.

    A recipe that `asks_for_speed` has the target not to be slower than the original, where no other latency is given.
    """
    limits = targets.model_dump(exclude_none=True)
    if asks_for_speed and not limits.keys() & {"max_latency_ratio", "max_latency_ms"}:
        limits["max_latency_ratio"] = 1.0
    clauses = [_clause(target, limit, _MEASURED[target](comparison)) for target, limit in limits.items()]
    return Verdict(met=all(clause.met for clause in clauses), clauses=clauses) if clauses else None


def _clause(target: str, limit: float, measured: float | None) -> Clause:
    met = measured is not None and (measured >= limit if target.startswith("min_") else measured <= limit)
    return Clause(target=target, limit=limit, measured=measured, met=met)
