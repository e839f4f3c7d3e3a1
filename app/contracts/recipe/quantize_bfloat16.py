"""The step `quantize.bfloat16`: weights stored in 16 bits with the range of float32."""

from typing import ClassVar, Literal

from app.contracts.recipe.step import MethodCard, Step


class QuantizeBfloat16(Step):
    """Weights only: ONNX Runtime has no bfloat16 arithmetic on a CPU, and makes float32 of them as it loads.

    The file halves; memory and speed stay. Nothing can overflow, and three decimal digits of each weight remain.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="weights in bfloat16, arithmetic in float32; half the file, any range, no data needed",
        works_on="every layer with float32 weights: convolutions, matrix products, recurrent layers, embeddings",
        changes_speed=False,
        paper="Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training, arXiv:1905.12322",
    )

    method: Literal["quantize.bfloat16"] = "quantize.bfloat16"
