"""What models and datasets have in common as rows: an uploaded file on its way to `ready` or `rejected`.

Every change of state is a guarded UPDATE: it says from where it moves and which attempt asks, and may lose.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import NamedTuple, TypeVar

from sqlalchemy import JSON, BigInteger, CursorResult, Select, String, bindparam, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.contracts.failure import Failure
from app.contracts.states import INGEST_MOVES, IngestState
from app.contracts.webhooks import WebhookEvent
from app.db.base import Base, Contract, UtcTime, utc_now
from app.db.clock import SWEPT_MOST, asked_at, is_wrong_lease, lease_end
from app.db.tenancy import ProjectOwned, project_of
from app.webhooks.repository import publish


class IngestColumns(ProjectOwned):
    """Columns of an uploaded file that is checked before it can be used. One that was deleted is kept for its jobs."""

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    filename: Mapped[str] = mapped_column(String(255))
    tags: Mapped[dict[str, str]] = mapped_column(JSON, default=dict)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[IngestState] = mapped_column(String(16), default=IngestState.UPLOADED, index=True)
    problem: Mapped[Failure | None] = mapped_column(Contract(Failure))
    attempt: Mapped[int] = mapped_column(default=0)
    handed_back: Mapped[int] = mapped_column(default=0, server_default="0")
    lost: Mapped[int] = mapped_column(default=0, server_default="0")
    not_before: Mapped[datetime | None] = mapped_column(UtcTime)
    lease_until: Mapped[datetime | None] = mapped_column(UtcTime)
    revision: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    checked_at: Mapped[datetime | None] = mapped_column(UtcTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcTime)

    @property
    def failed_starts(self) -> int:
        """Checks that were begun and failed by themselves: neither handed back nor lost with their worker."""
        return self.attempt - self.handed_back - self.lost


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
    named = {"id": id_, "project": project_of(session)}
    row = session.connection().execute(_select_brief(table), named).one_or_none()
    return Brief(IngestState(row.state), row.problem, row.sha256) if row else None


@cache
def _select_brief(table: type[IngestRow]) -> Select[IngestState, Failure | None, str]:
    query = select(table.state, table.problem, table.sha256).where(table.deleted_at.is_(None))
    return query.where(table.id == bindparam("id"), table.project == bindparam("project"))


def claim(session: Session, table: type[Table], id_: str, lease_s: float) -> Table | None:
    """Take an uploaded file for checking; its `attempt` is the token. None: another worker has it, or it is done."""
    moved = _move(
        session, table, id_, IngestState.CHECKING, attempt=None,
        values={"attempt": table.attempt + 1, "lease_until": lease_end(session, lease_s)},
    )  # fmt: skip
    return session.get(table, id_, populate_existing=True) if moved else None


def renew(session: Session, table: type[Table], id_: str, attempt: int, lease_s: float) -> bool:
    """Keep the lease. False: another worker has the file now, stop."""
    query = update(table).where(table.id == id_, table.state == IngestState.CHECKING, table.attempt == attempt)
    query = query.where(table.deleted_at.is_(None))
    return _changed(session.execute(query.values(lease_until=lease_end(session, lease_s))))


def finish(session: Session, table: type[Table], id_: str, attempt: int, values: dict[str, object]) -> bool:
    """The file is ready; `values` are what checking found. False: too late, another attempt has it."""
    return _move(session, table, id_, IngestState.READY, attempt=attempt, values={**values, "checked_at": utc_now()})


def reject(session: Session, table: type[Table], id_: str, attempt: int, problem: Failure) -> bool:
    """The file cannot be used, and `problem` says why. False: too late, another attempt has it."""
    values = {"problem": problem, "checked_at": utc_now()}
    return _move(session, table, id_, IngestState.REJECTED, attempt=attempt, values=values)


def release(session: Session, table: type[Table], id_: str, attempt: int, values: Mapping[str, object]) -> bool:
    """Give the file back unchecked; `values` are what this counts as. False: too late, another attempt has it."""
    return _move(session, table, id_, IngestState.UPLOADED, attempt=attempt, values={"lease_until": None, **values})


def find_abandoned(session: Session, table: type[Table]) -> Sequence[Table]:
    """Files whose checker's lease ran out."""
    query = select(table).where(table.state == IngestState.CHECKING, table.lease_until < asked_at(session))
    query = query.where(table.deleted_at.is_(None))
    return session.scalars(query.limit(SWEPT_MOST)).all()


def clamp_leases(session: Session, table: type[Table], lease_s: float, *, jumped: bool = False) -> None:
    """Have leases begin anew that no worker can have asked for; or all, when the clock jumped."""
    wrong = is_wrong_lease(session, table.lease_until, lease_s, jumped=jumped)
    query = update(table).where(table.state == IngestState.CHECKING, wrong)
    session.execute(query.values(lease_until=lease_end(session, lease_s)))


def find_waiting(session: Session, table: type[Table], older_than: datetime) -> Sequence[Table]:
    """Files that were uploaded before `older_than` and that no one has begun to check: their message may be lost."""
    late = or_(table.created_at < older_than, table.created_at > utc_now())  # the clock was ahead then
    due = or_(table.not_before.is_(None), table.not_before <= asked_at(session))
    query = select(table).where(table.state == IngestState.UPLOADED, late, due, table.deleted_at.is_(None))
    return session.scalars(query.limit(SWEPT_MOST)).all()


def _move(
    session: Session, table: type[Table], id_: str, to: IngestState, *, attempt: int | None, values: dict[str, object]
) -> bool:
    sources = [state for state, targets in INGEST_MOVES.items() if to in targets]
    query = update(table).where(table.id == id_, table.state.in_(sources), table.deleted_at.is_(None))
    if attempt is not None:
        query = query.where(table.attempt == attempt)
    query = query.values(state=to, revision=table.revision + 1, **values)
    moved = session.execute(query.returning(table.project, table.name, table.problem)).one_or_none()
    if moved is None:
        return False
    if event := _EVENTS.get((table.__tablename__, to)):
        told = {"id": id_, "state": to, "name": moved.name, "problem": moved.problem}
        publish(session, moved.project, event, lambda: told | {"links": {"self": f"/v1/{table.__tablename__}/{id_}"}})
    return True


_EVENTS = {
    ("models", IngestState.READY): WebhookEvent.MODEL_READY,
    ("models", IngestState.REJECTED): WebhookEvent.MODEL_REJECTED,
    ("datasets", IngestState.READY): WebhookEvent.DATASET_READY,
    ("datasets", IngestState.REJECTED): WebhookEvent.DATASET_REJECTED,
}


def _changed(result: object) -> bool:
    assert isinstance(result, CursorResult)  # an UPDATE gives no other
    return result.rowcount == 1
