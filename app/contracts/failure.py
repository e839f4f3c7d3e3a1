"""How a refusal or a failed job is told: whose fault it is, what is wrong, where, and what to do."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class FaultKind(StrEnum):
    """Whose fault a failure is; it decides who is told and whether a retry can help."""

    USER = "user"
    OURS = "ours"
    TRANSIENT = "transient"


class Failure(BaseModel):
    """Why a model, a dataset or a job did not go through."""

    model_config = ConfigDict(frozen=True)

    kind: FaultKind
    code: str = Field(pattern="^[A-Z][A-Z0-9_]*$", description="Stable, for machines", examples=["MODEL_TRUNCATED"])
    message: str = Field(description="What is wrong, in a sentence")
    step: int | None = Field(None, description="Index of the recipe step it happened in, from 0")
    node: str | None = Field(None, description="Name of the graph node, tensor or file member it is about")
    hint: str | None = Field(None, description="What to do or send instead")


class SlimlineError(Exception):
    """A failure on its way up, raised where the reason is known; the edge makes it an answer or a job's end."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        kind: FaultKind = FaultKind.USER,
        step: int | None = None,
        node: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(kind=kind, code=code, message=message, step=step, node=node, hint=hint)

    @classmethod
    def of(cls, failure: Failure) -> "SlimlineError":
        """The error that `failure` was told of, as by another process."""
        error = cls(failure.code, failure.message, kind=failure.kind)
        error.failure = failure
        return error

    def at_step(self, step: int) -> "SlimlineError":
        """The same failure, placed in recipe step `step` unless it already names one."""
        if self.failure.step is None:
            self.failure = self.failure.model_copy(update={"step": step})
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return SlimlineError.of, (self.failure,)
