"""Runs a pruning in a process of its own, and keeps what the peer made and what was exported for it."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import torch

from benchmarks import zoo
from benchmarks.comparison.processes import carry_out
from benchmarks.pruning import classifiers, natives
from benchmarks.pruning.natives import Native
from benchmarks.pruning.pruners import masked_twin
from benchmarks.pruning.pruners.order import Answer, Order

LIMIT_S, PEER_LIMIT_S = 900.0, 240.0
"""The peer needs seconds where it ends at all; two models keep it going round for ever."""
_PRUNERS = Path(__file__).with_name("pruners")
_SOURCES = (
    *sorted(Path(str(zoo.__file__)).parent.glob("*.py")),
    *(Path(str(module.__file__)) for module in (natives, classifiers, masked_twin)),
    _PRUNERS / "torch_pruning.py",
)


@dataclass(frozen=True)
class Run:
    """One pruning. `model` is None after a failure. `day`: when it ran, if that was an earlier run of the benchmark."""

    answer: Answer
    model: Path | None
    day: str | None = None


@dataclass(frozen=True)
class Runner:
    """Starts the processes. `peer` and `version` are the interpreter with Torch-Pruning and its version, if any.

    What is kept lies in `kept`, the rest in `folder`.
    """

    peer: Path | None
    version: str
    folder: Path
    kept: Path
    refresh: bool = False
    _numbers: Iterator[int] = field(default_factory=count)

    def run_ours(self, model: Path, recipe: str | None, calibrate: Path | None = None) -> Run:
        """Prune the file `model`; without a recipe, analyse it only."""
        output = self.folder / f"{next(self._numbers)}.onnx"
        options = {"recipe": recipe, "calibrate": calibrate}
        return _start(Path(sys.executable), "slimline", Order(str(model), output, options), LIMIT_S)

    def run_peer(self, subject: str, options: Mapping[str, Any]) -> Run:
        """Prune a native module with Torch-Pruning, or take what an earlier run kept where nothing has changed."""
        if self.peer is None:
            return Run(Answer(failure="Torch-Pruning is not installed"), None)
        known = _digest(["torch-pruning", self.version, subject, _told(options)])
        record = self.kept / f"{known}.run.json"
        if record.is_file() and not self.refresh:
            return _load(record)
        run = _start(self.peer, "torch_pruning", Order(subject, self.kept / f"{known}.onnx", options), PEER_LIMIT_S)
        stored = asdict(run) | {"day": datetime.now(UTC).date().isoformat()}
        record.write_text(json.dumps(stored, default=str))
        return run

    def export(self, native: Native) -> Path:
        """The native module as an ONNX file."""
        path = self.kept / f"{_digest([torch.__version__, native.entry.name, asdict(native.entry.scale)])}.native.onnx"
        if not path.is_file() or self.refresh:
            native.export(native.entry.build()).save(path)
        return path


def _start(python: Path, tool: str, order: Order, limit_s: float) -> Run:
    order.answer.unlink(missing_ok=True)
    order.output.unlink(missing_ok=True)
    died = carry_out(python, f"benchmarks.pruning.pruners.{tool}", order.dump(), limit_s)
    answer = Answer(**json.loads(order.answer.read_text())) if order.answer.is_file() else Answer(failure=died)
    return Run(answer, order.output if order.output.is_file() and not answer.failure else None)


def _load(record: Path) -> Run:
    stored: dict[str, Any] = json.loads(record.read_text())
    model = stored["model"]
    return Run(Answer(**stored["answer"]), Path(model) if model else None, stored["day"])


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a file its content counts, not its place."""
    return {
        name: hashlib.sha256(value.read_bytes()).hexdigest() if isinstance(value, Path) else value
        for name, value in options.items()
    }


def _digest(told: list[Any]) -> str:
    """Of something and all that native modules and the peer's work are made of."""
    sources = [path.read_text() for path in _SOURCES]
    return hashlib.sha256(json.dumps([told, sources], sort_keys=True).encode()).hexdigest()[:24]
