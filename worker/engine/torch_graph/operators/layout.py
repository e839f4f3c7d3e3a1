"""Layout: operators that keep every element and change how they are arranged. Parts are taken in `slicing.py`."""

import math

import torch

from worker.engine.torch_graph.context import check_size
from worker.engine.torch_graph.host import as_list
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, operator


@operator("Identity")
def identity(_: Node) -> Run:
    """The input itself: nothing changes tensors in place."""
    return lambda x: x


@operator("Reshape", host=(1,))
def reshape(node: Node) -> Run:
    """0 keeps a dimension unless `allowzero`; -1 takes what is left."""
    keeps_zero = node.get("allowzero", 0)

    def run(x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        if keeps_zero or 0 not in sizes:
            return x.reshape(sizes)
        return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(sizes)])

    return run


@operator("Flatten")
def flatten(node: Node) -> Run:
    """A matrix: the dimensions before `axis` by those from it on."""
    axis = node.get("axis", 1)

    def run(x: torch.Tensor) -> torch.Tensor:
        if not -x.ndim <= axis <= x.ndim:
            raise ValueError(f"axis {axis} is not one of a tensor of rank {x.ndim}")
        return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))

    return run


@operator("Squeeze", host=(1,))
def squeeze(node: Node) -> Run:
    """Without `axes`, an attribute before opset 13, all dimensions of size 1 go."""
    attribute = node.get("axes")

    def run(x: torch.Tensor, axes: list[int] | int | None = None) -> torch.Tensor:
        chosen = attribute if axes is None else as_list(axes)
        if chosen is None:
            return x.squeeze()
        if any(x.shape[axis] != 1 for axis in chosen):
            raise ValueError(f"only dimensions of size 1 can go, not {chosen} of {list(x.shape)}")
        return x.squeeze(chosen)

    return run


@operator("Unsqueeze", host=(1,))
def unsqueeze(node: Node) -> Run:
    """`axes`, an attribute before opset 13, count in the result."""
    attribute = node.get("axes")

    def run(x: torch.Tensor, axes: list[int] | int | None = None) -> torch.Tensor:
        chosen = attribute if axes is None else as_list(axes)
        rank = x.ndim + len(chosen)
        counted = sorted(axis + rank if axis < 0 else axis for axis in chosen)
        if len(set(counted)) < len(counted):
            raise ValueError(f"axes {chosen} name a dimension twice")
        for axis in counted:
            x = x.unsqueeze(axis)
        return x

    return run


@operator("Transpose")
def transpose(node: Node) -> Run:
    """`perm` names the input's dimensions in their new order; by default they are reversed."""
    order = node.get("perm")
    if order is None:
        return lambda x: x.permute(tuple(range(x.ndim - 1, -1, -1)))
    return lambda x: x.permute(order)


@operator("Expand", host=(1,))
def expand(_: Node) -> Run:
    """Broadcasting in both directions: a size of 1 keeps what the input has. Gives a view."""

    def run(x: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        added = len(sizes) - x.ndim
        kept = [-1 if n == 1 and i >= added else n for i, n in enumerate(sizes)]
        expanded = x.expand([-1] * -added + kept)
        check_size(expanded.shape, x.dtype)
        return expanded

    return run


@operator("Tile", host=(1,))
def tile(_: Node) -> Run:
    """Dimension i, `repeats[i]` times."""

    def run(x: torch.Tensor, repeats: list[int]) -> torch.Tensor:
        if len(repeats) != x.ndim:
            raise ValueError(f"{len(repeats)} repeats for a tensor of rank {x.ndim}")
        check_size([n * times for n, times in zip(x.shape, repeats, strict=True)], x.dtype)
        return x.repeat(repeats)

    return run


@operator("Concat")
def concat(node: Node) -> Run:
    """All inputs, one behind the other along `axis`."""
    axis = node.need("axis")
    return lambda *parts: torch.cat(parts, axis)


@operator("Split", host=(1,))
def split(node: Node) -> Run:
    """Parts of given sizes (an attribute before opset 13), else equal ones, of which the last ones may be smaller."""
    axis, attribute, wanted = node.get("axis", 0), node.get("split"), len(node.wanted)
    count = node.get("num_outputs", wanted)

    def run(x: torch.Tensor, sizes: list[int] | None = None) -> torch.Tensor | tuple[torch.Tensor, ...]:
        parts = x.split_with_sizes(sizes or attribute or _equal_sizes(x.shape[axis], count), axis)
        if len(parts) < wanted:
            raise ValueError(f"{len(parts)} sizes for {wanted} parts")
        return parts if wanted > 1 else parts[0]

    return run


def _equal_sizes(total: int, count: int) -> list[int]:
    if total % count == 0:
        return [total // count] * count
    size = total // count + 1
    return [max(0, min(size, total - size * i)) for i in range(count)]


_SPREAD = {"DCR": ((1, 2, 0), (0, 3, 4, 1, 5, 2)), "CRD": ((0, 1, 2), (0, 1, 4, 2, 5, 3))}
"""By mode: where the channels (0) and the two block axes (1, 2) stand in the depth, and the new order of axes."""
_GATHERED = {"DCR": (0, 3, 5, 1, 2, 4), "CRD": (0, 1, 3, 5, 2, 4)}


@operator("DepthToSpace")
def depth_to_space(node: Node) -> Run:
    """[N, C*B*B, H, W] to [N, C, H*B, W*B]; the block is the outer (DCR) or the inner (CRD) part of the depth."""
    block, mode = node.need("blocksize"), node.get("mode", "DCR")
    if mode not in _SPREAD:
        raise node.refuse(f"mode {mode!r}", "use DCR or CRD")
    depth, order = _SPREAD[mode]

    def run(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        sizes = (c // (block * block), block, block)
        blocks = x.reshape(n, *(sizes[i] for i in depth), h, w)
        return blocks.permute(order).reshape(n, sizes[0], h * block, w * block)

    return run


@operator("SpaceToDepth")
def space_to_depth(node: Node) -> Run:
    """[N, C, H*B, W*B] to [N, C*B*B, H, W]; the block is the outer (DCR) or the inner (CRD) part of the depth."""
    block, mode = node.need("blocksize"), node.get("mode", "DCR")
    if mode not in _GATHERED:
        raise node.refuse(f"mode {mode!r}", "use DCR or CRD")
    order = _GATHERED[mode]

    def run(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // block, block, w // block, block)
        return blocks.permute(order).reshape(n, c * block * block, h // block, w // block)

    return run
