"""How much each layer, quantized alone, changes the outputs of a graph. What is done about it is decided elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_ir as ir
import torch

from worker.engine.graph import Graph, Layer
from worker.engine.graph.cost import count_weights, macs
from worker.engine.graph.edit import Editor
from worker.engine.graph.layers import trace_weight
from worker.engine.quantization.calibration import Pass, to_tensors
from worker.engine.session import Array
from worker.engine.tensors.similarity import decibels
from worker.engine.torch_graph import TorchGraph

Quantizer = Callable[[torch.Tensor], torch.Tensor]
_MOST_SAMPLES, _FEWEST_SAMPLES, _COMFORTABLE_MACS = 8, 2, 2e10


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer of a float graph as it is quantized: what its weights stand for, and what becomes of its input.

    `weights`: floats by the initializer's name, in its shape. `quantize_input` gives the floats that the quantized
    input stands for; None where the input stays as it is.
    """

    layer: Layer
    weights: Mapping[str, Array]
    quantize_input: Quantizer | None = None


@dataclass(frozen=True)
class LayerError:
    """What a layer, quantized alone, does to its own output and to those of the graph."""

    output_sqnr_db: float | None
    """Of the layer's own output; None without any error."""
    final_noise: float
    """Error energy of the graph's outputs, each relative to that output's own energy, summed."""


def measure_errors(graph: Graph, layers: Sequence[QuantizedLayer], run: Pass) -> dict[str, LayerError]:
    """The error of each of `layers` of `graph`, quantized alone, by the layer's name.

    Runs the graph once for each layer and batch. Raises SlimlineError for a graph that torch cannot run.
    """
    bench = _Bench(graph, layers, run)
    total, done = min(run.limit, len(run.samples)), 0
    with torch.inference_mode():
        for batch in run.samples.batches(limit=run.limit):
            bench.measure(to_tensors(graph, batch.feed, run.device), done / total, batch.count / total)
            done += batch.count
    return bench.errors()


def affordable_samples(graph: Graph, runs: int) -> int:
    """On how many samples `graph` is run so many times each: up to 8, in some seconds of two cores; at least 2."""
    per_sample = runs * (macs(graph) or count_weights(graph).count)
    return int(np.clip(_COMFORTABLE_MACS // max(per_sample, 1), _FEWEST_SAMPLES, _MOST_SAMPLES))


def shares(errors: Mapping[str, LayerError]) -> dict[str, float]:
    """Each layer's share of the sum of final errors, 0 to 1; all 0 where nothing errs."""
    total = sum(error.final_noise for error in errors.values())
    return {name: error.final_noise / total if total else 0.0 for name, error in errors.items()}


class _Bench:
    """A graph in torch in which one layer at a time is switched to integers."""

    def __init__(self, graph: Graph, layers: Sequence[QuantizedLayer], run: Pass) -> None:
        self._layers, self._progress = layers, run.progress
        gated, gates, outputs = _with_gates(graph, [each.layer.node.name or "" for each in layers])
        self._module = TorchGraph(gated).to(run.device)
        self._active: int | None = None
        self._own: dict[int, torch.Tensor] = {}
        self._own_energies = np.zeros((len(layers), 2))
        for index, (gate, output) in enumerate(zip(gates, outputs, strict=True)):
            if gate is not None:
                self._module.observe(gate, partial(self._pass_gate, index))
            self._module.observe(output, partial(self._see_output, index))
        state = self._module.state_dict()
        self._weights = [
            {
                state[name]: torch.from_numpy(np.array(array, np.float32)).to(run.device)
                for name, array in each.weights.items()
            }
            for each in layers
        ]
        is_float = [spec.dtype in ("float", "float16", "double", "bfloat16") for spec in graph.outputs]
        self._compared = [index for index, wanted in enumerate(is_float) if wanted]
        self._signal = np.zeros(len(self._compared))
        self._noise = np.zeros((len(layers), len(self._compared)))

    def measure(self, inputs: Sequence[torch.Tensor], done: float, share: float) -> None:
        """Run one batch as it is, then once for each layer; it begins at `done` of the work and is `share` of it."""
        self._active = None
        expected = self._run(inputs)
        self._signal += [float(tensor.square().sum()) for tensor in expected]
        for index in range(len(self._layers)):
            self._active = index
            with self._quantized(index):
                got = self._run(inputs)
            self._noise[index] += [float((a - b).square().sum()) for a, b in zip(expected, got, strict=True)]
            self._progress(min(1.0, done + share * (index + 1) / len(self._layers)))
        self._own.clear()

    def errors(self) -> dict[str, LayerError]:
        """What was found, by layer."""
        relative = np.divide(self._noise, self._signal, out=np.zeros_like(self._noise), where=self._signal > 0)
        return {
            each.layer.name: LayerError(decibels(*own), float(noise.sum()))
            for each, own, noise in zip(self._layers, self._own_energies, relative, strict=True)
        }

    def _run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        outputs = self._module(*inputs)
        return [outputs[index].double() for index in self._compared]

    @contextmanager
    def _quantized(self, index: int) -> Iterator[None]:
        kept = {held: held.clone() for held in self._weights[index]}
        for held, new in self._weights[index].items():
            held.copy_(new)
        try:
            yield
        finally:
            for held, old in kept.items():
                held.copy_(old)

    def _pass_gate(self, index: int, values: torch.Tensor) -> torch.Tensor | None:
        quantize = self._layers[index].quantize_input
        return quantize(values) if index == self._active and quantize else None

    def _see_output(self, index: int, values: torch.Tensor) -> None:
        if self._active is None:
            self._own[index] = values
        elif index == self._active:
            expected = self._own[index]
            energies = expected.double().square().sum(), (expected.double() - values).square().sum()
            self._own_energies[index] += [float(each) for each in energies]


def _with_gates(graph: Graph, names: Sequence[str]) -> tuple[Graph, list[str | None], list[str]]:
    """A copy in which each named node reads its first computed input through an Identity of its own.

    Comes with the names of what the Identities give, None for a node that computes from weights alone, and of the
    nodes' own first outputs.
    """
    gated = graph.clone()
    editor, nodes = Editor(gated), {node.name: node for node in gated.nodes()}
    gates: list[str | None] = []
    for name in names:
        node = nodes[name]
        slot = next((i for i, value in enumerate(node.inputs) if _flows(value)), None)
        source = None if slot is None else node.inputs[slot]
        if slot is None or source is None or node.graph is None:
            gates.append(None)
            continue
        gate = editor.node("Identity", [source], [f"{name}_gate"])
        gate.outputs[0].type, gate.outputs[0].shape = source.type, source.shape
        node.graph.insert_before(node, gate)
        node.replace_input_with(slot, gate.outputs[0])
        gates.append(gate.outputs[0].name)
    return gated, gates, [nodes[name].outputs[0].name or "" for name in names]


def _flows(value: ir.Value | None) -> bool:
    """Whether samples decide what it holds: no weight is behind it."""
    return value is not None and trace_weight(value) is None and value.dtype == ir.DataType.FLOAT
