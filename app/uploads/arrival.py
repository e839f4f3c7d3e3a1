"""The ways in for a file: in the body of the request, or before it as a resumable upload that the body names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from app.context import Context
from app.contracts.ids import ULID_PATTERN
from app.db.patience import Ledger
from app.storage import Blob
from app.uploads import refusals, service
from app.uploads.body import read_body
from app.uploads.piece import keep_whole
from app.uploads.receive import Upload, receive_upload
from app.uploads.tables import UploadRow

JSON = "application/json"

UploadId = Annotated[str, StringConstraints(pattern=f"^upl_{ULID_PATTERN}$")]


class Reference(BaseModel):
    """A body that names a file which came by tus, with the fields that come beside any file."""

    model_config = ConfigDict(extra="allow", frozen=True)

    upload: UploadId


@asynccontextmanager
async def accept_upload(request: Request, context: Context) -> AsyncIterator[Upload]:
    """The file that a request brings or names. Raises a `Problem` for every body that is not taken.

    Raises UPLOAD_NOT_FOUND, UPLOAD_EXPIRED, UPLOAD_UNFINISHED (422) where it names no file that is whole. `keep` of one
    that is being put together raises UPLOAD_BUSY (423).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON:
        reference = await _read_reference(request, context)
        row = await run_sync(_find, context, reference.upload)

        yield Upload(row.filename, reference.model_extra or {}, partial(_keep, context, row), are_texts=False)
        return
    async with receive_upload(request, context.store, context.settings.max_upload_bytes) as upload:
        yield upload


async def _read_reference(request: Request, context: Context) -> Reference:
    most = context.settings.max_body_bytes
    chunks = read_body(request, most, context.settings.http_body_s, refusals.body_too_large(most))
    body = b"".join([chunk async for chunk in chunks])
    try:
        return Reference.model_validate_json(body)
    except ValidationError as error:
        errors = [{**details, "loc": ("body", *details["loc"])} for details in error.errors()]
        raise RequestValidationError(errors, body={}) from error


async def _keep(context: Context, row: UploadRow) -> Blob:
    if row.sha256:
        return Blob(row.sha256, row.size_bytes)
    with service.pointing_at_upload():
        return await keep_whole(context, row.id)


def _find(context: Context, upload_id: str) -> UploadRow:
    own = context.principal.project
    return Ledger(context.database).read(lambda session: service.find_whole(session, upload_id), own)
