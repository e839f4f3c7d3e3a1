"""HTTP of jobs: create, preflight, list, read and wait, cancel, events, comparison, layers."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse

from app.context import Context, RequestContext, RequestOrigin
from app.contracts.job_spec import JobSpec
from app.contracts.measurement import Comparison
from app.contracts.states import JobState
from app.db.page import DEFAULT_LIMIT, MAX_LIMIT, Page
from app.errors import Problem, documented
from app.examples import COMPARISON, JOB_SPEC
from app.idempotency.once import RequestOnce
from app.jobs import comparison_table, repository, service
from app.jobs.repository import JobQuery
from app.jobs.schemas import JobEvent, JobLayers, JobSummary, JobView, Preflight
from app.jobs.stream import show, stream
from app.preconditions import matches, preferred_wait
from app.quotas.service import require_job_slot

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

MAX_WAIT_S = 60
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT)]


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    response_model=JobView,
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY),
)
def create_job(
    spec: Annotated[JobSpec, Body(openapi_examples={"prune, then quantize": {"value": JOB_SPEC}})],
    once: RequestOnce,
    origin: RequestOrigin,
) -> Response:
    """Queue a job. It may name a model or data that is still being checked; it then waits for them."""

    def effect(session: Session) -> Response:
        require_job_slot(session, once.context.settings)
        return _accepted(service.view(session, service.submit(session, spec, origin)))

    return once(effect)


@router.post(
    "/preflight",
    responses=documented(HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def preflight_job(
    spec: Annotated[JobSpec, Body(openapi_examples={"prune, then quantize": {"value": JOB_SPEC}})],
    context: RequestContext,
) -> Preflight:
    """What the same body would do as a job, layer by layer. Nothing is queued and nothing is run.

    The model must be `ready`. What would be refused is refused here with the same problem.
    """
    with context.read() as session:
        return service.preflight(session, spec)


@router.get("")
def list_jobs(
    context: RequestContext,
    wanted: Annotated[JobQuery, Query()],
) -> Page[JobSummary]:
    """Jobs, newest first."""
    with context.read() as session:
        rows, has_more = repository.fetch(session, wanted)
        data = [service.summarise(session, row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get(
    "/{job_id}",
    response_model=JobView,
    responses={
        304: {"description": "Not modified since the ETag in If-None-Match"},
        **documented(HTTPStatus.NOT_FOUND),
    },
)
async def read_job(
    job_id: str,
    context: RequestContext,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for a final state")] = 0,
    prefer: Annotated[str | None, Header(description="`wait=N`, as in RFC 7240")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The job: state, progress, comparison, artifacts. `wait` answers as soon as the job is final."""
    seconds = wait or preferred_wait(prefer, MAX_WAIT_S)
    if seconds:
        own = context.principal.project  # of another's job there is nothing to wait for
        await context.watch.until(job_id, lambda seen: seen.state.is_final or seen.project != own, seconds)
    if if_none_match is not None and (seen := await context.watch.look(job_id)):
        tag = service.etag(seen.revision, None)
        is_own = seen.project == context.principal.project
        if is_own and seen.state != JobState.QUEUED and matches(if_none_match, tag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    return await run_in_threadpool(_answer, context, job_id, if_none_match)


@router.post(
    "/{job_id}/cancel",
    status_code=HTTPStatus.ACCEPTED,
    response_model=JobView,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def cancel_job(job_id: str, once: RequestOnce) -> Response:
    """Stop the job. A queued job is cancelled at once, a running one within seconds."""

    def effect(session: Session) -> Response:
        service.cancel(session, job_id)
        return _accepted(service.view(session, service.find(session, job_id)))

    return once(effect)


@router.delete(
    "/{job_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete_job(job_id: str, context: RequestContext) -> None:
    """Delete a job that is over, with its events, measurements and artifacts."""
    with context.write() as session:
        service.delete(session, job_id)


@router.post(
    "/{job_id}/retry",
    status_code=HTTPStatus.ACCEPTED,
    response_model=JobView,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
def retry_job(job_id: str, once: RequestOnce, origin: RequestOrigin) -> Response:
    """Post a failed or cancelled job again: a new job with the same spec, which names the old one as `retried_job`."""

    def effect(session: Session) -> Response:
        require_job_slot(session, once.context.settings)
        return _accepted(service.view(session, service.retry(session, job_id, origin)))

    return once(effect)


@router.get(
    "/{job_id}/events",
    response_model=Page[JobEvent],
    responses={
        200: {
            "description": "A page, or with `Accept: text/event-stream` a stream",
            "content": {"text/event-stream": {}},
        },
        **documented(HTTPStatus.NOT_FOUND),
    },
)
async def list_events(
    job_id: str,
    request: Request,
    context: RequestContext,
    after: Annotated[str | None, Query(description="Id of the last event seen")] = None,
    limit: Limit = DEFAULT_LIMIT,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response | Page[JobEvent]:
    """What happened, oldest first. `Accept: text/event-stream` streams it, resuming behind `Last-Event-ID`."""
    seq = await run_in_threadpool(_find_seq, context, job_id, last_event_id or after)
    if "text/event-stream" in request.headers.get("accept", ""):
        return EventSourceResponse(stream(context, job_id, seq), ping=15)
    return await run_in_threadpool(_page_of_events, context, job_id, seq, limit)


@router.get(
    "/{job_id}/comparison",
    response_model=Comparison,
    responses={
        200: {"content": {"application/json": {"example": COMPARISON}, "text/csv": {}, "text/markdown": {}}},
        **documented(HTTPStatus.NOT_FOUND),
    },
)
def read_comparison(
    job_id: str,
    context: RequestContext,
    format_: Annotated[Literal["json", "csv", "markdown"], Query(alias="format")] = "json",
) -> Comparison | Response:
    """The original beside every step and the final artifact."""
    with context.read() as session:
        comparison = service.find_comparison(session, job_id)
    match format_:
        case "json":
            return comparison
        case "csv":
            return Response(comparison_table.to_csv(comparison), media_type="text/csv")
        case "markdown":
            return Response(comparison_table.to_markdown(comparison), media_type="text/markdown")


@router.get("/{job_id}/layers", responses=documented(HTTPStatus.NOT_FOUND))
def read_layers(job_id: str, context: RequestContext) -> JobLayers:
    """What each step did to each layer, which ones lose most, and recipes to try instead.

    Empty until the job has succeeded. A recipe of `advice` can be posted as it is, with the same model and data.
    """
    with context.read() as session:
        return service.find_layers(session, job_id)


def _answer(context: Context, job_id: str, if_none_match: str | None) -> Response:
    with context.read() as session:
        row = service.find(session, job_id)
        view = service.view(session, row)
        tag = service.etag(row.revision, view.progress.queue_position)
    if if_none_match is not None and matches(if_none_match, tag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
    return _send(view, {"ETag": tag})


def _accepted(view: JobView) -> Response:
    return _send(view, {"Location": f"/v1/jobs/{view.id}"}, HTTPStatus.ACCEPTED)


def _send(view: JobView, headers: Mapping[str, str], status: HTTPStatus = HTTPStatus.OK) -> Response:
    # Straight from the model: FastAPI would validate what has just been built.
    return Response(view.model_dump_json(), status, headers, media_type="application/json")


def _find_seq(context: Context, job_id: str, event_id: str | None) -> int:
    with context.read() as session:
        service.find(session, job_id)
        if event_id is None:
            return 0
        seq = repository.find_event_seq(session, job_id, event_id)
    if seq is None:
        detail = (
            f"This job has no event {event_id[:64]!r}. Leave `after` and `Last-Event-ID` out to begin at the first."
        )
        raise Problem(HTTPStatus.NOT_FOUND, "EVENT_NOT_FOUND", detail)
    return seq


def _page_of_events(context: Context, job_id: str, seq: int, limit: int) -> Page[JobEvent]:
    with context.read() as session:
        rows, has_more = repository.fetch_events(session, job_id, after_seq=seq, limit=limit)
    data = [show(row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)
