"""Equalizes the linear layers of a graph: it computes the same, and the ranges of its weights are more alike."""

from collections.abc import Collection

import numpy as np

from worker.engine.graph import Graph
from worker.engine.quantization.folding.channels import find_channels, fold
from worker.engine.tensors.equalization import LayerRanges, equalizing_scales
from worker.engine.wording import counted


def equalize(graph: Graph, left_alone: Collection[str] = ()) -> list[str]:
    """Cross-layer equalization in place, through residual sums, depthwise layers and whatever else scales pass.

    Nodes `left_alone`, by name, keep their weights. Gives a note, none where no channel runs from one layer to
    another. Raises SlimlineError SHAPES_CONFLICT.
    """
    channels = find_channels(graph, left_alone)
    weights = [each for each in channels.scaled if each.is_weight]
    scales = equalizing_scales(
        [LayerRanges(np.abs(graph.array(each.constant)), each.reads, each.writes) for each in weights], channels.count
    )
    fold(graph, channels, scales)
    changed = scales != 1
    layers = [each for each in weights if changed[each.reads].any() or changed[each.writes].any()]
    between = counted(int(changed.sum()), "channel")
    return [f"equalized {between} between {counted(len(layers), 'layer')}"] if layers else []
