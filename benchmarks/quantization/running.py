"""Runs a compression in a fresh process and keeps what peers made, so that only what changed is run again."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.comparison.processes import carry_out
from benchmarks.quantization.compressors.order import Answer, Order
from benchmarks.quantization.tools import Family, Tool

COMPRESSORS = Path(__file__).with_name("compressors")
LIMIT_S = 1800


@dataclass(frozen=True)
class Run:
    """What one compression took and made. `total_s` is with the interpreter's start and imports.

    `model` is None after a failure. `day`: when it ran, if that was an earlier run of the benchmark.
    """

    answer: Answer
    total_s: float
    model: Path | None
    day: str | None = None


@dataclass(frozen=True)
class Identity:
    """What a run is known by: the same tool, version, options, model, data and code of ours give the same result."""

    tool: Tool
    version: str
    model: Path
    calibrate: Path

    @property
    def digest(self) -> str:
        """Of all of it."""
        files = (COMPRESSORS / f"{self.tool.family}.py", self.model, self.calibrate)
        told = [self.tool.family, dict(self.tool.options), self.version, *map(_digest, files)]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Runner:
    """Starts the processes, `interpreters` by family. What is kept lies in `kept`, the rest in `folder`."""

    interpreters: Mapping[Family, str]
    versions: Mapping[Family, str]
    folder: Path
    kept: Path
    refresh: bool = False
    _numbers: Iterator[int] = field(default_factory=count)

    def run(self, tool: Tool, model: Path, input_name: str, calibrate: Path) -> Run:
        """Quantize `model`; of a tool that is kept, an earlier result will do where nothing has changed."""
        if not tool.is_kept:
            output = self.folder / f"{next(self._numbers)}.onnx"
            return self._start(tool, Order(model, input_name, calibrate, output, tool.options))
        known = Identity(tool, self.versions[tool.family], model, calibrate).digest
        record = self.kept / f"{known}.run.json"
        if record.is_file() and not self.refresh:
            return _load(record)
        order = Order(model, input_name, calibrate, self.kept / f"{known}.onnx", tool.options)
        run = self._start(tool, order)
        if order.answer.is_file():  # a process that died may fare better another time
            stored = replace(run, day=datetime.now(UTC).date().isoformat())
            record.write_text(json.dumps(asdict(stored), default=str))
        return run

    def _start(self, tool: Tool, order: Order) -> Run:
        order.answer.unlink(missing_ok=True)
        module = f"benchmarks.quantization.compressors.{tool.family}"
        started = time.perf_counter()
        died = carry_out(self.interpreters[tool.family], module, order.dump(), LIMIT_S)
        total = time.perf_counter() - started
        if not order.answer.is_file():
            return Run(Answer(0.0, 0.0, 0, 0, died), total, None)
        answer = Answer(**json.loads(order.answer.read_text()))
        return Run(answer, total, None if answer.failure else order.output)


def _load(record: Path) -> Run:
    stored: dict[str, Any] = json.loads(record.read_text())
    model = stored.pop("model")
    return Run(Answer(**stored.pop("answer")), model=Path(model) if model else None, **stored)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
