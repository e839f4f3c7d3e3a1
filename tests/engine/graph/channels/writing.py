"""Writes graphs as ONNX text. What is tried on them is in the tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import numpy_helper, parser

from worker.engine.graph import Graph
from worker.engine.session import Array


def make(text: str, *, opset: int = 20, seed: int = 0, **tensors: Sequence[int] | Array | list[Any]) -> Graph:
    """The graph that `text` writes, `(inputs) => (outputs) { nodes }`; `tensors` are initializers.

    A tuple is the shape of random floats, a list is whole numbers, an array is itself.
    """
    generator = np.random.default_rng(seed)
    imports = f'["" : {opset}, "com.microsoft" : 1]'
    proto = parser.parse_model(f"<ir_version: 10, opset_import: {imports}> written {text}")
    for name, given in tensors.items():
        proto.graph.initializer.append(numpy_helper.from_array(_numbers(given, generator), name))
    graph = Graph.from_proto(proto)
    graph.infer_shapes()
    graph.check()
    return graph


def _numbers(given: Sequence[int] | Array | list[Any], generator: np.random.Generator) -> Array:
    match given:
        case tuple():
            return (generator.standard_normal(given) * 0.4).astype(np.float32)
        case list():
            return np.array(given, np.int64)
        case _:
            return np.asarray(given)
