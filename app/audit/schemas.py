"""What the audit endpoint sends, and every kind of event there is."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.db.page import PageQuery


class Action(StrEnum):
    """What was done. The resource is the event's `target`."""

    KEY_MADE = "key.made"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    MODEL_UPLOADED = "model.uploaded"
    MODEL_DELETED = "model.deleted"
    DATASET_UPLOADED = "dataset.uploaded"
    DATASET_DELETED = "dataset.deleted"
    JOB_SUBMITTED = "job.submitted"
    JOB_CANCELLED = "job.cancelled"
    JOB_DELETED = "job.deleted"
    ARTIFACT_DELETED = "artifact.deleted"
    WEBHOOK_MADE = "webhook.made"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_DELETED = "webhook.deleted"
    ACCESS_REFUSED = "access.refused"

    @property
    def is_about_keys(self) -> bool:
        """Whether it changes who may do what."""
        return self.startswith("key.")


class AuditQuery(PageQuery):
    """Which events a list holds."""

    action: Action | None = None
    key: str | None = Field(None, description="Id of the key that acted")


class AuditEvent(BaseModel):
    """Something that was done or refused."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "id": "evt_01KB5V2Q3W4X5Y6Z7A8B9C0D1E",
                    "at": "2026-11-22T09:00:00Z",
                    "key_id": "key_01KB5V2Q3W4X5Y6Z7A8B9C0D1E",
                    "action": "job.submitted",
                    "target": "job_01KB5V2Q3W4X5Y6Z7A8B9C0D1E",
                    "request_id": "req_01KB5V2Q3W4X5Y6Z7A8B9C0D1E",
                    "address": "192.0.2.7",
                    "details": {},
                }
            ]
        },
    )

    id: str
    at: datetime
    key_id: str | None = Field(description="The key that acted; null: the command line, or no key was needed yet")
    action: Action
    target: str | None = Field(description="Id of the resource; of a refusal, the method and the path's template")
    request_id: str | None
    address: str | None = Field(description="Where the request came from")
    details: dict[str, Any]
