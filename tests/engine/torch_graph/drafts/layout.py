"""Steps that arrange, choose, repeat or make elements, and compute the shapes for that."""

import numpy as np
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.engine.torch_graph.drafts.draft import ALL, FLOATS, NUMBERS, Draft, step


@step
def reshape(d: Draft) -> None:
    x = d.pick(ALL)
    shape = list(d.values[x].shape)
    size = d.values[x].size
    target = d.one_of([[-1], [size], shape[::-1], [1, *shape, 1], [0] * min(len(shape), 1) + [-1] if shape else [1]])
    if not size:
        target = d.one_of([shape, [*shape, 1]])
    d.add("Reshape", [x, d.leaf(np.array(target, np.int64))])


@step
def shape_arithmetic(d: Draft) -> None:
    """[size of one axis, -1] or [sizes in another order], computed from Shape."""
    x = d.pick(ALL, least_rank=1, least=1)
    rank = d.values[x].ndim
    (shape,) = d.add("Shape", [x], **({"start": -rank} if d.flag() else {}))
    axis = d.leaf(np.array(d.integer(-rank, rank - 1), np.int64), "initializer")
    (size,) = d.add("Gather", [shape, axis])
    match d.one_of(["keep", "fold", "product", "slice", "expand"]):
        case "keep":
            (size,) = d.add("Unsqueeze", [size, d.leaf(np.array([0]))])
            target = d.add("Concat", [size, d.leaf(np.array([-1]))], axis=0)
        case "fold":
            (doubled,) = d.add("Mul", [size, d.leaf(np.array(2))])
            (half,) = d.add("Div", [doubled, d.leaf(np.array(2))])
            (half,) = d.add("Reshape", [half, d.leaf(np.array([1]))])
            target = d.add("Concat", [d.leaf(np.array([-1])), half], axis=0)
        case "product":
            target = d.add("ReduceProd", [shape], keepdims=1)
        case "slice":
            (head,) = d.add("Slice", [shape, d.leaf(np.array([0])), d.leaf(np.array([1]))])
            target = d.add("Concat", [head, d.leaf(np.array([-1]))], axis=0)
        case _:
            (ones,) = d.add("Expand", [d.leaf(np.array([1])), d.leaf(np.array([rank]))])
            (same,) = d.add("Equal", [ones, shape])
            target = d.add("Where", [same, ones, shape])
    d.add("Reshape", [x, *target])


@step
def arrangement(d: Draft) -> None:
    x = d.pick(ALL)
    rank = d.values[x].ndim
    match d.one_of(["Transpose", "Flatten", "Unsqueeze", "Squeeze", "Tile", "Expand"]):
        case "Transpose":
            d.add("Transpose", [x], **({"perm": d.draw(st.permutations(range(rank)))} if rank and d.flag() else {}))
        case "Flatten" if rank and d.values[x].size:
            d.add("Flatten", [x], axis=d.integer(-rank, rank))
        case "Unsqueeze" if rank < 4:
            d.add("Unsqueeze", [x, d.leaf(np.array([d.integer(-rank - 1, rank)]))])
        case "Squeeze":
            ones = [axis for axis, size in enumerate(d.values[x].shape) if size == 1]
            d.add("Squeeze", [x, d.leaf(np.array(ones[:1], np.int64))] if ones and d.flag() else [x])
        case "Tile" if rank:
            d.add("Tile", [x, d.leaf(np.array([d.integer(0, 2) for _ in range(rank)]))])
        case "Expand":
            d.add("Expand", [x, d.leaf(np.array(d.values[d.beside(x)].shape, np.int64))])


@step
def joining(d: Draft) -> None:
    x = d.pick(ALL, least_rank=1)
    value = d.values[x]
    axis = d.integer(-value.ndim, value.ndim - 1)
    shape = list(value.shape)
    shape[axis] = d.integer(0, 3)
    (joined,) = d.add("Concat", [x, d.leaf(d.array(value.dtype.name, shape)), *[x] * d.flag()], axis=axis)
    size = d.values[joined].shape[axis]
    if size and d.flag():
        first = d.integer(0, size)
        d.add("Split", [joined, d.leaf(np.array([first, size - first]))], 2, axis=axis)
    elif size > 2:
        d.add("Split", [joined], 2, axis=axis, num_outputs=2)


@step
def slicing(d: Draft) -> None:
    x = d.pick(ALL, least_rank=1, least=1)
    rank = d.values[x].ndim
    axes = [axis - rank * d.flag() for axis in range(rank) if d.flag()] or [0]
    steps = [d.one_of([1, 1, 2, -1, -2]) for _ in axes]
    ends = [d.one_of([-9, -2, -1, 0, 1, 2, 9, 2**40]) for _ in axes]
    # Before the first element is one to start at, says ONNX; NumPy, and so the reference, takes nothing from there.
    starts = [d.one_of([-1, 0, 1, 2, 9, 2**40, *[-9] * (step > 0)]) for step in steps]
    d.add("Slice", [x, *(d.leaf(np.array(numbers, np.int64)) for numbers in (starts, ends, axes, steps))])


@step
def gathering(d: Draft) -> None:
    x = d.pick(ALL, least_rank=1, least=1)
    value = d.values[x]
    axis = d.integer(-value.ndim, value.ndim - 1)
    size = value.shape[axis]
    if d.flag():
        shape = [n if index != axis % value.ndim else d.integer(1, 3) for index, n in enumerate(value.shape)]
        indices = d.rng.integers(-size, size, shape)
        place = axis % value.ndim  # the reference gets negative ones wrong
        d.add("GatherElements", [x, d.leaf(indices.astype(d.one_of(["int64", "int32"])))], axis=place)
        return
    indices = d.rng.integers(-size, size, d.shape(d.integer(0, 2)))
    d.add("Gather", [x, d.leaf(np.array(indices).astype(d.one_of(["int64", "int32"])))], axis=axis)


@step
def scattering(d: Draft) -> None:
    x = d.pick(FLOATS, least_rank=1, least=1)
    value = d.values[x]
    axis = d.integer(-value.ndim, value.ndim - 1)
    order = np.argsort(d.rng.random(value.shape), axis)
    updates = d.leaf(d.array(value.dtype.name, value.shape))
    d.add("ScatterElements", [x, d.leaf(order), updates], axis=axis, reduction=d.one_of(["none", "add", "mul", "max"]))


@step
def padding(d: Draft) -> None:
    x = d.pick(["float32", "float64", "int64", "int32"], least_rank=1, least=2)
    value = d.values[x]
    mode = d.one_of(["constant", "edge", "reflect", "wrap"])
    most = 2 if mode in ("constant", "edge") else 1
    pads = [d.integer(0, most) for _ in range(2 * value.ndim)]
    number = [d.leaf(np.array(d.integer(-2, 2), value.dtype))] if mode == "constant" and d.flag() else []
    d.add("Pad", [x, d.leaf(np.array(pads)), *number], mode=mode)


@step
def filling(d: Draft) -> None:
    match d.one_of(["ConstantOfShape", "Range", "OneHot", "EyeLike", "Trilu"]):
        case "ConstantOfShape":
            value = numpy_helper.from_array(d.array(d.one_of(ALL), [1]))
            d.add("ConstantOfShape", [d.leaf(np.array(d.shape(), np.int64))], **({"value": value} if d.flag() else {}))
        case "Range":
            dtype, steps = d.one_of(["int64", "int32", "float32", "float64"]), d.one_of([-2, -1, 1, 2])
            d.add("Range", [d.leaf(np.array(n, dtype)) for n in (d.integer(-3, 3), d.integer(-3, 9), steps)])
        case "OneHot":
            indices = d.leaf(d.rng.integers(-4, 4, d.shape(d.integer(0, 2))))
            values = d.leaf(d.array(d.one_of(["float32", "int64", "int32"]), [2]))
            d.add("OneHot", [indices, d.leaf(np.array(4)), values], axis=d.one_of([-1, 0]))
        case "EyeLike":
            d.add("EyeLike", [d.pick(NUMBERS, rank=2)], k=d.integer(-1, 1))
        case _:
            d.add(
                "Trilu",
                [d.pick(NUMBERS, least_rank=2, least=1), d.leaf(np.array(d.integer(-1, 2)))],
                upper=int(d.flag()),
            )
