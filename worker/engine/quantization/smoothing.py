"""Smooths what linear layers read: the graph computes the same, and its activations have fewer outlying channels.

The scales go into whatever makes the tensor, a normalization's gain or a linear layer, and into its readers' weights.
"""

from collections.abc import Collection, Mapping

import numpy as np
import torch

from worker.engine.graph import Graph
from worker.engine.quantization.calibration import Observer, Pass, watch
from worker.engine.quantization.folding.channels import Channels, find_channels, fold
from worker.engine.session import Array
from worker.engine.tensors.equalization import largest_by_label
from worker.engine.tensors.smoothing import smoothing_scales
from worker.engine.wording import counted


def find_smoothable(graph: Graph, left_alone: Collection[str] = ()) -> list[str]:
    """The tensors that `smooth` can work on: only linear layers read them, through what commutes with a scale.

    Nodes `left_alone`, by name, keep their weights, here and in `smooth`.

    Infers the shapes of `graph`. Raises SlimlineError SHAPES_CONFLICT.
    """
    return list(_axes(find_channels(graph, left_alone)))


def channel_extremes(graph: Graph, names: Collection[str], run: Pass) -> dict[str, Array]:
    """The largest absolute value of each channel of those of `names` that are smoothable, shape [C].

    Channels are those that the tensor's readers sum over: axis 1 for convolutions, the last one otherwise.
    """
    axes = {name: axis for name, axis in _axes(find_channels(graph)).items() if name in names}
    found: dict[str, torch.Tensor] = {}

    def observer(name: str) -> Observer:
        def widen(values: torch.Tensor) -> None:
            if not values.numel():
                return
            others = [axis for axis in range(values.ndim) if axis != values.ndim + axes[name]]
            largest = values.abs().amax(others) if others else values.abs()
            found[name] = torch.maximum(found[name], largest) if name in found else largest

        return widen

    watch(graph, [(name, observer(name)) for name in axes], run)
    return {name: largest.double().cpu().numpy() for name, largest in found.items()}


def smooth(
    graph: Graph, ranges: Mapping[str, Array], strength: float = 0.5, left_alone: Collection[str] = ()
) -> list[str]:
    """Smooth in place the tensors of which `ranges` has the largest absolute values [C]; see `channel_extremes`.

    `strength`, 0 to 1, is the share of the difficulty that moves into the weights. Gives a note, none where nothing
    could be smoothed. Raises SlimlineError SHAPES_CONFLICT.
    """
    channels = find_channels(graph, left_alone)
    known = [each for each in channels.readings if each.value.name in ranges]
    activations, weights = np.zeros(channels.count), np.zeros(channels.count)
    for reading in known:
        np.maximum.at(activations, reading.labels, ranges[reading.value.name or ""])
    for each in channels.scaled:
        if each.is_weight:
            magnitudes = np.abs(graph.array(each.constant))
            weights = np.maximum(weights, largest_by_label(magnitudes, each.reads, channels.count))
    scales = smoothing_scales(activations, weights, strength)
    scales[0] = 1.0
    fold(graph, channels, scales)
    names = {reading.value.name for reading in known}
    return [f"smoothed {counted(len(names), 'tensor')} that linear layers read"] if names else []


def _axes(channels: Channels) -> dict[str, int]:
    """The axis of the channels, counted from the end, by the name of what is read."""
    return {each.value.name: each.axis for each in channels.readings if each.value.name}
