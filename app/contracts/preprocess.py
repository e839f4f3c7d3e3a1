"""How stored samples become model inputs. Applied by the engine's data readers, in the order of the fields."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Layout = Literal["nchw", "nhwc"]


class Preprocess(BaseModel):
    """Preprocessing of image-like samples: resize, then `(x * scale - mean) / std`, then the layout.

    Stored images are H x W x 3 RGB. Arrays of an `.npz` are taken in the layout they have; `layout` moves their
    channel axis only where `stored_layout` says it is elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    resize: tuple[int, int] | None = Field(None, description="Height and width in pixels", examples=[[224, 224]])
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(
        1.0, description="Multiplies stored values, before mean and std", examples=[0.00392156862745098]
    )
    mean: list[float] | None = Field(None, description="Per channel, or one value for all; after `scale`")
    std: list[float] | None = Field(None, description="Per channel, or one value for all; after `scale`")
    layout: Layout = Field("nchw", description="What the model expects")
    stored_layout: Layout | None = Field(None, description="What an .npz holds, if it is not `layout`")

    @model_validator(mode="after")
    def _numbers_make_sense(self) -> Self:
        if self.resize and min(self.resize) < 1:
            raise ValueError("resize: both sizes must be at least 1")
        if self.std and any(value == 0 for value in self.std):
            raise ValueError("std: must not be 0")
        if self.scale == 0:
            raise ValueError("scale: must not be 0")
        return self
