"""The whole schema: every slice's tables in one metadata, and how it differs from a migrated database."""

import importlib
import importlib.util
import pkgutil

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData

import app
from app.db.base import Base


def load_metadata() -> MetaData:
    """Import `tables.py` of every slice, so that the metadata is whole."""
    for slice_ in pkgutil.iter_modules(app.__path__):
        if slice_.ispkg and importlib.util.find_spec(f"app.{slice_.name}.tables"):
            importlib.import_module(f"app.{slice_.name}.tables")
    return Base.metadata


def find_drift(engine: Engine) -> list[str]:
    """What the tables in the code have and the migrated database lacks, or the other way round."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return [str(difference) for difference in compare_metadata(context, load_metadata())]
