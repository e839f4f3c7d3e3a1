"""The time of each kernel that ONNX Runtime runs, from its own profile. Whom a kernel serves is not known here."""

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from worker.engine.graph import Graph
from worker.engine.session import Array, open_session, run_session

_WARM_UP = 3
_FEWEST_RUNS, _MOST_RUNS = 10, 200
_SUFFIX = "_kernel_time"
_HOLD_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Their time is that of the kernels in their bodies, which are told of too."""


@dataclass(frozen=True)
class Kernel:
    """A kernel by the name and operator of its node in ONNX Runtime's rewritten graph; microseconds in one call."""

    node: str
    operator: str
    microseconds: float


def time_kernels(graphs: Sequence[Graph], feed: Mapping[str, Array], budget_s: float) -> list[list[Kernel]]:
    """The kernels of each graph on one thread, as they are when nothing disturbs them.

    The graphs take turns, so that noise hits them alike, as often as fits in `budget_s`, within 10 and 200. Raises
    SlimlineError for a graph that does not load or run.
    """
    with tempfile.TemporaryDirectory() as folder:
        sessions = [_profiled(graph, Path(folder) / f"{index}.onnx") for index, graph in enumerate(graphs)]
        start, runs = time.perf_counter(), 0
        while runs < _WARM_UP + _FEWEST_RUNS or (runs < _MOST_RUNS and time.perf_counter() - start < budget_s):
            for session in sessions:
                run_session(session, feed)
            runs += 1
        return [_read(Path(session.end_profiling()), runs) for session in sessions]


def _profiled(graph: Graph, path: Path) -> ort.InferenceSession:
    graph.save(path)
    return open_session(path, threads=1, profile_prefix=path.with_suffix(""))


def _read(profile: Path, runs: int) -> list[Kernel]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in json.loads(profile.read_text()):
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith(_SUFFIX) and event["args"]["op_name"] not in _HOLD_BODIES:
            found[name.removesuffix(_SUFFIX), event["args"]["op_name"]].append(event["dur"])
    return [Kernel(*key, _undisturbed(np.array(times)) * len(times) / runs) for key, times in found.items()]


def _undisturbed(times: Array) -> float:
    """Mean of the faster half: what disturbs only slows down, and a whole microsecond is too coarse for a median."""
    return float(np.sort(times)[: (len(times) + 1) // 2].mean())
