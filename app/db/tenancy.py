"""Projects apart: a session that belongs to a project sees only that project's rows. Who may use which is not here."""

from sqlalchemy import String, event
from sqlalchemy.orm import (
    Mapped,
    ORMExecuteState,
    Session,
    UOWTransaction,
    mapped_column,
    sessionmaker,
    with_loader_criteria,
)

from app.identity import DEFAULT_PROJECT

_PROJECT = "project"


class ProjectOwned:
    """Mixin of a table whose rows belong to a project. Such tables are read through the ORM, where the rule holds."""

    project: Mapped[str] = mapped_column(String(64), default=DEFAULT_PROJECT, server_default=DEFAULT_PROJECT)


def scope(session: Session, project: str | None) -> None:
    """Bind a session to a project; None: it sees all, as workers do."""
    session.info[_PROJECT] = project


def project_of(session: Session) -> str:
    """The project that what this session inserts belongs to."""
    return session.info.get(_PROJECT) or DEFAULT_PROJECT


def keep_apart(sessions: sessionmaker[Session]) -> None:
    """Have every ORM statement of these sessions see only rows of the session's project, and every new row be its."""
    event.listen(sessions, "do_orm_execute", _narrow)
    event.listen(sessions, "before_flush", _claim_new)


def _narrow(state: ORMExecuteState) -> None:
    project = state.session.info.get(_PROJECT)
    if project is not None and not state.is_column_load:
        rule = with_loader_criteria(ProjectOwned, lambda table: table.project == project, include_aliases=True)
        state.statement = state.statement.options(rule)


def _claim_new(session: Session, _context: UOWTransaction, _instances: object) -> None:
    for row in session.new:
        if isinstance(row, ProjectOwned) and "project" not in row.__dict__:
            row.project = project_of(session)
