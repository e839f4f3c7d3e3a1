"""The table of datasets."""

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.contracts.facts import DatasetFacts
from app.contracts.preprocess import Preprocess
from app.db.base import Contract
from app.db.ingest import IngestRow


class DatasetRow(IngestRow):
    """An uploaded dataset. `preprocess` is what was given with the upload."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("ix_datasets_project_id", "project", "id"),
        Index(
            "ix_datasets_deleted_at",
            "deleted_at",
            sqlite_where=text("deleted_at IS NOT NULL"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
    )

    preprocess: Mapped[Preprocess | None] = mapped_column(Contract(Preprocess))
    facts: Mapped[DatasetFacts | None] = mapped_column(Contract(DatasetFacts))
