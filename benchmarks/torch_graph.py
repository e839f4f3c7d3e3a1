"""How fast and how lean TorchGraph is: ratios to the native torch module it was exported from, and to ONNX Runtime.

    python -m benchmarks.torch_graph                    every model of the zoo at its large size
    python -m benchmarks.torch_graph bert resnet        some of them
    python -m benchmarks.torch_graph --size tiny        where the cost per node shows
    python -m benchmarks.torch_graph --json             for machines; --markdown: as the README has it

Native module, TorchGraph and ONNX Runtime take turns in one process on one thread; each figure is a ratio of medians.
Memory is the most that torch's allocator held during a training step, beyond what was held before it.
Goal: at most 1.1 of native on models above 5 ms, at most 1.5 below, memory at most 1.1.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.zoo import Entry, Size, zoo
from benchmarks.zoo.entry import outputs_of, quiet
from benchmarks.zoo.judge import open_session
from worker.engine import Graph, TorchGraph

BATCH = 4
SLOW_MS = 5.0
MOST_SLOW, MOST_FAST, MOST_MEMORY = 1.1, 1.5, 1.1

_COMPUTED = re.compile(r"(mul|sub|pow)_\d+")
"""Names of constants that torch's exporter folds: frozen normalization and position codes."""


@dataclass(frozen=True)
class Row:
    """One model. Ratios are TorchGraph's figure over the native module's; `onnxruntime`: over ONNX Runtime's."""

    name: str
    native_ms: float
    forward: float
    train: float
    memory: float
    onnxruntime: float

    @property
    def misses(self) -> list[str]:
        """The goals it does not reach."""
        most = MOST_SLOW if self.native_ms > SLOW_MS else MOST_FAST
        limits = {"forward": most, "train": most, "memory": MOST_MEMORY}
        return [name for name, limit in limits.items() if getattr(self, name) > limit]


def measure(entry: Entry, folder: Path, seconds: float) -> Row:
    """Export, load, and let the three take turns for about `seconds`."""
    path = folder / f"{entry.name}.onnx"
    with quiet():
        entry.export(path)
    native, module = entry.build(), TorchGraph(Graph.load(path))
    _train_the_same(native, module)
    example = entry.example(BATCH)
    inputs = list(example.values())
    session = open_session(path)
    feed = dict(zip((each.name for each in session.get_inputs()), (each.numpy() for each in inputs), strict=True))
    forward = _take_turns(
        [
            lambda: _no_grad(lambda: native(**example)),
            lambda: _no_grad(lambda: module(*inputs)),
            lambda: session.run(None, feed),
        ],
        seconds / 2,
    )
    steps = [lambda: _step(native, outputs_of(native, example)), lambda: _step(module, module(*inputs))]
    train = _take_turns(steps, seconds / 2)
    peaks = [_peak(step) for step in steps]
    return Row(
        entry.name,
        forward[0] * 1e3,
        forward[1] / forward[0],
        train[1] / train[0],
        peaks[1] / peaks[0],
        forward[1] / forward[2],
    )


def _train_the_same(native: nn.Module, module: TorchGraph) -> None:
    """What the native module keeps frozen or as buffers, and what the exporter computed of buffers, is not trained."""
    frozen = {name for name, _ in native.named_buffers()}
    frozen |= {name for name, parameter in native.named_parameters() if not parameter.requires_grad}
    for name, parameter in module.named_parameters():
        if name in frozen or _COMPUTED.fullmatch(name):
            parameter.requires_grad_(False)


def _no_grad(run: Callable[[], object]) -> None:
    with torch.no_grad():
        run()


def _step(module: nn.Module, outputs: Sequence[Tensor]) -> None:
    """Backward through every floating-point output, and gradients dropped, as each training step begins."""
    trained = [each for each in outputs if each.is_floating_point() and each.requires_grad]
    torch.stack([each.float().square().mean() for each in trained]).sum().backward()
    module.zero_grad(set_to_none=True)


def _take_turns(calls: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """The median seconds of each call, taken in turns."""
    for call in calls:
        call()
        call()
    times: list[list[float]] = [[] for _ in calls]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for call, row in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            row.append(time.perf_counter() - start)
    return [statistics.median(row) for row in times]


def _peak(call: Callable[[], object]) -> int:
    """The most bytes that torch held during the call beyond those at its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        call()
    held = most = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of the zoo; all where none is given")
    parser.add_argument("--size", choices=("tiny", "large"), default="large")
    parser.add_argument("--seconds", type=float, default=6.0, help="per model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    size: Size = asked.size
    entries = [entry for name, entry in zoo(size).items() if not asked.models or name in asked.models]
    console = Console(file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(entry, Path(folder), asked.seconds)
            for entry in track(entries, "models", console=console, disable=not console.is_terminal)
        ]
    if asked.json:
        print(json.dumps([asdict(row) | {"misses": row.misses} for row in rows], indent=2))
    elif asked.markdown:
        _print_markdown(rows)
    else:
        _print(rows)


COLUMNS = ("native ms", "forward", "training step", "peak memory", "forward / ONNX Runtime", "misses its goal")


def _cells(row: Row) -> list[str]:
    figures = (row.native_ms, row.forward, row.train, row.memory, row.onnxruntime)
    return [row.name, *(f"{figure:.2f}" for figure in figures), ", ".join(row.misses) or "-"]


def _print_markdown(rows: Sequence[Row]) -> None:
    print("| model | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * (len(COLUMNS) - 1) + "---|")
    for row in rows:
        print("| " + " | ".join(_cells(row)) + " |")


def _print(rows: Sequence[Row]) -> None:
    table = Table("model", title="TorchGraph over native torch, one thread")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    Console(width=110).print(table)
    missed = sum(bool(row.misses) for row in rows)
    print(f"{len(rows) - missed} of {len(rows)} models reach their goals")


if __name__ == "__main__":
    main()
