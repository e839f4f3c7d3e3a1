"""The step `quantize.weights`: integer weights in blocks, float activations."""

from typing import ClassVar, Literal

from pydantic import Field

from app.contracts.recipe.step import DataRole, MethodCard, Step


class QuantizeWeights(Step):
    """Weight-only quantization. Matrices stay packed while they are multiplied; other weights only take less room."""

    card: ClassVar[MethodCard] = MethodCard(
        summary="8- or 4-bit weights, activations in float; calibration data makes 4 bits closer",
        works_on="constant weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN, and embeddings",
        uses=(DataRole.CALIBRATE,),
        changes_speed=True,
        paper="Frantar et al. 2022, GPTQ, arXiv:2210.17323; Nagel et al. 2020, AdaRound, arXiv:2004.10568",
    )

    method: Literal["quantize.weights"] = "quantize.weights"
    bits: Literal[4, 8] = Field(8, description="Bits of a weight, without its share of the scales")
    block_size: Literal["auto", 16, 32, 64, 128, 256] | None = Field(
        "auto",
        description="Weights that share a scale; null: one scale for each output channel; auto: 32 with 4 bits, "
        "null with 8",
    )
    symmetric: bool | None = Field(
        None, description="Zero point at 0; null: true with 8 bits, false with 4, where half a step counts"
    )
    rounding: Literal["nearest", "gptq", "adaround"] = Field(
        "nearest", description="gptq and adaround spare the outputs of MatMul, Gemm, Conv and ConvTranspose on data"
    )
    samples: int = Field(256, ge=1, le=100_000, description="At most this many samples are run for gptq and adaround")
    kernel: Literal["auto", "standard"] = Field(
        "auto", description="auto: ONNX Runtime's packed matrix product; standard: operators of ONNX alone"
    )
