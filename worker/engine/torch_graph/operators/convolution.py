"""Convolutions on torch's kernels, of real numbers: those of integers are with the quantized operators.

Deformable ones are in `deformable.py`, the padding arithmetic in `kernels/windows.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.windows import (
    Pads,
    Window,
    extents,
    fixed_pads,
    flat_pads,
    is_even,
    pad,
    read_window,
    resolve_pads,
    share,
    spread,
)
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

Kernel = Callable[..., torch.Tensor]
FORWARD: Mapping[int, Kernel] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED: Mapping[int, Kernel] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def _for_rank(node: Node, window: Window, kernels: Mapping[int, Kernel]) -> Kernel:
    """The kernel for the number of spatial axes; it is looked up at each call only where the graph does not tell it."""
    if window.rank is not None:
        if window.rank not in kernels:
            raise node.refuse(f"{window.rank} spatial axes", f"torch has kernels for {', '.join(map(str, kernels))}")
        return kernels[window.rank]

    def run(x: torch.Tensor, weight: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        return kernels[weight.dim() - 2](x, weight, *rest, **options)

    return run


@operator("Conv")
def conv(node: Node) -> Run:
    """Cross-correlation. Pads that a kernel of torch cannot add by itself are added in front of it."""
    window = read_window(node)
    kernel, pads = _for_rank(node, window, FORWARD), fixed_pads(window)
    options = {"stride": window.strides, "dilation": window.dilations, "groups": node.get("group", 1)}
    if pads is None:
        return _conv_same(window, partial(kernel, **options))
    if is_even(pads):
        return partial(kernel, padding=tuple(pads[0]), **options)
    padding = flat_pads(pads)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return kernel(pad(x, padding), weight, bias, **options)

    return run


def _conv_same(window: Window, kernel: Kernel) -> Run:
    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        pads = resolve_pads(window, x.shape[2:], weight.shape[2:])
        # Asking whether symbolic pads are even would fix the sizes of a traced graph.
        if not torch.compiler.is_compiling() and is_even(pads):
            return kernel(x, weight, bias, padding=tuple(pads[0]))
        return kernel(pad(x, flat_pads(pads)), weight, bias)

    return run


@operator("ConvTranspose")
def conv_transpose(node: Node) -> Run:
    """The gradient of Conv by its input, as an operator. The weight is (C, M / group, k1, ... kn).

    Pads crop the full result at both ends, `output_padding` lengthens it; `output_shape` gives the pads.
    """
    window, added = read_window(node), tuple(node.get("output_padding") or (0,))
    kernel = _for_rank(node, window, TRANSPOSED)
    options = {"stride": window.strides, "dilation": window.dilations, "groups": node.get("group", 1)}
    target = node.get("output_shape")
    if target is None and window.kernel is not None:
        pads = _cropped(node, window, added, window.kernel)
        spare = _native_padding(window, added, pads)
        if spare is not None:
            return partial(kernel, padding=tuple(pads[0]), output_padding=spare, **options)

    def run(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        taps = weight.shape[2:]
        pads = (
            _cropped(node, window, added, taps) if target is None else _fitted(window, added, taps, x.shape[2:], target)
        )
        spare = _native_padding(window, added, pads)
        if spare is not None:
            return kernel(x, weight, bias, padding=tuple(pads[0]), output_padding=spare, **options)
        ends = [more - end for more, end in zip(spread(added, len(taps)), pads[1], strict=True)]
        y = pad(kernel(x, weight, **options), flat_pads(([-begin for begin in pads[0]], ends)))
        return y if bias is None else y + bias.view(-1, *[1] * len(taps))

    return run


def _cropped(node: Node, window: Window, added: Sequence[int], taps: Sequence[int]) -> Pads:
    """What is cropped of the full result where no `output_shape` is given: SAME leaves size * stride.

    Raises SlimlineError where that is longer than the full result: runtimes disagree about what to do.
    """
    rank = len(taps)
    if not window.is_same:
        return spread(window.pads[0], rank), spread(window.pads[1], rank)
    axes = zip(extents(window, taps), spread(added, rank), spread(window.strides, rank), strict=True)
    totals = [extent + more - stride for extent, more, stride in axes]
    if min(totals) < 0:
        raise node.refuse(f"auto_pad {window.auto_pad} with a stride beyond the kernel", "give output_shape")
    return share(totals, window.auto_pad)


def _fitted(
    window: Window, added: Sequence[int], taps: Sequence[int], sizes: Sequence[int], target: Sequence[int]
) -> Pads:
    """What is cropped of the full result to be left with `target`, which may name batch and channels too."""
    rank = len(taps)
    axes = zip(sizes, spread(window.strides, rank), spread(added, rank), extents(window, taps), strict=True)
    full = [stride * (size - 1) + more + extent for size, stride, more, extent in axes]
    return share([size - kept for size, kept in zip(full, target[-rank:], strict=True)], window.auto_pad)


def _native_padding(window: Window, added: Sequence[int], pads: Pads) -> tuple[int, ...] | None:
    """The `output_padding` of torch that with `padding=pads[0]` gives the same, None where torch has none."""
    rank = len(pads[0])
    spare = tuple(more + begin - end for more, begin, end in zip(spread(added, rank), *pads, strict=True))
    most = [max(pair) for pair in zip(spread(window.strides, rank), spread(window.dilations, rank), strict=True)]
    is_native = min(pads[0]) >= 0 and all(0 <= n < limit for n, limit in zip(spare, most, strict=True))
    return spare if is_native else None


@operator("CausalConvWithState")
def causal_conv_with_state(node: Node) -> Run:
    """Depthwise convolution of (N, C, L) that looks back only. The next call looks back on the second output."""
    activation = node.get("activation") or "none"
    if activation not in ("none", "silu", "swish"):
        raise node.refuse(f"activation {activation!r} is unknown", "use none, silu or swish")
    is_gated = activation != "none"

    def run(
        x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, past: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        back = weight.shape[2] - 1
        x = pad(x, (back, 0)) if past is None else torch.cat((past, x), dim=2)
        y = F.conv1d(x, weight, bias, groups=weight.shape[0])
        return F.silu(y) if is_gated else y, x.narrow(2, x.shape[2] - back, back)

    return run
