"""Spans by OpenTelemetry. Imported only when its variables ask for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

from app.tracing.context import Span, TraceParent


class Recorder:
    """Sends spans to an exporter, in batches by a thread. OTEL_SERVICE_NAME and the like are read by the SDK."""

    def __init__(self, make_exporter: Callable[[], SpanExporter]) -> None:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(make_exporter()))
        self._tracer = provider.get_tracer("slimline")

    @contextmanager
    def record(self, work: Span, parent: TraceParent | None) -> Iterator[TraceParent]:
        """A span around the block, below `parent`; gives what those below it have as theirs."""
        above = set_span_in_context(NonRecordingSpan(_to_context(parent))) if parent else None
        with self._tracer.start_as_current_span(work.name, above, SpanKind.SERVER) as recorded:
            try:
                yield _from_context(recorded.get_span_context())
            finally:
                recorded.update_name(work.name)
                recorded.set_attributes(work.attributes)


def _to_context(parent: TraceParent) -> SpanContext:
    flags = TraceFlags(int(parent.flags, 16))
    return SpanContext(int(parent.trace_id, 16), int(parent.parent_id, 16), is_remote=True, trace_flags=flags)


def _from_context(own: SpanContext) -> TraceParent:
    return TraceParent(f"{own.trace_id:032x}", f"{own.span_id:016x}", f"{own.trace_flags:02x}")
