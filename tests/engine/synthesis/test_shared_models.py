"""A real model, its BatchNormalization folded away: 8-bit ranges from synthesised inputs, from noise and real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from worker.engine.graph import Graph
from worker.engine.ingest import ingest_model
from worker.engine.quantization.calibration import Pass, find_extremes, watch
from worker.engine.samples import Samples, Synthetic, make_up
from worker.engine.session import Array, open_session
from worker.engine.synthesis import SynthesisRun, synthesize
from worker.engine.tensors.extremes import Extremes
from worker.engine.tensors.similarity import sqnr_db


@pytest.fixture(scope="module")
def graph(shared: Path) -> Graph:
    return ingest_model(shared / "models" / "kws_dscnn.onnx")[0]


@pytest.fixture(scope="module")
def real(shared: Path, graph: Graph) -> Samples:
    """Spoken words as 49 x 10 cepstral coefficients, whose deviation is 7.5."""
    with np.load(shared / "data" / "kws_mfcc_test1000.npz") as data:
        x = (data["x_int8"][::8].astype(np.float32) - 83) * np.float32(0.5847029)
    return Samples(graph.inputs, Synthetic([{"mfcc": x.reshape(-1, 1, 49, 10)}], len(x)))


def ranges(graph: Graph, samples: Samples) -> dict[str, Extremes]:
    """Of the outputs of all layers."""
    return find_extremes(graph, Pass(samples, 1000), [layer.node.outputs[0].name or "" for layer in graph.layers()])


def octaves_off(found: dict[str, Extremes], real: dict[str, Extremes]) -> float:
    """Mean over tensors of how far widths are from those on real inputs: 1 is double or half."""
    ratios = [np.log2((found[name].high - found[name].low) / (each.high - each.low)) for name, each in real.items()]
    return float(np.mean(np.abs(ratios)))


def rounded_to(extremes: Extremes) -> Callable[[torch.Tensor], torch.Tensor]:
    step = (extremes.high - extremes.low) / 255
    return lambda values: ((values - extremes.low) / step).round().clamp(0, 255) * step + extremes.low


def final_sqnr(graph: Graph, found: dict[str, Extremes], samples: Samples) -> float:
    """Of the outputs on `samples` when every layer's output is rounded to 8 bits of its range, dB."""
    outputs: list[Array] = []
    rounders = {name: rounded_to(extremes) for name, extremes in found.items()}
    last = graph.outputs[0].name

    def keep(values: torch.Tensor) -> None:
        outputs.append(values.numpy().copy())

    rounders.pop(last, None)
    watch(graph, [(last, keep)], Pass(samples, 1000))
    watch(graph, [*rounders.items(), (last, keep)], Pass(samples, 1000))
    return sqnr_db(*outputs) or np.inf


def test_synthesised_inputs_give_ranges_near_the_real_ones(graph: Graph, real: Samples) -> None:
    noise = make_up(graph.inputs, open_session(graph.proto().SerializeToString()), seed=0)
    made = synthesize(graph, SynthesisRun(count=32))
    by_noise, by_synthesis, by_real = (ranges(graph, samples) for samples in (noise, made, real))
    assert octaves_off(by_noise, by_real) > 2
    assert octaves_off(by_synthesis, by_real) < 1
    noise_db, synthesis_db = (final_sqnr(graph, found, real) for found in (by_noise, by_synthesis))
    assert synthesis_db > noise_db + 10
