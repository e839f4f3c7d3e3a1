"""The table of resumable uploads: files that come in pieces (tus)."""

from datetime import datetime

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, UtcTime, utc_now
from app.db.tenancy import ProjectOwned


class UploadRow(ProjectOwned, Base):
    """A file on its way: of the bytes on the disk, `offset_bytes` count. Once whole it becomes the blob `sha256`."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(30), primary_key=True)
    filename: Mapped[str] = mapped_column(String(255))
    tus_metadata: Mapped[str] = mapped_column(String(4096))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    offset_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=utc_now)
    expires_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
