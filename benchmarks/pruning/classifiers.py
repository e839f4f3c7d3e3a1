"""Native twins of sample classifiers that exist as ONNX files only, made for Torch-Pruning from the file's weights.

The files hold convolutions into which BatchNorm was folded. Each becomes a convolution and a BatchNorm that together
compute the same: its statistics are those of calibration data, its scale and shift undo them and add the folded bias.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.zoo.convolutional import ConvNorm


class PaddedShortcut(nn.Module):
    """Every second place, and as many zero channels around as are missing: shortcut A of arXiv:1512.03385."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.missing = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, h, w] -> [N, outputs, h / 2, w / 2]."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.missing, self.missing))


class ConvolvedShortcut(nn.Conv2d):
    """The same as a convolution: a strided 1 x 1 kernel of ones and zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1, 2, bias=False)
        missing = (outputs - inputs) // 2
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            self.weight[missing : missing + inputs, :, 0, 0] = torch.eye(inputs)


class _Block(nn.Module):
    """Layers are made in the order in which the files hold their weights: the shortcut's first."""

    def __init__(self, inputs: int, outputs: int, shortcut: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.shortcut = nn.Identity() if stride == 1 else shortcut(inputs, outputs)
        self.first = ConvNorm(inputs, outputs, 3, stride, act=nn.ReLU())
        self.second = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


def resnet(stem: nn.Module, depth: int, stages: int, shortcut: Callable[[int, int], nn.Module]) -> nn.Sequential:
    """Blocks on what `stem` makes, 16 channels: `depth` for each stage, twice as wide each."""
    widths = [16 << stage for stage in range(stages) for _ in range(depth)]
    pairs = zip([16, *widths], widths, strict=False)
    blocks = [_Block(inputs, outputs, shortcut) for inputs, outputs in pairs]
    return nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def _projected(inputs: int, outputs: int) -> nn.Module:
    return ConvNorm(inputs, outputs, 1, 2)


CLASSIFIERS: Mapping[str, Callable[[], nn.Sequential]] = {
    "digits32_resnet18": lambda: resnet(
        nn.Sequential(ConvNorm(3, 16, act=nn.ReLU()), nn.MaxPool2d(2)), 2, 4, _projected
    ),
    "resnet20_cifar10_jpegtuned": lambda: resnet(ConvNorm(3, 16, act=nn.ReLU()), 3, 3, ConvolvedShortcut),
    "resnet56_cifar10": lambda: resnet(ConvNorm(3, 16, act=nn.ReLU()), 9, 3, ConvolvedShortcut),
}
"""By the name of the file. Torch-Pruning fails on padded shortcuts, so its ResNets have convolved ones."""


@dataclass(frozen=True)
class _Folded:
    weight: Tensor
    bias: Tensor


def load_classifier(name: str, model: Path, x: Tensor) -> nn.Sequential:
    """In eval mode, with the weights of the file `model` and statistics of the samples `x`."""
    module = CLASSIFIERS[name]().eval()
    *convolutions, linear = _read_weights(model)
    folded = [layer for layer in module.modules() if isinstance(layer, ConvNorm)]
    with torch.no_grad():
        for layer, stored in zip(folded, convolutions, strict=True):
            _start(layer, stored)
        module[-1].load_state_dict({"weight": linear.weight, "bias": linear.bias})
        _take_statistics(module, folded, x)
    return module


def estimate_again(module: nn.Module, x: Tensor) -> None:
    """Give every BatchNorm the statistics of the samples `x`, all as one batch."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        layer.momentum = 1.0
    with torch.no_grad():
        module.train()(x)
    module.eval()


def _read_weights(model: Path) -> Iterator[_Folded]:
    graph = onnx.load(model).graph
    stored = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            yield _Folded(*(stored[name] for name in node.input[1:3]))


def _start(layer: ConvNorm, stored: _Folded) -> None:
    """A BatchNorm that only adds the bias."""
    convolution, norm, _, variance = _parts(layer)
    convolution.weight.copy_(stored.weight)
    norm.bias.copy_(stored.bias)
    variance.fill_(1 - norm.eps)


def _take_statistics(module: nn.Module, layers: list[ConvNorm], x: Tensor) -> None:
    """Let each BatchNorm, which only adds a bias, compute the same through statistics of what it sees."""
    seen: dict[nn.Module, Tensor] = {}
    handles = [layer[0].register_forward_hook(lambda made, _, y: seen.update({made: y})) for layer in layers]
    module(x)
    for handle in handles:
        handle.remove()
    for layer in layers:
        convolution, norm, mean, variance = _parts(layer)
        y = seen[convolution]
        mean.copy_(y.mean((0, 2, 3)))
        variance.copy_(y.var((0, 2, 3)))
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


def _parts(layer: ConvNorm) -> tuple[nn.Conv2d, nn.BatchNorm2d, Tensor, Tensor]:
    """The convolution, the BatchNorm, and its running mean and variance."""
    convolution, norm = layer[0], layer[1]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return convolution, norm, norm.running_mean, norm.running_var
