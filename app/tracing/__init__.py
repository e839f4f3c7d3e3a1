"""Whose request work belongs to: W3C Trace Context, bound to log lines, and spans where OpenTelemetry is asked for.

A trace is never begun here unless OpenTelemetry is on: a `traceparent` comes from the client, or there is none.
"""

from app.tracing.context import Span, TraceParent
from app.tracing.spans import current_traceparent, span

__all__ = ["Span", "TraceParent", "current_traceparent", "span"]
