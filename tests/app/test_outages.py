"""Requests while the line to PostgreSQL breaks: what can be asked again inside is, and answered as if done once."""

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import Connection, event

from app.context import Context
from app.settings import Settings

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def settings(settings: Settings, database_url: str) -> Settings:
    return Settings(**{**settings.model_dump(), "database_url": database_url})


@pytest.fixture
def break_next_commit(context: Context) -> Callable[..., None]:
    """Cuts the line at the next commit, after the server has done it or before."""

    def arm(*, is_done: bool) -> None:
        @event.listens_for(context.database.engine, "commit", once=True)
        def _cut(connection: Connection) -> None:
            line = connection.connection.dbapi_connection
            assert line is not None
            if is_done:
                line.commit()
            line.close()

    return arm


@pytest.mark.parametrize("is_done", [True, False])
def test_a_deletion_in_doubt_is_made_sure_of(
    client: httpx.Client, make_model: Callable[..., str], break_next_commit: Callable[..., None], is_done: bool
) -> None:
    path = f"/v1/models/{make_model()}"
    break_next_commit(is_done=is_done)
    answer = client.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(path).status_code == 404
    assert client.delete(path).status_code == 404
