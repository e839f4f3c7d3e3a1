"""The step `train`: fine-tuning, distillation and quantization-aware training, which are one loop."""

from typing import ClassVar, Literal

from app.contracts.recipe.step import DataRole, MethodCard, Step
from app.contracts.training import TrainingOptions


class Train(TrainingOptions, Step):
    """Training of whatever the graph is: dense, masked, pruned, or quantized.

    Zeros stay zero, tied weights tied, integer weights integers with learned scales. `include` and `exclude` choose the
    layers whose weights move. A part of the training data is held out to judge the result; data.evaluate is never
    trained on nor looked at. With `distill` no labels are needed.
    """

    card: ClassVar[MethodCard] = MethodCard(
        summary="trains the network again: on labels, against a teacher, or both",
        works_on="every network with floating-point weights, and integer weights behind DequantizeLinear",
        needs=(DataRole.TRAIN,),
        changes_speed=False,
        paper="Hinton et al. 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531; "
        "Esser et al. 2020, Learned Step Size Quantization, arXiv:1902.08153",
    )

    method: Literal["train"] = "train"
