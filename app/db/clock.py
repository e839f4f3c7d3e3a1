"""The clock that leases are measured by: the database's own, for the clocks of machines differ."""

import time
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.base import utc_now

SWEPT_MOST = 500
"""Rows of a kind that one sweep looks at: a long queue must not make it a long transaction."""


def now(session: Session) -> Any:
    """The time by the database's clock, as an SQL value. On SQLite that is this machine's."""
    if session.get_bind().dialect.name == "sqlite":
        return utc_now()
    return func.clock_timestamp(type_=DateTime(timezone=True))  # not now(): that is when the transaction began


def asked_at(session: Session) -> Any:
    """The time when the statement began, as an SQL value: PostgreSQL searches an index for it, not for `now`."""
    if session.get_bind().dialect.name == "sqlite":
        return utc_now()
    return func.statement_timestamp(type_=DateTime(timezone=True))


def read_clock(session: Session) -> float:
    """The time by the database's clock, seconds since 1970."""
    if session.get_bind().dialect.name == "sqlite":
        return time.time()
    return float(session.scalar(select(func.extract("epoch", func.clock_timestamp()))) or 0)


def lease_end(session: Session, lease_s: float) -> Any:
    """When a lease that begins now ends, as an SQL value."""
    return now(session) + timedelta(seconds=lease_s)


def is_wrong_lease(
    session: Session, lease_until: InstrumentedAttribute[datetime | None], lease_s: float, *, jumped: bool
) -> ColumnElement[bool]:
    """Which leases say nothing: all once the clock has `jumped`, else those given by a clock that was ahead."""
    return lease_until.is_not(None) if jumped else lease_until > asked_at(session) + timedelta(seconds=2 * lease_s)
