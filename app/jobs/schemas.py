"""What the jobs endpoints send. What they take is `app.contracts.job_spec`."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.contracts.advice import Advice
from app.contracts.events import LayerRecord, Progress
from app.contracts.failure import Failure
from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Comparison
from app.contracts.preflight import StepPlan
from app.contracts.recipe import RecipeStep
from app.contracts.states import JobState
from app.contracts.targets import Verdict
from app.examples import ARTIFACT, EVENT, JOB, JOB_LAYERS, JOB_SUMMARY, PREFLIGHT


class JobProgress(Progress):
    """How far a job is, and how many queued jobs go before it."""

    type: Literal["progress"] = Field("progress", exclude=True)
    queue_position: int | None = Field(None, description="Queued jobs ahead; null once it runs")


class ArtifactSummary(BaseModel):
    """A file the job made."""

    model_config = ConfigDict(json_schema_extra={"examples": [ARTIFACT]})

    id: str
    format: str
    filename: str
    size_bytes: int
    sha256: str


class Reproduce(BaseModel):
    """Everything that is needed to get the same bytes again on a CPU."""

    recipe: list[RecipeStep]
    seed: int
    versions: dict[str, str]
    model_sha256: str
    data_sha256: dict[str, str]
    other_models_sha256: dict[str, str] = Field(description="Of teachers and students, by their ids")


class JobSummary(BaseModel):
    """A job as lists show it."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_SUMMARY]})

    id: str
    state: JobState
    name: str | None
    model: str
    tags: dict[str, str]
    priority: int
    created_at: datetime
    queued_at: datetime
    started_at: datetime | None
    cancelling_at: datetime | None
    finished_at: datetime | None
    progress: JobProgress
    attempt: int
    device: str | None
    failure: Failure | None
    verdict: Verdict | None
    links: dict[str, str]


class JobView(JobSummary):
    """A job in full."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB]})

    spec: JobSpec
    comparison: Comparison
    artifacts: list[ArtifactSummary]
    reproduce: Reproduce
    reused_job: str | None = Field(description="The identical job that this one was answered from")
    retried_job: str | None = Field(description="The job that this one tries again")
    engine_s: float | None = Field(description="The engine's own wall time")
    notes: list[str]


class JobEvent(BaseModel):
    """Something that happened to a job."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVENT]})

    id: str
    type: str = Field(description="state, progress, log, trained or measured")
    created_at: datetime
    data: dict[str, Any]


class JobLayers(BaseModel):
    """What each step did to each layer, or why it left it alone, and what to try instead."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_LAYERS]})

    data: list[LayerRecord]
    advice: list[Advice] = Field(description="At most three, best first; empty where no layer stands out")


class Preflight(BaseModel):
    """What a job would do. A job that would be refused gets the same problem document here."""

    model_config = ConfigDict(json_schema_extra={"examples": [PREFLIGHT]})

    valid: Literal[True] = True
    model: str
    steps: list[StepPlan]
    notes: list[str] = Field(description="What no preflight can know")
