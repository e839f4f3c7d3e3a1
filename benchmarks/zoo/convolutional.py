"""Classifiers made of convolutions, in plain torch: x [batch, 3, extent, extent] -> logits [batch, classes]."""

import torch
from torch import Tensor, nn

from benchmarks.zoo.entry import Scale

CLASSES = 10


class ConvNorm(nn.Sequential):
    """Convolution that keeps the size (over the stride), BatchNorm, activation; `act=None` for none."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
        *,
        act: nn.Module | None = None,
    ) -> None:
        layers = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([act] if act else []))


class Residual(nn.Module):
    """`body` beside a shortcut, added."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()
        self.after = after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The sum, after `after`."""
        total: Tensor = self.after(self.body(x) + self.shortcut(x))
        return total


def _head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def resnet(scale: Scale) -> nn.Module:
    """He et al. 2015, arXiv:1512.03385: basic blocks, `depth` per stage, three stages."""
    width = scale.width
    layers: list[nn.Module] = [ConvNorm(3, width, 7, 2, act=nn.ReLU(inplace=True)), nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage, outputs in enumerate((width, 2 * width, 4 * width)):
        for block in range(scale.depth):
            stride = 2 if stage and not block else 1
            body = nn.Sequential(ConvNorm(inputs, outputs, 3, stride, act=nn.ReLU()), ConvNorm(outputs, outputs))
            shortcut = ConvNorm(inputs, outputs, 1, stride) if inputs != outputs else None
            layers.append(Residual(body, shortcut, nn.ReLU()))
            inputs = outputs
    return nn.Sequential(*layers, *_head(inputs))


def mobilenet(scale: Scale) -> nn.Module:
    """MobileNetV2, arXiv:1801.04381: inverted residuals with ReLU6, expansion 4."""
    layers: list[nn.Module] = [ConvNorm(3, scale.width, 3, 2, act=nn.ReLU6())]
    inputs = scale.width
    for outputs, stride in ((scale.width, 1), (2 * scale.width, 2), (4 * scale.width, 2)):
        for block in range(scale.depth):
            wide, step = 4 * inputs, stride if not block else 1
            body = nn.Sequential(
                ConvNorm(inputs, wide, 1, act=nn.ReLU6()),
                ConvNorm(wide, wide, 3, step, groups=wide, act=nn.ReLU6()),
                ConvNorm(wide, outputs, 1),
            )
            layers.append(Residual(body) if step == 1 and inputs == outputs else body)
            inputs = outputs
    return nn.Sequential(*layers, ConvNorm(inputs, 4 * inputs, 1, act=nn.ReLU6()), *_head(4 * inputs))


class _Dense(nn.Module):
    """Adds `growth` channels made from all before it."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(scale: Scale) -> nn.Module:
    """Huang et al. 2016, arXiv:1608.06993: `width` is the growth, `depth` the layers per block, three blocks."""
    channels = 2 * scale.width
    layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, 2, 1, bias=False)]
    for block in range(3):
        for _ in range(scale.depth):
            layers.append(_Dense(channels, scale.width))
            channels += scale.width
        if block < 2:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), *_head(channels))


class _SqueezeExcite(nn.Module):
    """Scales channels by what their means say: arXiv:1709.01507."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.SiLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = x * self.gate(x)
        return scaled


def efficientnet(scale: Scale) -> nn.Module:
    """Tan and Le 2019, arXiv:1905.11946: inverted residuals with squeeze-excite and SiLU."""
    layers: list[nn.Module] = [ConvNorm(3, scale.width, 3, 2, act=nn.SiLU())]
    inputs = scale.width
    for outputs, stride, kernel in ((scale.width, 1, 3), (2 * scale.width, 2, 5), (4 * scale.width, 2, 3)):
        for block in range(scale.depth):
            wide, step = 4 * inputs, stride if not block else 1
            body = nn.Sequential(
                ConvNorm(inputs, wide, 1, act=nn.SiLU()),
                ConvNorm(wide, wide, kernel, step, groups=wide, act=nn.SiLU()),
                _SqueezeExcite(wide),
                ConvNorm(wide, outputs, 1),
            )
            layers.append(Residual(body) if step == 1 and inputs == outputs else body)
            inputs = outputs
    return nn.Sequential(*layers, *_head(inputs))


class _ShuffleUnit(nn.Module):
    """Half the channels pass through, half are convolved; then both are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.body = nn.Sequential(
            ConvNorm(half, half, 1, act=nn.ReLU()),
            ConvNorm(half, half, groups=half),
            ConvNorm(half, half, 1, act=nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, convolved = x.chunk(2, 1)
        joined = torch.cat([kept, self.body(convolved)], 1)
        batch, channels, height, width = joined.shape
        return (
            joined.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        )


def shufflenet(scale: Scale) -> nn.Module:
    """ShuffleNetV2, arXiv:1807.11164, with a strided convolution before each stage."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs in (scale.width, 2 * scale.width, 4 * scale.width):
        layers.append(ConvNorm(inputs, outputs, 3, 2, act=nn.ReLU()))
        layers += [_ShuffleUnit(outputs) for _ in range(scale.depth)]
        inputs = outputs
    return nn.Sequential(*layers, *_head(inputs))


class _ConvNextBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.body = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.scale * self.body(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))
        moved: Tensor = x + mixed.permute(0, 3, 1, 2)
        return moved


def convnext(scale: Scale) -> nn.Module:
    """Liu et al. 2022, arXiv:2201.03545: LayerNorm over channels, Linear layers on the last axis."""
    layers: list[nn.Module] = [nn.Conv2d(3, scale.width, 4, 4)]
    for stage, channels in enumerate((scale.width, 2 * scale.width)):
        layers += [nn.Conv2d(channels // 2, channels, 2, 2)] if stage else []
        layers += [_ConvNextBlock(channels) for _ in range(scale.depth)]
    return nn.Sequential(*layers, *_head(2 * scale.width))
