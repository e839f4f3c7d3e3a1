"""The models there is data for. How a model is quantized is said in `tools`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from benchmarks.comparison.data import (
    Split,
    load_cifar,
    load_digits,
    load_mnist,
    load_photographs,
    load_speech,
)

Network = Literal["convolutional", "transformer", "recurrent"]


@dataclass(frozen=True)
class Case:
    """A model and its data. `load` gives what calibration draws from, at most that many, and the evaluation data."""

    name: str
    network: Network
    load: Callable[[Path, int], tuple[Split, Split]]

    def model(self, shared: Path) -> Path:
        """Its file."""
        return shared / "models" / f"{self.name}.onnx"


def input_name(model: Path) -> str:
    """The name of the model's one input."""
    (value,) = ir.load(model).graph.inputs
    return str(value.name)


CASES: Sequence[Case] = (
    Case("digits32_resnet18", "convolutional", load_digits),
    Case("digits32_mbv2hard", "convolutional", load_digits),
    Case("digits32_vit", "transformer", load_digits),
    Case("resnet20_cifar10_jpegtuned", "convolutional", load_cifar),
    Case("resnet56_cifar10", "convolutional", load_cifar),
    Case("kws_dscnn", "convolutional", load_speech),
    Case("mnist_row_lstm", "recurrent", load_mnist),
    Case("efficientnet_lite0", "convolutional", load_photographs),
)
