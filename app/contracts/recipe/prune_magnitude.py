"""The step `prune.magnitude`: the smallest weights become zero."""

from typing import ClassVar, Literal

from pydantic import Field

from app.contracts.recipe.step import MethodCard, Step


class PruneMagnitude(Step):
    """Unstructured pruning. Zeros shrink the compressed download; ONNX Runtime does not run them faster."""

    card: ClassVar[MethodCard] = MethodCard(
        summary="sets the smallest weights to zero",
        works_on="weights of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN",
        changes_speed=False,
        paper="Han et al. 2015, Learning both Weights and Connections for Efficient Neural Networks, arXiv:1506.02626",
    )

    method: Literal["prune.magnitude"] = "prune.magnitude"
    amount: float = Field(gt=0, lt=1, description="Share of the weights to zero", examples=[0.5])
    scope: Literal["layer", "global"] = Field(
        "layer", description="The same share in every layer, or one threshold for all"
    )
