"""What the health endpoints send."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Alive(BaseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok", "version": "0.1.0"}]})

    status: Literal["ok"] = "ok"
    version: str


class Readiness(BaseModel):
    """Whether every part can be reached; a part that cannot says why."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ready": True, "parts": {"database": "ok", "broker": "ok", "storage": "ok"}}]}
    )

    ready: bool
    parts: dict[str, str]
