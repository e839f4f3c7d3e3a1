"""One request to a webhook: signed as Standard Webhooks asks, bounded in time. Of the answer only the status counts."""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx
from standardwebhooks import Webhook

from app import __version__
from app.contracts.failure import SlimlineError
from worker.reporter.deliveries import Delivery
from worker.webhooks.schedule import Outcome
from worker.webhooks.transport import CONNECT_S, CheckedTransport

TIMEOUT_S = 10.0
"""For everything from the host's addresses to the status."""
MAX_ANSWER = 4096
"""Bytes of an answer that are taken, so that its sender sees no broken line, and thrown away."""
DRAIN_S = 1.0

_ASKS_TO_WAIT = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


async def send(delivery: Delivery, transport: CheckedTransport) -> Outcome:
    """Try to deliver. Every failure of the other side is an outcome."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await _post(delivery, transport)
    except TimeoutError:
        return Outcome(None, f"no answer within {TIMEOUT_S:g} s", time.perf_counter() - started)
    except (httpx.HTTPError, httpx.InvalidURL, SlimlineError) as error:
        return Outcome(None, _explain(error), time.perf_counter() - started)
    seconds = time.perf_counter() - started
    retry_after_s = _retry_after(answer) if answer.status_code in _ASKS_TO_WAIT else None
    return Outcome(answer.status_code, None, seconds, retry_after_s)


async def _post(delivery: Delivery, transport: CheckedTransport) -> httpx.Response:
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
    request = httpx.Request(
        "POST",
        delivery.url,
        content=delivery.payload.encode(),
        headers=sign(delivery, datetime.now(UTC)),
        extensions={"timeout": timeout.as_dict()},
    )
    # The transport, not a client: that would follow proxies and redirects, and keep cookies.
    response = await transport.handle_async_request(request)
    try:
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(DRAIN_S):
                await _drain(response)
    finally:
        await response.aclose()
    return response


async def _drain(response: httpx.Response) -> None:
    taken = 0
    async for part in response.aiter_raw():
        taken += len(part)
        if taken >= MAX_ANSWER:
            return


def sign(delivery: Delivery, at: datetime) -> dict[str, str]:
    """The headers. `webhook-id` is the event's: the same for every try and replay. Each secret gives a signature."""
    signatures = (Webhook(secret).sign(delivery.event_id, at, delivery.payload) for secret in delivery.secrets)
    return {
        "content-type": "application/json",
        "user-agent": f"Slimline/{__version__}",
        "connection": "close",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _retry_after(answer: httpx.Response) -> float | None:
    """Seconds of `Retry-After`, which is a number or a date (RFC 9110); None: it cannot be read."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _explain(error: Exception) -> str:
    return str(error) or type(error).__name__
