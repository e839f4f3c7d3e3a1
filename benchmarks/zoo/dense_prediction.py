"""Models that answer for every place of a picture, in plain torch: x [batch, 3, extent, extent]."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.zoo.convolutional import ConvNorm
from benchmarks.zoo.entry import Scale

CLASSES = 5
BINS = 8
"""Bins of the distances from a cell to the sides of its box."""


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(inputs, outputs, act=nn.ReLU()), ConvNorm(outputs, outputs, act=nn.ReLU()))


class UNet(nn.Module):
    """Ronneberger et al. 2015, arXiv:1505.04597: up once by ConvTranspose, once by Resize. Gives one map per class."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        width = scale.width
        self.fine = _double(3, width)
        self.middle = _double(width, 2 * width)
        self.coarse = nn.Sequential(*[_double(2 * width, 2 * width) for _ in range(scale.depth)])
        self.up = nn.ConvTranspose2d(2 * width, 2 * width, 2, 2)
        self.join_middle = _double(4 * width, width)
        self.join_fine = _double(2 * width, width)
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, CLASSES, extent, extent]."""
        fine = self.fine(x)
        middle = self.middle(functional.max_pool2d(fine, 2))
        coarse = self.coarse(functional.max_pool2d(middle, 2))
        joined = self.join_middle(torch.cat([middle, self.up(coarse)], 1))
        wide = functional.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False)
        maps: Tensor = self.head(self.join_fine(torch.cat([fine, wide], 1)))
        return maps


class _SplitBlock(nn.Module):
    """Half the channels go through bottlenecks, and every stage of them is kept."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = ConvNorm(channels, channels, 1, act=nn.SiLU())
        self.steps = nn.ModuleList(ConvNorm(half, half, act=nn.SiLU()) for _ in range(depth))
        self.last = ConvNorm(channels + depth * half, channels, 1, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for step in self.steps:
            parts.append(parts[-1] + step(parts[-1]))
        joined: Tensor = self.last(torch.cat(parts, 1))
        return joined


class Detector(nn.Module):
    """Like YOLOv8: two strides, pyramid pooling, boxes as expected distances. Gives [batch, 4 + CLASSES, cells]."""

    def __init__(self, scale: Scale) -> None:
        super().__init__()
        width = scale.width
        self.stem = nn.Sequential(ConvNorm(3, width, 3, 2, act=nn.SiLU()), ConvNorm(width, width, 3, 2, act=nn.SiLU()))
        self.fine = _SplitBlock(width, scale.depth)
        self.down = ConvNorm(width, 2 * width, 3, 2, act=nn.SiLU())
        self.coarse = _SplitBlock(2 * width, scale.depth)
        self.pyramid = ConvNorm(8 * width, 2 * width, 1, act=nn.SiLU())
        self.join = ConvNorm(3 * width, width, 1, act=nn.SiLU())
        self.heads = nn.ModuleList(nn.Conv2d(each, 4 * BINS + CLASSES, 1) for each in (width, 2 * width))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, 4 + CLASSES, cells]: corners in pixels, class probabilities."""
        fine = self.fine(self.stem(x))
        pooled = [self.coarse(self.down(fine))]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        coarse = self.pyramid(torch.cat(pooled, 1))
        fine = self.join(torch.cat([fine, functional.interpolate(coarse, scale_factor=2.0, mode="nearest")], 1))
        maps = [head(level) for head, level in zip(self.heads, (fine, coarse), strict=True)]
        return torch.cat([_boxes(each, stride) for each, stride in zip(maps, (4, 8), strict=True)], 2)


def _boxes(cells: Tensor, stride: int) -> Tensor:
    """[batch, 4 * BINS + CLASSES, h, w] -> corners of boxes in pixels and class probabilities, [batch, ..., h * w]."""
    height, width = cells.shape[2:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centres = torch.stack([x.flatten(), y.flatten()])
    flat = cells.flatten(2)
    sides, classes = flat[:, : 4 * BINS], flat[:, 4 * BINS :]
    bins = sides.reshape(-1, 4, BINS, height * width).softmax(2)
    near, far = (bins * torch.arange(BINS).view(1, 1, BINS, 1)).sum(2).chunk(2, 1)
    return torch.cat([(centres - near) * stride, (centres + far) * stride, classes.sigmoid()], 1)
