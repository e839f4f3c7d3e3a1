"""What is said of a checked model, layer by layer."""

from collections.abc import Callable, Mapping

from app.contracts.facts import Applicability, ChannelFacts, LayerFacts, ModelFacts
from worker.engine.graph import Graph, Layer
from worker.engine.graph.cost import count_weights, macs, macs_per_node
from worker.engine.graph.shapes import dims
from worker.engine.graph.weights import count_weight

Applicabilities = Callable[[Graph], Mapping[str, Mapping[str, Applicability]]]
"""For every layer by name, whether each method by name can work on it."""
ChannelDescriber = Callable[[Graph], Mapping[str, ChannelFacts]]
"""For layers by name, what of their output channels can be removed."""


def describe_model(
    graph: Graph,
    *,
    opset: int,
    notes: list[str],
    applicability: Applicabilities | None,
    channels: ChannelDescriber | None,
) -> ModelFacts:
    """Facts about an ingested graph; `opset` is that of the upload."""
    work = macs_per_node(graph)
    methods = applicability(graph) if applicability else {}
    removable = channels(graph) if channels else {}
    return ModelFacts(
        opset=opset,
        producer=" ".join(filter(None, (graph.model.producer_name, graph.model.producer_version))) or None,
        inputs=graph.inputs,
        outputs=graph.outputs,
        parameters=count_weights(graph).count,
        macs=macs(graph),
        layers=[
            _describe(layer, work.get(layer.name, 0), methods.get(layer.name, {}), removable.get(layer.name))
            for layer in graph.layers()
        ],
        notes=notes,
    )


def _describe(
    layer: Layer, macs: int | None, methods: Mapping[str, Applicability], channels: ChannelFacts | None
) -> LayerFacts:
    read = dict.fromkeys([*layer.weights, *(value for value in layer.node.inputs if value and value.is_initializer())])
    return LayerFacts(
        name=layer.name,
        op=layer.op,
        input_shapes=[dims(value) for value in layer.node.inputs if value and not value.is_initializer()],
        output_shapes=[dims(value) for value in layer.node.outputs if value.name],
        weights=[value.name or "" for value in layer.weights],
        parameters=sum(count_weight(value).count for value in read),
        macs=macs,
        methods=dict(methods),
        channels=channels,
    )
