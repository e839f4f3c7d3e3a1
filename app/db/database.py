"""The engine and the edge of every transaction: one request (or one report of a worker) is one transaction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from app.contracts.messages import Message
from app.db.durability import GroupSync, sync_log
from app.db.tenancy import keep_apart, scope
from app.db.turn import FairLock

Dispatch = Callable[[Message], None]

_OUTBOX = "outbox"
# libpq by itself waits for a silent server for a quarter of an hour.
_NOTICE_A_DEAD_LINE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


# Nor does the server miss a client whose machine is gone for two hours, and keeps for it what it had locked.
_MISS_A_DEAD_CLIENT = """
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = 10000
"""


class CommitUnknownError(Exception):
    """The line broke while a transaction was committed: what it did is there or is not."""


class Database:
    """One engine. `write()` commits whole or not at all, then hands messages to `dispatch`; `read()` is a snapshot.

    `dispatch` must neither raise nor wait: the transaction is committed, and the sweeper sends lost messages again.
    """

    def __init__(self, url: str, dispatch: Dispatch | None = None) -> None:
        self.engine = make_engine(url)
        self._dispatch = dispatch
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        keep_apart(self._sessions)
        # SQLite has one writer. Waiting here, in turn, beats SQLite's sleep-and-retry, which starves the unlucky.
        self._writers = FairLock() if self.is_sqlite else nullcontext()
        self._make_durable = GroupSync(partial(sync_log, Path(self.engine.url.database or "")))

    @property
    def is_sqlite(self) -> bool:
        """Whether this is the embedded database."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self, project: str | None = None) -> Iterator[Session]:
        """A transaction that holds the right to write from its start; commits unless the block raises.

        With `project` it sees that project's rows alone. Raises CommitUnknownError.
        """
        with self._writers, self._sessions() as session:
            scope(session, project)
            session.connection(execution_options={"sqlite_begin": "IMMEDIATE"})
            yield session
            session.flush()
            self._commit(session)
        if self.is_sqlite:
            self._make_durable()
        if self._dispatch is not None:
            for message in session.info.get(_OUTBOX, ()):
                self._dispatch(message)

    @contextmanager
    def read(self, project: str | None = None) -> Iterator[Session]:
        """A transaction that only reads; nothing is committed. With `project` it sees that project's rows alone."""
        with self._sessions() as session:
            scope(session, project)
            yield session

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A bare connection for the few reads that are hot: no session, no objects."""
        with self.engine.connect() as connection:
            yield connection

    def check(self) -> None:
        """Raise what the driver raises when the database cannot be reached."""
        with self.connection() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()

    def _commit(self, session: Session) -> None:
        try:
            session.commit()
        except (OperationalError, InterfaceError) as error:
            if self.is_sqlite:
                raise  # a commit that fails there has done nothing
            raise CommitUnknownError(str(error.orig)) from error


def send_after_commit(session: Session, message: Message) -> None:
    """Queue a message that leaves once the session's transaction has been committed."""
    session.info.setdefault(_OUTBOX, []).append(message)


def make_engine(url: str) -> Engine:
    """An engine for SQLite or PostgreSQL. On SQLite a commit is durable only after `app.db.durability`."""
    if make_url(url).get_backend_name() != "sqlite":
        engine = create_engine(url, pool_size=10, max_overflow=40, pool_pre_ping=True, connect_args=_NOTICE_A_DEAD_LINE)
        event.listen(engine, "connect", _prepare_postgresql)
        return engine
    Path(make_url(url).database or "").parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=10, max_overflow=40, connect_args={"timeout": 30})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.execute(_MISS_A_DEAD_CLIENT)
    connection.commit()  # or a rollback would undo it


def _prepare_sqlite(connection: Any, _record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    # Whose commit fills the log folds it back into the database and waits for the disk meanwhile: let that be rare.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "wal_autocheckpoint=8000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('sqlite_begin', 'DEFERRED')}")
