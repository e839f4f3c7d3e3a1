"""Scales weights so that what layers give has unit variance on data: layer-sequential unit variance.

Mishkin and Matas 2016, All You Need Is a Good Init, arXiv:1511.06422. One pass does for all layers, as they have no
biases yet: what is fed to a layer is already scaled when it is reached. Networks whose normalizations were folded into
the weights have nothing else that keeps their scale from growing or dying with depth.

Branches of residual blocks begin small, so that all of them together add at most the deviation 1: as in Fixup (Zhang
et al. 2019) and SkipInit (De and Smith 2020), which begin with nothing. Zeros would be taken for pruned weights here.
"""

import math
from collections.abc import Callable, Collection

import torch

from worker.engine.graph import Graph, Layer
from worker.engine.quantization.calibration import to_tensors
from worker.engine.samples import Samples
from worker.engine.session import Device
from worker.engine.students.residual_blocks import find_blocks
from worker.engine.torch_graph import TorchGraph

LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "FusedMatMul"})
"""What they give grows with their weights, once they have no biases."""
_SAMPLES = 64


def scale_to_unit_variance(graph: Graph, weights: Collection[str], samples: Samples, device: Device) -> int:
    """Scale those of `weights` that linear layers of `graph` read, in place; how many were.

    A weight that several layers read is scaled for the first of them. Those of layers that a branch not taken holds
    stay as they are.
    """
    goals = _goals(graph)
    module = TorchGraph(graph).to(device)
    scales: dict[str, float] = {}
    layers = [layer for layer in graph.layers() if layer.op in LINEAR and layer.weight.name in weights]
    for layer in layers:
        module.observe(layer.node.outputs[0].name or "", _observer(layer, goals.get(id(layer.node), 1.0), scales))
    feed = next(samples.batches(batch_size=_SAMPLES, limit=_SAMPLES)).feed
    with torch.inference_mode():
        module(*to_tensors(graph, feed, device))
    for name, scale in scales.items():
        array = graph.array(name)
        graph.set_array(name, (array * scale).astype(array.dtype))
    return len(scales)


def _goals(graph: Graph) -> dict[int, float]:
    """Standard deviations other than 1 by the id of a node: of the last linear layer in each residual branch."""
    linear = {id(layer.node) for layer in graph.layers() if layer.op in LINEAR}
    blocks = find_blocks(graph)
    last = [[id(node) for node in block.inside if id(node) in linear][-1:] for block in blocks]
    return {node: 1 / len(blocks) for nodes in last for node in nodes}


def _observer(layer: Layer, goal: float, scales: dict[str, float]) -> Callable[[torch.Tensor], torch.Tensor]:
    name = layer.weight.name or ""

    def scaled(values: torch.Tensor) -> torch.Tensor:
        if name not in scales:
            std = float(values.double().std(correction=0))
            scales[name] = goal / std if std > 0 and math.isfinite(std) else 1.0
        return values * scales[name]

    return scaled
