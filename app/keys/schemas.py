"""What the keys endpoints take and send."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.identity import Role

MAX_GRACE_S = 7 * 86_400

KeyName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]

ProjectName = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9-]{0,63}$")]

_KEY: dict[str, Any] = {
    "id": "key_01KB5V2Q3W4X5Y6Z7A8B9C0D1E",
    "name": "ci",
    "role": "submit",
    "project": "default",
    "requests_per_minute": None,
    "created_at": "2026-11-22T09:00:00Z",
    "expires_at": None,
    "rotated_at": None,
    "revoked_at": None,
    "last_used_at": "2026-11-22T09:30:00Z",
}


class NewKey(BaseModel):
    """A key to make, in the project of the key that asks."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ci", "role": "submit"}]})

    name: KeyName
    role: Role = Field(
        description="`read`; `submit`: also upload, submit, cancel, delete; `admin`: also keys, webhooks"
    )
    expires_at: AwareDatetime | None = Field(None, description="When it stops to work; null: never")
    requests_per_minute: int | None = Field(
        None, ge=0, le=1_000_000, description="null: SLIMLINE_REQUESTS_PER_MINUTE; 0: as many as it likes"
    )


class Rotation(BaseModel):
    """How to rotate a key."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"grace_s": 3600}]})

    grace_s: int = Field(0, ge=0, le=MAX_GRACE_S, description="Seconds that the secret from before works on")


class KeyView(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [_KEY]})

    id: str
    name: str
    role: Role
    project: str
    requests_per_minute: int | None
    created_at: datetime
    expires_at: datetime | None
    rotated_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute")


class MintedKey(KeyView):
    """A key with its secret."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_KEY, "key": "slk_01KB5V2Q3W4X5Y6Z7A8B9C0D1E_(43 characters)"}]}
    )

    key: str | None = Field(
        None, description="Shown here and never again: an answer repeated under an Idempotency-Key has null"
    )
