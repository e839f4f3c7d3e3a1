"""One short training with the same seed on the CPU and on the GPU: the accuracies must be alike, not the weights."""

import time
from dataclasses import dataclass
from pathlib import Path

from app.contracts.measurement import Accuracy
from benchmarks.comparison.goals import Goal
from benchmarks.gpu.pictures import AUGMENT, PREPROCESS, Pictures
from worker.engine import compress

MOST_APART = 1.0
"""Points of top-1, beyond what the test set leaves open."""
_HALF = {"method": "prune.structured", "target": {"macs": 0.5}}


@dataclass(frozen=True)
class Trained:
    """A model pruned to half of its MACs and trained on `device`."""

    device: str
    accuracy: Accuracy
    wall_s: float


def measure_training(model: Path, pictures: Pictures, device: str, updates: int, folder: Path) -> list[Trained]:
    """On the CPU and on `device`, from the same pruned start."""
    start = folder / "start.onnx"
    compress(model, recipe=[_HALF], output=start, calibrate=pictures.train, preprocess=PREPROCESS, device="cpu")
    return [_train(start, pictures, each, updates, folder / "trained.onnx") for each in ("cpu", device)]


def judge_training(model: str, here: Trained, there: Trained) -> Goal:
    """Apart by no more than that and half the interval of one of them."""
    first, second = here.accuracy, there.accuracy
    noise = (first.ci_high - first.ci_low) / 2 * 100
    apart = abs(first.value - second.value) * 100
    note = f"{here.device} {first.value:.2%}, {there.device} {second.value:.2%}, ±{noise:.2f} of one"
    return Goal(model, "trained on both, apart", apart, "at most", MOST_APART + noise, "pt", note)


def _train(start: Path, pictures: Pictures, device: str, updates: int, output: Path) -> Trained:
    began = time.perf_counter()
    result = compress(
        start,
        recipe=[{"method": "train", "steps": updates, "batch_size": 64, "augment": AUGMENT, "amp": "off"}],
        output=output,
        train=pictures.train,
        evaluate=pictures.test,
        preprocess=PREPROCESS,
        device="cpu" if device == "cpu" else "cuda",
    )
    final = result.comparison.final
    if final is None or final.accuracy is None:
        raise RuntimeError("the engine measured no accuracy")
    return Trained(device, final.accuracy, time.perf_counter() - began)
