"""How the operations of tus are described: their headers, which the routes read themselves, and their answers."""

from http import HTTPStatus
from typing import Any

from app.errors import TusStatus, documented
from app.uploads.tus.headers import DIGEST_BYTES, MAX_METADATA, PIECE_TYPE, VERSION

_BYTES = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
_NUMBER = {"type": "string", "pattern": "^[0-9]+$"}
_TEXT = {"type": "string"}


def _parameter(name: str, description: str, schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": required, "description": description, "schema": schema}


_VERSION = _parameter("Tus-Resumable", "The version of tus that is spoken", {"type": "string", "enum": [VERSION]})
_LENGTH = _parameter("Upload-Length", "Bytes of the whole file", _BYTES)
_METADATA = _parameter(
    "Upload-Metadata",
    "Pairs of a key and a value in Base64, with commas between; `filename` names the file",
    {"type": "string", "maxLength": MAX_METADATA, "pattern": "^([a-z]+ (QUJD)*(,[a-z]+ (QUJD)*)*)?$"},
    required=False,
)
_OFFSET = _parameter("Upload-Offset", "Where in the file the body begins: what HEAD tells", _BYTES)
_CHECKSUM = _parameter(
    "Upload-Checksum",
    f"One of {', '.join(DIGEST_BYTES)}, a space, and the body's digest in Base64: a damaged body is dropped",
    {"type": "string", "pattern": "^sha1 [A-Za-z0-9+/]{27}=$"},
    required=False,
)


def _body(*, required: bool) -> dict[str, Any]:
    piece = {"schema": {"type": "string", "format": "binary"}, "example": "@piece"}
    return {"required": required, "content": {PIECE_TYPE: piece}}


CREATE = {"parameters": [_VERSION, _LENGTH, _METADATA, _CHECKSUM], "requestBody": _body(required=False)}
ASK = {"parameters": [_VERSION]}
APPEND = {"parameters": [_VERSION, _OFFSET, _CHECKSUM], "requestBody": _body(required=True)}


def _headers(**schemas: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("_", "-"): schema for name, schema in schemas.items()}
    return {name: {"required": True, "schema": schema} for name, schema in named.items()}


def _answer(description: str, **schemas: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "headers": _headers(Tus_Resumable=_TEXT, **schemas)}


_KNOWN = documented(HTTPStatus.PRECONDITION_FAILED, HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_WRITTEN = documented(
    HTTPStatus.CONFLICT,
    HTTPStatus.LOCKED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TusStatus.CHECKSUM_MISMATCH,
)

DISCOVERED: dict[int | str, dict[str, Any]] = {
    204: _answer(
        "What there is", Tus_Version=_TEXT, Tus_Extension=_TEXT, Tus_Checksum_Algorithm=_TEXT, Tus_Max_Size=_NUMBER
    )
}
CREATED: dict[int | str, dict[str, Any]] = {
    201: _answer("The upload is there", Location=_TEXT),
    **_KNOWN,
    **_WRITTEN,
}
STANDING: dict[int | str, dict[str, Any]] = {
    200: _answer("Where it stands", Upload_Offset=_NUMBER, Upload_Length=_NUMBER, Upload_Expires=_TEXT),
    **_KNOWN,
}
GROWN: dict[int | str, dict[str, Any]] = {
    204: _answer("The bytes are safe", Upload_Offset=_NUMBER, Upload_Expires=_TEXT),
    **_KNOWN,
    **_WRITTEN,
}
REMOVED: dict[int | str, dict[str, Any]] = {
    204: _answer("It is gone"),
    **_KNOWN,
    **documented(HTTPStatus.LOCKED),
}
