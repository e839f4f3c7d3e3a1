"""The windows of pools: which pads make them fill a tensor, and a view of each. No operator is here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from worker.engine.torch_graph.kernels.windows import (
    Pads,
    Window,
    extents,
    fixed_pads,
    is_even,
    read_window,
    resolve_pads,
    spread,
    window_counts,
)
from worker.engine.torch_graph.node import Node


@dataclass(frozen=True)
class PoolWindow:
    """A window with one number for each axis."""

    window: Window
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil: bool
    """Whether a last window may run over the end."""

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def options(self) -> Mapping[str, Any]:
        """What each of torch's pools is told."""
        return {"kernel_size": self.kernel, "stride": self.strides}

    def native_padding(self) -> tuple[int, ...] | None:
        """The padding as torch's pools take it: known now, even, and at most half the kernel; else None."""
        pads = fixed_pads(self.window)
        if pads is None or not is_even(pads):
            return None
        padding = tuple(spread(pads[0], self.rank))
        return padding if all(2 * pad <= n for pad, n in zip(padding, self.kernel, strict=True)) else None

    def fill(self, sizes: Sequence[int]) -> tuple[Pads, Pads]:
        """The node's own pads, and those with which the windows that count fill a tensor of `sizes` to its end."""
        pads = resolve_pads(self.window, sizes, self.kernel, crops_both=True)
        counts = window_counts(self.window, sizes, pads, self.kernel, ceil=self.ceil)
        axes = zip(counts, self.strides, extents(self.window, self.kernel), sizes, pads[0], strict=True)
        return pads, (pads[0], [(count - 1) * stride + n - size - begin for count, stride, n, size, begin in axes])

    def view(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, o1, ... on, k1, ... kn): every window of `x`, which they fill to its end."""
        axes = zip(extents(self.window, self.kernel), self.strides, self.dilations, strict=True)
        for axis, (extent, stride, dilation) in enumerate(axes, start=2):
            x = x.unfold(axis, extent, stride)[..., ::dilation]
        return x

    @property
    def taps(self) -> tuple[int, ...]:
        """The dimensions of `view` that a pool reduces."""
        return tuple(range(-self.rank, 0))

    def refuse_empty(self, node: Node) -> None:
        """Where there is nothing but padding there is no maximum and no mean: raises SlimlineError."""
        for ends in self.window.pads:
            axes = zip(spread(ends, self.rank), extents(self.window, self.kernel), strict=True)
            if any(pad >= n for pad, n in axes):
                raise node.refuse("pads as large as the kernel leave windows empty", "pad less, or with a Pad node")


def read_pool(node: Node) -> PoolWindow:
    """The window of a pool. `ceil_mode` has no say where `auto_pad` rules, which fills the tensor anyway."""
    kernel: tuple[int, ...] = tuple(node.need("kernel_shape"))
    window = read_window(node)
    ceil = bool(node.get("ceil_mode", 0)) and window.auto_pad == "NOTSET"
    strides, dilations = spread(window.strides, len(kernel)), spread(window.dilations, len(kernel))
    return PoolWindow(window, kernel, tuple(strides), tuple(dilations), ceil)
