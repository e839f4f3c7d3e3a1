"""`create_app()`: routers, error handlers, lifespan. No logic, and nothing happens at import."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__
from app.artifacts import routes as artifacts
from app.audit import routes as audit
from app.context import Context
from app.datasets import routes as datasets
from app.errors import install_handlers
from app.health import routes as health
from app.http import BodyLimit, RequestScope
from app.http.patience import Patience
from app.jobs import routes as jobs
from app.keys import routes as keys
from app.log import configure
from app.methods import routes as methods
from app.models import routes as models
from app.openapi import describe
from app.problems import routes as problems
from app.security.gate import Gate
from app.security.rules import Rules
from app.settings import Settings
from app.uploads import routes as uploads
from app.uploads.tus.headers import TusResumable
from app.webhooks import routes as webhooks

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

    server = FastAPI(
        title="Slimline",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # `describe` adds a safer page
        redoc_url=None,
    )
    server.state.context = context
    for routes in (models, datasets, uploads, methods, jobs, artifacts, webhooks, keys, audit, problems, health):
        server.include_router(routes.router)
    install_handlers(server)
    server.add_middleware(
        BodyLimit,
        max_bytes=context.settings.max_body_bytes,
        max_seconds=context.settings.http_body_s,
        exempt=(models.PATH, datasets.PATH, uploads.PATH, f"{uploads.PATH}/"),
    )
    rules = Rules()
    server.add_middleware(Gate, context=context, rules=rules)
    server.add_middleware(Patience)
    server.add_middleware(TusResumable, path=uploads.PATH)
    server.add_middleware(RequestScope, metrics=context.metrics)
    describe(server)
    rules.require_all(server)
    return server
