"""When a request is worth sending again, and when: broken lines, a server that restarts, one that asks to wait."""

import time
from http import HTTPStatus

import httpx

PATIENCE_S = 60.0
"""How long a server may be away."""
FIRST_PATIENCE_S = 2.0
"""How long one that never was there: perhaps it just starts, more likely the address is wrong."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_AGAIN = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.LOCKED})
_STILL_ANSWERED = "IDEMPOTENCY_KEY_IN_USE"
"""The line broke, and the server is still at work on what was sent over it."""


class Pauses:
    """Ever longer pauses between tries, until `for_s` seconds have passed since the first try that failed."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew: something was achieved."""
        self._pause = _FIRST_PAUSE_S
        self._since: float | None = None

    def wait(self, for_s: float, wish_s: float = 0) -> bool:
        """Pause, at least for as long as the server wishes. False, at once, when the time does not suffice."""
        self._since = self._since or time.monotonic()
        pause = max(self._pause, wish_s)
        if time.monotonic() + pause > self._since + for_s:
            return False
        time.sleep(pause)
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_S)
        return True


def asks_to_wait(answer: httpx.Response) -> bool:
    """Whether the server says that the same request may be answered otherwise in a moment."""
    if answer.status_code == HTTPStatus.CONFLICT:
        return _STILL_ANSWERED in answer.text
    return answer.status_code in _AGAIN


def wished_pause_s(answer: httpx.Response) -> float:
    """`Retry-After` in seconds; 0 without one, or with a date, which Slimline does not send."""
    wish = answer.headers.get("retry-after", "")
    return float(wish) if wish.isdecimal() else 0.0
