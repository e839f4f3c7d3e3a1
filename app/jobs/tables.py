"""The tables of jobs: the job itself and its tags, events, measured rows, other models and kept graphs."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.contracts.events import LayerRecord, Progress
from app.contracts.failure import Failure
from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Measurement
from app.contracts.messages import Queue
from app.contracts.states import JobState, Waiting
from app.contracts.targets import Verdict
from app.db.base import Base, Contract, UtcTime, utc_now
from app.db.tenancy import ProjectOwned


def _where_there(column: str, *columns: str) -> Index:
    """An index for columns that few rows have: only those that do pay for an entry."""
    there = text(f"{column} IS NOT NULL")
    name = "_".join(("ix_jobs", column, *columns))
    return Index(name, column, *columns, sqlite_where=there, postgresql_where=there)


class JobRow(ProjectOwned, Base):
    """A job. `attempt` is the fencing token: every write of a worker names it, and `revision` counts the writes.

    While it is queued, `waiting_for` says for what, `rank` in which order within its project and `queue`, `queue_until`
    how long at most (`queue_s` from when it was queued), and `not_before` when a retry may begin. While it is held,
    `lease_until` says how long.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_project_id", "project", "id"),
        Index("ix_jobs_project_state_id", "project", "state", "id"),
        Index("ix_jobs_model_id_id", "model_id", "id"),
        _where_there("waiting_for", "queue", "project", "rank", "id"),
        *(
            _where_there(column)
            for column in (
                "calibrate_id", "train_id", "evaluate_id", "queue_until", "not_before", "lease_until",
                "checkpoint_sha256", "partial_sha256", "finished_at",
            )
        ),
        _where_there("fingerprint", "project"),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    state: Mapped[JobState] = mapped_column(String(16), default=JobState.QUEUED)
    revision: Mapped[int] = mapped_column(default=1)
    spec: Mapped[JobSpec] = mapped_column(Contract(JobSpec))
    name: Mapped[str | None] = mapped_column(String(200))
    priority: Mapped[int]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    calibrate_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    train_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    evaluate_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))

    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    queued_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    cancelling_at: Mapped[datetime | None] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)

    queue: Mapped[Queue] = mapped_column(String(8), default=Queue.CPU, server_default=Queue.CPU.value)
    waiting_for: Mapped[Waiting | None] = mapped_column(String(8))
    rank: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    queue_s: Mapped[float] = mapped_column(default=86400, server_default="86400")
    queue_until: Mapped[datetime | None] = mapped_column(UtcTime)
    not_before: Mapped[datetime | None] = mapped_column(UtcTime)

    attempt: Mapped[int] = mapped_column(default=0)
    counted_from: Mapped[int] = mapped_column(default=1, server_default="1")
    handed_back: Mapped[int] = mapped_column(default=0)
    lost: Mapped[int] = mapped_column(default=0, server_default="0")
    lease_until: Mapped[datetime | None] = mapped_column(UtcTime)
    checkpoint_step: Mapped[int | None]
    checkpoint_sha256: Mapped[str | None] = mapped_column(String(64))
    partial_step: Mapped[int | None]
    partial_sha256: Mapped[str | None] = mapped_column(String(64))

    device: Mapped[str | None] = mapped_column(String(200))
    progress: Mapped[Progress | None] = mapped_column(Contract(Progress))
    failure: Mapped[Failure | None] = mapped_column(Contract(Failure))
    verdict: Mapped[Verdict | None] = mapped_column(Contract(Verdict))
    layers: Mapped[list[LayerRecord] | None] = mapped_column(Contract(list[LayerRecord]))
    notes: Mapped[list[str]] = mapped_column(JSON, default=list)
    input_sha256: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    versions: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    engine_s: Mapped[float | None]

    fingerprint: Mapped[str | None] = mapped_column(String(64))
    reused_job_id: Mapped[str | None] = mapped_column(String(30))
    retried_job_id: Mapped[str | None] = mapped_column(String(30))
    request_id: Mapped[str | None] = mapped_column(String(128))
    traceparent: Mapped[str | None] = mapped_column(String(64))

    @property
    def failed_starts(self) -> int:
        """What `max_attempts` limits: attempts since the last checkpoint was saved, the one that saved it among them.

        Neither those that were handed back, through no fault of the job, nor those whose worker was lost are counted:
        the latter, `lost`, have a limit of their own.
        """
        return self.attempt - (self.counted_from - 1) - self.handed_back - self.lost


class JobTagRow(Base):
    """One tag of a job, to search by."""

    __tablename__ = "job_tags"
    __table_args__ = (Index("ix_job_tags_key_value_job_id", "key", "value", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(64))


class JobModelRow(Base):
    """Another model that a job reads, a teacher or a student."""

    __tablename__ = "job_models"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"), primary_key=True, index=True)


class JobGraphRow(Base):
    """The graph after a step, from 0, that a later step of the job has for its teacher."""

    __tablename__ = "job_graphs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)


class JobEventRow(Base):
    """Something that happened to a job. `seq` counts from 1 within the job."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(String(30))
    type: Mapped[str] = mapped_column(String(16))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)


class MeasurementRow(Base):
    """One row of a job's comparison. `row` is the truth; the numbers beside it are for queries."""

    __tablename__ = "measurements"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    method: Mapped[str | None] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    parameters: Mapped[int] = mapped_column(BigInteger)
    nonzero: Mapped[int] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    latency_p50_ms: Mapped[float | None]
    accuracy: Mapped[float | None]
    row: Mapped[Measurement] = mapped_column(Contract(Measurement))
