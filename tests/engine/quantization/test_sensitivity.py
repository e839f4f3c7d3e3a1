"""The error of layers quantized alone: against ONNX Runtime on graphs in which that layer alone is changed."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from worker.engine.graph import Graph
from worker.engine.quantization.calibration import Pass
from worker.engine.quantization.sensitivity import QuantizedLayer, measure_errors, shares
from worker.engine.samples import Samples, make_up
from worker.engine.session import open_session, run_session
from worker.engine.tensors.similarity import noise_energy

Builder = Callable[..., onnx.ModelProto]


def final_noise(before: Graph, after: Graph, samples: Samples) -> float:
    """Error energy of the first output relative to its own, by ONNX Runtime."""
    sessions = [open_session(graph.proto().SerializeToString()) for graph in (before, after)]
    pairs = [[run_session(session, batch.feed)[0] for session in sessions] for batch in samples.batches()]
    signal, noise = np.sum([noise_energy(*pair) for pair in pairs], axis=0)
    return float(noise / signal)


@pytest.fixture
def graph(make_cnn: Builder) -> Graph:
    graph = Graph.from_proto(make_cnn())
    graph.infer_shapes()
    return graph


@pytest.fixture
def samples(graph: Graph) -> Samples:
    return make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)


def test_each_layer_errs_as_if_it_alone_were_changed(graph: Graph, samples: Samples) -> None:
    layers = [
        QuantizedLayer(each, {each.weight.name or "": graph.array(each.weight).round(1)}) for each in graph.layers()
    ]
    errors = measure_errors(graph, layers, Pass(samples, 100))
    for each in layers:
        changed = graph.clone()
        for name, array in each.weights.items():
            changed.set_array(name, array)
        assert errors[each.layer.name].final_noise == pytest.approx(final_noise(graph, changed, samples), rel=1e-3)
    assert sum(shares(errors).values()) == pytest.approx(1)


def test_an_input_is_quantized_for_its_layer_alone(graph: Graph, samples: Samples) -> None:
    first, *others = graph.layers()
    seen: list[torch.Tensor] = []

    def halve(values: torch.Tensor) -> torch.Tensor:
        seen.append(values)
        return values / 2

    layers = [QuantizedLayer(first, {}, halve), *(QuantizedLayer(each, {}) for each in others)]
    errors = measure_errors(graph, layers, Pass(samples, 100))
    assert len(seen) == len(samples)
    assert errors[first.name].final_noise > 0
    assert errors[first.name].output_sqnr_db is not None
    assert [errors[each.name].output_sqnr_db for each in others] == [None] * len(others)
    assert shares(errors)[first.name] == 1


def test_the_graph_stays_as_it_is(graph: Graph, samples: Samples) -> None:
    before = graph.proto().SerializeToString()
    layers = [QuantizedLayer(each, {each.weight.name or "": graph.array(each.weight) * 0}) for each in graph.layers()]
    measure_errors(graph, layers, Pass(samples, 4))
    assert graph.proto().SerializeToString() == before
