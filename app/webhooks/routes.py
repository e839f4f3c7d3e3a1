"""HTTP of webhooks: create, list, read, delete, enable, rotate the secret, test; the log of deliveries and replay."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.context import RequestContext
from app.db.page import Page, PageQuery
from app.errors import documented
from app.idempotency.once import RequestOnce
from app.webhooks import repository, service
from app.webhooks.schemas import DeliveryView, WebhookSpec, WebhookView, WebhookWithSecret

PATH = "/v1/webhooks"
router = APIRouter(prefix=PATH, tags=["webhooks"])


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=WebhookWithSecret,
    responses=documented(HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY),
)
async def create_webhook(spec: WebhookSpec, context: RequestContext, once: RequestOnce) -> Response:
    """Have events sent to a URL, signed as Standard Webhooks asks. `secret` verifies them; it is shown this once."""
    await service.require_target(spec.url, context.settings)

    shown: dict[str, str] = {}

    def effect(session: Session) -> Response:
        view, shown["secret"] = service.create(session, spec)
        return _send(view, HTTPStatus.CREATED, {"Location": f"{PATH}/{view.id}"})

    return await once.run(effect, shown)


@router.get("")
def list_webhooks(context: RequestContext, wanted: Annotated[PageQuery, Query()]) -> Page[WebhookView]:
    """Webhooks, newest first."""
    with context.read() as session:
        rows, has_more = repository.fetch(session, wanted)
        data = [service.view(row) for row in rows]
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get("/{webhook_id}", responses=documented(HTTPStatus.NOT_FOUND))
def read_webhook(webhook_id: str, context: RequestContext) -> WebhookView:
    """The webhook: what it is told of, and whether it is enabled."""
    with context.read() as session:
        return service.view(service.find(session, webhook_id))


@router.delete("/{webhook_id}", status_code=HTTPStatus.NO_CONTENT, responses=documented(HTTPStatus.NOT_FOUND))
def delete_webhook(webhook_id: str, context: RequestContext) -> None:
    """Delete the webhook and its log. Nothing more is sent to it."""
    with context.write() as session:
        service.delete(session, webhook_id)


@router.post("/{webhook_id}/enable", response_model=WebhookView, responses=documented(HTTPStatus.NOT_FOUND))
def enable_webhook(webhook_id: str, once: RequestOnce) -> Response:
    """Send events to a webhook that was disabled. What happened meanwhile was not kept for it."""
    return once(lambda session: _send(service.enable(session, webhook_id)))


@router.post(
    "/{webhook_id}/rotate-secret", response_model=WebhookWithSecret, responses=documented(HTTPStatus.NOT_FOUND)
)
def rotate_secret(webhook_id: str, once: RequestOnce) -> Response:
    """Replace the secret. For 24 hours events are signed with the old one as well, so that none is refused."""
    shown: dict[str, str] = {}

    def effect(session: Session) -> Response:
        view, shown["secret"] = service.rotate_secret(session, webhook_id)
        return _send(view)

    return once(effect, shown)


@router.post(
    "/{webhook_id}/test",
    status_code=HTTPStatus.ACCEPTED,
    response_model=DeliveryView,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def test_webhook(webhook_id: str, once: RequestOnce) -> Response:
    """Send a `ping`. The delivery says what came of it."""
    return once(lambda session: _accepted(service.ping(session, webhook_id)))


@router.get("/{webhook_id}/deliveries", responses=documented(HTTPStatus.NOT_FOUND))
def list_deliveries(
    webhook_id: str, context: RequestContext, wanted: Annotated[PageQuery, Query()]
) -> Page[DeliveryView]:
    """The log of 30 days, newest first: every event for this webhook with every try to deliver it."""
    with context.read() as session:
        service.find(session, webhook_id)
        rows, has_more = repository.fetch_deliveries(session, webhook_id, wanted)
        data = service.view_deliveries(session, rows)
    return Page(data=data, has_more=has_more, next=data[-1].id if has_more else None)


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=documented(HTTPStatus.NOT_FOUND))
def read_delivery(webhook_id: str, delivery_id: str, context: RequestContext) -> DeliveryView:
    """One delivery with its tries."""
    with context.read() as session:
        return service.view_delivery(session, webhook_id, delivery_id)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    status_code=HTTPStatus.ACCEPTED,
    response_model=DeliveryView,
    responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
def replay_delivery(webhook_id: str, delivery_id: str, once: RequestOnce) -> Response:
    """Send the event again, under the same `webhook-id`, whether it arrived or not. The answer is the new delivery."""
    return once(lambda session: _accepted(service.replay(session, webhook_id, delivery_id)))


def _accepted(view: DeliveryView) -> Response:
    return _send(view, HTTPStatus.ACCEPTED, {"Location": view.links["self"]})


def _send(view: BaseModel, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    return Response(view.model_dump_json(), status, headers, media_type="application/json")
