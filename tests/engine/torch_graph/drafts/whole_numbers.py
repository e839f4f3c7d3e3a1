"""Arithmetic on scalars and vectors of whole numbers, often all known in advance: what graphs compute shapes with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.engine.torch_graph.drafts.draft import Draft, step

FEW = 9
SHAPES: Sequence[list[int]] = ([], [0], [1], [2], [3])


@step
def whole_numbers(d: Draft) -> None:
    """A few nodes of one type, mostly on each other's results."""
    dtype = d.one_of(["int64", "int32"])
    for _ in range(d.integer(1, 3)):
        near = [
            name for name, value in d.values.items() if value.ndim <= 1 and value.dtype == dtype and value.size < FEW
        ]
        x = str(d.one_of(near[-3:])) if near and d.flag() else vector(d, dtype, d.one_of(SHAPES))
        NODES[d.one_of(list(NODES))](d, x)


def vector(d: Draft, dtype: str, shape: Sequence[int]) -> str:
    """Mostly small numbers, known in advance; now and then the largest and smallest there are."""
    numbers = d.array(dtype, shape)
    if dtype != "bool" and d.integer(0, 5) == 0:
        limits = np.iinfo(dtype)
        numbers = np.where(numbers > 3, limits.max, np.where(numbers < -3, limits.min, numbers))
    return d.leaf(numbers.astype(dtype), d.one_of(["initializer", "initializer", "constant", "input"]))


def pair(d: Draft, x: str) -> None:
    op = d.one_of(["Add", "Sub", "Mul", "Max", "Min", "Equal", "Less", "GreaterOrEqual"])
    shape = d.values[x].shape
    y = vector(d, d.values[x].dtype.name, d.one_of([shape, shape, [], [1]]))
    d.add(op, d.one_of([[x, y], [y, x]]))


def single(d: Draft, x: str) -> None:
    d.add(d.one_of(["Neg", "Abs", "Identity", "Shape", "Size", "Transpose"]), [x])


def divide(d: Draft, x: str) -> None:
    op = d.one_of(["Div", "Mod"])
    y = d.leaf(np.array(d.one_of([-3, -2, 2, 3, [2]]), d.values[x].dtype))
    d.add(op, [x, y], **({"fmod": int(d.flag())} if op == "Mod" else {}))


def reduce(d: Draft, x: str) -> None:
    if d.values[x].size and d.values[x].ndim:
        axes = [d.leaf(np.array([0]), "initializer")] * d.flag()
        d.add(d.one_of(["ReduceSum", "ReduceMax", "ReduceMin"]), [x, *axes], keepdims=int(d.flag()))


def squeeze(d: Draft, x: str) -> None:
    is_one = d.values[x].shape == (1,)
    d.add("Squeeze", [x, d.leaf(np.array([0]), "initializer")] if is_one and d.flag() else [x])


def unsqueeze(d: Draft, x: str) -> None:
    rank = d.values[x].ndim
    d.add("Unsqueeze", [x, d.leaf(np.array([d.integer(-1 - rank, rank)]))])


def reshape(d: Draft, x: str) -> None:
    shape = [*d.values[x].shape]
    target = d.one_of([[-1], shape, [], [1]] if d.values[x].size == 1 else [shape])
    d.add("Reshape", [x, d.leaf(np.array(target, np.int64))], allowzero=1)


def expand(d: Draft, x: str) -> None:
    shape = [*d.values[x].shape]
    d.add("Expand", [x, d.leaf(np.array(d.one_of([[], [1], shape, [2, *shape]]), np.int64))])


def concat(d: Draft, x: str) -> None:
    if d.values[x].ndim:
        d.add("Concat", [x, vector(d, d.values[x].dtype.name, [d.integer(0, 2)])], axis=d.one_of([0, -1]))


def gather(d: Draft, x: str) -> None:
    if d.values[x].ndim and d.values[x].size:
        d.add("Gather", [x, d.leaf(np.array(d.one_of([0, -1, [0], [-1, 0], [[0]], []]), np.int64))])


def slice_(d: Draft, x: str) -> None:
    if d.values[x].ndim:
        numbers = [d.leaf(np.array([n])) for n in (d.integer(0, 3), d.integer(-3, 9), 0, d.one_of([1, 2, -1]))]
        d.add("Slice", [x, *numbers[: d.one_of([2, 3, 4])]])


def split(d: Draft, x: str) -> None:
    if d.values[x].ndim:
        size = d.values[x].size
        d.add("Split", [x, d.leaf(np.array([size - size // 2, size // 2]))], 2)


def choose(d: Draft, x: str) -> None:
    shape = d.values[x].shape
    condition = vector(d, "bool", d.one_of([shape, []]))
    d.add("Where", [condition, x, vector(d, d.values[x].dtype.name, shape)])


def convert(d: Draft, x: str) -> None:
    targets: list[Any] = [TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL]
    is_small = not d.values[x].size or np.abs(d.values[x].astype(float)).max() < 100
    d.add("Cast", [x], to=d.one_of([*targets, TensorProto.FLOAT] if is_small else targets))


def fill(d: Draft, x: str) -> None:
    size = d.leaf(np.array(d.one_of([[], [0], [2], [1, 2]]), np.int64))
    d.add("ConstantOfShape", [size], value=numpy_helper.from_array(d.array(d.values[x].dtype.name, [1])))


def count(d: Draft, x: str) -> None:
    numbers = d.integer(-3, 3), d.integer(-3, 9), d.one_of([-2, 1, 2])
    d.add("Range", [d.leaf(np.array(n, d.values[x].dtype)) for n in numbers])


def tile(d: Draft, x: str) -> None:
    if d.values[x].ndim:
        d.add("Tile", [x, d.leaf(np.array([d.integer(0, 3)]))])


NODES: dict[str, Callable[[Draft, str], None]] = {
    each.__name__: each
    for each in (
        pair, single, divide, reduce, squeeze, unsqueeze, reshape, expand, concat, gather, slice_, split, choose,
        convert, fill, count, tile,
    )
}  # fmt: skip
