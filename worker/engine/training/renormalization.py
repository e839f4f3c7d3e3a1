"""BatchNormalization put back behind convolutions that it was folded into, for as long as the network trains.

Exporters fold it away. A network without it falls apart at learning rates that it was once trained with; with it, the
same training recovers more. It is folded again at the end: the graph that is given back has the nodes it always had.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir
import torch

from worker.engine.graph import Graph
from worker.engine.graph.edit import Editor
from worker.engine.graph.shapes import dims
from worker.engine.tensors.channel_moments import ChannelMoments
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch

EPSILON = 1e-5
_BIAS = 2
_FEWEST = 3
_OTHER_NORMS = frozenset(
    {
        "BatchNormalization",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
    }
)
_PARTS = ("scale", "bias", "mean", "variance")


@dataclass(frozen=True)
class _Site:
    """A convolution, by name, and names in the trainable graph of what normalises it."""

    node: str
    weight: str
    bias: str
    raw: str
    parts: Mapping[str, str]


class RenormalizedRewriting:
    """A `Rewriting` that normalises what convolutions give, before their bias, by the batch.

    It begins as the function it was. Gains and statistics are multiplied into the weights at the end, in float64.
    """

    untrained: Mapping[str, str] = {}
    rounded: Collection[str] = ()

    def __init__(self, source: Graph) -> None:
        self._source = source.clone()
        self.graph = source.clone()
        self.graph.infer_shapes()
        editor = Editor(self.graph)
        self._sites = [_normalize(self.graph, editor, node) for node in _find(self.graph)]

    def attach(self, module: TorchGraph) -> None:
        """Nothing is parametrized."""

    @torch.no_grad()
    def begin(self, module: TorchGraph, batches: Iterable[TrainingBatch]) -> None:
        """Set statistics to those of `batches`, and gains so that nothing changes."""
        moments = defaultdict[str, ChannelMoments](ChannelMoments)
        handles = [module.observe(site.raw, partial(_add, moments[site.raw])) for site in self._sites]
        for batch in batches:
            module(*batch.inputs)
        for handle in handles:
            handle.remove()
        module.refresh()
        for site in self._sites:
            mean, variance = moments[site.raw].mean, moments[site.raw].variance
            scale, bias, running_mean, running_variance = (_read(module, site.parts[part]) for part in _PARTS)
            running_mean.copy_(mean)
            running_variance.copy_(variance)
            scale.copy_((variance + EPSILON).sqrt())
            bias.add_(mean)

    def constrain(self, module: TorchGraph) -> None:
        """Nothing is held back."""

    def finish(self, module: TorchGraph) -> Graph:
        """See `Rewriting.finish`."""
        module.write_back()
        finished = self._source.clone()
        for value in finished.initializers():
            if not any(value.name in (site.weight, site.bias) for site in self._sites):
                finished.set_array(value, self.graph.array(value.name or ""))
        for site in self._sites:
            weight, bias = self._fold(site)
            finished.set_array(site.weight, weight)
            finished.set_array(site.bias, bias)
        return finished

    def _fold(self, site: _Site) -> tuple[np.ndarray, np.ndarray]:
        """Y = scale * (W x - mean) / sqrt(variance + epsilon) + bias."""
        scale, bias, mean, variance = (self.graph.array(site.parts[part]).astype(np.float64) for part in _PARTS)
        weight = self.graph.array(site.weight)
        gain = scale / np.sqrt(variance + EPSILON)
        folded = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
        return folded.astype(np.float32), (bias - gain * mean).astype(np.float32)


def can_be_renormalized(graph: Graph) -> bool:
    """Whether there are convolutions that BatchNormalization was folded into, as far as can be seen.

    A graph with a normalization of its own is left as it is, and so is one of few convolutions.
    """
    if any(node.op_type in _OTHER_NORMS for node in graph.nodes()):
        return False
    typed = graph.clone()
    typed.infer_shapes()
    return len(_find(typed)) >= _FEWEST


def _find(graph: Graph) -> list[ir.Node]:
    return [node for node in graph.nodes() if _is_normalizable(node)]


def _is_normalizable(node: ir.Node) -> bool:
    """A convolution over positions, with weights and a bias of its own, whose output goes on."""
    if node.op_type != "Conv" or node.domain or len(node.inputs) <= _BIAS:
        return False
    output, parameters = node.outputs[0], node.inputs[1:]
    own = all(
        each is not None
        and each.is_initializer()
        and not each.is_graph_output()
        and each.dtype == ir.DataType.FLOAT
        and len(each.uses()) == 1
        for each in parameters
    )
    positions = (dims(output) or [None, None, 1])[2:]
    return own and not output.is_graph_output() and any(size != 1 for size in positions)


def _normalize(graph: Graph, editor: Editor, node: ir.Node) -> _Site:
    """Put a BatchNormalization behind `node` that does nothing yet; what comes out of it has the output's name.

    The convolution's bias is its bias now, under the same name: what goes with a channel still goes with it.
    """
    weight, bias = node.inputs[1], node.inputs[_BIAS]
    output, owner = node.outputs[0], node.graph
    if weight is None or bias is None or owner is None:
        raise ValueError(f"{node.name} has no weights of its own")
    name, ones = output.name or "", np.ones_like(graph.array(bias))
    arrays = {"scale": np.sqrt(ones + np.float32(EPSILON)), "mean": 0 * ones, "variance": ones}
    values = {part: editor.initializer(owner, f"{name}_norm_{part}", array) for part, array in arrays.items()}
    values["bias"] = bias
    node.resize_inputs(_BIAS)
    readers = list(output.uses())
    output.name = editor.free_name(f"{name}_raw")
    norm = editor.node(
        "BatchNormalization", [output, *(values[part] for part in _PARTS)], [name], [ir.AttrFloat32("epsilon", EPSILON)]
    )
    owner.insert_after(node, norm)
    norm.outputs[0].type, norm.outputs[0].shape = output.type, output.shape
    for reader, index in readers:
        reader.replace_input_with(index, norm.outputs[0])
    names = {part: value.name or "" for part, value in values.items()}
    return _Site(node.name or "", weight.name or "", bias.name or "", output.name, names)


def _add(moments: ChannelMoments, values: torch.Tensor) -> None:
    moments.add(values, axis=1)


def _read(module: TorchGraph, name: str) -> torch.Tensor:
    tensor: torch.Tensor = getattr(*module.place(name))
    return tensor
