"""How strong the inputs of layers are on data, streamed, and what that makes of weights. Which of them go is elsewhere.

Legend: G groups of a convolution, K columns of a weight, n input rows, R rows of a weight.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.pruning.reduction import RECURRENT, Reduction
from worker.engine.quantization.calibration import Pass, watch
from worker.engine.quantization.layer_inputs import Source, find_sources
from worker.engine.quantization.weight_matrix import WeightMatrix, shape_of
from worker.engine.session import Array
from worker.engine.tensors.magnitude import magnitude


@dataclass(frozen=True)
class InputNorms:
    """||x_k|| over all input rows x, [G, K] in float64, of each column k of a weight."""

    matrix: WeightMatrix
    norms: torch.Tensor

    def weigh(self, weights: Array) -> Array:
        """Wanda's scores (Sun et al. 2023): |w| times the norm of what it is multiplied by, in the weight's shape."""
        magnitudes = self.matrix.to_matrix(magnitude(weights))
        norms = self.norms.to(magnitudes)
        return self.matrix.from_matrix(magnitudes * norms.repeat_interleave(len(magnitudes) // len(norms), 0))


def find_input_norms(graph: Graph, reductions: Sequence[Reduction], run: Pass) -> dict[ir.Value, InputNorms]:
    """By weight; absent where its inputs cannot be seen, or none came. Rows with NaN or infinities do not count.

    Raises SlimlineError for a graph that torch cannot run.
    """
    layers = graph.layers()
    matrices = [_as_matrix(each, layers) for each in reductions]
    energies = [[(source, _Energy(source)) for source in _find_sources(matrix)] for matrix in matrices]
    seen = [(source.name, energy.take) for each in energies for source, energy in each]
    if seen:
        watch(graph, seen, run)
    sums = [(matrix, _joined([energy for _, energy in each])) for matrix, each in zip(matrices, energies, strict=True)]
    return {matrix.value: InputNorms(matrix, total.sqrt()) for matrix, total in sums if total is not None}


class _Energy:
    """A running sum of squares over the rows of a source, [G, K]."""

    def __init__(self, source: Source) -> None:
        self._rows_of = source.rows_of
        self.total: torch.Tensor | None = None

    def take(self, values: torch.Tensor) -> None:
        """Add the rows of `values`."""
        for rows in self._rows_of(values):
            is_finite = rows.isfinite().all(-1).all(0)
            energy = torch.linalg.vector_norm(rows[:, is_finite], dim=1, dtype=torch.float64).square().cpu()
            self.total = energy if self.total is None else self.total + energy


def _joined(energies: Sequence[_Energy]) -> torch.Tensor | None:
    """The sum over several readers, whose numbers of groups may differ."""
    totals = [each.total for each in energies if each.total is not None]
    if not totals:
        return None
    groups = math.lcm(*map(len, totals))
    return torch.stack([total.repeat_interleave(groups // len(total), 0) for total in totals]).sum(0)


def _as_matrix(reduction: Reduction, layers: Sequence[Layer]) -> WeightMatrix:
    """The weight with what a convolution sums over, or else the one axis, as columns."""
    weight, axes = reduction.weight, range(len(shape_of(reduction.weight)))
    is_convolution = reduction.layer.op == "Conv"
    rows = (reduction.layer.output_axis,) if is_convolution else tuple(each for each in axes if each != reduction.axis)
    readers = [layer for layer in layers if any(each is weight for each in layer.weights)]
    return WeightMatrix(weight, readers, rows, tuple(each for each in axes if each not in rows))


def _find_sources(matrix: WeightMatrix) -> list[Source]:
    """What comes in; nothing where the weight is turned on its way to a convolution, or meets a hidden state."""
    first = matrix.readers[0]
    if first.op in RECURRENT:
        return list(_input_of_recurrent(first)) if matrix.value is first.weight else []
    if first.op in ("Conv", "ConvTranspose"):
        traced = trace_weight(first.node.inputs[1])
        if traced is None or traced[1] != tuple(range(len(matrix.shape))):
            return []
    return find_sources(matrix)


def _input_of_recurrent(layer: Layer) -> Iterator[Source]:
    value = layer.node.inputs[0]
    if value is not None and value.name and trace_weight(value) is None:
        yield Source(value.name, lambda sequence: iter([sequence.reshape(1, -1, sequence.shape[-1])]))
