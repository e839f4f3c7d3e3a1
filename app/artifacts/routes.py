"""HTTP of artifacts: list, read, download, delete."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.artifacts import repository, service
from app.artifacts.content import CONTENT_ANSWERS, Content, serve
from app.artifacts.schemas import ArtifactQuery, ArtifactView
from app.context import Context, RequestContext
from app.db.page import Page
from app.errors import documented

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"])


@router.get("")
def list_artifacts(context: RequestContext, wanted: Annotated[ArtifactQuery, Query()]) -> Page[ArtifactView]:
    """Artifacts, newest first."""
    with context.read() as session:
        rows, has_more = repository.fetch(session, job_id=wanted.job, after=wanted.after, limit=wanted.limit)
        data = [service.view(row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get("/{artifact_id}", responses=documented(HTTPStatus.NOT_FOUND))
def read_artifact(artifact_id: str, context: RequestContext) -> ArtifactView:
    """The artifact's name, format, size and digest."""
    with context.read() as session:
        return service.view(service.find(session, artifact_id))


@router.delete("/{artifact_id}", status_code=HTTPStatus.NO_CONTENT, responses=documented(HTTPStatus.NOT_FOUND))
def delete_artifact(artifact_id: str, context: RequestContext) -> None:
    """Delete the artifact. Its job keeps its measurements, and lists the artifact no more."""
    with context.write() as session:
        service.delete(session, artifact_id)


@router.head("/{artifact_id}/content", include_in_schema=False)
@router.get(
    "/{artifact_id}/content",
    response_class=Response,
    responses={**CONTENT_ANSWERS, **documented(HTTPStatus.NOT_FOUND)},
)
async def read_content(artifact_id: str, request: Request, context: RequestContext) -> Response:
    """The file. Takes Range, If-Range and If-None-Match; the ETag and Repr-Digest are of the bytes."""
    content = await run_in_threadpool(_find_content, context, artifact_id)
    return await serve(request, context.store, content)


def _find_content(context: Context, artifact_id: str) -> Content:
    with context.read() as session:
        return service.find_content(session, artifact_id)
