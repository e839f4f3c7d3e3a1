"""What may be done with keys. No SQL and no HTTP here; whose project it is, the session knows."""

from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple

from sqlalchemy.orm import Session

from app.audit.repository import record
from app.audit.schemas import Action
from app.db.base import utc_now
from app.db.ids import new_id
from app.errors import Problem, not_found, unprocessable
from app.keys import repository
from app.keys.schemas import NewKey
from app.keys.tables import KeyRow
from app.security.token import digest, mint


class Minted(NamedTuple):
    """A key and its secret, which nobody can be told again."""

    row: KeyRow
    token: str


def create(session: Session, project: str, wanted: NewKey) -> Minted:
    """Make a key, and its project if it is new. Raises EXPIRY_PASSED."""
    if wanted.expires_at is not None and wanted.expires_at <= utc_now():
        raise unprocessable("/expires_at", "EXPIRY_PASSED", "This time has passed: the key would never work.")
    row = KeyRow(id=new_id("key"), project=project, **wanted.model_dump())
    token = _renew_secret(row)
    repository.add(session, row)
    record(session, Action.KEY_MADE, row.id, project=project, name=row.name, role=row.role)
    return Minted(row, token)


def find(session: Session, key_id: str) -> KeyRow:
    """The key. Raises the 404 problem."""
    row = repository.get(session, key_id)
    if row is None:
        raise not_found("key", key_id)
    return row


def rotate(session: Session, key_id: str, grace_s: float) -> Minted:
    """Give the key a new secret; the one from before works for `grace_s` more. Raises KEY_OVER (409)."""
    row, now = find(session, key_id), utc_now()
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        detail = "The key was revoked or has expired, and a new secret would not open anything. Make a new key."
        raise Problem(HTTPStatus.CONFLICT, "KEY_OVER", detail)
    row.old_secret_sha256, row.old_works_until = row.secret_sha256, now + timedelta(seconds=grace_s)
    row.rotated_at = now
    token = _renew_secret(row)
    record(session, Action.KEY_ROTATED, row.id, project=row.project, grace_s=grace_s)
    return Minted(row, token)


def revoke(session: Session, key_id: str) -> None:
    """Have the key open nothing any more, for good. Doing it again changes nothing."""
    row = find(session, key_id)
    if row.revoked_at is None:
        row.revoked_at = utc_now()
        record(session, Action.KEY_REVOKED, row.id, project=row.project)


def _renew_secret(row: KeyRow) -> str:
    token = mint(row.id)
    row.secret_sha256 = digest(token)
    return token
