"""`create_app()`: routers, error handlers, lifespan. No logic, and nothing happens at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__
from app.artifacts import routes as artifacts
from app.context import Context
from app.datasets import routes as datasets
from app.errors import install_handlers
from app.health import routes as health
from app.http import BodyLimit, RequestScope
from app.jobs import routes as jobs
from app.log import configure
from app.methods import routes as methods
from app.models import routes as models
from app.openapi import describe
from app.problems import routes as problems
from app.settings import Settings

_DESCRIPTION = """Upload a trained network, post a job, poll or stream its state, download a smaller, faster file.

Every error is a problem document (RFC 9457); its `code` is stable."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The server. Settings come from the environment unless they are given."""
    context = Context.open(settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        configure(context.settings)
        yield
        context.close()

    server = FastAPI(title="Slimline", version=__version__, description=_DESCRIPTION, lifespan=lifespan)
    server.state.context = context
    for routes in (models, datasets, methods, jobs, artifacts, problems, health):
        server.include_router(routes.router)
    install_handlers(server)
    server.add_middleware(BodyLimit, max_bytes=context.settings.max_body_bytes, exempt=(models.PATH, datasets.PATH))
    server.add_middleware(RequestScope, metrics=context.metrics)
    describe(server)
    return server
