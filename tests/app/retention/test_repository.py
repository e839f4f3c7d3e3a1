"""Which rows go when, and which blobs the others keep, on both databases."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select, text

from app.artifacts.tables import ArtifactRow
from app.datasets.tables import DatasetRow
from app.db.base import Base, utc_now
from app.db.database import Database
from app.db.ids import new_id
from app.db.schema import load_metadata
from app.idempotency.tables import KeptAnswerRow
from app.jobs.tables import JobEventRow, JobGraphRow, JobRow, JobTagRow
from app.models.tables import ModelRow
from app.retention import repository, service
from app.uploads.tables import UploadRow
from app.webhooks.tables import DeliveryRow, WebhookRow

MakeJob = Callable[..., str]

NOT_BLOBS = {
    ("keys", "secret_sha256"),  # of secrets
    ("keys", "old_secret_sha256"),
    ("jobs", "input_sha256"),  # tells what a job has read, which may be gone
}


def count(database: Database, table: type[Base]) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def referenced(database: Database, *sha256s: str) -> set[str]:
    with database.read() as session:
        return repository.find_referenced(session, sha256s)


def test_every_digest_is_known_to_be_of_a_blob_or_not() -> None:
    digests = {
        (table.name, column.name)
        for table in load_metadata().sorted_tables
        for column in table.columns
        if "sha256" in column.name
    }
    blobs = {(column.class_.__tablename__, column.key) for column in repository.BLOB_COLUMNS}
    assert not blobs & NOT_BLOBS
    assert digests == blobs | NOT_BLOBS


def test_each_column_keeps_its_blob(database: Database, make_job: MakeJob) -> None:
    columns: dict[str, Any] = {"name": "n", "filename": "f", "size_bytes": 1}
    job = make_job(checkpoint_sha256="6" * 64, partial_sha256="7" * 64)
    rows: list[Base] = [
        ModelRow(id=new_id("mdl"), sha256="1" * 64, graph_sha256="2" * 64, **columns),
        DatasetRow(id=new_id("dst"), sha256="3" * 64, **columns),
        UploadRow(id=new_id("upl"), sha256="4" * 64, filename="f", tus_metadata="", size_bytes=1, expires_at=utc_now()),
        ArtifactRow(id=new_id("art"), job_id=job, sha256="5" * 64, format="onnx", filename="f", size_bytes=1),
        JobGraphRow(job_id=job, step=0, sha256="8" * 64),
    ]
    with database.write() as session:
        session.add_all(rows)
    kept = {digit * 64 for digit in "12345678"}
    assert len(kept) == len(repository.BLOB_COLUMNS)
    assert referenced(database, *kept, "9" * 64) == kept


def test_a_deleted_row_keeps_no_blob(database: Database) -> None:
    columns: dict[str, Any] = {"name": "n", "filename": "f", "size_bytes": 1, "sha256": "1" * 64}
    deleted = ModelRow(id=new_id("mdl"), deleted_at=utc_now(), graph_sha256="2" * 64, **columns)
    with database.write() as session:
        session.add_all([deleted, DatasetRow(id=new_id("dst"), deleted_at=utc_now(), **columns)])
    assert referenced(database, "1" * 64, "2" * 64) == set()
    with database.write() as session:
        session.add(ModelRow(id=new_id("mdl"), **columns))
    assert referenced(database, "1" * 64, "2" * 64) == {"1" * 64}


def test_finished_jobs_go_oldest_first_in_batches(database: Database, make_job: MakeJob) -> None:
    old = [make_job(days) for days in (40, 60, 50)]
    kept = [make_job(20), make_job()]
    days = timedelta(days=30)
    with database.write() as session:
        assert repository.delete_finished_jobs(session, days, 2) == 2
    with database.read() as session:
        assert set(session.scalars(select(JobRow.id))) == {old[0], *kept}
    with database.write() as session:
        assert repository.delete_finished_jobs(session, days, 2) == 1
        assert repository.delete_finished_jobs(session, days, 2) == 0
    for table in (JobRow, ArtifactRow, JobEventRow, JobTagRow):
        assert count(database, table) == len(kept), table


def test_without_a_limit_jobs_are_kept_for_ever(database: Database, make_job: MakeJob) -> None:
    make_job(10_000)
    with database.write() as session:
        assert not service.delete_finished_jobs(session, 0)
    assert count(database, JobRow) == 1


def test_a_full_batch_says_there_may_be_more(database: Database, make_job: MakeJob) -> None:
    for _ in range(service.JOBS_AT_ONCE + 1):
        make_job(2)
    with database.write() as session:
        assert service.delete_finished_jobs(session, 1)
    with database.write() as session:
        assert not service.delete_finished_jobs(session, 1)
    assert count(database, JobRow) == 0


def test_answers_are_kept_for_a_day(database: Database) -> None:
    with database.write() as session:
        for key, hours in (("old", 25), ("new", 23)):
            at = utc_now() - timedelta(hours=hours)
            session.add(KeptAnswerRow(project="default", key=key, fingerprint="f", created_at=at))
    with database.write() as session:
        service.forget(session)
    with database.read() as session:
        assert session.scalars(select(KeptAnswerRow.key)).all() == ["new"]


def test_expired_uploads_go_an_hour_later(database: Database) -> None:
    with database.write() as session:
        for minutes in (-5, 30, 90):  # since it expired
            at = utc_now() - timedelta(minutes=minutes)
            session.add(UploadRow(id=f"upl_{minutes}", filename="f", tus_metadata="", size_bytes=1, expires_at=at))
    with database.write() as session:
        service.forget(session)
    with database.read() as session:
        assert set(session.scalars(select(UploadRow.id))) == {"upl_-5", "upl_30"}


def test_the_log_of_a_webhook_goes_back_a_month(database: Database) -> None:
    with database.write() as session:
        session.add(WebhookRow(id="whk_1", url="https://example.org", secret="whsec_x"))
        session.flush()
        for days, due in ((29, None), (31, None), (32, utc_now())):
            event = {"webhook_id": "whk_1", "event_id": "evt_1", "type": "t", "payload": "{}", "next_at": due}
            at = utc_now() - timedelta(days=days)
            session.add(DeliveryRow(id=f"dlv_{days}", created_at=at, **event))
    with database.write() as session:
        service.forget(session)
    with database.read() as session:
        assert set(session.scalars(select(DeliveryRow.id))) == {"dlv_29", "dlv_32"}  # the last is still being tried


def test_deleted_rows_stay_while_a_job_refers_to_them(database: Database, model: str, make_job: MakeJob) -> None:
    make_job(1)
    columns: dict[str, Any] = {"name": "n", "filename": "f", "size_bytes": 1, "sha256": "1" * 64}
    unread = ModelRow(id=new_id("mdl"), deleted_at=utc_now() - timedelta(days=2), **columns)
    data = DatasetRow(id=new_id("dst"), deleted_at=utc_now() - timedelta(days=2), **columns)
    fresh = ModelRow(id=new_id("mdl"), deleted_at=utc_now(), **columns)
    with database.write() as session:
        session.get_one(ModelRow, model).deleted_at = utc_now() - timedelta(days=2)
        session.add_all([unread, data, fresh])
    with database.write() as session:
        service.forget(session)
    with database.read() as session:
        assert set(session.scalars(select(ModelRow.id))) == {model, fresh.id}
    assert count(database, DatasetRow) == 0


@pytest.fixture
def statements(database: Database) -> list[tuple[str, Any]]:
    """Every statement that is sent from now on, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    return seen


def plan(engine: Engine, statement: str, parameters: Any) -> str:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            return "\n".join(row[3] for row in rows)
        connection.execute(text("SET enable_seqscan = off"))  # these tables are empty: it would read them whole
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))


def test_every_look_has_its_index(database: Database, make_job: MakeJob, statements: list[tuple[str, Any]]) -> None:
    make_job(2)
    statements.clear()
    with database.write() as session:
        service.delete_finished_jobs(session, 1)
        service.forget(session)
        repository.find_referenced(session, ["0" * 64, "1" * 64])
    looks = [(said, given) for said, given in statements if said.lstrip().startswith(("SELECT", "DELETE"))]
    assert len(looks) >= 6
    for said, given in looks:
        chosen = plan(database.engine, said, given)
        assert "Seq Scan" not in chosen, chosen
        scanned = re.findall(r"^SCAN (\w+)(?! USING)", chosen, re.MULTILINE)
        assert not set(scanned) & set(load_metadata().tables), chosen
