"""A model that grows block by block, and the registry of blocks. The blocks are beside it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Draw = Callable[[st.SearchStrategy[Any]], Any]
Dim = int | str
EPSILON = 0.1
"""Of normalizations: so much that none makes much of rounding where its input hardly varies."""


class Draft:
    """A model in the making. `x` is what the next block works on, of `shape`, whose free dimensions are names."""

    def __init__(self, draw: Draw, shape: Sequence[Dim], kind: int = TensorProto.FLOAT) -> None:
        self.draw = draw
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32)))
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.inputs = [helper.make_tensor_value_info("x", kind, shape)]
        self.x = "x"
        self.shape: list[Dim] = list(shape)
        self.past: list[tuple[str, list[Dim]]] = []
        self.shown: list[str] = []
        """Outputs beside the last `x`."""

    def __repr__(self) -> str:
        return str(onnx.printer.to_text(self.finish()))

    def one_of(self, choices: Sequence[Any]) -> Any:
        return self.draw(st.sampled_from(list(choices)))

    def flag(self) -> bool:
        return bool(self.draw(st.booleans()))

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def floats(self, *shape: int, around: float = 0.0) -> str:
        """A stored tensor of random numbers."""
        numbers = around + self.rng.standard_normal(shape) * (0.2 if around else 0.5)
        return self.store(numbers.astype(np.float32))

    def integers(self, *numbers: int) -> str:
        return self.store(np.array(numbers, np.int64))

    def number(self, number: float) -> str:
        return self.store(np.array(number, np.float32))

    def store(self, array: np.ndarray[Any, Any]) -> str:
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output, whose name comes back."""
        return self.add_several(op, *inputs, outputs=1, domain=domain, **attributes)[0]

    def add_several(self, op: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        made = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, made, f"{op}_{len(self.nodes)}", domain=domain, **attributes))
        return made

    def go_on(self, x: str, *shape: Dim) -> None:
        """Have the next block work on `x`; without `shape` it has that of before."""
        self.past.append((self.x, self.shape))
        self.x, self.shape = x, list(shape) or self.shape

    def earlier(self, shape: Sequence[Dim]) -> list[str]:
        """What was made before in this shape."""
        return [name for name, known in self.past if known == list(shape)]

    def target(self, *dims: Dim) -> str:
        """A vector of sizes: constant where it can be, or computed by Shape and arithmetic from the sizes of `x`.

        A name stands for the size that is called so in `shape`.
        """
        free = [dim for dim in dims if isinstance(dim, str)]
        if len(free) <= 1 and self.flag():
            return self.integers(*(-1 if isinstance(dim, str) else dim for dim in dims))
        return self.add("Concat", *(self.size(dim) for dim in dims), axis=0)

    def size(self, dim: Dim) -> str:
        """A size, as a vector of one number: of an axis of `x`, or that times or by a number, or a constant."""
        related = [
            place
            for place, known in enumerate(self.shape)
            if known == dim or (isinstance(dim, int) and isinstance(known, int) and not (known % dim and dim % known))
        ]
        if isinstance(dim, int) and (not related or self.flag()):
            return self.integers(dim)
        place = self.one_of(related)
        known, found = self.shape[place], self.axis_size(place)
        if isinstance(dim, str) or isinstance(known, str) or known == dim:
            return found
        op, by = ("Div", known // dim) if known > dim else ("Mul", dim // known)
        return self.add(op, found, self.integers(by))

    def axis_size(self, place: int) -> str:
        """The size of an axis of `x`, written in one of the ways that exporters have."""
        match self.one_of(["part", "gather", "slice", "scalar"]):
            case "part":
                return self.add("Shape", self.x, start=place, end=place + 1)
            case "gather":
                return self.add("Gather", self.add("Shape", self.x), self.integers(place - len(self.shape)))
            case "slice":
                ends = self.integers(place), self.integers(place + 1)
                return self.add("Slice", self.add("Shape", self.x), *ends)
            case _:
                number = self.add("Gather", self.add("Shape", self.x), self.store(np.array(place, np.int64)))
                return self.add("Unsqueeze", number, self.integers(0))

    def show_some(self) -> None:
        """Have something from before be an output too, sometimes."""
        if self.past[1:] and self.integer(0, 5) == 0:
            self.shown.append(self.one_of(self.past[1:])[0])

    def finish(self) -> onnx.ModelProto:
        """The model, with shapes of outputs left to be inferred."""
        shown = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (self.x, *self.shown)]
        graph = helper.make_graph(self.nodes, "random", self.inputs, shown, self.stored)
        imports = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


Block = Callable[[Draft], None]
IMAGE: dict[str, Block] = {}
"""Blocks that take [N, C, H, W] and leave it, perhaps with other sizes."""
SEQUENCE: dict[str, Block] = {}
"""Blocks that take [N, L, D] and leave it, with the same N and L."""


def enter(table: dict[str, Block]) -> Callable[[Block], Block]:
    """Enter the decorated block into a table, by its name."""

    def keep(block: Block) -> Block:
        table[block.__name__] = block
        return block

    return keep
