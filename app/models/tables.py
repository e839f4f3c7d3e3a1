"""The table of models."""

from sqlalchemy import BigInteger, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.contracts.facts import ModelFacts
from app.db.base import Contract
from app.db.ingest import IngestRow


class ModelRow(IngestRow):
    """An uploaded model. `graph_*` is the ingested graph, there once the model is ready."""

    __tablename__ = "models"
    __table_args__ = (
        Index("ix_models_project_id", "project", "id"),
        Index(
            "ix_models_deleted_at",
            "deleted_at",
            sqlite_where=text("deleted_at IS NOT NULL"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
    )

    format: Mapped[str | None] = mapped_column(String(32))
    facts: Mapped[ModelFacts | None] = mapped_column(Contract(ModelFacts))
    graph_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    graph_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
