"""Why a request to a resumable upload is not done, each with what to send instead. Statuses are those of tus 1.0."""

from http import HTTPStatus

from app.errors import Problem, TusStatus


def wrong_version(version: str) -> Problem:
    """412."""
    detail = f"Uploads speak tus {version}: send the header `Tus-Resumable: {version}`."
    return Problem(HTTPStatus.PRECONDITION_FAILED, "TUS_VERSION_UNSUPPORTED", detail, headers={"Tus-Version": version})


def no_piece(media_type: str, wanted: str) -> Problem:
    """415."""
    detail = f"A body of type {media_type[:100]!r} is not taken here. Send the bytes as {wanted}."
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "WRONG_MEDIA_TYPE", detail, headers={"Accept-Patch": wanted})


def bad_header(name: str, message: str) -> Problem:
    """400: a header of tus that cannot be read."""
    return Problem(HTTPStatus.BAD_REQUEST, "TUS_HEADER_INVALID", f"The header {name} {message}.")


def unknown(upload_id: str) -> Problem:
    """404, for uploads of other projects too."""
    detail = f"There is no upload {upload_id[:64]!r}. Make one with POST /v1/uploads."
    return Problem(HTTPStatus.NOT_FOUND, "UPLOAD_NOT_FOUND", detail)


def expired() -> Problem:
    """410."""
    detail = "This upload lay still for longer than uploads are kept (SLIMLINE_UPLOAD_EXPIRY_S). Begin a new one."
    return Problem(HTTPStatus.GONE, "UPLOAD_EXPIRED", detail)


def pieces_missing(offset: int) -> Problem:
    """410: the row tells of bytes that are not in this machine's folder."""
    detail = (
        f"The first {offset} bytes of this upload are gone from the server. Begin a new one. Where the API runs on"
        " several machines they must share the folder `uploads` in SLIMLINE_DATA."
    )
    return Problem(HTTPStatus.GONE, "UPLOAD_PIECES_MISSING", detail)


def wrong_offset(given: int, offset: int) -> Problem:
    """409."""
    detail = f"Upload-Offset is {given}, but the upload stands at {offset}. Ask with HEAD, and go on from there."
    return Problem(HTTPStatus.CONFLICT, "UPLOAD_OFFSET_CONFLICT", detail, headers={"Upload-Offset": str(offset)})


def busy() -> Problem:
    """423, as other servers of tus answer: clients ask again."""
    detail = "Another request is writing to this upload. Ask with HEAD in a moment, and go on from there."
    return Problem(HTTPStatus.LOCKED, "UPLOAD_BUSY", detail, headers={"Retry-After": "1"})


def overlong(size_bytes: int) -> Problem:
    """413."""
    detail = f"The upload was declared with {size_bytes} bytes in Upload-Length, and this is more. It was not taken."
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "UPLOAD_OVERLONG", detail)


def damaged(algorithm: str) -> Problem:
    """460: nothing of the request counts, and the offset is what it was."""
    detail = f"The bytes that came do not have the {algorithm} in Upload-Checksum. They were dropped; send them again."
    return Problem(TusStatus.CHECKSUM_MISMATCH, "UPLOAD_CHECKSUM_MISMATCH", detail)
