"""What a key looks like to who holds it, and what is kept of it. Whether it opens anything is `app.security.proof`."""

import hashlib
import re
import secrets

from app.contracts.ids import ULID_PATTERN

_FORM = re.compile(f"slk_({ULID_PATTERN})_[A-Za-z0-9_-]{{43}}")


def mint(key_id: str) -> str:
    """A new secret for the key: `slk_`, the ULID of its id, 256 random bits."""
    return f"slk_{key_id.removeprefix('key_')}_{secrets.token_urlsafe(32)}"


def key_id_of(token: str) -> str | None:
    """The id that the token names; None: this is no token at all."""
    found = _FORM.fullmatch(token)
    return f"key_{found[1]}" if found else None


def digest(token: str) -> str:
    """What is kept of a token. 256 random bits need no slow hash: there is nothing to guess them from."""
    return hashlib.sha256(token.encode()).hexdigest()
