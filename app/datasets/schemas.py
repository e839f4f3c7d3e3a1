"""What the datasets endpoints take beside the file, and what they send."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from app.contracts.facts import TensorSpec
from app.contracts.failure import Failure
from app.contracts.preprocess import Preprocess
from app.contracts.states import IngestState
from app.db.page import PageQuery
from app.examples import DATASET, DATASET_ID
from app.uploads.fields import UploadFields


class DatasetFields(UploadFields):
    """What may be said of an uploaded dataset."""

    preprocess: Preprocess | None = Field(
        None,
        description="JSON object: how stored samples become model inputs, as `preprocess` of a job",
        examples=['{"resize": [32, 32], "scale": 0.00392156862745098}'],
    )


class DatasetQuery(PageQuery):
    """Which datasets a list holds."""

    state: IngestState | None = None


class DatasetView(BaseModel):
    """A dataset. What checking finds is null until it is `ready`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **DATASET,
                    "format": "npz",
                    "preprocess": None,
                    "arrays": [
                        {"name": "x", "dtype": "float", "shape": [10_000, 3, 32, 32]},
                        {"name": "y", "dtype": "int64", "shape": [10_000]},
                    ],
                    "classes": None,
                    "label_min": 0,
                    "label_max": 9,
                    "notes": [],
                    "checked_at": "2026-11-22T08:59:11Z",
                    "links": {"self": f"/v1/datasets/{DATASET_ID}"},
                }
            ]
        }
    )

    id: str
    name: str
    filename: str
    tags: dict[str, str]
    state: IngestState
    problem: Failure | None = Field(description="Why it was rejected")
    format: str | None = Field(description="npz or images")
    sha256: str
    size_bytes: int
    preprocess: Preprocess | None = Field(description="As given with the upload; a job may override it")
    samples: int | None
    arrays: list[TensorSpec] | None
    has_labels: bool | None
    classes: list[str] | None
    label_min: int | None
    label_max: int | None
    notes: list[str]
    created_at: datetime
    checked_at: datetime | None
    links: dict[str, str]
