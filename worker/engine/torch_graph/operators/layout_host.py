"""The layout operators on Python numbers: what shape arithmetic does with scalars and vectors."""

from typing import Any

from worker.engine.torch_graph.host import MOST_ELEMENTS, as_list
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import Run, host_rule


@host_rule("Identity")
def identity_host(_: Node) -> Run:
    """The value itself."""
    return lambda numbers: numbers


@host_rule("Transpose")
def transpose_host(node: Node) -> Run | None:
    """A vector stays as it is."""
    return (lambda numbers: numbers) if _is_flat(node) else None


@host_rule("Concat")
def concat_host(node: Node) -> Run | None:
    """Vectors, one behind the other."""
    if not all(rank in (1, None) for rank in node.input_ranks):
        return None
    return lambda *parts: [n for part in parts for n in part]


@host_rule("Split")
def split_host(node: Node) -> Run | None:
    """A vector in parts of known sizes."""
    sizes = node.get("split", node.constant(1))
    if not _is_flat(node) or sizes is None:
        return None
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]

    def run(x: list[Any], _: Any = None) -> tuple[list[Any], ...] | list[Any]:
        parts = tuple(x[end - n : end] for n, end in zip(sizes, ends, strict=True))
        return parts if len(node.wanted) > 1 else parts[0]

    return run


@host_rule("Squeeze")
def squeeze_host(node: Node) -> Run | None:
    """A vector of one number becomes that number; a scalar stays."""
    axes = node.get("axes", node.constant(1))
    if not _is_flat(node) or (axes is None and node.has(1)):
        return None
    if node.rank(0) == 0 or axes == []:
        return lambda x, *_: x
    if axes is None:
        return lambda x, *_: x[0] if len(x) == 1 else x
    return lambda x, *_: _only(x)


@host_rule("Unsqueeze")
def unsqueeze_host(node: Node) -> Run | None:
    """A scalar becomes a vector."""
    axes = node.get("axes", node.constant(1))
    if node.rank(0) != 0 or axes is None or len(as_list(axes)) != 1:
        return None
    return lambda x, *_: [x]


@host_rule("Reshape")
def reshape_host(node: Node) -> Run | None:
    """A scalar as a vector, or a vector of one number as a scalar."""
    sizes = node.constant(1)
    if not _is_flat(node) or not isinstance(sizes, list) or len(sizes) > 1:
        return None
    if not sizes:
        return lambda x, _: _only(x)
    (size,) = sizes
    keeps = size == -1 or (size == 0 and not node.get("allowzero", 0))
    return lambda x, _: as_list(x) if keeps else _sized(as_list(x), size)


@host_rule("Expand")
def expand_host(node: Node) -> Run | None:
    """A small vector of one number, repeated."""
    sizes = node.constant(1)
    if not _is_flat(node) or not isinstance(sizes, list) or len(sizes) > 1 or not all(map(_is_small, sizes)):
        return None
    if not sizes or (sizes == [1] and node.rank(0) == 1):
        return lambda x, _: x
    return lambda x, _: as_list(x) * sizes[0] if len(as_list(x)) == 1 else _sized(x, sizes[0])


def _is_flat(node: Node) -> bool:
    """Whether input 0 is known to be a scalar or a vector."""
    return node.rank(0) in (0, 1)


def _is_small(size: int) -> bool:
    return 0 <= size <= MOST_ELEMENTS


def _only(x: Any) -> Any:
    """The number of a vector of one."""
    (number,) = as_list(x)
    return number


def _sized(x: list[Any], size: int) -> list[Any]:
    if len(x) != size:
        raise ValueError(f"{len(x)} numbers do not fill a vector of {size}")
    return x
