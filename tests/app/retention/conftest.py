"""Fixtures of retention's tests: rows of a service without its server, on SQLite and on PostgreSQL."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.artifacts.tables import ArtifactRow
from app.contracts.job_spec import JobSpec
from app.contracts.states import IngestState, JobState
from app.db.base import utc_now
from app.db.database import Database
from app.db.ids import new_id
from app.jobs import repository as jobs
from app.jobs.tables import JobRow
from app.models.tables import ModelRow
from app.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, broker_url: str, database_url: str) -> Settings:
    """Of a server on either database."""
    return Settings(data=tmp_path / "data", broker_url=broker_url, database_url=database_url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def model(database: Database) -> str:
    """The id of a model that is ready."""
    row = ModelRow(id=new_id("mdl"), name="net", filename="net.onnx", sha256="0" * 64, size_bytes=1)
    row.state = IngestState.READY
    with database.write() as session:
        session.add(row)
    return row.id


@pytest.fixture
def make_job(database: Database, model: str) -> Callable[..., str]:
    """Insert a job with an event and an artifact; `days` ago it ended, None: it has not. Returns its id."""

    def make(days: float | None = None, **columns: object) -> str:
        spec = JobSpec.model_validate({"model": model, "recipe": [{"method": "quantize.dynamic"}], "tags": {"a": "b"}})
        ended: dict[str, datetime | JobState | None] = {}
        if days is not None:
            ended = {"finished_at": utc_now() - timedelta(days=days), "state": JobState.SUCCEEDED, "waiting_for": None}
        with database.write() as session:
            row: JobRow = jobs.insert_queued(session, spec, **{**ended, **columns})
            artifact = ArtifactRow(id=new_id("art"), job_id=row.id, format="onnx", filename="n.onnx", size_bytes=1)
            artifact.sha256 = "a" * 64
            session.add(artifact)
            return row.id

    return make
