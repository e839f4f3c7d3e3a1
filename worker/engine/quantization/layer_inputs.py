"""What layers multiply by their weights, as rows, and its second moments: memory does not grow with the samples.

Legend: G groups of a convolution, K columns of a weight, n input rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from worker.engine.graph import Graph, Layer
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.calibration import Pass, watch
from worker.engine.quantization.nodes import attribute
from worker.engine.quantization.weight_matrix import WeightMatrix
from worker.engine.torch_graph.kernels.windows import Window, flat_pads, pad, resolve_pads

RowsOf = Callable[[torch.Tensor], Iterator[torch.Tensor]]
"""From the input of a layer to the rows [G, n, K] that its weight multiplies, in parts."""
_MATRIX, _FIRST_SPATIAL = 2, 2
_PART = 1 << 24
"""Elements of the patches made at a time."""


@dataclass(frozen=True)
class Source:
    """The tensor that a layer multiplies, by name, and how it becomes rows."""

    name: str
    rows_of: RowsOf


def find_sources(weight: WeightMatrix) -> list[Source]:
    """What the readers of `weight` multiply by it; nothing of a reader whose input cannot be seen as rows."""
    return [source for layer in weight.readers if (source := _source(layer, weight)) is not None]


def input_names(weight: WeightMatrix) -> set[str]:
    """The tensors that its layers multiply; none where they cannot be seen as rows."""
    return {source.name for source in find_sources(weight)}


def count_moments(weight: WeightMatrix) -> int:
    """Numbers in the second moments of its inputs, G x K x K."""
    return max(_groups(layer) for layer in weight.readers) * weight.width**2


def find_moments(graph: Graph, weights: Sequence[WeightMatrix], run: Pass) -> dict[str, torch.Tensor]:
    """E[x x^T] of the input rows x of each weight, [G, K, K] in float64, by the weight's name.

    Absent where no input came or all were too large to be squared. A weight of several layers gets the mean over the
    inputs of all; rows with NaN or infinities do not count. `graph` may be a copy of the weights' own in which other
    weights differ. Raises SlimlineError for a graph that torch cannot run.
    """
    moments = {weight.name: _Moments() for weight in weights}
    sources = [(source, moments[weight.name]) for weight in weights for source in find_sources(weight)]
    watch(graph, [(source.name, held.taker(source.rows_of)) for source, held in sources], run)
    means = [(weight, moments[weight.name].mean()) for weight in weights]
    return {weight.name: _widened(mean, weight) for weight, mean in means if mean is not None}


class _Moments:
    """A running sum of x x^T over rows."""

    def __init__(self) -> None:
        self._n = 0
        self._sum: torch.Tensor | None = None

    def taker(self, rows_of: RowsOf) -> Callable[[torch.Tensor], None]:
        """What adds the rows of a tensor."""

        def take(values: torch.Tensor) -> None:
            for rows in rows_of(values):
                self._add(rows.float())

        return take

    def mean(self) -> torch.Tensor | None:
        """[G, K, K]; None without rows, or where their squares are beyond float32."""
        return self._sum / self._n if self._sum is not None and self._n and self._sum.isfinite().all() else None

    def _add(self, rows: torch.Tensor) -> None:
        """[G, n, K]."""
        is_finite = rows.isfinite().all(-1).all(0)
        if not is_finite.all():
            rows = rows[:, is_finite]
        product = (rows.transpose(1, 2) @ rows).double()
        self._sum = product if self._sum is None else self._sum + product
        self._n += rows.shape[1]


def _widened(moments: torch.Tensor, weight: WeightMatrix) -> torch.Tensor:
    """[G, K, K]: of a transposed convolution whose columns count kernel positions too, each of these by itself.

    Exact where positions do not overlap in the output, as in most upsampling; else what they share is left out.
    """
    spread = weight.width // moments.shape[-1]
    if spread == 1:
        return moments
    positions = torch.eye(spread, dtype=moments.dtype, device=moments.device)
    return torch.stack([torch.kron(each.contiguous(), positions) for each in moments])


def _source(layer: Layer, weight: WeightMatrix) -> Source | None:
    is_left = trace_weight(layer.node.inputs[0]) is not None
    value = layer.node.inputs[1 if is_left else 0]
    rows_of = _rows_of(layer, weight, is_left=is_left)
    if rows_of is None or value is None or not value.name or trace_weight(value) is not None:
        return None
    return Source(value.name, rows_of)


def _rows_of(layer: Layer, weight: WeightMatrix, *, is_left: bool) -> RowsOf | None:
    node = layer.node
    match layer.op:
        case "Conv":
            return _Patches(_groups(layer), _window(node, len(weight.shape) - _FIRST_SPATIAL), weight)
        case "ConvTranspose" if attribute(node, "group", 1) == 1:
            return lambda x: iter([x.movedim(1, -1).reshape(1, -1, x.shape[1])])
        case "MatMul" | "Gemm" if len(weight.shape) == _MATRIX and layer.reduction_axes == weight.columns:
            is_turned = is_left or bool(attribute(node, "transA", 0))
            return lambda x: iter([(x.mT if is_turned and x.dim() > 1 else x).reshape(1, -1, weight.width)])
        case _:
            return None


def _groups(layer: Layer) -> int:
    return int(attribute(layer.node, "group", 1)) if layer.op == "Conv" else 1


class _Patches:
    """The patches of an image under the kernel of a convolution, in any number of dimensions."""

    def __init__(self, groups: int, window: Window, weight: WeightMatrix) -> None:
        self._groups, self._window, self._width = groups, window, weight.width
        self._kernel = weight.shape[_FIRST_SPATIAL:]

    def __call__(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        pads = resolve_pads(self._window, images.shape[_FIRST_SPATIAL:], self._kernel)
        size = max(1, _PART // max(1, images[:1].numel() * (self._width * self._groups // images.shape[1])))
        for part in torch.split(images, size):
            yield self._unfold(pad(part, flat_pads(pads)))

    def _unfold(self, images: torch.Tensor) -> torch.Tensor:
        """[N, C, D1, ...] to [G, N x places, C / G x kernel]."""
        rank = len(self._kernel)
        for axis, (kernel, stride, dilation) in enumerate(
            zip(self._kernel, self._window.strides, self._window.dilations, strict=True), _FIRST_SPATIAL
        ):
            images = images.unfold(axis, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
        rows = images.movedim(1, 1 + rank).reshape(-1, self._groups, self._width)
        return rows.transpose(0, 1)


def _window(node: ir.Node, rank: int) -> Window:
    def numbers(name: str, default: int, times: int = 1) -> tuple[int, ...]:
        told = tuple(node.attributes[name].as_ints()) if name in node.attributes else ()
        return told or (default,) * rank * times

    auto_pad = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    pads = numbers("pads", 0, 2) if auto_pad == "NOTSET" else (0,) * rank * 2
    return Window(rank, None, numbers("strides", 1), numbers("dilations", 1), (pads[:rank], pads[rank:]), auto_pad)
