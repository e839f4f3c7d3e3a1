"""How much faster files are than the one they were made from: ratios of calls that take turns in this process."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from worker.engine.session import open_session, run_session

Feed = Mapping[str, NDArray[Any]]
WARM_UP, FEWEST_ROUNDS = 3, 8


def speed_ups(original: Path, others: Sequence[Path], feed: Feed, threads: int, seconds: float) -> list[float]:
    """For each of `others` the original's latency over its own: above 1 is faster. Takes about `seconds`.

    Medians over rounds of each round's ratio, so that what slows a whole round down cancels out; within a round the
    order changes, so that nobody always runs after the one that empties the caches.
    """
    sessions = [open_session(path, threads=threads) for path in (original, *others)]
    for session in sessions:
        for _ in range(WARM_UP):
            run_session(session, feed)
    rounds: list[NDArray[np.float64]] = []
    order, end = np.random.default_rng(0), time.perf_counter() + seconds
    while len(rounds) < FEWEST_ROUNDS or time.perf_counter() < end:
        times = np.empty(len(sessions))
        for index in order.permutation(len(sessions)):
            times[index] = _timed(sessions[index], feed)
        rounds.append(times)
    table = np.stack(rounds)
    ratios: list[float] = np.median(table[:, :1] / table[:, 1:], axis=0).tolist()
    return ratios


def _timed(session: ort.InferenceSession, feed: Feed) -> float:
    start = time.perf_counter()
    run_session(session, feed)
    return time.perf_counter() - start
