"""What may be done with models, and how a model is shown. No SQL and no HTTP here."""

from http import HTTPStatus
from pathlib import PurePath

from sqlalchemy.orm import Session

from app.artifacts.content import Content
from app.audit.repository import record
from app.audit.schemas import Action
from app.contracts.facts import ModelFacts
from app.contracts.messages import Message, Queue, TaskName
from app.contracts.states import IngestState
from app.db.database import send_after_commit
from app.db.ids import new_id
from app.errors import Problem, not_found
from app.jobs import repository as jobs
from app.models import repository
from app.models.schemas import ModelFields, ModelView
from app.models.tables import ModelRow
from app.storage import Blob
from app.uploads.fields import entitle


def add(session: Session, blob: Blob, filename: str, fields: ModelFields) -> ModelRow:
    """A model of stored bytes, sent off to be checked."""
    name, filename = entitle(fields.name, filename, "model")
    row = ModelRow(
        id=new_id("mdl"),
        name=name,
        filename=filename,
        tags=fields.tags,
        format=fields.format,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
    )
    repository.add(session, row)
    record(session, Action.MODEL_UPLOADED, row.id)
    send_after_commit(session, Message(task=TaskName.INGEST_MODEL, id=row.id, queue=Queue.INGEST))
    return row


def find(session: Session, model_id: str) -> ModelRow:
    """The model. Raises the 404 problem."""
    row = repository.get(session, model_id)
    if row is None:
        raise not_found("model", model_id)
    return row


def delete(session: Session, model_id: str) -> None:
    """Delete the model. Raises MODEL_IN_USE (409) while an unfinished job reads it. Its blobs may serve others."""
    row = find(session, model_id)
    # A job submitted at this moment is seen below, or waits for the lock and then fails with INPUT_DELETED.
    session.refresh(row, with_for_update=True)
    if row.deleted_at is not None:
        raise not_found("model", model_id)
    if jobs.is_in_use(session, model_id):
        detail = "An unfinished job reads this model. Cancel the job or wait for its end, then delete."
        raise Problem(HTTPStatus.CONFLICT, "MODEL_IN_USE", detail)
    repository.delete(session, row)
    record(session, Action.MODEL_DELETED, row.id)


def find_facts(session: Session, model_id: str) -> ModelFacts:
    """What checking found. Raises MODEL_NOT_READY (409) before it is done."""
    row = find(session, model_id)
    if row.facts is None:
        raise _not_ready(row)
    return row.facts


def find_upload(session: Session, model_id: str) -> Content:
    """The bytes as uploaded."""
    row = find(session, model_id)
    return Content(row.sha256, row.size_bytes, row.filename)


def find_graph(session: Session, model_id: str) -> Content:
    """The ingested graph. Raises MODEL_NOT_READY (409) before it is there."""
    row = find(session, model_id)
    if row.graph_sha256 is None or row.graph_size_bytes is None:
        raise _not_ready(row)
    return Content(row.graph_sha256, row.graph_size_bytes, f"{PurePath(row.filename).stem}.onnx")


def view(row: ModelRow) -> ModelView:
    """The model as the API shows it."""
    facts = row.facts
    own = f"/v1/models/{row.id}"
    return ModelView(
        id=row.id,
        name=row.name,
        filename=row.filename,
        tags=row.tags,
        state=row.state,
        problem=row.problem,
        format=facts.format if facts else row.format,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        inputs=facts.inputs if facts else None,
        outputs=facts.outputs if facts else None,
        parameters=facts.parameters if facts else None,
        macs=facts.macs if facts else None,
        opset=facts.opset if facts else None,
        producer=facts.producer if facts else None,
        notes=facts.notes if facts else [],
        created_at=row.created_at,
        checked_at=row.checked_at,
        links={"self": own, "layers": f"{own}/layers", "content": f"{own}/content"},
    )


def etag(row: ModelRow) -> str:
    """A strong validator: it changes with every write to the model."""
    return f'"{row.revision}"'


def _not_ready(row: ModelRow) -> Problem:
    if row.state == IngestState.REJECTED and row.problem:
        detail = f"The model was rejected: {row.problem.message}"
    else:
        detail = f"The model is still {row.state}. Ask again when GET /v1/models/{row.id} says `ready`."
    return Problem(HTTPStatus.CONFLICT, "MODEL_NOT_READY", detail)
