"""What the webhook endpoints take and send."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.contracts.job_spec import PRINTABLE
from app.contracts.webhooks import MAX_URL, WebhookEvent
from app.examples import JOB_ID

WEBHOOK_ID = "whk_01JD3Q7B2M5N8P1R4T6V9X0ZAC"
_DELIVERY_ID = "dlv_01JD3Q7C9E2G5J8M1P4S6V0YBD"
_EVENT_ID = "evt_01JD3Q7C9D0F3H6K9N2Q5T8W1Z"

_SPEC: dict[str, Any] = {
    "url": "https://ci.example.com/slimline",
    "events": ["job.succeeded", "job.failed"],
    "description": "tells the build",
}
_WEBHOOK: dict[str, Any] = {
    **_SPEC,
    "id": WEBHOOK_ID,
    "state": "enabled",
    "disabled_at": None,
    "disabled_reason": None,
    "failing_since": None,
    "created_at": "2026-11-22T09:00:00Z",
    "links": {"self": f"/v1/webhooks/{WEBHOOK_ID}", "deliveries": f"/v1/webhooks/{WEBHOOK_ID}/deliveries"},
}
_DELIVERY: dict[str, Any] = {
    "id": _DELIVERY_ID,
    "webhook": WEBHOOK_ID,
    "event": _EVENT_ID,
    "type": "job.succeeded",
    "state": "delivered",
    "payload": {
        "type": "job.succeeded",
        "timestamp": "2026-11-22T09:00:07.300Z",
        "data": {"id": JOB_ID, "state": "succeeded", "name": None, "links": {"self": f"/v1/jobs/{JOB_ID}"}},
    },
    "created_at": "2026-11-22T09:00:07.300Z",
    "delivered_at": "2026-11-22T09:00:07.800Z",
    "next_try_at": None,
    "tries": [{"number": 1, "at": "2026-11-22T09:00:07.800Z", "status": 204, "error": None, "seconds": 0.041}],
    "links": {"self": f"/v1/webhooks/{WEBHOOK_ID}/deliveries/{_DELIVERY_ID}"},
}


class WebhookSpec(BaseModel):
    """A webhook that is to be made."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [_SPEC]})

    url: str = Field(max_length=MAX_URL, description="Where to POST events: https://, or http:// if it must be")
    events: list[WebhookEvent] | None = Field(
        None, min_length=1, max_length=len(WebhookEvent), description="What to be told of; default: everything"
    )
    description: Annotated[str, StringConstraints(max_length=200, pattern=PRINTABLE)] | None = None


class WebhookState(StrEnum):
    """Whether events are sent."""

    ENABLED = "enabled"
    DISABLED = "disabled"


class WebhookView(BaseModel):
    """A webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK]})

    id: str
    url: str
    description: str | None
    events: list[WebhookEvent]
    state: WebhookState
    disabled_at: datetime | None
    disabled_reason: str | None
    failing_since: datetime | None = Field(description="Since when no delivery has arrived; null: the last one did")
    created_at: datetime
    links: dict[str, str]


class WebhookWithSecret(WebhookView):
    """A webhook with its secret, which is shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_WEBHOOK, "secret": "whsec_bm90IGEgc2VjcmV0"}]})

    secret: str | None = Field(
        description="Verifies `webhook-signature` (Standard Webhooks); null where the request was repeated"
    )


class DeliveryState(StrEnum):
    """What has become of a delivery. A failed one is not tried again unless it is replayed."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Try(BaseModel):
    """One try to deliver."""

    number: int
    at: datetime
    status: int | None = Field(description="The status of the answer; null: there was none, and `error` says why")
    error: str | None
    seconds: float


class DeliveryView(BaseModel):
    """An event sent, or to be sent, to a webhook."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DELIVERY]})

    id: str
    webhook: str
    event: str = Field(description="The header `webhook-id`: the same for every try and replay")
    type: WebhookEvent | Literal["ping"]
    state: DeliveryState
    payload: dict[str, Any] = Field(description="The body that is sent")
    created_at: datetime
    delivered_at: datetime | None
    next_try_at: datetime | None
    tries: list[Try]
    links: dict[str, str]
