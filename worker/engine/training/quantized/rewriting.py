"""`QuantizedRewriting`: makes a quantized graph trainable, and integers of what was trained. No arithmetic is here."""

from collections.abc import Collection, Iterable, Mapping

from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.quantized.biases import separate_biases, unfold_biases
from worker.engine.training.quantized.folding import fold
from worker.engine.training.quantized.integer_products import WITHOUT_GRADIENT, fixed_scales, untrained_products
from worker.engine.training.quantized.learning import attach_scales, bound_scales, clip_narrow, find_learned_scales, fix
from worker.engine.training.quantized.weights import unfold_weights

_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


class QuantizedRewriting:
    """A `Rewriting` of a graph with QuantizeLinear and DequantizeLinear nodes, such as `quantize.static` makes.

    In `graph` weights and biases are floats under the names of their codes; weights go through QuantizeLinear, so it
    computes bit for bit what the source does. Scales are learned (LSQ, Esser et al. 2020); zero points stay.
    """

    graph: Graph
    untrained: Mapping[str, str]
    """Why the weights of a node stay as they are, by its name."""
    rounded: Collection[str]
    scales: frozenset[str]
    """Names of the scales that `attach` lets learn; weight decay has no meaning for them."""

    def __init__(self, source: Graph) -> None:
        self._source = source.clone()
        separate_biases(self._source)
        self.graph = self._source.clone()
        self._biases = unfold_biases(self.graph)
        self._weights, held_back = unfold_weights(self.graph)
        self.graph.infer_shapes()
        self.rounded = frozenset(weight.name for weight in self._weights if not weight.is_pruned)
        self._scales = find_learned_scales(self.graph)
        self._fixed = frozenset(value.name or "" for value in fixed_scales(self.graph)) - self._scales.keys()
        self.scales = frozenset(self._scales)
        self.untrained = untrained_products(self.graph) | _readers_of(self.graph, held_back)

    def attach(self, module: TorchGraph) -> None:
        """See `Rewriting.attach`: each scale is held as a `LearnedScale`."""
        attach_scales(module, self._scales)
        fix(module, self._fixed)

    def begin(self, module: TorchGraph, batches: Iterable[TrainingBatch]) -> None:
        """Ranges are known from calibration: nothing is left to learn."""

    def constrain(self, module: TorchGraph) -> None:
        """See `Rewriting.constrain`: bounds scales, and weights whose codes use fewer bits than their type has."""
        bound_scales(module, self._scales, self._biases)
        clip_narrow(module, self._weights)

    def finish(self, module: TorchGraph) -> Graph:
        """See `Rewriting.finish`: the nodes, names and types of the source."""
        module.write_back()
        return fold(self._source, self.graph, self._weights, self._biases)


def has_codes(graph: Graph) -> bool:
    """Whether anything in `graph` is stored or multiplied as codes, or quantized on the way."""
    return any(node.op_type in _QUANTIZING or node.op_type in WITHOUT_GRADIENT for node in graph.nodes())


def _readers_of(graph: Graph, held_back: Mapping[str, str]) -> dict[str, str]:
    """The layers that read codes which were `held_back`, with the reason."""
    layers = ((layer.name, weight.name or "") for layer in graph.layers() for weight in layer.weights)
    return {layer: held_back[weight] for layer, weight in layers if weight in held_back}
