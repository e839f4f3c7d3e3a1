"""What the engine says while it works: written to a pipe by the child, stored by the reporter, streamed to clients."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from app.contracts.failure import Failure
from app.contracts.measurement import Measurement
from app.contracts.targets import Verdict

Phase = Literal["load", "compress", "export", "verify", "measure"]


class Progress(BaseModel):
    """How far a job is. `fraction` covers the whole job and never falls within one attempt."""

    type: Literal["progress"] = "progress"
    fraction: float = Field(ge=0, le=1)
    step: int = Field(ge=0, description="Recipe step at work, from 1; 0 before the first")
    steps: int = Field(ge=0)
    phase: Phase
    message: str = ""
    eta_s: float | None = Field(None, ge=0, description="Seconds left, from measured speed; null while unknown")


class Log(BaseModel):
    """A line for people."""

    type: Literal["log"] = "log"
    level: Literal["info", "warning"] = "info"
    message: str


class Measured(BaseModel):
    """A finished row of the comparison."""

    type: Literal["measured"] = "measured"
    role: Literal["original", "step", "final"]
    step: int | None = Field(None, description="Index of the recipe step, from 0, for role `step`")
    method: str | None = None
    row: Measurement


class Checkpoint(BaseModel):
    """The graph after recipe step `step` (from 0) was written to `path`, relative to the workspace."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str


class Repair(BaseModel):
    """Something tried against the loss of quantization, and what it brought."""

    name: str = Field(examples=["cross-layer equalization"])
    gain_db: float | None = Field(None, description="SQNR of the model's outputs with it minus without, dB")
    kept: bool


class LayerRecord(BaseModel):
    """What one step did to one layer, or why it left it alone."""

    step: int = Field(description="Index of the recipe step, from 0")
    method: str
    layer: str
    op: str
    done: bool
    reason: str | None = Field(None, description="Why it was skipped")
    bits: float | None = None
    sparsity: float | None = Field(None, ge=0, le=1)
    shape_before: list[int] | None = None
    shape_after: list[int] | None = None
    sqnr_db: float | None = Field(None, description="Of the weights, against those before the step")
    activation_bits: int | None = Field(None, description="Of its quantized input; null where that stays in float")
    range: tuple[float, float] | None = Field(None, description="The real numbers its quantized input can hold")
    output_sqnr_db: float | None = Field(None, description="Of its own output, when it alone is quantized")
    error_share: float | None = Field(
        None, ge=0, le=1, description="Of the outputs' error, summed over layers that are each quantized alone"
    )
    integer_kernel: bool | None = Field(None, description="Whether ONNX Runtime multiplies integers for it here")
    repairs: list[Repair] = Field(default_factory=list, description="What was tried against its loss")
    advice: list[dict[str, Any]] | None = Field(
        None, description="Recipe steps to post instead of this one, where the layer is what loses"
    )


class ArtifactFile(BaseModel):
    """A file the engine made, relative to the workspace."""

    format: Literal["onnx"]
    path: str
    filename: str
    size_bytes: int
    sha256: str


class Finished(BaseModel):
    """The engine is done: everything it made was re-loaded, run and measured."""

    type: Literal["finished"] = "finished"
    artifacts: list[ArtifactFile]
    layers: list[LayerRecord]
    verdict: Verdict | None
    device: str
    versions: dict[str, str]
    engine_s: float = Field(description="The engine's own wall time, seconds")
    notes: list[str] = Field(default_factory=list)


class Failed(BaseModel):
    """The engine gave up."""

    type: Literal["failed"] = "failed"
    failure: Failure


EngineEvent = Annotated[Progress | Log | Measured | Checkpoint | Finished | Failed, Field(discriminator="type")]
ENGINE_EVENT: TypeAdapter[EngineEvent] = TypeAdapter(EngineEvent)
