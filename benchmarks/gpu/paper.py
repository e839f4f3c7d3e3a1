"""The table of DepGraph's paper: ResNet-56 on CIFAR-10 with 2.57 times fewer MACs, ours beside Torch-Pruning's recipe.

Fang et al. 2023, DepGraph: Towards Any Structural Pruning, arXiv:2301.12900, table 1; here on JPEG copies of the
pictures, from the same published weights, and with the same number of epochs for all.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.goals import Goal
from benchmarks.gpu.pictures import AUGMENT, PREPROCESS, Pictures
from benchmarks.gpu.prepared import IN_THE_PAPER
from worker.engine import compress

TIMES_FEWER = 2.57
_PRUNE: Mapping[str, Any] = {"method": "prune.structured", "target": {"macs": 1 / TIMES_FEWER}}
ORIGINAL, DENSE, OURS, DISTILLED, THEIRS = "original", "dense, trained", "ours", "ours, distilled", "Torch-Pruning"


@dataclass(frozen=True)
class Entry:
    """A line of the table. Top-1 in percent; None where it could not be had."""

    name: str
    top1: float | None
    times_fewer: float | None
    wall_s: float
    note: str = ""


@dataclass(frozen=True)
class Contest:
    """Where models and pictures are, and how long everyone trains."""

    model: Path
    pictures: Pictures
    device: str
    epochs: int
    folder: Path

    def measure(self) -> list[Entry]:
        """All lines."""
        trained = self.folder / "dense.onnx"
        dense = self._ours(DENSE, [self._train()], trained)
        return [
            self._original(),
            dense,
            self._ours(OURS, [_PRUNE, self._train()]),
            self._ours(DISTILLED, [_PRUNE, self._train(distill={"teacher": str(trained)})]),
            self._theirs(),
        ]

    def _train(self, **more: Any) -> dict[str, Any]:
        options = {"epochs": self.epochs, "batch_size": 128, "learning_rate": 1e-3, "augment": AUGMENT}
        return {"method": "train", **options, **more}

    def _original(self) -> Entry:
        """Measured by the engine beside a step that costs nothing."""
        before = self._compress([{"method": "prune.magnitude", "amount": 0.01}], self.folder / "unused.onnx")
        accuracy = before.original.accuracy if before.original else None
        return Entry(ORIGINAL, accuracy.value * 100 if accuracy else None, 1.0, 0.0)

    def _ours(self, name: str, recipe: Sequence[Mapping[str, Any]], output: Path | None = None) -> Entry:
        began = time.perf_counter()
        found = self._compress(recipe, output or self.folder / "ours.onnx")
        accuracy, left = found.final.accuracy if found.final else None, found.ratios.macs if found.ratios else None
        top1 = accuracy.value * 100 if accuracy else None
        return Entry(name, top1, 1 / left if left else None, time.perf_counter() - began)

    def _compress(self, recipe: Sequence[Mapping[str, Any]], output: Path) -> Any:
        return compress(
            self.model,
            recipe=list(recipe),
            output=output,
            calibrate=self.pictures.train,
            train=self.pictures.train,
            evaluate=self.pictures.test,
            preprocess=PREPROCESS,
            device="cpu" if self.device == "cpu" else "cuda",
        ).comparison

    def _theirs(self) -> Entry:
        try:
            from benchmarks.gpu.torch_pruning_recipe import Recipe
        except ImportError as error:
            return Entry(THEIRS, None, None, 0.0, f"cannot be imported: {error}")
        began = time.perf_counter()
        recipe = Recipe(self.model, self.pictures, self.device, self.epochs, TIMES_FEWER)
        top1, times_fewer = recipe.carry_out()
        return Entry(THEIRS, top1, times_fewer, time.perf_counter() - began)


def judge_paper(entries: Sequence[Entry]) -> list[Goal]:
    """Ours, without a teacher, beside the dense network and, where there is one, beside Torch-Pruning's."""
    by_name = {entry.name: entry for entry in entries}
    ours = by_name[OURS]
    rivals = [by_name[DENSE]] + ([by_name[THEIRS]] if by_name[THEIRS].top1 is not None else [])
    return [
        Goal(
            IN_THE_PAPER,
            f"top-1 at {TIMES_FEWER} x fewer MACs",
            ours.top1,
            "at least",
            rival.top1 or 0.0,
            "%",
            rival.name,
        )
        for rival in rivals
    ]
