"""Queries on jobs: rows, lists, events, measured rows. Moves from state to state are `app.jobs.queue.moves`."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pydantic import Field
from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Measurement
from app.contracts.messages import Queue
from app.contracts.references import find_other_models
from app.contracts.states import JobState, Waiting
from app.db.base import utc_now
from app.db.clock import SWEPT_MOST
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
        queue_s=spec.limits.queue_s,
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
    """Some of the jobs that wait for inputs, of which this model or dataset is one; the sweep finds the rest."""
    waits = (JobRow.state == JobState.QUEUED, JobRow.waiting_for == Waiting.INPUTS.value)
    return session.scalars(select(JobRow).where(*waits, _reads(input_id)).limit(SWEPT_MOST)).all()


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


def keep_graph(session: Session, job_id: str, step: int, sha256: str) -> None:
    """The graph after `step` (from 0) is stored for later steps. A later attempt's replaces an earlier one's."""
    session.execute(delete(JobGraphRow).where(JobGraphRow.job_id == job_id, JobGraphRow.step == step))
    session.add(JobGraphRow(job_id=job_id, step=step, sha256=sha256))


def graphs_of(session: Session, job_id: str) -> dict[int, str]:
    """Digests of the graphs that were kept, by the step they come after."""
    rows = session.scalars(select(JobGraphRow).where(JobGraphRow.job_id == job_id))
    return {row.step: row.sha256 for row in rows}


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
    # Kept from being deleted until the transaction ends.
    return session.scalars(done.order_by(JobRow.id.desc()).limit(_FEW).with_for_update(read=True)).all()


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


def _reads(input_id: str) -> ColumnElement[bool]:
    columns = (JobRow.model_id, JobRow.calibrate_id, JobRow.train_id, JobRow.evaluate_id)
    others = select(JobModelRow.job_id).where(JobModelRow.model_id == input_id)
    return or_(*(column == input_id for column in columns), JobRow.id.in_(others))


def _changed(result: Any) -> bool:
    assert isinstance(result, CursorResult)  # an UPDATE gives no other
    return result.rowcount == 1
