"""Which models the zoo has, at which scales. How they are built is in the modules beside this one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from benchmarks.zoo import convolutional, dense_prediction, inputs, sequential, transformers_models
from benchmarks.zoo.entry import Entry, Scale

Size = Literal["tiny", "large"]
"""tiny: exports in seconds, for tests. large: tens of milliseconds per forward pass on one core, for benchmarks."""

Axes = Mapping[str, Mapping[int, str]]
_BATCH = {0: "batch"}
_BATCH_AND_LENGTH = {0: "batch", 1: "length"}


@dataclass(frozen=True)
class _Row:
    make: Callable[[Scale], nn.Module]
    inputs: Callable[[Scale, int], dict[str, Tensor]]
    tiny: Scale
    large: Scale
    axes: Mapping[int, str]
    """Of every input."""
    other_extents: tuple[int, ...] = ()


_TABLE = {
    "resnet": _Row(convolutional.resnet, inputs.pictures, Scale(8, 1, 32), Scale(48, 2, 128), _BATCH),
    "mobilenet": _Row(convolutional.mobilenet, inputs.pictures, Scale(8, 2, 32), Scale(24, 3, 128), _BATCH),
    "densenet": _Row(convolutional.densenet, inputs.pictures, Scale(8, 2, 32), Scale(24, 4, 96), _BATCH),
    "efficientnet": _Row(convolutional.efficientnet, inputs.pictures, Scale(8, 2, 32), Scale(24, 2, 128), _BATCH),
    "shufflenet": _Row(convolutional.shufflenet, inputs.pictures, Scale(8, 1, 32), Scale(64, 3, 192), _BATCH),
    "convnext": _Row(convolutional.convnext, inputs.pictures, Scale(16, 1, 32), Scale(96, 3, 128), _BATCH),
    "unet": _Row(
        dense_prediction.UNet,
        inputs.x_pictures,
        Scale(8, 1, 32),
        Scale(24, 2, 96),
        {0: "batch", 2: "height", 3: "width"},
        (48,),
    ),
    "yolo": _Row(dense_prediction.Detector, inputs.x_pictures, Scale(8, 1, 32), Scale(48, 3, 192), _BATCH),
    "lstm": _Row(sequential.lstm, inputs.sequences, Scale(16, 2, 7), Scale(384, 2, 64), _BATCH_AND_LENGTH, (5, 11)),
    "bilstm": _Row(sequential.bilstm, inputs.sequences, Scale(16, 1, 7), Scale(256, 2, 64), _BATCH),
    "gru": _Row(sequential.gru, inputs.sequences, Scale(16, 2, 7), Scale(384, 2, 64), _BATCH),
    "encoder": _Row(sequential.Encoder, inputs.sequences, Scale(32, 2, 7), Scale(256, 6, 96), _BATCH),
    "bert": _Row(
        transformers_models.bert, inputs.padded_text, Scale(32, 2, 8), Scale(256, 6, 128), _BATCH_AND_LENGTH, (5, 13)
    ),
    "gpt2": _Row(
        transformers_models.gpt2, inputs.text, Scale(32, 1, 8), Scale(256, 6, 128), _BATCH_AND_LENGTH, (5, 13)
    ),
    "llama": _Row(
        transformers_models.llama, inputs.text, Scale(32, 1, 8), Scale(256, 6, 128), _BATCH_AND_LENGTH, (5, 13)
    ),
    "t5": _Row(transformers_models.t5, inputs.text_pair, Scale(32, 1, 8), Scale(256, 6, 96), _BATCH),
    "whisper": _Row(transformers_models.whisper, inputs.sound, Scale(32, 1, 16), Scale(256, 4, 128), _BATCH),
    "vit": _Row(transformers_models.vit, inputs.pixels, Scale(32, 2, 32), Scale(256, 6, 96), _BATCH),
    "clip": _Row(transformers_models.clip, inputs.captioned_pixels, Scale(32, 1, 32), Scale(256, 6, 96), _BATCH),
    "swin": _Row(transformers_models.swin, inputs.pixels, Scale(16, 2, 32), Scale(96, 2, 64), _BATCH),
    "segformer": _Row(transformers_models.segformer, inputs.pixels, Scale(8, 1, 64), Scale(48, 2, 160), _BATCH),
    "detr": _Row(transformers_models.detr, inputs.masked_pixels, Scale(32, 1, 64), Scale(192, 3, 160), _BATCH),
}

LEGACY = ("resnet", "lstm", "vit")
"""Those that the tests also export with the exporter torch had before."""


def zoo(size: Size) -> dict[str, Entry]:
    """Every model at one size, by name."""
    return {name: _entry(name, row, row.tiny if size == "tiny" else row.large) for name, row in _TABLE.items()}


def _entry(name: str, row: _Row, scale: Scale) -> Entry:
    names = row.inputs(scale, 1)
    return Entry(name, scale, row.make, row.inputs, dict.fromkeys(names, row.axes), row.other_extents)
