"""When to try a delivery again, and when to stop. Pure: no clock, no database, no network."""

import random
from dataclasses import dataclass
from http import HTTPStatus

_MINUTE = 60.0
_HOUR = 60 * _MINUTE

WAITS_S = (5.0, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 10 * _HOUR)
"""After the first failure, the second and so on, as Standard Webhooks has them. What fails once more is given up."""
JITTER = 0.1
"""Waits are longer by up to this share, so that what failed together does not come back together."""
MAX_RETRY_AFTER_S = 10 * _HOUR
"""The longest wait that a receiver may ask for."""

_random = random.SystemRandom()


@dataclass(frozen=True)
class Outcome:
    """What came of a try: a status, or the reason why there is none."""

    status: int | None
    error: str | None
    seconds: float
    retry_after_s: float | None = None
    """What the receiver asks for, with 429 and 503."""

    @property
    def is_delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and HTTPStatus(200) <= self.status < HTTPStatus.MULTIPLE_CHOICES

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants nothing more, ever."""
        return self.status == HTTPStatus.GONE


def find_wait(tries: int, outcome: Outcome) -> float | None:
    """Seconds until the next try after `tries` of them, the last with this outcome; None: there is none."""
    if outcome.is_delivered or outcome.is_gone or tries > len(WAITS_S):
        return None
    asked_for = min(outcome.retry_after_s or 0, MAX_RETRY_AFTER_S)
    return max(WAITS_S[tries - 1] * _random.uniform(1, 1 + JITTER), asked_for)
