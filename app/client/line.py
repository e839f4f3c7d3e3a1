"""The line to one server: who asks, and requests that are sent again where that is safe. What they mean is not here."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from uuid import uuid4

import httpx

from app.client.patience import FIRST_PATIENCE_S, PATIENCE_S, Pauses, asks_to_wait, wished_pause_s

TIMEOUT = httpx.Timeout(30, read=90)


class Line:
    """Connections to a server. Every method may raise httpx.TransportError, once patience is at its end."""

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT, headers=headers)
        self._was_there = False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET, again while the server is away or asks to wait."""
        return self._send_patiently(lambda: self._http.get(path, **options))

    def head(self, path: str, **options: Any) -> httpx.Response:
        """HEAD, in the same way."""
        return self._send_patiently(lambda: self._http.head(path, **options))

    def post(self, path: str, *, headers: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """POST under an Idempotency-Key of its own, so that it may be sent again, and is done once."""
        own = {"Idempotency-Key": str(uuid4()), **(headers or {})}
        return self._send_patiently(lambda: self._http.post(path, headers=own, **options))

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any request, sent once."""
        answer = self._http.request(method, path, **options)
        self._was_there = True
        return answer

    def stream(self, method: str, path: str, **options: Any) -> AbstractContextManager[httpx.Response]:
        """Any request, sent once, whose answer is read bit by bit."""
        return self._http.stream(method, path, **options)

    def _send_patiently(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        pauses = Pauses()
        while True:
            try:
                answer = send()
            except httpx.TransportError as broken:
                is_absent = isinstance(broken, httpx.ConnectError | httpx.ConnectTimeout) and not self._was_there
                if not pauses.wait(FIRST_PATIENCE_S if is_absent else PATIENCE_S):
                    raise
            else:
                self._was_there = True
                if not asks_to_wait(answer) or not pauses.wait(PATIENCE_S, wished_pause_s(answer)):
                    return answer
