"""The clean process: reads a `clean.Request` on standard input, writes `clean.Line`s. Not meant for people."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.contracts.failure import SlimlineError
from worker.engine.data import open_dataset
from worker.engine.measure.clean import Answer, DataFile, Line, Request, Side
from worker.engine.measure.evaluation import evaluate
from worker.engine.measure.latency import interleaved
from worker.engine.measure.memory import peak_rise
from worker.engine.samples import Samples, from_guess
from worker.engine.session import open_session

THREADS = 1
"""Latency and memory are taken on one thread: it repeats best, and it is what a loaded server has to give."""


def answer(request: Request) -> Answer:
    """Load and run both models and measure them. Raises SlimlineError where one does not."""
    paths, device = (request.original, request.compressed), request.device
    with _open_samples(request) as samples:
        feed = samples.first()
        # Before this process opens a session of its own: see `peak_rise`.
        peaks = [peak_rise(path, feed, threads=THREADS, device=device) for path in paths]
        alone = [open_session(path, threads=THREADS, device=device) for path in paths]
        latencies = interleaved(alone, feed, budget_s=request.latency_s, threads=THREADS, device=device)
        del alone
        original, compressed = (open_session(path, device=device) for path in paths)
        found = evaluate(original, compressed, samples, request.task, lambda done: _write(Line(samples=done)))
    return Answer(
        original=Side(accuracy=found.original, latency=latencies[0], peak_memory_bytes=peaks[0]),
        compressed=Side(accuracy=found.compressed, latency=latencies[1], peak_memory_bytes=peaks[1]),
        fidelity=found.fidelity,
        notes=found.notes,
    )


@contextmanager
def _open_samples(request: Request) -> Iterator[Samples]:
    if isinstance(source := request.source, DataFile):
        with open_dataset(source.path, source.preprocess, filename=source.filename) as dataset:
            yield Samples(request.inputs, dataset, request.note)
    else:
        yield from_guess(request.inputs, source)


def _write(line: Line) -> None:
    sys.stdout.write(line.model_dump_json() + "\n")
    sys.stdout.flush()


def main() -> None:
    """One request, one answer or one failure."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an interrupt is the parent's to tell
    request = Request.model_validate_json(sys.stdin.read())
    try:
        _write(Line(answer=answer(request)))
    except SlimlineError as error:
        _write(Line(failure=error.failure))


if __name__ == "__main__":
    main()
