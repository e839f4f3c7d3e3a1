"""What models and datasets have in common as rows: an uploaded file on its way to `ready` or `rejected`.

Every change of state is a guarded UPDATE: it says from where it moves and which attempt asks, and may lose.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple, TypeVar

from sqlalchemy import JSON, BigInteger, CursorResult, Select, String, bindparam, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.contracts.failure import Failure
from app.contracts.states import INGEST_MOVES, IngestState
from app.db.base import Base, Contract, UtcTime, utc_now


class IngestColumns:
    """Columns of an uploaded file that is checked before it can be used."""

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    filename: Mapped[str] = mapped_column(String(255))
    tags: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[IngestState] = mapped_column(String(16), default=IngestState.UPLOADED, index=True)
    problem: Mapped[Failure | None] = mapped_column(Contract(Failure))
    attempt: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime | None] = mapped_column(UtcTime)
    revision: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    checked_at: Mapped[datetime | None] = mapped_column(UtcTime)


class IngestRow(IngestColumns, Base):
    """Any table with these columns."""

    __abstract__ = True


Table = TypeVar("Table", bound=IngestRow)


class Brief(NamedTuple):
    """What others need to know of an upload."""

    state: IngestState
    problem: Failure | None
    sha256: str


def read_brief(session: Session, table: type[Table], id_: str) -> Brief | None:
    """The upload in brief: a fraction of the cost of the row, whose facts may be long."""
    row = session.connection().execute(_select_brief(table), {"id": id_}).one_or_none()
    return Brief(IngestState(row.state), row.problem, row.sha256) if row else None


@cache
def _select_brief(table: type[IngestRow]) -> Select[IngestState, Failure | None, str]:
    return select(table.state, table.problem, table.sha256).where(table.id == bindparam("id"))


def claim(session: Session, table: type[Table], id_: str, lease_s: float) -> Table | None:
    """Take an uploaded file for checking; its `attempt` is the token. None: another worker has it, or it is done."""
    moved = _move(
        session, table, id_, IngestState.CHECKING, attempt=None,
        values={"attempt": table.attempt + 1, "lease_until": utc_now() + timedelta(seconds=lease_s)},
    )  # fmt: skip
    return session.get(table, id_, populate_existing=True) if moved else None


def renew(session: Session, table: type[Table], id_: str, attempt: int, lease_s: float) -> bool:
    """Keep the lease. False: another worker has the file now, stop."""
    query = update(table).where(table.id == id_, table.state == IngestState.CHECKING, table.attempt == attempt)
    return _changed(session.execute(query.values(lease_until=utc_now() + timedelta(seconds=lease_s))))


def finish(session: Session, table: type[Table], id_: str, attempt: int, values: dict[str, object]) -> bool:
    """The file is ready; `values` are what checking found. False: too late, another attempt has it."""
    return _move(session, table, id_, IngestState.READY, attempt=attempt, values={**values, "checked_at": utc_now()})


def reject(session: Session, table: type[Table], id_: str, attempt: int, problem: Failure) -> bool:
    """The file cannot be used, and `problem` says why. False: too late, another attempt has it."""
    values = {"problem": problem, "checked_at": utc_now()}
    return _move(session, table, id_, IngestState.REJECTED, attempt=attempt, values=values)


def release(session: Session, table: type[Table], id_: str, attempt: int) -> bool:
    """Give the file back unchecked: the worker stops or died."""
    return _move(session, table, id_, IngestState.UPLOADED, attempt=attempt, values={"lease_until": None})


def find_abandoned(session: Session, table: type[Table]) -> Sequence[Table]:
    """Files whose checker's lease ran out."""
    query = select(table).where(table.state == IngestState.CHECKING, table.lease_until < utc_now())
    return session.scalars(query).all()


def find_waiting(session: Session, table: type[Table], older_than: datetime) -> Sequence[Table]:
    """Files that were uploaded before `older_than` and that no one has begun to check: their message may be lost."""
    query = select(table).where(table.state == IngestState.UPLOADED, table.created_at < older_than)
    return session.scalars(query).all()


def _move(
    session: Session, table: type[Table], id_: str, to: IngestState, *, attempt: int | None, values: dict[str, object]
) -> bool:
    sources = [state for state, targets in INGEST_MOVES.items() if to in targets]
    query = update(table).where(table.id == id_, table.state.in_(sources))
    if attempt is not None:
        query = query.where(table.attempt == attempt)
    return _changed(session.execute(query.values(state=to, revision=table.revision + 1, **values)))


def _changed(result: object) -> bool:
    assert isinstance(result, CursorResult)  # an UPDATE gives no other
    return result.rowcount == 1
