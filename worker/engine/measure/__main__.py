"""The clean process: reads a `clean.Request` on standard input, writes `clean.Line`s. Not meant for people."""

import sys
from contextlib import nullcontext

import onnxruntime as ort

from app.contracts.failure import SlimlineError
from worker.engine.data import open_dataset
from worker.engine.device import as_device
from worker.engine.measure.clean import Answer, Line, Request, Side
from worker.engine.measure.evaluation import evaluate
from worker.engine.measure.latency import interleaved
from worker.engine.measure.memory import peak_rise
from worker.engine.samples import Samples, from_dataset, make_up
from worker.engine.session import open_session

THREADS = 1
"""Latency and memory are taken on one thread: it is what repeats best, and what a loaded server has."""


def answer(request: Request) -> Answer:
    """Load and run both models and measure them. Raises SlimlineError where one does not."""
    device = as_device(request.device)
    paths = (request.original, request.compressed)
    with _open_samples(request) as dataset:
        # Made-up inputs need a session to be tried on, and memory must be measured before this process has one.
        first = from_dataset(request.inputs, dataset).first() if dataset else None
        memory = [peak_rise(path, first, threads=THREADS, device=device) if first else None for path in paths]
        sessions = [open_session(path, threads=THREADS, device=device) for path in paths]
        samples = (
            from_dataset(request.inputs, dataset, request.data_note)
            if dataset
            else make_up(request.inputs, sessions[0], request.seed)
        )
        latencies = interleaved(
            sessions, samples.first(), budget_s=request.latency_s, threads=THREADS, device=request.device
        )
        del sessions
        found = _evaluate(request, samples)
    sides = [
        Side(accuracy=accuracy, latency=latency, peak_memory_bytes=peak)
        for accuracy, latency, peak in zip((found.original, found.compressed), latencies, memory, strict=True)
    ]
    return Answer(original=sides[0], compressed=sides[1], fidelity=found.fidelity, notes=found.notes)
