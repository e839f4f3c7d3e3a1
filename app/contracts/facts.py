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


class ChannelFacts(BaseModel):
    """Which output channels of a layer can be removed, with all that depends on them."""

    total: int = Field(description="Output channels; of a recurrent layer, hidden units")
    units: int = Field(description="Removable things they form; 0 where none can go")
    per_unit: int = Field(1, description="Channels that go with one unit, as the width of an attention head")
    groups: list[int] = Field(
        default_factory=list, description="The units by what they take part in, where that differs; one of each stays"
    )
    kind: Literal["channel", "head", "hidden unit"] = Field("channel", description="What a unit is")
    tied_to: list[str] = Field(
        default_factory=list, description="Layers whose output channels go with these, as over a residual sum"
    )
    why: str | None = Field(None, description="Why none, or not all, can go")

    def __str__(self) -> str:
        """`64 channels`, `12 heads of 64`; `none` where nothing can go."""
        if not self.units:
            return "none"
        noun = self.kind if self.units == 1 else f"{self.kind}s"
        return f"{self.units} {noun}" + (f" of {self.per_unit}" if self.per_unit > 1 else "")


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
    channels: ChannelFacts | None = Field(
        None, description="What `prune.structured` can remove; null where the layer has no channels of its own to give"
    )


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
