"""Whether a token proves what it says. No I/O: the caller brings what is stored and the time."""

import hmac
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from app.identity import Role

_NO_DIGEST = "0" * 64


class StoredKey(NamedTuple):
    """What is known of a key. Until `old_works_until` the secret before the last rotation works, too."""

    id: str
    project: str
    role: Role
    secret_sha256: str
    old_secret_sha256: str | None
    old_works_until: datetime | None
    requests_per_minute: int | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class Refusal(StrEnum):
    """Why a token opens nothing: the code of the problem."""

    INVALID = "KEY_INVALID"
    EXPIRED = "KEY_EXPIRED"
    REVOKED = "KEY_REVOKED"


def prove(stored: StoredKey | None, token_sha256: str, now: datetime) -> Refusal | None:
    """Why the token does not open; None: it does. A key that is not there takes as long as a wrong secret.

    That a key has expired or was revoked is told only to who has its secret.
    """
    is_current = hmac.compare_digest(stored.secret_sha256 if stored else _NO_DIGEST, token_sha256)
    is_old = hmac.compare_digest((stored and stored.old_secret_sha256) or _NO_DIGEST, token_sha256)
    if stored is None or not (is_current or is_old):
        return Refusal.INVALID
    if stored.revoked_at is not None:
        return Refusal.REVOKED
    is_past_grace = not is_current and (stored.old_works_until is None or stored.old_works_until <= now)
    has_expired = stored.expires_at is not None and stored.expires_at <= now
    return Refusal.EXPIRED if is_past_grace or has_expired else None
