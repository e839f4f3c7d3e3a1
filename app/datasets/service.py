"""What may be done with datasets, and how a dataset is shown. No SQL and no HTTP here."""

from http import HTTPStatus

from sqlalchemy.orm import Session

from app.audit.repository import record
from app.audit.schemas import Action
from app.contracts.messages import Message, Queue, TaskName
from app.datasets import repository
from app.datasets.schemas import DatasetFields, DatasetView
from app.datasets.tables import DatasetRow
from app.db.database import send_after_commit
from app.db.ids import new_id
from app.errors import Problem, not_found
from app.jobs import repository as jobs
from app.storage import Blob
from app.uploads.fields import entitle


def add(session: Session, blob: Blob, filename: str, fields: DatasetFields) -> DatasetRow:
    """A dataset of stored bytes, sent off to be checked."""
    name, filename = entitle(fields.name, filename, "dataset")
    row = DatasetRow(
        id=new_id("dst"),
        name=name,
        filename=filename,
        tags=fields.tags,
        sha256=blob.sha256,
        size_bytes=blob.size_bytes,
        preprocess=fields.preprocess,
    )
    repository.add(session, row)
    record(session, Action.DATASET_UPLOADED, row.id)
    send_after_commit(session, Message(task=TaskName.INGEST_DATASET, id=row.id, queue=Queue.INGEST))
    return row


def find(session: Session, dataset_id: str) -> DatasetRow:
    """The dataset. Raises the 404 problem."""
    row = repository.get(session, dataset_id)
    if row is None:
        raise not_found("dataset", dataset_id)
    return row


def delete(session: Session, dataset_id: str) -> None:
    """Delete the dataset. Raises DATASET_IN_USE (409) while an unfinished job reads it. Its blob may serve others."""
    row = find(session, dataset_id)
    # A job submitted at this moment is seen below, or waits for the lock and then fails with INPUT_DELETED.
    session.refresh(row, with_for_update=True)
    if row.deleted_at is not None:
        raise not_found("dataset", dataset_id)
    if jobs.is_in_use(session, dataset_id):
        detail = "An unfinished job reads this dataset. Cancel the job or wait for its end, then delete."
        raise Problem(HTTPStatus.CONFLICT, "DATASET_IN_USE", detail)
    repository.delete(session, row)
    record(session, Action.DATASET_DELETED, row.id)


def view(row: DatasetRow) -> DatasetView:
    """The dataset as the API shows it."""
    facts = row.facts
    return DatasetView(
        id=row.id,
        name=row.name,
        filename=row.filename,
        tags=row.tags,
        state=row.state,
        problem=row.problem,
        format=facts.format if facts else None,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        preprocess=row.preprocess,
        samples=facts.samples if facts else None,
        arrays=facts.arrays if facts else None,
        has_labels=facts.has_labels if facts else None,
        classes=facts.classes if facts else None,
        label_min=facts.label_min if facts else None,
        label_max=facts.label_max if facts else None,
        notes=facts.notes if facts else [],
        created_at=row.created_at,
        checked_at=row.checked_at,
        links={"self": f"/v1/datasets/{row.id}"},
    )


def etag(row: DatasetRow) -> str:
    """A strong validator: it changes with every write to the dataset."""
    return f'"{row.revision}"'
