"""What a structured pruning step did to each layer, for records and for people."""

from app.contracts.facts import ChannelFacts
from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph, Layer
from worker.engine.graph.channels import RECURRENT, Group, Groups, find_groups
from worker.engine.graph.cost import count_weights, macs
from worker.engine.graph.shapes import sizes
from worker.engine.methods.method import Record
from worker.engine.pruning.selection import Selection

_UNTOUCHED = "its share comes to no whole unit"


def record_layers(graph: Graph, pruned: Graph, selection: Selection, record: Record) -> None:
    """Say of every layer what shape it had and has; those whose inputs alone went are told with the reason."""
    after = {layer.name: layer for layer in pruned.layers()}
    for layer in graph.layers():
        now = after.get(layer.name, layer)
        shapes = {"shape_before": _shape(layer), "shape_after": _shape(now)}
        if _shape(layer)[layer.output_axis] != _shape(now)[layer.output_axis]:
            record.done(layer, **shapes)
        else:
            record.skipped(layer, selection.reasons.get(layer.name, _UNTOUCHED), **shapes)


def tell_what_is_left(graph: Graph, pruned: Graph) -> str:
    """Parameters and MACs left, in words."""
    told = [f"{count_weights(pruned).count / max(1, count_weights(graph).count):.1%} of the parameters"]
    before, after = macs(graph), macs(pruned)
    if before and after:
        told.append(f"{after / before:.1%} of the MACs")
    return f"left: {' and '.join(told)}"


def find_obstacle(groups: Groups, layer: Layer) -> str | None:
    """Why no output channel of `layer` can go."""
    own = [group for group in groups.groups if layer.name in group.layers]
    if own and all(len(group.units) == 1 for group in own):
        return f"all its channels go together: it is one {own[0].kind}"
    return None if own else groups.obstacle(layer)


def find_obstacles(graph: Graph) -> dict[str, str | None]:
    """The obstacle of every layer by name, where `graph` can be analysed or not."""
    try:
        groups = find_groups(graph)
    except SlimlineError as error:
        return dict.fromkeys((layer.name for layer in graph.layers()), error.failure.message)
    return {layer.name: find_obstacle(groups, layer) for layer in graph.layers()}


def describe_channels(graph: Graph) -> dict[str, ChannelFacts]:
    """For every layer by name, what of its output channels can go, and what goes with it."""
    try:
        groups = find_groups(graph)
    except SlimlineError as error:
        return {
            layer.name: ChannelFacts(total=_channels(layer), units=0, why=error.failure.message)
            for layer in graph.layers()
        }
    return {layer.name: _describe(groups, layer) for layer in graph.layers()}


def _describe(groups: Groups, layer: Layer) -> ChannelFacts:
    own = [group for group in groups.groups if layer.name in group.layers and len(group.units) > 1]
    if not own:
        return ChannelFacts(total=_channels(layer), units=0, why=find_obstacle(groups, layer))
    counts = [len(group.units) for group in own]
    return ChannelFacts(
        total=_channels(layer),
        units=sum(counts),
        per_unit=_width(own[0], layer),
        groups=counts,
        kind=own[0].kind,
        tied_to=list(dict.fromkeys(name for group in own for name in group.layers if name != layer.name)),
    )


def _width(group: Group, layer: Layer) -> int:
    """Output channels of the layer that go with one unit."""
    own = (each for each in group.members if (each.constant, each.axis) == (layer.weight.name, layer.output_axis))
    return 1 if layer.op in RECURRENT else int((next(own).units == group.units[0]).sum())


def _channels(layer: Layer) -> int:
    """Output channels; hidden units of a recurrent layer."""
    if layer.op in RECURRENT:
        return (sizes(layer.weights[-1]) or (0,))[-1]
    return _shape(layer)[layer.output_axis]


def _shape(layer: Layer) -> list[int]:
    return list(sizes(layer.weight) or ())
