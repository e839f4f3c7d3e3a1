"""HTTP of keys: make, list, read, rotate, revoke. All of it is for admins, and of their own project."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy.orm import Session

from app.context import RequestContext
from app.db.page import Page, PageQuery
from app.errors import documented
from app.idempotency.once import RequestOnce
from app.keys import repository, service
from app.keys.schemas import KeyView, MintedKey, NewKey, Rotation
from app.keys.service import Minted

PATH = "/v1/keys"
router = APIRouter(prefix=PATH, tags=["keys"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=MintedKey,
    responses=documented(HTTPStatus.UNPROCESSABLE_ENTITY),
)
def create_key(wanted: NewKey, context: RequestContext, once: RequestOnce) -> Response:
    """Make a key. Its secret is in this answer and nowhere else. From the first one on nobody gets in without."""
    return _show_once(
        once, lambda session: service.create(session, context.principal.project, wanted), HTTPStatus.CREATED
    )


@router.get("")
def list_keys(context: RequestContext, wanted: Annotated[PageQuery, Query()]) -> Page[KeyView]:
    """The project's keys, newest first, revoked ones too."""
    with context.read() as session:
        rows, has_more = repository.fetch(session, wanted)
        data = [KeyView.model_validate(row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get("/{key_id}", responses=documented(HTTPStatus.NOT_FOUND))
def read_key(key_id: str, context: RequestContext) -> KeyView:
    """The key's name, role and dates."""
    with context.read() as session:
        return KeyView.model_validate(service.find(session, key_id))


@router.post(
    "/{key_id}/rotate",
    response_model=MintedKey,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def rotate_key(key_id: str, once: RequestOnce, rotation: Rotation | None = None) -> Response:
    """Give the key a new secret. The one from before works on for `grace_s`, so that clients can be changed over."""
    grace_s = rotation.grace_s if rotation else 0
    return _show_once(once, lambda session: service.rotate(session, key_id, grace_s), HTTPStatus.OK)


@router.delete("/{key_id}", status_code=HTTPStatus.NO_CONTENT, responses=documented(HTTPStatus.NOT_FOUND))
def revoke_key(key_id: str, context: RequestContext) -> None:
    """Revoke the key: within a second it opens nothing any more, for good."""
    with context.write() as session:
        service.revoke(session, key_id)


def _show_once(once: RequestOnce, make: Callable[[Session], Minted], status: HTTPStatus) -> Response:
    shown: dict[str, str] = {}

    def effect(session: Session) -> Response:
        row, shown["key"] = make(session)
        body = MintedKey.model_validate(row).model_dump_json()
        return Response(body, status, {"Location": f"{PATH}/{row.id}"}, "application/json")

    return once(effect, shown)
