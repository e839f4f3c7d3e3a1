"""Zeros in the weights of layers: where they may be set, how they are set and told. Which weights go is not decided."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Record
from worker.engine.quantization.obstacles import obstacle_in_numbers
from worker.engine.tensors.magnitude import Mask
from worker.engine.tensors.similarity import sqnr_db

OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN"})
NO_GAIN = "zeros make the compressed download smaller; ONNX Runtime does not run them faster"
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def obstacle_to_zeros(graph: Graph, layer: Layer) -> str | None:
    """Why none of the weights of `layer` may become zero; None if they may."""
    if any(weight.dtype not in _FLOATS for weight in layer.weights):
        return "its weights are quantized already: prune first"
    if layer.op not in OPERATORS:
        return f"single weights of {layer.op} are not pruned"
    if any(weight.is_graph_output() for weight in layer.weights):
        return "its weights are an output of the model"
    if not all(graph.array(weight).size for weight in layer.weights):
        return "its weights are empty"
    return obstacle_in_numbers(graph, layer)


def held_weights(graph: Graph, is_held: Callable[[Layer], bool]) -> dict[ir.Value, str]:
    """The weights that must stay as they are, with the name of the layer that holds them."""
    return {weight: layer.name for layer in graph.layers() if is_held(layer) for weight in layer.weights}


def obstacle_in_ties(layer: Layer, held: Mapping[ir.Value, str]) -> str | None:
    """Why a layer that shares a weight with one that is left alone is left alone too."""
    name = next((held[weight] for weight in layer.weights if weight in held), None)
    return f"{name}, which the step leaves alone, reads the same weights" if name else None


def set_zeros(graph: Graph, layers: Sequence[Layer], masks: Mapping[ir.Value, Mask], record: Record) -> None:
    """Put zeros where the masks are True, and tell of `layers`, which read the weights; other readers are noted."""
    before = {weight: graph.array(weight) for layer in layers for weight in layer.weights}
    for weight, mask in masks.items():
        array = before[weight]
        graph.set_array(weight, np.where(mask, array.dtype.type(0), array))
    for layer in layers:
        old, new = (
            np.concatenate([array.ravel() for array in arrays])
            for arrays in (
                [before[weight] for weight in layer.weights],
                [graph.array(weight) for weight in layer.weights],
            )
        )
        record.done(layer, sparsity=float(np.mean(new == 0)), sqnr_db=sqnr_db(old, new))
    if tied := list(_other_readers(graph, layers, masks)):
        record.note(f"{', '.join(tied)} reads the same weights as a layer that was pruned, and sees the zeros")
    record.note_held_back()
    record.note(NO_GAIN)


def _other_readers(graph: Graph, layers: Sequence[Layer], masks: Mapping[ir.Value, Mask]) -> Iterator[str]:
    pruned = {layer.node for layer in layers}
    for layer in graph.layers():
        if layer.node not in pruned and any(weight in masks for weight in layer.weights):
            yield layer.name
