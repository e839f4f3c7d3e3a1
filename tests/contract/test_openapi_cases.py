"""Cases that schemathesis makes from the OpenAPI document, for a real application: nothing it answers is undocumented.

Every route takes part by being in the document.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.engine.recorder import ScenarioRecorder

from app.db.migrate import upgrade
from app.main import create_app
from app.settings import Settings

REFUSALS = [400, 401, 403, 404, 405, 406, 409, 412, 413, 415, 422, 428, 429]  # 412: tus, of a wrong version
NO_BREACH = re.compile(r"in header - .*(unexpected properties|incorrect type)", re.IGNORECASE)
"""On the wire every header is text, and HTTP has unknown ones ignored."""

SAME_BODY = "/v1/jobs/preflight"
"""Its body is that of POST /v1/jobs, from which four thousand cases come: the quick run makes them once."""

FEW, MANY = 1, 100
"""Random cases for each operation, besides those at every border of what the document allows."""


schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@pytest.fixture
def server(tmp_path: Path, broker_url: str) -> FastAPI:
    chosen = Settings(data=tmp_path, broker_url=broker_url, max_upload_bytes=1024**2, log_level="ERROR")
    upgrade(chosen.database)
    return create_app(chosen)


@dataclass
class Outcome:
    """What was asked and answered, by operation, and every way in which an answer broke the document."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, recorder: ScenarioRecorder) -> None:
        counts = self.statuses.setdefault(recorder.label, Counter())
        counts.update(seen.response.status_code for seen in recorder.interactions.values() if seen.response)
        for check in (check for checks in recorder.checks.values() for check in checks):
            if check.failure_info and not NO_BREACH.search(check.failure_info.failure.message):
                failure = check.failure_info.failure
                key = f"{recorder.label}: {failure.title}: {failure.message[:600]}"
                self.failures.setdefault(key, check.failure_info.code_sample)

    @property
    def cases(self) -> int:
        return sum(counts.total() for counts in self.statuses.values())


def make_config(key: str, cases: int, *, sequences: bool) -> SchemathesisConfig:
    # One verb that the document does not have stands for all in the quick run.
    coverage = {} if sequences else {"unexpected-methods": ["TRACE"]}
    options: dict[str, Any] = {
        "generation": {"max-examples": cases, "deterministic": True, "no-shrink": True, "database": "none"},
        "continue-on-failure": True,
        "phases": {"stateful": {"enabled": sequences}, "coverage": coverage},
        "headers": {"Authorization": f"Bearer {key}"},
        "checks": {
            # No document can say that the model which a job names must exist.
            "positive_data_acceptance": {"enabled": False},
            "negative_data_rejection": {"expected-statuses": REFUSALS},
            "missing_required_header": {"expected-statuses": REFUSALS},
        },
    }
    return SchemathesisConfig.from_dict(options)


def run_cases(server: FastAPI, cases: int, *, sequences: bool) -> Outcome:
    """`sequences`: also requests that follow one another, as a job is read after it was created."""
    outcome = Outcome()
    with TestClient(server) as client:
        # Some case makes a key, and from then on nobody gets in without.
        key = client.post("/v1/keys", json={"name": "cases", "role": "admin", "requests_per_minute": 0}).json()
        config = make_config(key["key"], cases, sequences=sequences)
        document = schemathesis.openapi.from_asgi("/openapi.json", server, config=config)
        if not sequences:
            document = document.exclude(path=SAME_BODY)
        for event in from_schema(document).execute():
            match event:
                case FatalError():
                    raise event.exception
                case NonFatalError():
                    outcome.failures[f"{event.label} {event.value}"] = ""
                case ScenarioFinished(recorder=recorder):
                    outcome.add(recorder)
    return outcome


def assert_as_documented(server: FastAPI, outcome: Outcome) -> None:
    assert not outcome.failures, "\n\n".join(f"{key}\n    {sample}" for key, sample in outcome.failures.items())
    for path, verbs in server.openapi()["paths"].items():
        if path == SAME_BODY and path not in str(outcome.statuses.keys()):
            continue
        for verb in verbs:
            assert outcome.statuses[f"{verb.upper()} {path}"].total() > 0
        if "get" in verbs and "{" not in path:  # else the cases would all have ended at some door before the route
            assert outcome.statuses[f"GET {path}"].keys() & {200, 503}, path


def test_every_answer_is_documented(server: FastAPI) -> None:
    outcome = run_cases(server, FEW, sequences=False)
    assert_as_documented(server, outcome)
    assert outcome.cases > 3000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_answer_is_documented_in_thousands_of_cases(server: FastAPI) -> None:
    outcome = run_cases(server, MANY, sequences=True)
    assert_as_documented(server, outcome)
    assert outcome.cases > 10_000
