"""Microsoft's averages of 8-bit tensors: pools and means. Gradients end here."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.kernels.affine_quantization import quantizer
from worker.engine.torch_graph.kernels.integer_arithmetic import centre
from worker.engine.torch_graph.kernels.windows import Pads, flat_pads, read_window, resolve_pads, spread, window_counts
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import MICROSOFT, Run, operator

Zero = torch.Tensor | None


@operator("QLinearAveragePool", domain=MICROSOFT, fixed=(0, 2, 4))
def average_pool(node: Node) -> Run:
    """The mean of each window, over the padding too where `count_include_pad`; sums of codes are exact."""
    window, quantize = read_window(node), quantizer(node, 0, shifts_first=True)
    kernel: Sequence[int] = node.need("kernel_shape")
    strides = spread(window.strides, len(kernel))
    _check_form(node, is_same=window.is_same, has_gaps=any(s > k for s, k in zip(strides, kernel, strict=True)))
    ceil, counts_pads = bool(node.get("ceil_mode", 0)), float(node.get("count_include_pad", 0))

    def run(
        x: torch.Tensor, x_scale: torch.Tensor, x_zero: Zero, scale: torch.Tensor, zero: Zero = None
    ) -> torch.Tensor:
        codes = centre(x, x_zero, torch.float32)
        pads = resolve_pads(window, x.shape[2:], kernel)
        counts = window_counts(window, x.shape[2:], pads, kernel, ceil=ceil)
        beyond = _beyond(counts, x.shape[2:], pads, (kernel, strides))
        members = F.pad(codes.new_ones([1, 1, *x.shape[2:]]), flat_pads(pads), value=counts_pads)
        members = _sum_windows(F.pad(members, beyond), kernel, strides)
        total = _sum_windows(F.pad(F.pad(codes, flat_pads(pads)), beyond), kernel, strides)
        return quantize(total * x_scale / members, scale, zero)

    return _on_last_channels(run) if node.get("channels_last", 0) else run


def _check_form(node: Node, *, is_same: bool, has_gaps: bool) -> None:
    """Refuse what ONNX Runtime, whose operator it is, does not do as it says."""
    if node.get("ceil_mode", 0) and node.get("count_include_pad", 0):
        raise node.refuse(
            "ceil_mode with count_include_pad counts elements beyond the padding", "pad before it instead"
        )
    if is_same and has_gaps:
        raise node.refuse("auto_pad SAME with strides beyond the kernel crops the input", "slice before it instead")


def _beyond(
    counts: Sequence[int], sizes: Sequence[int], pads: Pads, sliding: tuple[Sequence[int], Sequence[int]]
) -> list[int]:
    """What the last window takes beyond the padding, less what it leaves, as `torch.nn.functional.pad` wants it."""
    after = [
        (count - 1) * stride + extent - size - begin - end
        for count, size, begin, end, extent, stride in zip(counts, sizes, *pads, *sliding, strict=True)
    ]
    return flat_pads((tuple(0 for _ in after), tuple(after)))


def _sum_windows(x: torch.Tensor, kernel: Sequence[int], strides: Sequence[int]) -> torch.Tensor:
    for axis, (extent, stride) in enumerate(zip(kernel, strides, strict=True), start=2):
        x = x.unfold(axis, extent, stride).sum(-1)
    return x


@operator("QLinearGlobalAveragePool", domain=MICROSOFT, fixed=(0, 2, 4))
def global_average_pool(node: Node) -> Run:
    """The mean over the spatial axes, which stay with a size of 1."""
    quantize = quantizer(node, 0)

    def run(
        x: torch.Tensor, x_scale: torch.Tensor, x_zero: Zero, scale: torch.Tensor, zero: Zero = None
    ) -> torch.Tensor:
        axes = list(range(2, x.dim()))
        mean = centre(x, x_zero, torch.float32).sum(axes, keepdim=True) / x.shape[2:].numel()
        return quantize(mean * x_scale, scale, zero)

    return _on_last_channels(run) if node.get("channels_last", 0) else run


def _on_last_channels(run: Run) -> Run:
    """`run` for an input and a result with the channels as their last dimension."""
    return lambda x, *others: run(x.movedim(-1, 1), *others).movedim(1, -1)
