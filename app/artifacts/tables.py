"""The table of artifacts."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, UtcTime, utc_now
from app.db.tenancy import ProjectOwned


class ArtifactRow(ProjectOwned, Base):
    """A file that a job made."""

    __tablename__ = "artifacts"
    __table_args__ = (Index("ix_artifacts_project_id", "project", "id"),)

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    format: Mapped[str] = mapped_column(String(32))
    filename: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
