"""Quantization-aware training of the networks for digits, beside the float network trained as long on the same data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.comparison.data import Split
from benchmarks.comparison.goals import Goal
from benchmarks.training.found import Found
from benchmarks.training.material import Material
from benchmarks.training.recipes import Options, train
from benchmarks.training.running import Bench
from benchmarks.training.trials import Result, Run, Trial
from worker.engine import Graph, TorchGraph

QUANTIZED: Mapping[str, Options] = {
    "int8": {"method": "quantize.static"},
    "4-bit": {"method": "quantize.static", "weights": {"bits": 4}},
}
MOST_LOST: Mapping[str, float] = {"int8": 0.3, "4-bit": 1.0}
"""Points of top-1 below the float network as it was given."""
MOST_APART = 0.5
"""Points between the accuracy of training's own network and that of ONNX Runtime, on the same samples."""
TRIALS = 1 + 2 * len(QUANTIZED)
_BATCH = 100


@dataclass(frozen=True)
class Agreement:
    """Top-1 of one artifact in torch, as it was trained, and in ONNX Runtime, percent."""

    case: str
    trial: str
    torch: float
    onnxruntime: float


def measure_qat(bench: Bench, materials: Sequence[Material], budget: Options) -> tuple[Found, list[Agreement]]:
    """Float, trained on; quantized; quantized and trained."""
    found, agreements = Found("Quantization-aware training"), list[Agreement]()
    for material in materials:
        original = bench.measure(material, Trial("float", ()))
        tuned = bench.measure(material, Trial("float, trained", [train(budget)]))
        found.results += [original, tuned]
        for name, step in QUANTIZED.items():
            plain = bench.measure(material, Trial(name, [step]))
            trained = bench.measure(material, Trial(f"{name}, trained", [step, train(budget)]))
            found.results += [plain, trained]
            found.compare(trained, plain)
            found.compare(trained, tuned)
            found.expect_near(trained, original, MOST_LOST[name])
            agreements += [_compare(trained, run, material.test) for run in trained.runs]
    found.goals += map(judge_agreement, agreements)
    return found, agreements


def _compare(result: Result, run: Run, test: Split) -> Agreement:
    in_torch = float(get_right_in_torch(TorchGraph(Graph.load(run.artifact)), test).mean() * 100)
    name = f"{result.trial.name}, seed {run.seed}"
    return Agreement(result.case, name, in_torch, float(run.right.mean() * 100))


def get_right_in_torch(module: TorchGraph, test: Split) -> NDArray[np.bool_]:
    """[N] Whether the highest score is the label's."""
    with torch.no_grad():
        scores = [
            module(torch.from_numpy(test.x[start : start + _BATCH]))[0] for start in range(0, len(test.x), _BATCH)
        ]
    right: NDArray[np.bool_] = torch.cat(scores).argmax(1).numpy() == test.y
    return right


def judge_agreement(found: Agreement) -> Goal:
    """The same accuracy in both, within noise."""
    apart = abs(found.torch - found.onnxruntime)
    note = f"torch {found.torch:.2f} %, ONNX Runtime {found.onnxruntime:.2f} %"
    return Goal(found.case, f"torch from ONNX Runtime, {found.trial}", apart, "at most", MOST_APART, "pt", note)
