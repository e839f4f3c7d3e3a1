"""A model that grows node by node, and the registry of steps that it can take. The steps are beside it.

Each new node runs in the reference at once, so that the next one can be chosen to fit.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

FLOATS = ("float32", "float64", "float16")
INTS = ("int64", "int32", "int8", "uint8")
NUMBERS = (*FLOATS, "int64", "int32")
ALL = (*FLOATS, *INTS, "bool")

Array = np.ndarray[Any, np.dtype[Any]]
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Draft:
    """A model in the making, and the numbers of every value in it."""

    def __init__(self, draw: Draw, dtypes: Sequence[str] = ALL) -> None:
        self.draw = draw
        self.seed = draw(st.integers(0, 2**32))
        self.rng = np.random.default_rng(self.seed)
        self.dtypes = dtypes
        self.opset = draw(st.sampled_from([19, 20, 23]))
        self.values: dict[str, Array] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.made: list[str] = []

    def __repr__(self) -> str:
        return onnx.printer.to_text(self.finish()) + f"\n{self.values}"

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(choices)))

    def flag(self) -> bool:
        return bool(self.draw(st.booleans()))

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def shape(self, rank: int | None = None, least: int = 0) -> list[int]:
        rank = self.integer(0, 4) if rank is None else rank
        return [
            self.one_of([least, 1, 2, 3, 4, 2, 3, 5]) if least == 0 else self.integer(least, 4) for _ in range(rank)
        ]

    def array(self, dtype: str, shape: Sequence[int]) -> Array:
        """Numbers that are sums of few powers of two, so that most arithmetic is exact and steps fall the same way."""
        match dtype:
            case "bool":
                numbers: Array = self.rng.integers(0, 2, shape)
            case "uint8":
                numbers = self.rng.integers(0, 9, shape)
            case _ if dtype in INTS:
                numbers = self.rng.integers(-5, 6, shape)
            case _:
                numbers = self.rng.integers(-16, 17, shape) / 8
        return np.asarray(numbers).astype(dtype)

    def leaf(self, array: Array, home: str | None = None) -> str:
        """Enter `array` as an input (of known, named or unknown sizes), an initializer or a Constant node."""
        name, home = f"v{len(self.values)}", home or self.one_of(["input", "initializer", "constant"])
        self.values[name] = array = np.asarray(array)
        match home:
            case "input":
                sizes = self.one_of([[*array.shape], [f"{name}_{i}" for i in range(array.ndim)], None])
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                self.inputs.append(helper.make_tensor_value_info(name, kind, sizes))
            case "initializer":
                self.stored.append(numpy_helper.from_array(array, name))
            case _:
                self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        return name

    def pick(self, dtypes: Sequence[str], rank: int | None = None, least_rank: int = 0, least: int = 0) -> str:
        """A value there is that fits, mostly, or a new one."""
        allowed = [dtype for dtype in dtypes if dtype in self.dtypes] or list(dtypes)
        fitting = [
            name
            for name, value in self.values.items()
            if value.dtype.name in allowed
            and (rank is None or value.ndim == rank)
            and value.ndim >= least_rank
            and (not least or value.size)
        ]
        if fitting and self.integer(0, 4):
            return str(self.one_of(fitting[-3:]))
        rank = self.integer(least_rank, 4) if rank is None else rank
        return self.leaf(self.array(self.one_of(allowed), self.shape(rank, least)))

    def beside(self, name: str, *, may_grow: bool = True) -> str:
        """A value of the same type whose shape broadcasts with that of `name`."""
        value = self.values[name]
        shape = [self.one_of([n, n, 1]) for n in value.shape]
        shape = shape[self.integer(0, len(shape)) if shape and self.flag() else 0 :]
        if may_grow and len(shape) < 4 and self.flag() and self.flag() and len(shape) == value.ndim:
            shape = [self.integer(1, 2), *shape]
        others = [
            each
            for each, other in self.values.items()
            if other.dtype == value.dtype and other.shape == value.shape and each != name
        ]
        if others and self.flag():
            return str(self.one_of(others))
        return self.leaf(self.array(value.dtype.name, shape))

    def add(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Enter a node, run it, and give the names of what it made."""
        names = [f"v{len(self.values) + index}" for index in range(outputs)]
        node = helper.make_node(op, inputs, names, name=f"{op}_{names[0]}", **attributes)
        used = _reads(node)
        feed = {name: self.values[name] for name in self.values if name in used}
        given = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), None) for n, v in feed.items()
        ]
        graph = helper.make_graph([node], "step", given, [onnx.ValueInfoProto(name=name) for name in names])
        results = ReferenceEvaluator(self._model(graph)).run(None, feed)
        self.values |= {name: np.asarray(result) for name, result in zip(names, results, strict=True)}
        self.nodes.append(node)
        self.made += names
        return names

    def finish(self) -> onnx.ModelProto:
        """The model; its outputs are some of the values, the last ones among them."""
        chosen = np.random.default_rng(self.seed).random(len(self.made)) < 0.5
        chosen[-3:] = True
        shown = [name for name, is_shown in zip(self.made, chosen, strict=True) if is_shown]
        outputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(self.values[name].dtype), None)
            for name in shown
        ]
        return self._model(helper.make_graph(self.nodes, "random", self.inputs, outputs, self.stored))

    def _model(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)


def _reads(node: onnx.NodeProto) -> set[str]:
    """The names a node and its bodies read."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    inner = {name for body in bodies for each in body.node for name in _reads(each)}
    return {*node.input, *inner, *(output.name for body in bodies for output in body.output)}


Step = Callable[[Draft], object]
STEPS: dict[str, Step] = {}


def step(function: Step) -> Step:
    STEPS[function.__name__] = function
    return function
