"""Why an upload is not taken, each with what to send instead."""

from http import HTTPStatus

from app.errors import Problem, unprocessable

UPLOAD_PROBLEMS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.LOCKED,
)

_HOW = "Send multipart/form-data (`curl -F file=@PATH URL`) or the bare bytes (`curl --data-binary @PATH URL`)."


def wrong_media_type(media_type: str) -> Problem:
    """415."""
    detail = f"A body of type {media_type[:100]!r} is not taken here. {_HOW}"
    return Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "WRONG_MEDIA_TYPE",
        detail,
        headers={"Accept": "multipart/form-data, application/octet-stream, application/json"},
    )


def encoded(encoding: str) -> Problem:
    """415: the digest and the size of what is kept are those of the file, so it must come as it is."""
    detail = f"A body in the content encoding {encoding[:100]!r} is not taken. Send the file's own bytes."
    headers = {"Accept-Encoding": "identity"}
    return Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "CONTENT_ENCODED", detail, headers=headers)


def too_large(max_bytes: int) -> Problem:
    """413."""
    detail = f"The file is larger than {max_bytes} bytes, the largest that is taken (SLIMLINE_MAX_UPLOAD_BYTES)."
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BODY_TOO_LARGE", detail)


def body_too_large(max_bytes: int) -> Problem:
    """413."""
    return Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "BODY_TOO_LARGE", f"The body is over {max_bytes} bytes.")


def malformed(reason: str) -> Problem:
    """400: the body is no multipart message, or one that was cut off."""
    return Problem(
        HTTPStatus.BAD_REQUEST, "MULTIPART_MALFORMED", f"The multipart body cannot be read: {reason}. {_HOW}"
    )


class InterruptedBody(Problem):
    """The body ended before its end. What came of it may still be of use."""


def hung_up() -> InterruptedBody:
    """400, which no one reads: the connection is gone."""
    detail = "The connection closed before the whole file came."
    return InterruptedBody(HTTPStatus.BAD_REQUEST, "UPLOAD_INTERRUPTED", detail)


def stalled(came: int, seconds: float) -> InterruptedBody:
    """408."""
    detail = (
        f"{came or 'No'} bytes came in {seconds:.0f} s. Send the file again; of a resumable upload, go on as HEAD says."
    )
    headers = {"Connection": "close"}
    return InterruptedBody(HTTPStatus.REQUEST_TIMEOUT, "UPLOAD_STALLED", detail, headers=headers)


def no_file() -> Problem:
    """422."""
    return unprocessable("/file", "FILE_MISSING", f"There is no part named `file`. {_HOW}")


def empty_file() -> Problem:
    """422."""
    return unprocessable("/file", "FILE_EMPTY", f"The file has no bytes. {_HOW}")


def field_too_long(name: str, max_bytes: int) -> Problem:
    """422."""
    return unprocessable(f"/{name}", "FIELD_TOO_LONG", f"The field {name[:64]!r} is longer than {max_bytes} bytes.")


def given_twice(name: str) -> Problem:
    """422."""
    return unprocessable(f"/{name}", "FIELD_REPEATED", f"{name[:64]!r} is given twice; send it once.")


def too_many_parts(most: int) -> Problem:
    """422."""
    return unprocessable("", "TOO_MANY_PARTS", f"The form has more than {most} parts.")
