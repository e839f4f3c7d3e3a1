"""The tables of projects and API keys."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, UtcTime, utc_now
from app.db.tenancy import ProjectOwned
from app.identity import Role


class ProjectRow(Base):
    """A project. `served_at` is when a worker last took a job of it: who was served longest ago goes first."""

    __tablename__ = "projects"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    served_at: Mapped[datetime | None] = mapped_column(UtcTime)


class KeyRow(ProjectOwned, Base):
    """A key. Its secret was shown once and is not here, only the sha256 of it, and of the one before it.

    A revoked key is kept: that there was one keeps the service closed.
    """

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[Role] = mapped_column(String(8))
    secret_sha256: Mapped[str] = mapped_column(String(64))
    old_secret_sha256: Mapped[str | None] = mapped_column(String(64))
    old_works_until: Mapped[datetime | None] = mapped_column(UtcTime)
    requests_per_minute: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    rotated_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcTime)
