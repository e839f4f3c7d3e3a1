"""Steps on each element by itself: activations, arithmetic, comparisons, casts, quantization."""

from typing import Any

import numpy as np
from onnx import helper

from tests.engine.torch_graph.drafts.draft import ALL, FLOATS, INTS, NUMBERS, Draft, step

SMOOTH_UNARY = ("Sigmoid", "Tanh", "Softplus", "Sin", "Cos", "Atan", "Neg", "Mish", "Identity")
UNARY = (
    *SMOOTH_UNARY, "Relu", "Abs", "Floor", "Ceil", "Round", "Sign", "Exp", "Sinh", "Asinh", "Elu",
    "LeakyRelu", "ThresholdedRelu",
)  # fmt: skip  # fmt: skip
COARSE_UNARY = ("Erf", "HardSwish", "Selu", "HardSigmoid", "Gelu")
"""The reference computes these with numbers of float32."""
TUNED = {
    "Elu": ("alpha",), "LeakyRelu": ("alpha",), "ThresholdedRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"), "Selu": ("alpha", "gamma"),
}  # fmt: skip  # fmt: skip


@step
def unary(d: Draft) -> None:
    op = d.one_of(UNARY)
    attributes: dict[str, Any] = {name: d.integer(1, 12) / 8 for name in TUNED.get(op, ()) if d.flag()}
    d.add(op, [d.pick(FLOATS)], **attributes)


@step
def coarse_unary(d: Draft) -> None:
    op = d.one_of(COARSE_UNARY if d.opset > 19 else COARSE_UNARY[:-1])
    attributes: dict[str, Any] = {name: d.integer(1, 12) / 8 for name in TUNED.get(op, ()) if d.flag()}
    if op == "Gelu" and d.flag():
        attributes["approximate"] = "tanh"
    d.add(op, [d.pick(["float32", "float16"])], **attributes)


@step
def smooth_unary(d: Draft) -> None:
    d.add(d.one_of(SMOOTH_UNARY), [d.pick(FLOATS)])


@step
def whole_unary(d: Draft) -> None:
    d.add(d.one_of(["Abs", "Neg", "Sign", "Identity"]), [d.pick(["int64", "int32", "int8"])])


@step
def binary(d: Draft) -> None:
    x = d.pick(NUMBERS)
    d.add(d.one_of(["Add", "Sub", "Mul", "Max", "Min"]), [x, d.beside(x)])


@step
def division(d: Draft) -> None:
    x = d.pick([*FLOATS, "int64", "int32", "int8", "uint8"])
    divisor = np.abs(d.values[d.beside(x)])
    y = d.leaf(
        np.where(divisor == 0, 1, divisor).astype(divisor.dtype) * (-1 if d.flag() and divisor.dtype != "uint8" else 1)
    )
    match d.one_of(["Div", "Mod", "fmod"]):
        case "Div":
            d.add("Div", [x, y])
        case "fmod":
            d.add("Mod", [x, y], fmod=1)
        case _ if d.values[x].dtype.name in INTS:
            d.add("Mod", [x, y])


@step
def power(d: Draft) -> None:
    x = d.pick(FLOATS)
    d.add(
        "Pow", [d.add("Abs", [x])[0], d.leaf(np.array(d.one_of([0, 1, 2, 3]), d.one_of(["int64", "float32", "int32"])))]
    )


@step
def clip(d: Draft) -> None:
    x = d.pick(NUMBERS)
    dtype = d.values[x].dtype
    limits = [d.leaf(np.array(d.integer(-3, 3), dtype)) if d.flag() else "" for _ in range(2)]
    d.add("Clip", [x, *limits])


@step
def comparison(d: Draft) -> None:
    x = d.pick(NUMBERS)
    d.add(d.one_of(["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"]), [x, d.beside(x)])


@step
def logic(d: Draft) -> None:
    x = d.pick(["bool"])
    op = d.one_of(["And", "Or", "Xor", "Not"])
    d.add(op, [x] if op == "Not" else [x, d.beside(x)])


@step
def choice(d: Draft) -> None:
    x = d.pick(ALL)
    shape = d.values[d.beside(x, may_grow=False)].shape
    d.add("Where", [d.leaf(d.array("bool", shape)), *d.one_of([(x, d.beside(x)), (d.beside(x), x)])])


@step
def cast(d: Draft) -> None:
    x = d.pick(ALL)
    value = d.values[x].astype(np.float64)
    if value.size and not (np.isfinite(value).all() and value.min() > -100 and value.max() < 100):
        return
    targets = [dtype for dtype in ALL if dtype != "uint8" or not value.size or value.min() >= 0]
    d.add("Cast", [x], to=helper.np_dtype_to_tensor_dtype(np.dtype(d.one_of(targets))))


@step
def quantization(d: Draft) -> None:
    x = d.pick(["float32"], least_rank=1, least=1)
    value = d.values[x]
    axis = d.integer(-value.ndim, value.ndim - 1)
    shape = d.one_of([[], [value.shape[axis]]])
    scale = d.leaf((d.rng.integers(1, 9, shape) / 8).astype(np.float32))
    zero = d.leaf(d.rng.integers(0, 5, shape).astype(d.one_of(["uint8", "int8"])))
    (stored,) = d.add("QuantizeLinear", [x, scale, zero], axis=axis)
    d.add("DequantizeLinear", [stored, scale, zero], axis=axis)
