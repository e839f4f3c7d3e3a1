"""What may be done with jobs, and how a job is shown. No SQL and no HTTP here."""

from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from sqlalchemy.orm import Session

from app.artifacts import repository as artifacts
from app.audit.repository import record
from app.audit.schemas import Action
from app.contracts.advice import advise_job, advise_layers
from app.contracts.facts import ModelFacts
from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Comparison, StepMeasurement, compare
from app.contracts.messages import Message, Queue, TaskName
from app.contracts.preflight import find_idle_step, find_unplaced_names, note_on, plan_recipe
from app.contracts.recipe import DataRole
from app.contracts.recipe.step import find_missing_data
from app.contracts.references import find_references
from app.contracts.states import IngestState, JobState, Waiting
from app.datasets.tables import DatasetRow
from app.db.base import utc_now
from app.db.database import send_after_commit
from app.db.ingest import Brief, read_brief
from app.errors import FieldError, Problem, not_found, unprocessable
from app.identity import UNKNOWN, Origin
from app.jobs import repository
from app.jobs.queue import moves
from app.jobs.queue.order import count_ahead
from app.jobs.schemas import ArtifactSummary, JobLayers, JobProgress, JobSummary, JobView, Preflight, Reproduce
from app.jobs.tables import JobRow
from app.models import service as models
from app.models.tables import ModelRow


def submit(session: Session, spec: JobSpec, origin: Origin = UNKNOWN, **columns: Any) -> JobRow:
    """Queue a job. It is sent to a worker at once, or when its inputs have been checked."""
    inputs = _find_inputs(session, spec)
    is_startable = all(brief.state == IngestState.READY for brief in inputs.values())
    # Digests are kept with the job: a dataset may be deleted, what the job read stays known.
    row = repository.insert_queued(
        session,
        spec,
        Waiting.WORKER if is_startable else Waiting.INPUTS,
        input_sha256={name: brief.sha256 for name, brief in inputs.items()},
        **asdict(origin),
        **columns,
    )
    record(session, Action.JOB_SUBMITTED, row.id)
    if is_startable:
        send_after_commit(session, message_for(row.id, row.queue))
    return row


def retry(session: Session, job_id: str, origin: Origin) -> JobRow:
    """Queue what a failed or cancelled job was to do as a new job. Raises JOB_NOT_RETRIABLE (409), `submit`'s."""
    row = find(session, job_id)
    if row.state not in (JobState.FAILED, JobState.CANCELLED):
        detail = f"The job is {row.state}; only one that failed or was cancelled can be tried again."
        raise Problem(HTTPStatus.CONFLICT, "JOB_NOT_RETRIABLE", detail)
    return submit(session, row.spec, origin, retried_job_id=row.id)


def preflight(session: Session, spec: JobSpec) -> Preflight:
    """What the job would do, from what was found when its model was checked.

    Raises what `submit` raises, MODEL_NOT_READY (409), LAYER_UNKNOWN and NOTHING_TO_PRUNE.
    """
    _find_inputs(session, spec)
    facts = models.find_facts(session, spec.model)
    _require_layers(spec, facts)
    steps = plan_recipe(spec.recipe, facts)
    if idle := find_idle_step(steps):
        raise unprocessable(f"/recipe/{idle.step}", "NOTHING_TO_PRUNE", idle.message)
    return Preflight(model=spec.model, steps=steps, notes=note_on(spec.recipe))


def message_for(job_id: str, queue: Queue) -> Message:
    """The message that has a worker look at a queue. The job is a hint: the worker takes whichever goes next."""
    return Message(task=TaskName.RUN_JOB, id=job_id, queue=queue)


def cancel(session: Session, job_id: str) -> None:
    """Stop a job: a queued one at once, a running one as soon as its worker's next heartbeat tells it."""
    row = find(session, job_id)
    moved = moves.cancel_queued(session, job_id) or moves.move(
        session, job_id, JobState.CANCELLING, values={"cancelling_at": utc_now()}
    )
    session.refresh(row)
    if not moved and row.state != JobState.CANCELLING:
        raise Problem(
            HTTPStatus.CONFLICT, "JOB_FINISHED", f"The job has already {row.state}; there is nothing to cancel."
        )
    record(session, Action.JOB_CANCELLED, job_id)


def delete(session: Session, job_id: str) -> None:
    """Delete a job with its artifacts and all else that belongs to it. Raises JOB_UNFINISHED (409)."""
    row = find(session, job_id)
    if not repository.delete_finished(session, job_id):
        detail = f"The job is {row.state}. Cancel it first, and delete it once it is over."
        raise Problem(HTTPStatus.CONFLICT, "JOB_UNFINISHED", detail)
    record(session, Action.JOB_DELETED, job_id)


def find(session: Session, job_id: str) -> JobRow:
    """The job. Raises the 404 problem."""
    row = repository.get(session, job_id)
    if row is None:
        raise not_found("job", job_id)
    return row


def find_comparison(session: Session, job_id: str) -> Comparison:
    """The job's measured rows beside each other."""
    find(session, job_id)
    return _comparison(session, job_id)


def find_layers(session: Session, job_id: str) -> JobLayers:
    """What became of each layer, with advice."""
    row = find(session, job_id)
    records, recipe = row.layers or [], row.spec.recipe
    given = row.spec.data.model_dump(exclude_none=True)
    return JobLayers(data=advise_layers(records, recipe), advice=advise_job(records, recipe, given))


def summarise(session: Session, row: JobRow) -> JobSummary:
    """The job as lists show it."""
    return JobSummary.model_validate(_summary_fields(session, row))


def view(session: Session, row: JobRow) -> JobView:
    """The job in full."""
    return JobView.model_validate({
        **_summary_fields(session, row),
        "spec": row.spec,
        # A job that never ran has neither; not asking keeps submitting fast.
        "comparison": _comparison(session, row.id) if row.attempt else Comparison(),
        "artifacts": [
            ArtifactSummary.model_validate(artifact, from_attributes=True)
            for artifact in (artifacts.of_job(session, row.id) if row.attempt else ())
        ],
        "reproduce": Reproduce(
            recipe=row.spec.recipe,
            seed=row.spec.seed,
            versions=row.versions,
            model_sha256=row.input_sha256.get("model", ""),
            data_sha256={name: sha256 for name, sha256 in row.input_sha256.items() if name in _ROLES},
            other_models_sha256={
                name: sha256 for name, sha256 in row.input_sha256.items() if name not in {"model", *_ROLES}
            },
        ),
        "reused_job": row.reused_job_id,
        "retried_job": row.retried_job_id,
        "engine_s": row.engine_s,
        "notes": row.notes,
    })  # fmt: skip


def etag(revision: int, queue_position: int | None) -> str:
    """A strong validator: it changes with every write to the job, and with its place in the queue."""
    return f'"{revision}"' if queue_position is None else f'"{revision}.{queue_position}"'


def _summary_fields(session: Session, row: JobRow) -> dict[str, object]:
    position = count_ahead(session, row) if row.state == JobState.QUEUED else None
    done = row.progress or JobProgress(fraction=0, step=0, steps=len(row.spec.recipe), phase="load")
    own = f"/v1/jobs/{row.id}"
    return {
        **{name: getattr(row, name) for name in _COPIED},
        "model": row.model_id,
        "tags": row.spec.tags,
        "progress": JobProgress.model_validate({**done.model_dump(), "queue_position": position}),
        "links": {
            "self": own,
            "model": f"/v1/models/{row.model_id}",
            **{name: f"{own}/{name}" for name in ("events", "comparison", "layers", "cancel", "retry")},
        },
    }


_ROLES = frozenset(DataRole)
_COPIED = (
    "id", "state", "name", "priority", "created_at", "queued_at", "started_at", "cancelling_at", "finished_at",
    "attempt", "device", "failure", "verdict",
)  # fmt: skip


def _comparison(session: Session, job_id: str) -> Comparison:
    rows = repository.measurements_of(session, job_id)
    ends = {row.role: row.row for row in rows if row.role != "step"}
    steps = [StepMeasurement(**row.row.model_dump(), method=row.method or "") for row in rows if row.role == "step"]
    return compare(ends.get("original"), steps, ends.get("final"))


def _find_inputs(session: Session, spec: JobSpec) -> dict[str, Brief]:
    """The model, the data by role and other models by id. Raises the problem of a job that cannot be taken."""
    inputs = {"model": _usable(read_brief(session, ModelRow, spec.model), "/model", "model", spec.model)}
    for each in find_references(spec.recipe):
        if isinstance(each.target, str):
            brief = read_brief(session, ModelRow, each.target)
            inputs[each.target] = _usable(brief, each.pointer, "model", each.target)
    for role, dataset_id in spec.data.model_dump(exclude_none=True).items():
        brief = read_brief(session, DatasetRow, dataset_id)
        inputs[role] = _usable(brief, f"/data/{role}", "dataset", dataset_id)
    _require_data(spec)
    return inputs


def _usable(brief: Brief | None, pointer: str, kind: str, id_: str) -> Brief:
    if brief is None:
        raise unprocessable(pointer, f"{kind.upper()}_NOT_FOUND", f"There is no {kind} {id_}. Upload it first.")
    if brief.state == IngestState.REJECTED:
        reason = brief.problem.message if brief.problem else ""
        raise unprocessable(pointer, f"{kind.upper()}_REJECTED", f"The {kind} {id_} was rejected: {reason}")
    return brief


def _require_data(spec: JobSpec) -> None:
    if missing := find_missing_data(spec.recipe, spec.data.model_dump(exclude_none=True)):
        hint = f"Give the id of an uploaded dataset as data.{missing.role}."
        raise unprocessable(f"/recipe/{missing.step}", missing.role.missing_code, f"{missing.message}. {hint}")


def _require_layers(spec: JobSpec, facts: ModelFacts) -> None:
    if unplaced := find_unplaced_names(spec.recipe, facts):
        errors = [FieldError(pointer=each.pointer, message=each.message, code="LAYER_UNKNOWN") for each in unplaced]
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "LAYER_UNKNOWN", errors[0].message, errors=errors)
