"""What opens and what does not: the token's form, rotation, expiry, revocation."""

from datetime import UTC, datetime, timedelta

import pytest

from app.identity import Role
from app.security.proof import Refusal, StoredKey, prove
from app.security.token import digest, key_id_of, mint

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
KEY_ID = "key_01KB5V2Q3W4X5Y6Z7A8B9C0D1E"
TOKEN = f"slk_{KEY_ID[4:]}_{'a' * 43}"


def stored(**columns: object) -> StoredKey:
    key = StoredKey(KEY_ID, "default", Role.READ, digest("new"), digest("old"), None, None, None, None, None)
    return key._replace(**columns)


def test_a_token_names_its_key_and_is_never_the_same() -> None:
    tokens = {mint(KEY_ID) for _ in range(100)}
    assert len(tokens) == 100
    assert {key_id_of(token) for token in tokens} == {KEY_ID}
    assert {len(token) for token in tokens} == {4 + 26 + 1 + 43}


@pytest.mark.parametrize("text", ["", "slk_", "slk_x_y", TOKEN[:-1], TOKEN + "a", "é" * 74, TOKEN + "\n"])
def test_what_is_no_token_names_no_key(text: str) -> None:
    assert key_id_of(TOKEN) == KEY_ID
    assert key_id_of(text) is None


@pytest.mark.parametrize(
    ("columns", "sent", "refusal"),
    [
        ({}, "new", None),
        ({}, "other", Refusal.INVALID),
        ({}, "old", Refusal.EXPIRED),
        ({"old_works_until": NOW + SECOND}, "old", None),
        ({"old_works_until": NOW}, "old", Refusal.EXPIRED),
        ({"old_works_until": NOW + SECOND, "revoked_at": NOW}, "old", Refusal.REVOKED),
        ({"expires_at": NOW + SECOND}, "new", None),
        ({"expires_at": NOW}, "new", Refusal.EXPIRED),
        ({"expires_at": NOW, "old_works_until": NOW + SECOND}, "old", Refusal.EXPIRED),
        ({"revoked_at": NOW - SECOND}, "new", Refusal.REVOKED),
        ({"revoked_at": NOW - SECOND, "expires_at": NOW - SECOND}, "new", Refusal.REVOKED),
        ({"revoked_at": NOW - SECOND}, "other", Refusal.INVALID),
        ({"old_secret_sha256": None}, "old", Refusal.INVALID),
    ],
)
def test_what_a_token_proves(columns: dict[str, object], sent: str, refusal: Refusal | None) -> None:
    assert prove(stored(**columns), digest(sent), NOW) == refusal


def test_a_key_that_is_not_there_is_as_a_wrong_secret() -> None:
    assert prove(None, digest("new"), NOW) == Refusal.INVALID
