"""Keyset pagination: the newest first, the cursor being the id of the last row seen. Ids sort by time."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

Item = TypeVar("Item")

MAX_LIMIT = 200
DEFAULT_LIMIT = 50


class PageQuery(BaseModel):
    """Which page of a list is asked for."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = Field(None, description="`next` of the page before")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT)


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    data: list[Item]
    has_more: bool
    next: str | None = Field(None, description="Send it as `after` to get the next page")


Row = TypeVar("Row")


def fetch_page(
    session: Session, query: Select[Row], key: InstrumentedAttribute[str], *, after: str | None, limit: int
) -> tuple[list[Row], bool]:
    """Rows of `query` older than `after`, newest first, and whether there are more."""
    if after is not None:
        query = query.where(key < after)
    rows = list(session.scalars(query.order_by(key.desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit
