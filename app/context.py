"""What a running server is made of, and what a route must know of a request beside its input."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Annotated, Self

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from app.db.database import Database
from app.dispatch import Dispatcher
from app.health.metrics import Metrics
from app.identity import NOBODY, Origin, Principal
from app.jobs.watch import JobWatch
from app.settings import Settings
from app.storage import BlobStore, open_store
from app.tracing import current_traceparent


@dataclass(frozen=True)
class Context:
    """The server's parts, and who asks. Routes use `read` and `write`, whose sessions see one project's rows."""

    settings: Settings
    database: Database
    dispatcher: Dispatcher
    store: BlobStore
    watch: JobWatch
    metrics: Metrics
    in_flight: set[tuple[str, str]] = field(default_factory=set)
    """Project and Idempotency-Key of what this process is answering."""
    principal: Principal = NOBODY

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Connect lazily: nothing here waits for a database or a broker."""
        dispatcher = Dispatcher(settings.broker)
        database = Database(settings.database, dispatcher)
        return cls(settings, database, dispatcher, open_store(settings), JobWatch(database), Metrics(database))

    def read(self) -> AbstractContextManager[Session]:
        """See `Database.read`; of the principal's project."""
        return self.database.read(self.principal.project)

    def write(self) -> AbstractContextManager[Session]:
        """See `Database.write`; in the principal's project."""
        return self.database.write(self.principal.project)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
        self.dispatcher.close()


async def _from_request(request: Request) -> Context:
    context = request.app.state.context
    assert isinstance(context, Context)
    principal = request.scope.get("principal", NOBODY)
    return context if principal is NOBODY else replace(context, principal=principal)


RequestContext = Annotated[Context, Depends(_from_request)]


async def _origin(request: Request) -> Origin:
    return Origin(request.scope.get("request_id"), current_traceparent())


RequestOrigin = Annotated[Origin, Depends(_origin)]
