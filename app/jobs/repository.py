"""Queries on jobs. Every change of state is a guarded UPDATE that may lose; nothing here commits or decides."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import Field
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Update,
    and_,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.contracts.events import Progress
from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Measurement
from app.contracts.messages import Queue
from app.contracts.references import find_other_models
from app.contracts.states import MOVES, JobState, Waiting
from app.datasets.tables import DatasetRow
from app.db.base import utc_now
from app.db.clock import lease_end
from app.db.ids import new_id
from app.db.page import PageQuery, fetch_page
from app.db.tenancy import project_of
from app.jobs.queue.order import rank
from app.jobs.tables import JobEventRow, JobGraphRow, JobModelRow, JobRow, JobTagRow, MeasurementRow
from app.webhooks.announcements import announce_job


class JobQuery(PageQuery):
    """Which jobs a list holds."""

    state: JobState | None = None
    model: str | None = None
    tag: str | None = Field(None, description="`key` or `key=value`")


def insert_queued(session: Session, spec: JobSpec, waiting_for: Waiting = Waiting.WORKER, **columns: Any) -> JobRow:
    """Insert a new job with all that belongs to it. The row that is returned is no part of the session.

    Plain inserts, not the unit of work: submitting is a hot path.
    """
    row = _make_queued(project_of(session), spec, waiting_for)
    for name, value in columns.items():
        setattr(row, name, value)
    values = {column.key: getattr(row, column.key) for column in JobRow.__mapper__.column_attrs}
    connection = session.connection()
    connection.execute(insert(JobRow), values)
    if tags := [{"job_id": row.id, "key": key, "value": value} for key, value in spec.tags.items()]:
        connection.execute(insert(JobTagRow), tags)
    if others := [{"job_id": row.id, "model_id": model} for model in find_other_models(spec.recipe)]:
        connection.execute(insert(JobModelRow), others)
    first = {"job_id": row.id, "seq": 1, "id": new_id("evt"), "type": "state", "data": {"state": row.state}}
    connection.execute(insert(JobEventRow), first)
    announce_job(session, row.project, row.id, row.state)
    return row


def _make_queued(project: str, spec: JobSpec, waiting_for: Waiting) -> JobRow:
    now = utc_now()
    return JobRow(
        id=new_id("job"),
        project=project,
        state=JobState.QUEUED,
        queue=Queue.CUDA if spec.device == "cuda" else Queue.CPU,
        waiting_for=waiting_for,
        rank=rank(now, spec.priority),
        queue_until=now + timedelta(seconds=spec.limits.queue_s),
        revision=1,
        spec=spec,
        name=spec.name,
        priority=spec.priority,
        model_id=spec.model,
        calibrate_id=spec.data.calibrate,
        train_id=spec.data.train,
        evaluate_id=spec.data.evaluate,
        created_at=now,
        queued_at=now,
        attempt=0,
        counted_from=1,
        handed_back=0,
        lost=0,
        notes=[],
        input_sha256={},
        versions={},
    )


def get(session: Session, job_id: str) -> JobRow | None:
    """By id."""
    return session.get(JobRow, job_id)


def read_revisions(connection: Connection, job_ids: Sequence[str]) -> Sequence[tuple[str, str, str, int]]:
    """Id, project, state and revision of each of these jobs: what polling asks for again and again."""
    query = select(JobRow.id, JobRow.project, JobRow.state, JobRow.revision).where(JobRow.id.in_(job_ids))
    return connection.execute(query).all()


def fetch(session: Session, wanted: JobQuery) -> tuple[list[JobRow], bool]:
    """A page, newest first, and whether there are more."""
    query, newest = select(JobRow), JobRow.id
    if wanted.state is not None:
        query = query.where(JobRow.state == wanted.state)
    if wanted.model is not None:
        query = query.where(JobRow.model_id == wanted.model)
    if wanted.tag is not None:
        key, _, value = wanted.tag.partition("=")
        query = query.join(JobTagRow).where(JobTagRow.key == key)
        query = query.where(JobTagRow.value == value) if value else query
        newest = JobTagRow.job_id  # the same, but in the index that finds the tag
    return fetch_page(session, query, newest, after=wanted.after, limit=wanted.limit)


def find_queued_on(session: Session, input_id: str) -> Sequence[JobRow]:
    """Queued jobs that read this model or dataset."""
    return session.scalars(select(JobRow).where(JobRow.state == JobState.QUEUED, _reads(input_id))).all()


def is_in_use(session: Session, input_id: str) -> bool:
    """Whether an unfinished job reads this model or dataset."""
    unfinished = [state for state in JobState if not state.is_final]
    return session.scalar(select(JobRow.id).where(JobRow.state.in_(unfinished), _reads(input_id)).limit(1)) is not None


def delete_finished(session: Session, job_id: str) -> bool:
    """Remove a job that is over, with all that belongs to it. False: it is not over, or not there."""
    over = JobRow.state.in_([state for state in JobState if state.is_final])
    return _changed(session.execute(delete(JobRow).where(JobRow.id == job_id, over)))


def lose_artifact(session: Session, job_id: str) -> None:
    """An artifact of the job is about to be deleted: the job looks different then, and can answer no other."""
    changed = {"revision": JobRow.revision + 1, "fingerprint": None}
    session.execute(update(JobRow).where(JobRow.id == job_id).values(**changed))


def claim(session: Session, job_id: str, lease_s: float) -> JobRow | None:
    """Take a queued job. None when it is not queued any more. The row's `attempt` is the token of every later write."""
    values = {
        "attempt": JobRow.attempt + 1,
        "lease_until": lease_end(session, lease_s),
        "started_at": func.coalesce(JobRow.started_at, utc_now()),
    }
    if not move(session, job_id, JobState.RUNNING, values=values):
        return None
    return session.get(JobRow, job_id, populate_existing=True)


def renew(session: Session, job_id: str, attempt: int, lease_s: float) -> JobState | None:
    """Keep the lease; the state tells whether a cancel was asked for. None: the job is no longer this attempt's."""
    query = _of_attempt(job_id, attempt).values(lease_until=lease_end(session, lease_s))
    return JobState(state) if (state := session.scalar(query.returning(JobRow.state))) else None


def set_progress(session: Session, job_id: str, attempt: int, progress: Progress) -> bool:
    """Store how far the job is. False: no longer this attempt's."""
    return _changed(
        session.execute(_of_attempt(job_id, attempt).values(progress=progress, revision=JobRow.revision + 1))
    )


def save_checkpoint(session: Session, job_id: str, attempt: int, step: int, sha256: str) -> bool:
    """The graph after `step` (from 0) is stored: a retry resumes behind it. False: no longer this attempt's.

    What the step had left on its way is of no use any more.
    """
    values = {"checkpoint_step": step, "checkpoint_sha256": sha256, "partial_step": None, "partial_sha256": None}
    return _changed(session.execute(_of_attempt(job_id, attempt).values(**values, **_COUNTED_ANEW)))


def save_partial_checkpoint(session: Session, job_id: str, attempt: int, step: int, sha256: str) -> bool:
    """What `step` (from 0) has done so far is stored: a retry resumes within it. False: no longer this attempt's."""
    values = {"partial_step": step, "partial_sha256": sha256}
    return _changed(session.execute(_of_attempt(job_id, attempt).values(**values, **_COUNTED_ANEW)))


_COUNTED_ANEW = {"counted_from": JobRow.attempt, "handed_back": 0, "lost": 0}


def is_blob_needed(session: Session, sha256: str) -> bool:
    """Whether a job, or a dataset that happens to be the same, has its content in this blob."""
    owners = (JobRow.partial_sha256 == sha256, DatasetRow.sha256 == sha256)
    return any(session.scalar(select(literal(1)).where(owner).limit(1)) for owner in owners)


def keep_graph(session: Session, job_id: str, step: int, sha256: str) -> None:
    """The graph after `step` (from 0) is stored for later steps. A later attempt's replaces an earlier one's."""
    session.execute(delete(JobGraphRow).where(JobGraphRow.job_id == job_id, JobGraphRow.step == step))
    session.add(JobGraphRow(job_id=job_id, step=step, sha256=sha256))


def graphs_of(session: Session, job_id: str) -> dict[int, str]:
    """Digests of the graphs that were kept, by the step they come after."""
    rows = session.scalars(select(JobGraphRow).where(JobGraphRow.job_id == job_id))
    return {row.step: row.sha256 for row in rows}


def cancel_queued(session: Session, job_id: str) -> bool:
    """Cancel a job that no worker has taken. False: it is not queued."""
    return _move(session, job_id, JobState.CANCELLED, JobRow.state == JobState.QUEUED, {})


def move(
    session: Session, job_id: str, to: JobState, *, attempt: int | None = None, values: dict[str, Any] | None = None
) -> bool:
    """Move the job to `to` if `MOVES` allows it and, when given, `attempt` still holds. False: lost the race."""
    guard: ColumnElement[bool] = JobRow.state.in_([state for state, targets in MOVES.items() if to in targets])
    if attempt is not None:
        guard = and_(guard, JobRow.attempt == attempt)
    return _move(session, job_id, to, guard, values or {})


def record_event(session: Session, job_id: str, attempt: int, type_: str, data: dict[str, Any]) -> bool:
    """Append an event of a running attempt. False: no longer this attempt's, and nothing was written."""
    if not _changed(session.execute(_of_attempt(job_id, attempt).values(revision=JobRow.revision + 1))):
        return False
    add_event(session, job_id, type_, data)
    return True


def add_event(session: Session, job_id: str, type_: str, data: dict[str, Any]) -> None:
    """Append an event. The caller has updated the job in this transaction, so no one else takes the same number."""
    following = select(func.coalesce(func.max(JobEventRow.seq), 0) + 1).where(JobEventRow.job_id == job_id)
    session.execute(
        insert(JobEventRow).values(
            job_id=job_id,
            seq=following.scalar_subquery(),
            id=new_id("evt"),
            type=type_,
            data=data,
            created_at=utc_now(),
        )
    )


def fetch_events(session: Session, job_id: str, *, after_seq: int, limit: int) -> tuple[list[JobEventRow], bool]:
    """Events behind `after_seq`, oldest first, and whether there are more."""
    query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq > after_seq)
    rows = list(session.scalars(query.order_by(JobEventRow.seq).limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def find_event_seq(session: Session, job_id: str, event_id: str) -> int | None:
    """The number of an event by its id."""
    query = select(JobEventRow.seq).where(JobEventRow.job_id == job_id, JobEventRow.id == event_id)
    return session.scalar(query)


def count_events(session: Session, job_id: str) -> int:
    """How many events are stored."""
    return session.scalar(select(func.max(JobEventRow.seq)).where(JobEventRow.job_id == job_id)) or 0


def put_measurement(session: Session, row: MeasurementRow) -> None:
    """Store a measured row in its place; a later attempt's replaces an earlier one's."""
    session.execute(
        delete(MeasurementRow).where(MeasurementRow.job_id == row.job_id, MeasurementRow.position == row.position)
    )
    session.add(row)
    session.execute(update(JobRow).where(JobRow.id == row.job_id).values(revision=JobRow.revision + 1))


def measurements_of(session: Session, job_id: str) -> Sequence[MeasurementRow]:
    """A job's measured rows in order."""
    query = select(MeasurementRow).where(MeasurementRow.job_id == job_id).order_by(MeasurementRow.position)
    return session.scalars(query).all()


def copy_measurements(session: Session, from_id: str, to_id: str) -> None:
    """Give a job the measured rows of another."""
    for row in measurements_of(session, from_id):
        put_measurement(session, measurement_row(to_id, row.position, row.role, row.method, row.row))


def set_fingerprint(session: Session, job_id: str, fingerprint: str) -> None:
    """Keep by what the job is found when an identical one comes."""
    session.execute(update(JobRow).where(JobRow.id == job_id).values(fingerprint=fingerprint))


def find_succeeded(session: Session, like_id: str, fingerprint: str) -> Sequence[JobRow]:
    """The newest few jobs with this fingerprint, of the project of `like_id`, that were not answered from others."""
    project = select(JobRow.project).where(JobRow.id == like_id).scalar_subquery()
    query = select(JobRow).where(JobRow.fingerprint == fingerprint, JobRow.project == project)
    done = query.where(JobRow.state == JobState.SUCCEEDED, JobRow.reused_job_id.is_(None))
    return session.scalars(done.order_by(JobRow.id.desc()).limit(_FEW)).all()


_FEW = 5


def measurement_row(job_id: str, position: int, role: str, method: str | None, row: Measurement) -> MeasurementRow:
    """The table row of a measured row."""
    return MeasurementRow(
        job_id=job_id,
        position=position,
        role=role,
        method=method,
        size_bytes=row.size_bytes,
        parameters=row.parameters,
        nonzero=row.nonzero,
        macs=row.macs,
        latency_p50_ms=row.latency_ms.p50 if row.latency_ms else None,
        accuracy=row.accuracy.value if row.accuracy else None,
        row=row,
    )


def requeue(session: Session, job: JobRow, *, values: dict[str, Any] | None = None) -> bool:
    """Have a held job wait for a worker once more, in its old place. False: lost the race, or it is being cancelled."""
    now = utc_now()
    waiting = {
        "queued_at": now,
        "queue_until": now + timedelta(seconds=job.spec.limits.queue_s),
    }
    return move(session, job.id, JobState.QUEUED, attempt=job.attempt, values={**waiting, **(values or {})})


def set_startable(session: Session, job_id: str) -> bool:
    """All inputs of a queued job are there: it waits for a worker now. False: it did so already, or is not queued."""
    query = update(JobRow).where(JobRow.id == job_id, JobRow.waiting_for == Waiting.INPUTS.value)
    return _changed(session.execute(query.values(waiting_for=Waiting.WORKER)))


def find_queue(session: Session, job_id: str) -> Queue | None:
    """The queue of a job in any state."""
    found = session.scalar(select(JobRow.queue).where(JobRow.id == job_id))
    return Queue(found) if found else None


def _move(session: Session, job_id: str, to: JobState, guard: ColumnElement[bool], values: dict[str, Any]) -> bool:
    if to.is_final:
        values = {"finished_at": utc_now(), **_ENDED, **values}
    if to not in (JobState.RUNNING, JobState.CANCELLING):
        values = {"lease_until": None, **values}
    if to == JobState.QUEUED:
        values = {"waiting_for": Waiting.WORKER, **values}
    else:
        values = {"waiting_for": None, "queue_until": None, "not_before": None, **values}
    query = update(JobRow).where(JobRow.id == job_id, guard)
    query = query.values(state=to, revision=JobRow.revision + 1, **values)
    project = session.scalar(query.returning(JobRow.project))
    if project is None:
        return False
    if to.is_final:
        session.execute(delete(JobGraphRow).where(JobGraphRow.job_id == job_id))
    add_event(session, job_id, "state", {"state": to})
    announce_job(session, project, job_id, to)
    return True


# What a job goes on from is of no use once it is over; the blobs are collected.
_ENDED = {"checkpoint_step": None, "checkpoint_sha256": None, "partial_step": None, "partial_sha256": None}


def _of_attempt(job_id: str, attempt: int) -> Update:
    held = (JobState.RUNNING, JobState.CANCELLING)
    return update(JobRow).where(JobRow.id == job_id, JobRow.attempt == attempt, JobRow.state.in_(held))


def _reads(input_id: str) -> ColumnElement[bool]:
    columns = (JobRow.model_id, JobRow.calibrate_id, JobRow.train_id, JobRow.evaluate_id)
    others = select(JobModelRow.job_id).where(JobModelRow.model_id == input_id)
    return or_(*(column == input_id for column in columns), JobRow.id.in_(others))


def _changed(result: Any) -> bool:
    assert isinstance(result, CursorResult)  # an UPDATE gives no other
    return result.rowcount == 1
