"""Pad: elements added around a tensor, or taken away where a pad is negative."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.kernels.bits import on_bits
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator

Margins = list[tuple[int, int]]
"""Elements before and after, for each axis."""
_NATIVE = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
_KERNEL_RANKS = (3, 4, 5)
"""torch pads the axes behind batch and channels of tensors of these ranks in one kernel."""


@operator("Pad", host=(1, 2, 3))
def pad(node: Node) -> Run:
    """By a constant (0 by default) or by elements of the axis itself. Pads, value: attributes before opset 11."""
    mode, attribute, fill = node.get("mode", "constant"), node.get("pads"), node.get("value", 0.0)
    if mode != "constant" and mode not in _POSITIONS:
        raise node.refuse(f"mode {mode!r}", "use constant, reflect, edge or wrap")
    pad_from_axes, known = on_bits(node, _pad_from_axes), _known_margins(node)

    def run(
        x: torch.Tensor, pads: list[int] | None = None, value: object = None, axes: list[int] | None = None
    ) -> torch.Tensor:
        margins = known or _margins(x.ndim, attribute if pads is None else pads, axes)
        check_size([n + before + after for n, (before, after) in zip(x.shape, margins, strict=True)], x.dtype)
        if mode == "constant":
            return torch.constant_pad_nd(x, _flat(margins), fill if value is None else as_scalar(value))
        return pad_from_axes(x, margins, mode)  # type: ignore[no-any-return]  # a Run gives Any

    return run


def _known_margins(node: Node) -> Margins | None:
    rank, pads, axes = node.rank(0), node.get("pads", node.constant(1)), node.constant(3)
    if rank is None or pads is None or (node.has(3) and axes is None):
        return None
    return _margins(rank, pads, axes)


def _margins(rank: int, pads: list[int], axes: list[int] | None) -> Margins:
    margins = [(0, 0)] * rank
    count = rank if axes is None else len(axes)
    for axis, before, after in zip(range(rank) if axes is None else axes, pads[:count], pads[count:], strict=True):
        margins[axis] = (before, after)
    return margins


def _flat(margins: Margins) -> list[int]:
    """As torch wants them: last axis first."""
    return [n for margin in reversed(margins) for n in margin]


def _pad_from_axes(x: torch.Tensor, margins: Margins, mode: str) -> torch.Tensor:
    """Negative margins crop first, so that what is added comes from what is left."""
    if any(before < 0 or after < 0 for before, after in margins):
        x = torch.constant_pad_nd(x, _flat([(min(before, 0), min(after, 0)) for before, after in margins]))
        margins = [(max(before, 0), max(after, 0)) for before, after in margins]
    if _fits_kernel(x, margins):
        return F.pad(x, _flat(margins[2:]), _NATIVE[mode])
    for axis, (before, after) in enumerate(margins):
        if before or after:
            x = x.index_select(axis, _POSITIONS[mode](before, x.shape[axis], after, x.device))
    return x


def _fits_kernel(x: torch.Tensor, margins: Margins) -> bool:
    """Whether torch's kernel takes it: it repeats an axis only once."""
    return (
        x.ndim in _KERNEL_RANKS
        and x.is_floating_point()
        and x.dtype.itemsize > 1
        and margins[:2] == [(0, 0), (0, 0)]
        and all(max(margin) < n for n, margin in zip(x.shape[2:], margins[2:], strict=True))
    )


def _reflected(before: int, size: int, after: int, device: torch.device) -> torch.Tensor:
    """To and fro between the first and the last element, which are not repeated."""
    period = max(2 * (size - 1), 1)
    position = torch.arange(-before, size + after, device=device) % period
    return torch.minimum(position, period - position)


def _clamped(before: int, size: int, after: int, device: torch.device) -> torch.Tensor:
    return torch.arange(-before, size + after, device=device).clamp(0, size - 1)


def _wrapped(before: int, size: int, after: int, device: torch.device) -> torch.Tensor:
    return torch.arange(-before, size + after, device=device) % size


_POSITIONS: Mapping[str, Callable[[int, int, int, torch.device], torch.Tensor]] = {
    "reflect": _reflected,
    "edge": _clamped,
    "wrap": _wrapped,
}
"""Where in an axis of some size its padded elements come from."""
