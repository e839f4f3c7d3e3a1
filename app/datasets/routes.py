"""HTTP of datasets: upload, list, read, delete."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from app.context import Context, RequestContext
from app.datasets import repository, service
from app.datasets.schemas import DatasetFields, DatasetQuery, DatasetView
from app.db.page import Page
from app.errors import documented
from app.preconditions import matches
from app.storage import Blob
from app.uploads import UPLOAD_PROBLEMS, receive_upload
from app.uploads.fields import parse_fields
from app.uploads.openapi import describe_upload

PATH = "/v1/datasets"
router = APIRouter(prefix=PATH, tags=["datasets"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    responses=documented(*UPLOAD_PROBLEMS),
    openapi_extra=describe_upload(DatasetFields, "cifar10.npz"),
)
async def upload_dataset(request: Request, context: RequestContext, response: Response) -> DatasetView:
    """Upload samples: an .npz with x and y, or arrays named as the model's inputs, or a .zip of folders of images."""
    async with receive_upload(request, context.store, context.settings.max_upload_bytes) as upload:
        fields = parse_fields(DatasetFields, upload.fields)
        blob = await upload.keep()
    view = await run_in_threadpool(_add, context, blob, upload.filename, fields)
    response.headers["Location"] = f"/v1/datasets/{view.id}"
    return view


@router.get("")
def list_datasets(context: RequestContext, wanted: Annotated[DatasetQuery, Query()]) -> Page[DatasetView]:
    """Datasets, newest first."""
    with context.database.read() as session:
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
    with context.database.read() as session:
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
    with context.database.write() as session:
        service.delete(session, dataset_id)


def _add(context: Context, blob: Blob, filename: str, fields: DatasetFields) -> DatasetView:
    with context.database.write() as session:
        return service.view(service.add(session, blob, filename, fields))
