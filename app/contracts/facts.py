"""What is known of a model or a dataset once it has been checked: written by the engine's ingest, shown by the API."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from app.contracts.preprocess import Preprocess


class TensorSpec(BaseModel):
    """A named tensor. A dimension is its size, its symbolic name, or null where nothing is known."""

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str = Field(description="ONNX element type in lower case", examples=["float", "int64", "float16"])
    shape: list[int | str | None]


class Applicability(BaseModel):
    """Whether a method can work on a layer and, if not, why."""

    applies: bool
    why: str | None = None


class LayerFacts(BaseModel):
    """One weight-carrying node of the graph."""

    name: str = Field(description="The node's name; what `include` and `exclude` match")
    op: str
    input_shapes: list[list[int | str | None] | None]
    output_shapes: list[list[int | str | None] | None]
    weights: list[str] = Field(description="Names of the initializers it reads as weights")
    parameters: int
    macs: int | None = Field(None, description="Multiply-accumulates for one sample; null where a shape is unknown")
    methods: dict[str, Applicability] = Field(default_factory=dict)


class ModelFacts(BaseModel):
    """A checked model."""

    format: Literal["onnx"] = "onnx"
    opset: int = Field(description="Version of the default ONNX domain as uploaded")
    producer: str | None = None
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    parameters: int
    macs: int | None = Field(None, description="Multiply-accumulates for one sample")
    layers: list[LayerFacts]
    notes: list[str] = Field(default_factory=list)


class DatasetFacts(BaseModel):
    """A checked dataset."""

    format: Literal["npz", "images"]
    samples: int
    arrays: list[TensorSpec] = Field(description="First dimension is the number of samples")
    has_labels: bool
    classes: list[str] | None = Field(None, description="Class names in label order, for folders of images")
    label_min: int | None = None
    label_max: int | None = None
    preprocess: Preprocess | None = None
    notes: list[str] = Field(default_factory=list)
