"""Quantizes a graph by one plan after another and measures what comes out. Which plans are tried is `search`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from app.contracts.failure import SlimlineError
from worker.engine.graph import Graph
from worker.engine.measure.comparison import Judge
from worker.engine.measure.kernels import KernelCount
from worker.engine.quantization.bias_correction import find_bias_shifts
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.gate import check_bytes, load_counted
from worker.engine.quantization.pairs import Quantized, Quantizer, Range, Scheme, quantize_graph
from worker.engine.quantization.placement import Way
from worker.engine.quantization.sensitivity import QuantizedLayer


@dataclass(frozen=True)
class Plan:
    """A way to quantize: the float graph, which layers of it by name, how far beyond, ranges and types."""

    source: Graph
    layers: frozenset[str]
    way: Way
    ranges: Mapping[str, Range]
    scheme: Scheme


@dataclass(frozen=True)
class Candidate:
    """What came of a plan."""

    plan: Plan
    quantized: Quantized
    kernels: KernelCount
    decibels: float

    def layers(self) -> dict[str, QuantizedLayer]:
        """The quantized layers of the plan's float graph, by the name of their node, each as it is alone."""
        inputs = self.quantized.inputs
        return {
            name: QuantizedLayer(
                layer,
                {layer.weight.name or "": self.quantized.restored(name)},
                partial(fake_quantize, quantizer=inputs[name]),
            )
            for layer in self.plan.source.layers()
            if (name := layer.node.name or "") in inputs
        }

    def with_biases_corrected(self, run: Pass) -> Plan:
        """The plan with what its quantization shifts the layers' outputs by, in the mean, taken off their biases."""
        layers = self.layers()
        names = {each.layer.name: name for name, each in layers.items()}
        shifts = find_bias_shifts(self.plan.source, list(layers.values()), run)
        scheme = replace(self.plan.scheme, shifts={names[layer]: shift for layer, shift in shifts.items()})
        return replace(self.plan, scheme=scheme)


class Trials:
    """Tries plans for `graph`, whose outputs `judge` compares theirs with."""

    def __init__(self, graph: Graph, judge: Judge) -> None:
        self._graph, self._judge = graph, judge

    def measure(self, plan: Plan) -> Candidate:
        """Quantize by `plan`. Raises SlimlineError QUANTIZATION_WITHOUT_EFFECT, or where the result does not run."""
        quantized = quantize_graph(plan.source, plan.layers, plan.way, plan.ranges, plan.scheme)
        check_bytes(self._graph, quantized.graph)
        session, kernels = load_counted(quantized.graph)
        return Candidate(plan, quantized, kernels, self._judge.compare(session))

    def measure_all(self, plans: Mapping[str, Plan]) -> dict[str, Candidate]:
        """Those of `plans` that gain, by name. Raises the first one's SlimlineError where none does."""
        found, refusals = dict[str, Candidate](), list[SlimlineError]()
        for name, plan in plans.items():
            try:
                found[name] = self.measure(plan)
            except SlimlineError as error:
                refusals.append(error)
        if not found:
            raise refusals[0]
        return found


def fake_quantize(values: torch.Tensor, quantizer: Quantizer) -> torch.Tensor:
    """The numbers that the integers of `values` stand for."""
    limits = np.iinfo(quantizer.zero_point.dtype)
    scale, zero = float(quantizer.scale), int(quantizer.zero_point)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, int(limits.min), int(limits.max))
