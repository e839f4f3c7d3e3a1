"""HTTP of health: /healthz, /readyz, /metrics."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import generate_latest

from app import __version__
from app.context import RequestContext
from app.health.schemas import Alive, Readiness
from app.health.service import check_parts

router = APIRouter(tags=["health"])

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/healthz")
async def read_health() -> Alive:
    """The process answers. Says nothing of its parts."""
    return Alive(version=__version__)


@router.get("/readyz", responses={503: {"description": "A part cannot be reached", "model": Readiness}})
def read_readiness(context: RequestContext, response: Response) -> Readiness:
    """Database, broker and storage can be reached, and the schema is this version's."""
    readiness = check_parts(context)
    if not readiness.ready:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return readiness


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": 'slimline_jobs{state="queued"} 3.0\n'}}}},
)
def read_metrics(context: RequestContext) -> Response:
    """Counters in Prometheus's text format."""
    return Response(generate_latest(context.metrics.registry), media_type=_TEXT)
