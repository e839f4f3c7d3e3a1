"""What a compression in a process of its own is asked, and what it tells of its time and memory. Imports no tool.

A peer's interpreter runs it too, so it needs no more than NumPy.
"""

import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Order:
    """A model to quantize. `calibrate`: an .npz whose array `x` holds the model's input `input_name`, samples first."""

    model: Path
    input_name: str
    calibrate: Path
    output: Path
    options: Mapping[str, Any]

    @property
    def answer(self) -> Path:
        """Where the answer goes: beside the output."""
        return self.output.with_suffix(".json")

    def feeds(self, batch: int = 1) -> Iterator[dict[str, Any]]:
        """The calibration samples as inputs of the model."""
        x = np.load(self.calibrate)["x"]
        for start in range(0, len(x), batch):
            yield {self.input_name: x[start : start + batch]}

    def dump(self) -> str:
        """As `serve` reads it."""
        return json.dumps(asdict(self), default=str)


@dataclass(frozen=True)
class Answer:
    """What one compression took, file to file: wall time, and time on all cores together, which hardly depends on load.

    Memory is the process' peak in bytes, before the work and in all.
    """

    work_s: float
    cpu_s: float
    before_bytes: int
    peak_bytes: int
    failure: str | None


def serve(work: Callable[[Order], None]) -> None:
    """Carry out the order on standard input. Called when everything is imported: that is not the work's time."""
    asked = json.load(sys.stdin)
    order = Order(**asked | {name: Path(asked[name]) for name in ("model", "calibrate", "output")})
    failure = None
    before, started, cpu_started = _peak_bytes(), time.perf_counter(), time.process_time()
    try:
        work(order)
    except Exception as error:  # noqa: BLE001 - the edge of the process: it is shown as this tool's result
        traceback.print_exc()
        code = getattr(getattr(error, "failure", None), "code", type(error).__name__)
        failure = f"{code}: {error}"
    spent = time.perf_counter() - started, time.process_time() - cpu_started
    answer = Answer(*spent, before, _peak_bytes(), failure)
    order.answer.write_text(json.dumps(asdict(answer)))


def _peak_bytes() -> int:
    """The most this process ever held. Not `ru_maxrss`: through a vfork that begins at what the parent holds."""
    found = _PEAK.search(Path("/proc/self/status").read_text())
    if not found:
        raise RuntimeError("memory is read from /proc/self/status, which only Linux has")
    return int(found[1]) * 1024
