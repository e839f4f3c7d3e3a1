"""The step `quantize.dynamic`: integer weights ahead of time, activation ranges found at run time."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.contracts.recipe.step import MethodCard, Step


class DynamicWeights(BaseModel):
    """How weights are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Literal[8] = 8
    per_channel: bool = Field(True, description="One scale per output channel, where the kernel takes it")


class QuantizeDynamic(Step):
    """Needs no data. Leaves convolutions alone unless asked: their dynamic integer kernel is slower than float.

    Products of two activations, as inside attention, stay in float: in integers they cost accuracy and gain no time.
    Small GRUs and RNNs, and embeddings, get integer weights only.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="8-bit weights, activation ranges at run time; no data needed",
        works_on="MatMul, Gemm, Attention, LSTM, GRU, RNN, embeddings; Conv only with `convolutions: true`",
        changes_speed=True,
        paper="ONNX Runtime, Quantize ONNX models: dynamic quantization",
    )

    method: Literal["quantize.dynamic"] = "quantize.dynamic"
    weights: DynamicWeights = DynamicWeights()
    convolutions: bool = Field(False, description="Also Conv: smaller, but several times slower than float on a CPU")
