"""Elements chosen by their value: the largest, the different ones, those not zero."""

import torch

from worker.engine.torch_graph.host import as_scalar
from worker.engine.torch_graph.kernels.bits import in_order, on_bits
from worker.engine.torch_graph.kernels.unsigned import from_order, instead
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator


@operator("TopK", host=(1,))
def top_k(node: Node) -> Run:
    """The k largest (or smallest) in order, of equal ones the first: a stable sort, which `torch.topk` is not."""
    axis, attribute, is_largest = node.get("axis", -1), node.get("k"), bool(node.get("largest", 1))

    def run(x: torch.Tensor, k: list[int] | int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        count = attribute if k is None else as_scalar(k)
        values, indices = x.sort(stable=True, dim=axis, descending=is_largest)
        return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)

    def unsigned(x: torch.Tensor, k: list[int] | int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        values, indices = run(in_order(x), k)
        return from_order(values, x.dtype), indices

    return instead(node, run, unsigned)


@operator("NonZero")
def non_zero(_: Node) -> Run:
    """[R, N]: the positions of the N elements that are not zero, one column each."""
    return lambda x: (x != 0).nonzero().mT


@operator("Unique")
def unique(node: Node) -> Run:
    """The different elements, or slices of `axis`, in order or as they first appear, with where and how often."""
    axis, is_sorted, count = node.get("axis"), node.get("sorted", 1), len(node.wanted)
    select = on_bits(node, lambda x, positions: x.index_select(axis or 0, positions))

    def run(x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        if axis is None:
            x = x.reshape(-1)
        first, group, counts = _groups(in_order(x)) if axis is None else _slice_groups(in_order(x), axis)
        if not is_sorted:
            order = first.argsort()
            first, counts, group = first[order], counts[order], order.argsort()[group]
        values = select(x, first)
        return (values, first, group, counts) if count > 1 else values

    return run


def _groups(x_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # noqa: N803 - N elements
    """Of each different element, in order: where it is first, and how often; and each element's group. NaNs are one."""
    values_N, order_N = x_N.sort(stable=True)  # noqa: N806
    before, behind = values_N[:-1], values_N[1:]
    differs = (behind != before) & ~((behind != behind) & (before != before))  # noqa: PLR0124 - NaN differs from itself
    starts_N = torch.cat([differs.new_ones(min(1, len(x_N))), differs])  # noqa: N806
    group_N = torch.empty_like(order_N).scatter(0, order_N, starts_N.cumsum(0) - 1)  # noqa: N806
    start = starts_N.nonzero().squeeze(1)
    return order_N[start], group_N, torch.cat([start, start.new_full((1,), len(x_N))]).diff()


def _slice_groups(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same of slices along `axis`."""
    _, group_N, counts = torch.unique(x, dim=axis, return_inverse=True, return_counts=True)  # noqa: N806
    position_N = torch.arange(len(group_N), device=x.device)  # noqa: N806
    first = torch.full_like(counts, len(group_N)).scatter_reduce(0, group_N, position_N, "amin")
    return first, group_N, counts
