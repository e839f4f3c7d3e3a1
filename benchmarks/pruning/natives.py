"""Native modules that we and Torch-Pruning both prune: the zoo, and kinds of sample models that it lacks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.onnx import ONNXProgram

from benchmarks.pruning.classifiers import PaddedShortcut, resnet
from benchmarks.zoo import Entry, Size, zoo
from benchmarks.zoo.convolutional import CLASSES, ConvNorm
from benchmarks.zoo.entry import Scale, export_module
from benchmarks.zoo.inputs import pictures

Network = Literal["convolutional", "recurrent", "transformer"]
BATCH = {0: "batch"}
"""The one axis that exports leave open."""
_NETWORKS: Mapping[str, Network] = {
    **dict.fromkeys(("plain", "padded", "separable", "flattened"), "convolutional"),
    **dict.fromkeys(("resnet", "mobilenet", "densenet", "efficientnet"), "convolutional"),
    **dict.fromkeys(("shufflenet", "convnext", "unet", "yolo"), "convolutional"),
    **dict.fromkeys(("lstm", "bilstm", "gru"), "recurrent"),
}
_OUTPUTS: Mapping[str, Sequence[str]] = {
    "flattened": ("box", "landmarks", "classes"),
    "yolo": ("heads.0", "heads.1"),
    "clip": ("text_projection", "visual_projection"),
    "detr": ("class_labels_classifier", "bbox_predictor.layers.2"),
}
_PROJECTIONS = frozenset({"query", "key", "value", "q_proj", "k_proj", "v_proj", "q", "k", "v"})
_HEAD_SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim")


@dataclass(frozen=True)
class Native:
    """A native module at one scale."""

    entry: Entry
    network: Network

    def output_layers(self, model: nn.Module) -> Sequence[nn.Module]:
        """The layers that give the outputs: what a user of Torch-Pruning tells it to leave alone."""
        if names := _OUTPUTS.get(self.entry.name):
            return [model.get_submodule(name) for name in names]
        return [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1:]

    def heads(self, model: nn.Module) -> dict[nn.Module, int]:
        """How many heads each projection of an attention makes: what a user of Torch-Pruning tells it too."""
        return {
            layer: layer.out_features // size
            for attention in model.modules()
            if (size := next((getattr(attention, name) for name in _HEAD_SIZES if hasattr(attention, name)), None))
            for name, layer in attention.named_children()
            if name in _PROJECTIONS and isinstance(layer, nn.Linear)
        }

    def export(self, model: nn.Module) -> ONNXProgram:
        """With any batch."""
        inputs = self.entry.example()
        return export_module(model, inputs, dict.fromkeys(inputs, BATCH))


def natives(size: Size) -> dict[str, Native]:
    """Every native module at one size, by name."""
    entries = {name: _entry(name, make, scales[size]) for name, (make, scales) in _OWN.items()} | zoo(size)
    return {name: Native(entry, _NETWORKS.get(name, "transformer")) for name, entry in entries.items()}


def plain(scale: Scale) -> nn.Module:
    """Convolutions one after the other."""
    width = scale.width
    layers: list[nn.Module] = [ConvNorm(3, width, act=nn.ReLU())]
    for _ in range(scale.depth):
        layers += [ConvNorm(width, 2 * width, act=nn.ReLU()), nn.MaxPool2d(2)]
        width *= 2
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


def padded(scale: Scale) -> nn.Module:
    """Three stages, 16 channels wide at first, with the parameter-free shortcuts of CIFAR-10's ResNets."""
    return resnet(ConvNorm(3, scale.width, act=nn.ReLU()), scale.depth, 3, PaddedShortcut)


def separable(scale: Scale) -> nn.Module:
    """Depthwise-separable convolutions, as in networks for key words: arXiv:1711.07128."""
    width = scale.width
    layers: list[nn.Module] = [ConvNorm(3, width, 5, 2, act=nn.ReLU())]
    for _ in range(scale.depth):
        layers += [ConvNorm(width, width, groups=width, act=nn.ReLU()), ConvNorm(width, width, 1, act=nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES))


class Flattened(nn.Module):
    """Convolutions with PReLU, flattened for three heads, as the networks that find faces: arXiv:1604.02878."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        width, layers, inputs = scale.width, list[nn.Module](), 3
        for _ in range(scale.depth):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.PReLU(width), nn.MaxPool2d(2)]
            inputs, width = width, 2 * width
        side = scale.extent >> scale.depth
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(inputs * side * side, 4 * inputs), nn.PReLU(4 * inputs)
        )
        self.box, self.landmarks, self.classes = (nn.Linear(4 * inputs, size) for size in (4, 10, 2))

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: A002 - the zoo's name for a picture
        """Sides of a box, five points, class probabilities."""
        x = self.body(input)
        return self.box(x), self.landmarks(x), torch.softmax(self.classes(x), -1)


_OWN: Mapping[str, tuple[Callable[[Scale], nn.Module], Mapping[Size, Scale]]] = {
    "plain": (plain, {"tiny": Scale(8, 2, 32), "large": Scale(32, 3, 64)}),
    "padded": (padded, {"tiny": Scale(16, 1, 32), "large": Scale(16, 3, 64)}),
    "separable": (separable, {"tiny": Scale(16, 2, 32), "large": Scale(128, 4, 96)}),
    "flattened": (Flattened, {"tiny": Scale(8, 2, 32), "large": Scale(32, 3, 96)}),
}


def _entry(name: str, make: Callable[[Scale], nn.Module], scale: Scale) -> Entry:
    return Entry(name, scale, make, pictures, {"input": BATCH})
