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


class PartialCheckpoint(BaseModel):
    """What step `step` (from 0) has done so far was written to `path`: a retry goes on from there, within the step."""

    type: Literal["partial_checkpoint"] = "partial_checkpoint"
    step: int
    path: str


class Trained(BaseModel):
    """A point of the loss curve: an epoch that ended, or the state before the first."""

    type: Literal["trained"] = "trained"
    step: int = Field(description="Index of the recipe step, from 0")
    round: int | None = Field(None, description="Of iterative pruning, from 1")
    epoch: float = Field(description="Passes over the data so far; 0 before the first update")
    updates: int = Field(description="Updates of the weights so far")
    loss: float | None = Field(None, description="Mean over the epoch, on training data; null before the first")
    losses: dict[str, float] = Field(default_factory=dict, description="The parts of `loss`, before weighting")
    metric: str | None = Field(None, description="What judged the state on held-out data, as top1 or loss")
    value: float | None = None
    learning_rate: float | None = None
    samples_per_s: float | None = None

    def __str__(self) -> str:
        """`step 2, epoch 3: loss 0.21, top1 0.93, 410 samples/s`."""
        numbers = (("loss", self.loss), (self.metric, self.value))
        told = [f"{name} {value:.4g}" for name, value in numbers if value is not None]
        if self.samples_per_s is not None:
            told.append(f"{self.samples_per_s:.0f} samples/s")
        place = f"step {self.step + 1}, " + (f"round {self.round}, " if self.round is not None else "")
        return f"{place}epoch {self.epoch:g}" + (f": {', '.join(told)}" if told else "")


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


EngineEvent = Annotated[
    Progress | Log | Measured | Trained | Checkpoint | PartialCheckpoint | Finished | Failed,
    Field(discriminator="type"),
]
ENGINE_EVENT: TypeAdapter[EngineEvent] = TypeAdapter(EngineEvent)
