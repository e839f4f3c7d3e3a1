"""`prune.magnitude`: the smallest weights become zero, in each layer or under one threshold for all."""

from collections.abc import Sequence
from functools import partial

import onnx_ir as ir

from app.contracts.failure import SlimlineError
from app.contracts.recipe.prune_magnitude import PruneMagnitude
from worker.engine.graph import Graph, Layer
from worker.engine.methods.method import Method, StepContext, split_layers
from worker.engine.pruning.iterative import prune_in_rounds
from worker.engine.pruning.masks import OPERATORS, held_weights, obstacle_in_ties, obstacle_to_zeros, set_zeros
from worker.engine.pruning.rounds import ONLY, Round, on_the_way
from worker.engine.pruning.sparse_restoration import restore_sparse
from worker.engine.quantization.calibration import Pass
from worker.engine.samples import Samples
from worker.engine.tensors.magnitude import Mask, smallest, smallest_of_all

_RESTORING = "restoring statistics"


class MagnitudePruning(Method[PruneMagnitude]):
    """Unstructured magnitude pruning (Han et al. 2015), exact in number."""

    step_type = PruneMagnitude

    def apply(self, graph: Graph, step: PruneMagnitude, context: StepContext) -> Graph:
        """See `Method.apply`; raises NOTHING_TO_PRUNE, or LAYER_UNKNOWN for a name in `ratios` too."""
        if step.schedule is not None:
            return prune_in_rounds(graph, step, step.schedule, partial(_prune, step), context)
        return _prune(step, graph, context, ONLY)

    def obstacle(self, graph: Graph, layer: Layer) -> str | None:
        """See `Method.obstacle`."""
        return obstacle_to_zeros(graph, layer)


def _prune(step: PruneMagnitude, graph: Graph, context: StepContext, now: Round) -> Graph:
    """Zeros of earlier rounds are the smallest weights: they are among those of this one."""
    pruned = graph.clone()
    layers = _choose(pruned, step, context)
    if not layers:
        hint = f"It works on floating-point weights of {', '.join(sorted(OPERATORS))}."
        raise context.record.refusal("NOTHING_TO_PRUNE", hint)
    if now.is_first and not any(mask.any() for mask in _find_masks(pruned, layers, step).values()):
        raise SlimlineError(
            "NOTHING_TO_PRUNE",
            "the shares are so small that no chosen layer loses a single weight",
            hint="Raise `amount`.",
        )
    set_zeros(pruned, layers, _find_masks(pruned, layers, on_the_way(step, now)), context.record)
    if step.restore and context.calibration is not None:
        samples = Samples(graph.inputs, context.calibration)
        run = Pass(samples, step.samples, context.device, lambda share: context.progress(share, _RESTORING))
        restore_sparse(pruned, graph, layers, run, context.record)
    return pruned


def _choose(graph: Graph, step: PruneMagnitude, context: StepContext) -> list[Layer]:
    """The layers that lose weights; one that shares them with a layer left alone by name is left alone too."""
    for pattern in step.ratios:
        graph.select([pattern])  # refuses one that matches no layer
    excluded = {layer.node for layer in graph.select(step.exclude)} if step.exclude else set()
    held = held_weights(graph, lambda layer: layer.node in excluded or step.ratio_of(layer.name) == 0)

    def obstacle(owner: Graph, layer: Layer) -> str | None:
        return obstacle_to_zeros(owner, layer) or _obstacle_in_shares(layer, step) or obstacle_in_ties(layer, held)

    return split_layers(graph, step, context, obstacle)


def _obstacle_in_shares(layer: Layer, step: PruneMagnitude) -> str | None:
    if step.ratio_of(layer.name) == 0:
        return "`ratios` leaves it alone"
    return None if step.share_of(layer.name) else "`ratios` does not name it, and no `amount` is given"


def _find_masks(graph: Graph, layers: Sequence[Layer], step: PruneMagnitude) -> dict[ir.Value, Mask]:
    """The mask of each weight; of a weight that several layers read, the first one's share counts."""
    readers: dict[ir.Value, str] = {}
    for layer in layers:
        for weight in layer.weights:
            readers.setdefault(weight, layer.name)
    compared = [weight for weight, name in readers.items() if step.scope == "global" and step.ratio_of(name) is None]
    found = smallest_of_all([graph.array(weight) for weight in compared], step.amount or 0.0)
    masks = dict(zip(compared, found, strict=True))
    for weight, name in readers.items():
        if weight not in masks:
            masks[weight] = smallest(graph.array(weight), step.share_of(name))
    return masks
