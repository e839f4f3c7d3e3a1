"""Work within a trace: `span` puts it around a request or a run of a job."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import structlog

from app.tracing.context import Span, TraceParent

if TYPE_CHECKING:
    from app.tracing.otel import Recorder

_log = structlog.get_logger("app.tracing")
_current: ContextVar[TraceParent | None] = ContextVar("traceparent", default=None)

_EXPORTERS = {"console": ("console",), "otlp": ("otlp_proto_http", "otlp_proto_grpc")}
"""Entry points of OpenTelemetry for each value of OTEL_TRACES_EXPORTER, the first that is installed is taken."""


def current_traceparent() -> str | None:
    """The `traceparent` for what this request or job causes, as a job's row or a webhook; none outside a trace."""
    traceparent = _current.get()
    return str(traceparent) if traceparent else None


@contextmanager
def span(name: str, parent: TraceParent | None) -> Iterator[Span]:
    """Work that `parent` asked for. Log lines within have its `trace_id`.

    Whoever runs the block may rename the span and add attributes until it ends.
    """
    work, recorder = Span(name), _recorder()
    with recorder.record(work, parent) if recorder else nullcontext(parent) as own:
        token = _current.set(own)
        bound = {"trace_id": own.trace_id} if own else {}
        try:
            with structlog.contextvars.bound_contextvars(**bound):
                yield work
        finally:
            _current.reset(token)


@cache
def _recorder() -> "Recorder | None":
    """OpenTelemetry, where its variables ask for it. Nothing of it is imported otherwise."""
    default = "otlp" if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") else "none"
    wanted = os.environ.get("OTEL_TRACES_EXPORTER", default)
    if wanted == "none":
        return None
    exporter = _find_exporter(wanted)
    if exporter is None:
        _log.warning("no traces are sent: the exporter is not installed", exporter=wanted)
        return None
    from app.tracing.otel import Recorder  # noqa: PLC0415 - optional, and slow to load

    return Recorder(exporter.load())


def _find_exporter(wanted: str) -> EntryPoint | None:
    names = _EXPORTERS.get(wanted, ())
    installed = {point.name: point for point in entry_points(group="opentelemetry_traces_exporter")}
    return next((installed[name] for name in names if name in installed), None)
