"""Steps that sum over elements: products, convolutions, pools, reductions, normalizations, orders."""

from typing import Any

import numpy as np

from tests.engine.torch_graph.drafts.draft import FLOATS, NUMBERS, Draft, step


@step
def reduction(d: Draft) -> None:
    x = d.pick(["float32", "float64", "int64"], least=1)
    rank = d.values[x].ndim
    ops = ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare", "ReduceL1"]
    if d.values[x].dtype.name in FLOATS:
        ops += ["ReduceMean", "ReduceL2", *["ReduceLogSumExp"] * (rank > 0)]
    axes = [axis - rank * d.flag() for axis in range(rank) if d.flag()]
    given = [d.leaf(np.array(axes, np.int64), "initializer")] if axes or d.flag() else []
    d.add(d.one_of(ops), [x, *given], keepdims=int(d.flag()), noop_with_empty_axes=int(d.flag() and bool(given)))


@step
def matmul(d: Draft) -> None:
    x = d.pick(["float32", "float64", "float16", "int32"], least_rank=1)
    value = d.values[x]
    shape = [*d.one_of([[], value.shape[:-2]]), value.shape[-1], d.integer(1, 4)]
    d.add("MatMul", [x, d.leaf(d.array(value.dtype.name, d.one_of([shape, [value.shape[-1]]])))])


@step
def gemm(d: Draft) -> None:
    a = d.pick(["float32", "float64"], rank=2)
    flip_a, flip_b, n = d.flag(), d.flag(), d.integer(1, 4)
    m, k = d.values[a].shape[:: -1 if flip_a else 1]
    dtype = d.values[a].dtype.name
    inputs = [a, d.leaf(d.array(dtype, [n, k] if flip_b else [k, n]))]
    if d.flag():
        inputs.append(d.leaf(d.array(dtype, d.one_of([[], [n], [1, n], [m, 1], [m, n]]))))
    scales: dict[str, Any] = {name: d.integer(-4, 4) / 4 for name in ("alpha", "beta") if d.flag()}
    d.add("Gemm", inputs, transA=int(flip_a), transB=int(flip_b), **scales)


@step
def convolution(d: Draft) -> None:
    rank, group = d.integer(1, 2), d.integer(1, 2)
    dtype = d.one_of([dtype for dtype in ("float32", "float64") if dtype in d.dtypes])
    x = d.leaf(d.array(dtype, [d.integer(1, 2), 2 * group, *[d.integer(5, 7) for _ in range(rank)]]))
    kernel, outputs = [d.integer(1, 3) for _ in range(rank)], group * d.integer(1, 2)
    inputs = [x, d.leaf(d.array(dtype, [outputs, 2, *kernel]))]
    if d.flag():
        inputs.append(d.leaf(d.array(dtype, [outputs])))
    window: dict[str, Any] = {"strides": [d.integer(1, 2) for _ in range(rank)]}
    if d.flag():
        window["auto_pad"] = d.one_of(["SAME_UPPER", "SAME_LOWER", "VALID"])
    else:
        window |= {
            "pads": [d.integer(0, 2) for _ in range(2 * rank)],
            "dilations": [d.integer(1, 2) for _ in range(rank)],
        }
    d.add("Conv", inputs, group=group, **window)


@step
def pooling(d: Draft) -> None:
    rank = d.integer(1, 2)
    dtype = d.one_of([dtype for dtype in ("float32", "float64") if dtype in d.dtypes])
    x = d.leaf(d.array(dtype, [d.integer(1, 2), 2, *[d.integer(4, 6) for _ in range(rank)]]))
    kernel = [d.integer(1, 3) for _ in range(rank)]
    pads = [d.integer(0, size - 1) for size in kernel] * 2
    window: dict[str, Any] = {"kernel_shape": kernel, "strides": [d.integer(1, 2) for _ in range(rank)]}
    match d.one_of(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"]):
        case "AveragePool":
            d.add("AveragePool", [x], pads=pads, count_include_pad=int(d.flag()), **window)
        case "MaxPool":
            d.add("MaxPool", [x], **window)  # the reference fails on pads
        case op if rank > 1:  # the reference takes no others
            d.add(op, [x])


@step
def normalization(d: Draft) -> None:
    x = d.pick(["float32", "float64"], least_rank=1, least=1)
    axis = d.integer(-d.values[x].ndim, -1)
    if d.flag():
        d.add(d.one_of(["Softmax", "LogSoftmax"]), [x], axis=axis)
        return
    shape, dtype = d.values[x].shape[axis:], d.values[x].dtype.name
    weights = [d.leaf(d.array(dtype, shape)) for _ in range(d.integer(1, 2))]
    d.add("LayerNormalization", [x, *weights], axis=axis)


@step
def ordering(d: Draft) -> None:
    x = d.leaf(
        d.rng.permutation(24)
        .reshape(d.one_of([[24], [4, 6], [2, 3, 4]]))
        .astype(d.one_of([t for t in NUMBERS if t in d.dtypes and t != "float16"] or ["float32"]))
    )
    rank = d.values[x].ndim
    axis = d.integer(-rank, rank - 1)
    match d.one_of(["TopK", "ArgMax", "ArgMin", "CumSum"]):
        case "TopK":
            k = d.leaf(np.array([d.integer(1, 2)]))
            d.add("TopK", [x, k], 2, axis=axis, largest=int(d.flag()))
        case "CumSum":
            flags = {"exclusive": int(d.flag()), "reverse": int(d.flag())}
            d.add("CumSum", [x, d.leaf(np.array(axis))], **flags)
        case op:
            d.add(op, [x], axis=axis, keepdims=int(d.flag()), select_last_index=int(d.flag()))
