"""HTTP of datasets: upload, list, read, delete."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy.orm import Session

from app.context import RequestContext
from app.datasets import repository, service
from app.datasets.schemas import DatasetFields, DatasetQuery, DatasetView
from app.db.page import Page
from app.errors import documented
from app.idempotency.once import UploadOnce
from app.preconditions import matches
from app.quotas.service import RoomForBody, require_room
from app.uploads import UPLOAD_PROBLEMS
from app.uploads.arrival import accept_upload
from app.uploads.openapi import describe_upload

PATH = "/v1/datasets"
router = APIRouter(prefix=PATH, tags=["datasets"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=DatasetView,
    responses=documented(*UPLOAD_PROBLEMS),
    dependencies=[RoomForBody],
    openapi_extra=describe_upload(DatasetFields, "cifar10.npz"),
)
async def upload_dataset(request: Request, context: RequestContext, once: UploadOnce) -> Response:
    """Upload samples: an .npz with x and y, or arrays named as the model's inputs, or a .zip of folders of images."""
    async with accept_upload(request, context) as upload:
        fields = upload.parse(DatasetFields)
        blob = await upload.keep()

    def effect(session: Session) -> Response:
        require_room(session, context.settings, blob.size_bytes)
        view = service.view(service.add(session, blob, upload.filename, fields))
        location = {"Location": f"{PATH}/{view.id}"}
        return Response(view.model_dump_json(), HTTPStatus.CREATED, location, media_type="application/json")

    return await once.of((blob.sha256, upload.filename, fields.model_dump_json())).run(effect)


@router.get("")
def list_datasets(context: RequestContext, wanted: Annotated[DatasetQuery, Query()]) -> Page[DatasetView]:
    """Datasets, newest first."""
    with context.read() as session:
        rows, has_more = repository.fetch(session, state=wanted.state, after=wanted.after, limit=wanted.limit)
        data = [service.view(row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get(
    "/{dataset_id}",
    response_model=DatasetView,
    responses={
        304: {"description": "Not modified since the ETag in If-None-Match"},
        **documented(HTTPStatus.NOT_FOUND),
    },
)
def read_dataset(
    dataset_id: str, context: RequestContext, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The dataset: its state and, once checked, what it holds, or why it was rejected."""
    with context.read() as session:
        row = service.find(session, dataset_id)
    headers = {"ETag": service.etag(row)}
    if matches(if_none_match or "", headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(service.view(row).model_dump_json(), media_type="application/json", headers=headers)


@router.delete(
    "/{dataset_id}",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def delete_dataset(dataset_id: str, context: RequestContext) -> None:
    """Delete the dataset. Finished jobs keep their results; an unfinished job that reads it forbids it."""
    with context.write() as session:
        service.delete(session, dataset_id)
