"""The rows of resumable uploads, on SQLite and PostgreSQL: an offset moves once, and only from where it stands."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from app.db.base import utc_now
from app.db.database import Database
from app.uploads import repository
from app.uploads.tables import UploadRow

UPLOAD = "upl_00000000000000000000000000"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    with opened.write("ours") as session:
        columns = {"filename": "", "tus_metadata": "", "size_bytes": 2**40, "expires_at": utc_now()}
        repository.add(session, UploadRow(id=UPLOAD, project="ours", **columns))
    yield opened
    opened.close()


def test_an_offset_moves_from_where_it_stands(database: Database) -> None:
    later = utc_now() + timedelta(hours=1)
    moves = [(0, 2**39, True), (0, 2**38, False), (2**39, 2**40, True), (2**39, 2**40, True), (2**39, 5, False)]
    for offset, to, is_done in moves:  # said twice, the same move is done: the first answer may be lost
        with database.write("ours") as session:
            assert repository.advance(session, UPLOAD, offset, to, later) is is_done
    with database.read("ours") as session:
        row = repository.get(session, UPLOAD)
        assert row
        assert (row.offset_bytes, row.expires_at) == (2**40, later)


def test_another_project_moves_and_removes_nothing(database: Database) -> None:
    with database.write("theirs") as session:
        assert repository.get(session, UPLOAD) is None
        assert not repository.advance(session, UPLOAD, 0, 5, utc_now())
        repository.set_blob(session, UPLOAD, "0" * 64)
        repository.remove(session, UPLOAD)
    with database.read("ours") as session:
        row = repository.get(session, UPLOAD)
        assert row
        assert (row.offset_bytes, row.sha256) == (0, None)


def test_what_has_expired_is_removed_unless_it_came_to_life(database: Database) -> None:
    now = utc_now() + timedelta(minutes=1)
    with database.write() as session:
        assert repository.find_expired(session, now, 10) == [UPLOAD]
        assert repository.find_known(session, {UPLOAD, "upl_other"}) == {UPLOAD}
        repository.advance(session, UPLOAD, 0, 1, now + timedelta(hours=1))
        repository.remove_expired(session, UPLOAD, now)
        assert repository.get(session, UPLOAD) is not None
        repository.remove_expired(session, UPLOAD, now + timedelta(hours=2))
    with database.read() as session:
        assert repository.find_known(session, {UPLOAD}) == set()
