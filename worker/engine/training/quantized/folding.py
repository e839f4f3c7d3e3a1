"""Back to integers: writes trained floats into a copy of the graph that they were unfolded from."""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph
from worker.engine.training.quantized.biases import fold_bias, product_of
from worker.engine.training.quantized.codes import round_to_codes
from worker.engine.training.quantized.tensors import CodedBias, CodedWeight


def fold(source: Graph, trained: Graph, weights: Iterable[CodedWeight], biases: Iterable[CodedBias]) -> Graph:
    """A graph of the nodes, names and types of `source` with the numbers of `trained`.

    Codes are those that QuantizeLinear gives; int32 biases take the new product of scales.
    """
    folded = source.clone()
    for value, new in list(_twins(folded, trained)):
        if value.dtype == new.dtype:
            value.const_value = new.const_value
    for weight in weights:
        tensors = [_tensor(trained, name) for name in (weight.name, weight.scale, weight.zero_point)]
        folded.set_array(weight.name, round_to_codes(tensors, weight.placing, weight.limits))
    for bias in biases:
        _fold_bias(folded, trained, bias)
    return folded


def _fold_bias(folded: Graph, trained: Graph, bias: CodedBias) -> None:
    product = None
    if bias.factors is not None:
        product = product_of(*(np.asarray(trained.array(name)) for name in bias.factors))
    codes, scale = fold_bias(bias, trained.array(bias.name), folded.array(bias.scale), product)
    folded.set_array(bias.name, codes)
    folded.set_array(bias.scale, scale)


def _twins(one: Graph, other: Graph) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Initializers of one name in the same graph or body."""
    for mine, theirs in zip(one.model.graphs(), other.model.graphs(), strict=True):
        for name, value in mine.initializers.items():
            if name in theirs.initializers:
                yield value, theirs.initializers[name]


def _tensor(graph: Graph, name: str) -> ir.TensorProtocol:
    tensor = graph.initializer(name).const_value
    if tensor is None:
        raise KeyError(name)
    return tensor
