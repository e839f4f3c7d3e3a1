"""The table of models."""

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from app.contracts.facts import ModelFacts
from app.db.base import Contract
from app.db.ingest import IngestRow


class ModelRow(IngestRow):
    """An uploaded model. `graph_*` is the ingested graph, there once the model is ready."""

    __tablename__ = "models"

    format: Mapped[str | None] = mapped_column(String(32))
    facts: Mapped[ModelFacts | None] = mapped_column(Contract(ModelFacts))
    graph_sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    graph_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
