"""What a running server is made of: opened once when it starts, closed when it stops, handed to routes."""

from dataclasses import dataclass
from typing import Annotated, Self

from fastapi import Depends, Request

from app.db.database import Database
from app.dispatch import Dispatcher
from app.health.metrics import Metrics
from app.jobs.watch import JobWatch
from app.settings import Settings
from app.storage import BlobStore, open_store


@dataclass(frozen=True)
class Context:
    """The server's parts."""

    settings: Settings
    database: Database
    dispatcher: Dispatcher
    store: BlobStore
    watch: JobWatch
    metrics: Metrics

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect lazily: nothing here waits for a database or a broker."""
        dispatcher = Dispatcher(settings.broker)
        database = Database(settings.database, dispatcher)
        return cls(settings, database, dispatcher, open_store(settings), JobWatch(database), Metrics(database))

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
        self.dispatcher.close()


async def _from_request(request: Request) -> Context:
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


RequestContext = Annotated[Context, Depends(_from_request)]
