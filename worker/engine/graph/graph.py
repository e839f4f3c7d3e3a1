"""`Graph`: an ONNX model in memory, with what methods need of it. How files are read and written is `files`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from app.contracts.facts import TensorSpec
from worker.engine.graph import check, files, shapes
from worker.engine.graph.layers import Layer, find_layers, select_layers

Array = NDArray[Any]


class Graph:
    """An ONNX model as onnx-ir holds it, in `model`. Bodies of If, Loop and Scan count as part of the graph."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The model at `path` as it is; weights in files beside it are mapped, not read.

        Raises SlimlineError: MODEL_UNREADABLE, or EXTERNAL_DATA_UNSAFE for weights outside the model's folder.
        """
        return cls(files.load(Path(path)))

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto) -> Self:
        """A graph that shares the protobuf's bytes, and names its nameless nodes: leave `proto` alone afterwards."""
        return cls(files.adopt(proto))

    def save(self, path: str | Path) -> None:
        """Write the model; over 1.9 GB of weights go to `<path>.data` beside it. Equal graphs give equal bytes."""
        files.save(self.model, Path(path))

    def proto(self) -> onnx.ModelProto:
        """The whole model as protobuf. Raises SlimlineError GRAPH_TOO_LARGE over 2 GB."""
        return files.to_proto(self.model)

    def clone(self) -> "Graph":
        """An independent copy; weights are shared until one side replaces them."""
        model = self.model.clone()
        for graph in model.graphs():
            for value in [*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)]:
                if isinstance(value.type, ir.TensorType):
                    # onnx-ir's clone shares the type object, and setting a dtype changes it in place.
                    value.type = ir.TensorType(value.type.dtype, denotation=value.type.denotation)
        return Graph(model)

    @property
    def opset(self) -> int:
        """Version of the default domain."""
        return self.model.opset_imports.get("", 1)

    @property
    def inputs(self) -> list[TensorSpec]:
        """What a caller feeds: graph inputs that no initializer fills."""
        return [describe(value) for value in self.model.graph.inputs if not value.is_initializer()]

    @property
    def outputs(self) -> list[TensorSpec]:
        """What a caller gets, in order."""
        return [describe(value) for value in self.model.graph.outputs]

    def nodes(self) -> Iterator[ir.Node]:
        """Every node in order, those of a body after the node that holds it."""
        return iter(ir.traversal.RecursiveGraphIterator(self.model.graph))

    def initializers(self) -> Iterator[ir.Value]:
        """Every initializer, those of the main graph first."""
        for graph in self.model.graphs():
            yield from graph.initializers.values()

    def initializer(self, name: str) -> ir.Value:
        """The initializer called `name`. Raises KeyError where there is none."""
        for graph in self.model.graphs():
            if name in graph.initializers:
                return graph.initializers[name]
        raise KeyError(name)

    def array(self, initializer: ir.Value | str) -> Array:
        """An initializer's numbers: a view that must not be written to. Raises KeyError where there is none."""
        value = self.initializer(initializer) if isinstance(initializer, str) else initializer
        if value.const_value is None:
            raise KeyError(value.name)
        return value.const_value.numpy()

    def set_array(self, initializer: ir.Value | str, array: Array) -> None:
        """Replace an initializer's numbers; its type and shape follow the array's."""
        value = self.initializer(initializer) if isinstance(initializer, str) else initializer
        tensor = ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=value.name)
        value.const_value = tensor
        value.type = ir.TensorType(tensor.dtype)
        value.shape = tensor.shape.copy()

    def layers(self) -> list[Layer]:
        """Nodes that carry weights, in graph order."""
        return find_layers(self.nodes())

    def select(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Layer]:
        """Layers whose name matches `include` (empty: all) and not `exclude`; both are names or globs.

        Raises SlimlineError LAYER_UNKNOWN for a pattern that matches no layer.
        """
        return select_layers(self.layers(), include, exclude)

    def check(self) -> None:
        """Raises SlimlineError GRAPH_INVALID, naming the node, where the ONNX checker finds a fault."""
        check.check(self.model)

    def infer_shapes(self) -> None:
        """Fill in types and shapes of every value. Raises SlimlineError SHAPES_CONFLICT where they contradict."""
        shapes.infer(self.model)


def describe(value: ir.Value) -> TensorSpec:
    """A value as the API shows it."""
    dtype = value.dtype.name.lower() if value.dtype is not None else "undefined"
    return TensorSpec(name=value.name or "", dtype=dtype, shape=shapes.dims(value) or [])
