"""HTTP of resumable uploads, as tus 1.0 has it. The model or dataset is made of a whole upload by its own slice."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Header, Request, Response
from sqlalchemy.orm import Session

from app.context import RequestContext
from app.idempotency.once import UploadOnce
from app.uploads import service
from app.uploads.piece import writing_to
from app.uploads.refusals import too_large
from app.uploads.tables import UploadRow
from app.uploads.tus import headers as tus
from app.uploads.tus import openapi

PATH = "/v1/uploads"


async def _speak_tus(request: Request) -> None:
    tus.require_version(request.headers)


router = APIRouter(prefix=PATH, tags=["uploads"])
_SPEAKING_TUS = [Depends(_speak_tus)]


@router.options("", status_code=HTTPStatus.NO_CONTENT, responses=openapi.DISCOVERED)
async def discover_uploads(context: RequestContext) -> Response:
    """What of tus there is, and how large a file may be."""
    found = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(tus.DIGEST_BYTES),
        "Tus-Max-Size": str(context.settings.max_upload_bytes),
    }
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=found)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_class=Response,
    responses=openapi.CREATED,
    openapi_extra=openapi.CREATE,
    dependencies=_SPEAKING_TUS,
)
async def create_upload(
    request: Request, context: RequestContext, once: UploadOnce, afterwards: BackgroundTasks
) -> Response:
    """Begin an upload, with or without its first bytes. `Location` is where the rest goes with PATCH."""
    size_bytes, metadata = tus.read_number(request.headers, "Upload-Length"), tus.read_metadata(request.headers)
    if size_bytes > context.settings.max_upload_bytes:
        raise too_large(context.settings.max_upload_bytes)
    checksum = tus.read_checksum(request.headers)
    if tus.has_body(request.headers):
        tus.require_piece(request.headers)

    def effect(session: Session) -> Response:
        row = service.add(session, context.settings, size_bytes, metadata)
        location = {"Location": f"{PATH}/{row.id}", **_where(row)}
        return Response(status_code=HTTPStatus.CREATED, headers=location)

    answer = await once.of((str(size_bytes), metadata.header)).run(effect)
    afterwards.add_task(service.clear, context)
    if tus.has_body(request.headers):
        async with writing_to(context, answer.headers["location"].removeprefix(f"{PATH}/")) as growing:
            if growing.row.offset_bytes == 0:  # else the first of two requests under one key has brought it
                await growing.take(request, 0, checksum)
            answer.headers.update(_where(growing.row))
    return answer


@router.head(
    "/{upload_id}",
    response_class=Response,
    responses=openapi.STANDING,
    openapi_extra=openapi.ASK,
    dependencies=_SPEAKING_TUS,
)
def read_upload(upload_id: str, context: RequestContext) -> Response:
    """How many bytes have come and are safe: `Upload-Offset`. Go on from there."""
    with context.read() as session:
        row = service.find(session, upload_id)
    said = {"Upload-Metadata": row.tus_metadata} if row.tus_metadata else {}
    length = {"Upload-Length": str(row.size_bytes), "Cache-Control": "no-store"}
    return Response(headers={**_where(row), **length, **said})


@router.patch(
    "/{upload_id}",
    status_code=HTTPStatus.NO_CONTENT,
    response_class=Response,
    responses=openapi.GROWN,
    openapi_extra=openapi.APPEND,
    dependencies=_SPEAKING_TUS,
)
async def append_to_upload(upload_id: str, request: Request, context: RequestContext) -> Response:
    """Add the next bytes. They are on the disk when the answer tells the new offset."""
    tus.require_piece(request.headers)
    offset, checksum = tus.read_number(request.headers, "Upload-Offset"), tus.read_checksum(request.headers)
    async with writing_to(context, upload_id) as growing:
        await growing.take(request, offset, checksum)
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=_where(growing.row))


@router.delete(
    "/{upload_id}",
    status_code=HTTPStatus.NO_CONTENT,
    response_class=Response,
    responses=openapi.REMOVED,
    openapi_extra=openapi.ASK,
    dependencies=_SPEAKING_TUS,
)
async def delete_upload(upload_id: str, context: RequestContext) -> Response:
    """Drop the upload. What was made of it stays."""
    async with writing_to(context, upload_id) as growing:
        await growing.remove()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post(
    "/{upload_id}",
    status_code=HTTPStatus.NO_CONTENT,
    response_class=Response,
    responses=openapi.GROWN,
    openapi_extra=openapi.APPEND,
    dependencies=_SPEAKING_TUS,
)
async def override_upload_method(
    upload_id: str,
    request: Request,
    context: RequestContext,
    x_http_method_override: Annotated[Literal["PATCH", "DELETE"], Header(description="What to do instead of POST")],
) -> Response:
    """For networks that let neither PATCH nor DELETE through. A reading request cannot be turned into a writing one."""
    if x_http_method_override == "DELETE":
        return await delete_upload(upload_id, context)
    return await append_to_upload(upload_id, request, context)


def _where(row: UploadRow) -> Mapping[str, str]:
    return {"Upload-Offset": str(row.offset_bytes), "Upload-Expires": tus.show_time(row.expires_at)}
