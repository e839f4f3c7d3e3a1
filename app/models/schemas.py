"""What the models endpoints take beside the file, and what they send."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.contracts.facts import LayerFacts, TensorSpec
from app.contracts.failure import Failure
from app.contracts.states import IngestState
from app.db.page import PageQuery
from app.examples import MODEL, MODEL_ID
from app.uploads.fields import UploadFields


class ModelFields(UploadFields):
    """What may be said of an uploaded model."""

    format: Literal["onnx"] | None = Field(None, description="Default: seen from the bytes", examples=["onnx"])


class ModelQuery(PageQuery):
    """Which models a list holds."""

    state: IngestState | None = None


class ModelView(BaseModel):
    """A model. What checking finds is null until it is `ready`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **MODEL,
                    "producer": "pytorch 2.13.0",
                    "notes": [],
                    "checked_at": "2026-11-22T08:59:01Z",
                    "links": {"self": f"/v1/models/{MODEL_ID}", "layers": f"/v1/models/{MODEL_ID}/layers"},
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
    format: str | None
    sha256: str
    size_bytes: int
    inputs: list[TensorSpec] | None
    outputs: list[TensorSpec] | None
    parameters: int | None
    macs: int | None = Field(description="Multiply-accumulates for one sample; null where a shape is unknown")
    opset: int | None
    producer: str | None
    notes: list[str]
    created_at: datetime
    checked_at: datetime | None
    links: dict[str, str]


class ModelLayers(BaseModel):
    """The weight-carrying nodes of a model's graph, in its order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "data": [
                        {
                            "name": "/conv1/Conv",
                            "op": "Conv",
                            "input_shapes": [["batch", 3, 32, 32], [16, 3, 3, 3], None],
                            "output_shapes": [["batch", 16, 32, 32]],
                            "weights": ["conv1.weight"],
                            "parameters": 432,
                            "macs": 442_368,
                            "methods": {
                                "quantize.static": {"applies": True, "why": None},
                                "quantize.dynamic": {"applies": False, "why": "Conv is slower with dynamic ranges"},
                            },
                            "channels": {
                                "total": 16,
                                "units": 16,
                                "per_unit": 1,
                                "kind": "channel",
                                "tied_to": ["/layer1.0/conv2/Conv", "/layer1.1/conv2/Conv"],
                                "why": None,
                            },
                        }
                    ]
                }
            ]
        }
    )

    data: list[LayerFacts]
