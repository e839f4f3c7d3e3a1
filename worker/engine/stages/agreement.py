"""Whether two runtimes agree on a step's graph: ONNX Runtime, and TorchGraph, which shares no code with it."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.graph.files import size_of_weights
from worker.engine.quantization.calibration import to_tensors
from worker.engine.session import Array
from worker.engine.tensors.similarity import sqnr_db
from worker.engine.torch_graph import TorchGraph

_LARGEST = 1 << 30
"""Bytes of weights above which the second copy that torch would hold is not made."""
_LEAST_DB, _LEAST_QUANTIZED_DB = 50.0, 15.0
"""Float rounding leaves over 100 dB; where it flips the code of an activation, few bits agree."""
_NOT_EXACT = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
_NOT_RUN = frozenset({"OPERATOR_UNSUPPORTED", "TENSOR_TYPE_UNSUPPORTED"})


def find_disagreement(graph: Graph, feed: Mapping[str, Array], outputs: Sequence[Array]) -> tuple[str, str] | None:
    """The output where TorchGraph differs from `outputs`, which ONNX Runtime gave for `feed`, and by how much.

    None where they agree, or where torch cannot run the graph. Raises SlimlineError for one it stumbles over.
    """
    if size_of_weights(graph.model) > _LARGEST:
        return None
    try:
        module = TorchGraph(graph)
    except SlimlineError as error:
        if error.failure.code in _NOT_RUN:
            return None
        raise
    with torch.no_grad():
        results = module(*to_tensors(graph, feed))
    least = _LEAST_QUANTIZED_DB if any(value.dtype in _NOT_EXACT for value in graph.initializers()) else _LEAST_DB
    for spec, result, output in zip(graph.outputs, results, outputs, strict=True):
        if output.dtype.kind != "f" or not np.isfinite(output).all() or not output.any():
            continue
        agreement = sqnr_db(output, result.double().numpy())
        if agreement is not None and agreement < least:
            return spec.name, f"{agreement:.0f} dB, less than {least:.0f}"
    return None
