"""W3C Trace Context: what counts as a traceparent, who sees it, and spans where OpenTelemetry is asked for."""

import json
import os
import subprocess
import sys

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.tracing import TraceParent, current_traceparent, span

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "header", [GOOD, f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-more"]
)
def test_what_follows_the_standard_counts(header: str) -> None:
    found = TraceParent.parse(header)
    assert found is not None
    assert (found.trace_id, found.parent_id) == (TRACE, PARENT)
    assert str(found) == f"00-{TRACE}-{PARENT}-{header[53:55]}"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"cc-{TRACE}-{PARENT}-01more",
        f"00-{TRACE}-{PARENT}-1",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE}{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
        f"cc-{TRACE}-{PARENT}-01-{'x' * 500}",
    ],
)
def test_what_breaks_it_does_not_count(header: str | None) -> None:
    assert TraceParent.parse(header) is None


def test_two_headers_contradict_each_other() -> None:
    assert TraceParent.from_headers([GOOD, GOOD]) is None
    assert TraceParent.from_headers([]) is None
    assert TraceParent.from_headers([f" {GOOD}\t"]) == TraceParent.parse(GOOD)


def test_a_span_is_seen_within_it_and_no_longer() -> None:
    with span("work", TraceParent.parse(GOOD)):
        assert current_traceparent() == GOOD
        with span("apart", None):
            assert current_traceparent() is None
        assert current_traceparent() == GOOD
    assert current_traceparent() is None


def test_routes_see_it_in_threads_and_in_the_loop(server: FastAPI) -> None:
    async def in_loop() -> str | None:
        return current_traceparent()

    server.add_api_route("/thread", current_traceparent)
    server.add_api_route("/loop", in_loop)
    with TestClient(server) as client:
        for path in ("/thread", "/loop"):
            assert client.get(path, headers={"traceparent": GOOD}).json() == GOOD
            assert client.get(path, headers={"traceparent": "00-bad"}).json() is None


TRACED = f"""
from app.tracing import TraceParent, current_traceparent, span
with span("GET", TraceParent.parse("{GOOD}")) as work:
    work.name = "GET /v1/jobs"
    work.attributes["http.response.status_code"] = 200
    print(current_traceparent())
"""
IMPORTED = "import sys; print(sum(name.startswith('opentelemetry.sdk') for name in sys.modules))"


def run(code: str, **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**plain, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_opentelemetry_is_not_loaded_unless_it_is_asked_for() -> None:
    assert run(TRACED + IMPORTED).split() == [GOOD, "0"]


def test_opentelemetry_records_a_span_below_the_clients() -> None:
    first, _, document = run(TRACED, OTEL_TRACES_EXPORTER="console").partition("\n")
    recorded = json.loads(document)
    assert recorded["name"] == "GET /v1/jobs"
    assert recorded["context"]["trace_id"] == f"0x{TRACE}"
    assert recorded["parent_id"] == f"0x{PARENT}"
    assert recorded["attributes"]["http.response.status_code"] == 200
    assert first == f"00-{TRACE}-{recorded['context']['span_id'][2:]}-01"


def test_an_exporter_that_is_absent_is_no_reason_to_fail() -> None:
    code = f"import app.tracing.spans as spans; spans.entry_points = lambda group: []\n{TRACED}"
    assert GOOD in run(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
