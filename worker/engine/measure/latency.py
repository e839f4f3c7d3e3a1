"""Time of one inference call, several models interleaved in one process so that noise hits them alike."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from app.contracts.measurement import Latency
from worker.engine.session import Array, fit_feed, run_session

WARM_UP = 3
FEWEST_RUNS, MOST_RUNS = 10, 200


def interleaved(
    sessions: Sequence[ort.InferenceSession],
    feed: Mapping[str, Array],
    *,
    budget_s: float,
    threads: int,
    device: str,
) -> list[Latency]:
    """Latency of each session on `feed`; as many rounds as fit in `budget_s`, within 10 and 200."""
    calls = [(session, fit_feed(session, feed)) for session in sessions]  # no cast is timed
    for session, fitting in calls:
        for _ in range(WARM_UP):
            run_session(session, fitting)
    start = time.perf_counter()
    rounds: list[list[float]] = []
    while len(rounds) < FEWEST_RUNS or (len(rounds) < MOST_RUNS and time.perf_counter() - start < budget_s):
        rounds.append([_timed(session, fitting) for session, fitting in calls])
    first = next(iter(feed.values()), None)
    batch = first.shape[0] if first is not None and first.ndim else 1
    return [_summary(np.array(times), batch, threads, device) for times in zip(*rounds, strict=True)]


def _timed(session: ort.InferenceSession, feed: Mapping[str, Array]) -> float:
    start = time.perf_counter()
    run_session(session, feed)
    return (time.perf_counter() - start) * 1e3


def _summary(times: np.ndarray, batch: int, threads: int, device: str) -> Latency:
    return Latency(
        p50=float(np.quantile(times, 0.5)),
        p90=float(np.quantile(times, 0.9)),
        batch=batch,
        threads=threads,
        device=device,
        runs=len(times),
    )
