"""What the artifacts endpoints send."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.db.page import PageQuery
from app.examples import ARTIFACT, ARTIFACT_ID, JOB_ID


class ArtifactQuery(PageQuery):
    """Which artifacts a list holds."""

    job: str | None = Field(None, description="Id of the job that made them")


class ArtifactView(BaseModel):
    """A file that a job made. It never changes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **ARTIFACT,
                    "job": JOB_ID,
                    "created_at": "2026-11-22T09:00:07.200Z",
                    "links": {
                        "self": f"/v1/artifacts/{ARTIFACT_ID}",
                        "content": f"/v1/artifacts/{ARTIFACT_ID}/content",
                        "job": f"/v1/jobs/{JOB_ID}",
                    },
                }
            ]
        }
    )

    id: str
    job: str
    format: str
    filename: str
    size_bytes: int
    sha256: str
    created_at: datetime
    links: dict[str, str]
