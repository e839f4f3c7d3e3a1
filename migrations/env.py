"""What alembic runs: the migrations, on the connection that `app.db.schema` or the alembic command gives."""

from alembic import context
from sqlalchemy import Connection

from app.db.database import make_engine
from app.db.schema import load_metadata
from app.settings import Settings


def migrate(connection: Connection) -> None:
    """Run the asked-for migrations; SQLite alters tables by copying them."""
    context.configure(connection=connection, target_metadata=load_metadata(), render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with make_engine(Settings().database).connect() as opened:
        migrate(opened)
        opened.commit()
