"""HTTP of models: upload, list, read, layers, content, delete."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from app.artifacts.content import CONTENT_ANSWERS, Content, serve
from app.context import Context, RequestContext
from app.db.page import Page
from app.errors import documented
from app.idempotency.once import UploadOnce
from app.models import repository, service
from app.models.schemas import ModelFields, ModelLayers, ModelQuery, ModelView
from app.preconditions import matches
from app.quotas.service import RoomForBody, require_room
from app.uploads import UPLOAD_PROBLEMS
from app.uploads.arrival import accept_upload
from app.uploads.openapi import describe_upload

PATH = "/v1/models"
router = APIRouter(prefix=PATH, tags=["models"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=ModelView,
    responses=documented(*UPLOAD_PROBLEMS),
    dependencies=[RoomForBody],
    openapi_extra=describe_upload(ModelFields, "resnet20.onnx"),
)
async def upload_model(request: Request, context: RequestContext, once: UploadOnce) -> Response:
    """Upload a model. It is checked next: poll it until it is `ready` or `rejected`, or name it in a job at once."""
    async with accept_upload(request, context) as upload:
        fields = upload.parse(ModelFields)
        blob = await upload.keep()

    def effect(session: Session) -> Response:
        require_room(session, context.settings, blob.size_bytes)
        view = service.view(service.add(session, blob, upload.filename, fields))
        location = {"Location": f"{PATH}/{view.id}"}
        return Response(view.model_dump_json(), HTTPStatus.CREATED, location, media_type="application/json")

    return await once.of((blob.sha256, upload.filename, fields.model_dump_json())).run(effect)


@router.get("")
def list_models(context: RequestContext, wanted: Annotated[ModelQuery, Query()]) -> Page[ModelView]:
    """Models, newest first."""
    with context.read() as session:
        rows, has_more = repository.fetch(session, state=wanted.state, after=wanted.after, limit=wanted.limit)
        data = [service.view(row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get(
    "/{model_id}",
    response_model=ModelView,
    responses={
        304: {"description": "Not modified since the ETag in If-None-Match"},
        **documented(HTTPStatus.NOT_FOUND),
    },
)
def read_model(
    model_id: str, context: RequestContext, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The model: its state and, once checked, what it takes, gives and costs, or why it was rejected."""
    with context.read() as session:
        row = service.find(session, model_id)
    headers = {"ETag": service.etag(row)}
    if matches(if_none_match or "", headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(service.view(row).model_dump_json(), media_type="application/json", headers=headers)


@router.delete(
    "/{model_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete_model(model_id: str, context: RequestContext) -> None:
    """Delete the model. Finished jobs keep their results; an unfinished job that reads it forbids it."""
    with context.write() as session:
        service.delete(session, model_id)


@router.get("/{model_id}/layers", responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT))
def read_layers(model_id: str, context: RequestContext) -> ModelLayers:
    """Per layer: name, operator, shapes, parameters, cost, which methods apply and, if not, why."""
    with context.read() as session:
        return ModelLayers(data=service.find_facts(session, model_id).layers)


@router.head("/{model_id}/content", include_in_schema=False)
@router.get(
    "/{model_id}/content",
    response_class=Response,
    responses={**CONTENT_ANSWERS, **documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)},
)
async def read_content(
    model_id: str,
    request: Request,
    context: RequestContext,
    form: Annotated[
        Literal["uploaded", "onnx"], Query(alias="as", description="The bytes as uploaded, or the ingested graph")
    ] = "uploaded",
) -> Response:
    """The model's file. Takes Range, If-Range and If-None-Match; the ETag and Repr-Digest are of the bytes."""
    content = await run_in_threadpool(_find_content, context, model_id, form)
    return await serve(request, context.store, content)


def _find_content(context: Context, model_id: str, form: Literal["uploaded", "onnx"]) -> Content:
    find = {"uploaded": service.find_upload, "onnx": service.find_graph}[form]
    with context.read() as session:
        return find(session, model_id)
