"""`GET /v1/jobs/{id}/layers`: records with advice that can be posted back, old records, jobs that are not over."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.context import Context
from app.contracts.events import LayerRecord, Repair
from app.contracts.states import JobState
from app.jobs.queue import attempts, moves

STATIC = {"method": "quantize.static", "samples": 32}


@pytest.fixture
def submit(
    client: httpx.Client, make_model: Callable[..., str], make_dataset: Callable[..., str]
) -> Callable[..., dict[str, Any]]:
    """Post a job on ready inputs, or one like another; returns it."""

    def send(**changes: Any) -> dict[str, Any]:
        spec = {"model": make_model(), "recipe": [STATIC], "data": {"calibrate": make_dataset()}, **changes}
        answer = client.post("/v1/jobs", json=spec)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return send


def end(context: Context, job_id: str, state: JobState, **values: Any) -> None:
    """Have the job claimed and brought to its end, as a worker would."""
    with context.database.write() as session:
        row = attempts.claim(session, job_id, 60)
        assert row is not None
        moves.move(session, job_id, state, attempt=row.attempt, values=values)


def make_records(*shares: float) -> list[LayerRecord]:
    facts: dict[str, Any] = {"step": 0, "method": "quantize.static", "op": "Conv", "done": True, "bits": 8}
    return [LayerRecord(layer=f"conv[{index}]", error_share=share, **facts) for index, share in enumerate(shares)]


def test_the_advice_can_be_posted_back(
    submit: Callable[..., dict[str, Any]], client: httpx.Client, context: Context
) -> None:
    job = submit()
    measured = {"range": (-0.5, 6.0), "output_sqnr_db": 12.5, "integer_kernel": True, "activation_bits": 8}
    records = make_records(0.9, 0.05, 0.03, 0.02)
    records[0] = records[0].model_copy(update={**measured, "repairs": [Repair(name="smoothing", kept=False)]})
    end(context, job["id"], JobState.SUCCEEDED, layers=records)
    found = client.get(job["links"]["layers"]).json()
    fragment = {**STATIC, "exclude": ["conv[[]0]"]}
    assert found["data"][0] == {**records[0].model_dump(mode="json"), "advice": [fragment]}
    assert found["data"][1:] == [record.model_dump(mode="json") for record in records[1:]]
    assert found["advice"][0]["recipe"] == [fragment]
    assert found["advice"][0]["layers"] == ["conv[0]"]
    for advice in found["advice"]:
        again = submit(**{**job["spec"], "recipe": advice["recipe"]})
        assert again["spec"]["recipe"][0]["samples"] == 32


def test_what_is_not_over_or_failed_has_no_layers(
    submit: Callable[..., dict[str, Any]], client: httpx.Client, context: Context
) -> None:
    queued, failed = submit(), submit()
    end(context, failed["id"], JobState.FAILED)
    for job in (queued, failed):
        assert client.get(job["links"]["layers"]).json() == {"data": [], "advice": []}


def test_records_of_an_earlier_version_are_read(
    submit: Callable[..., dict[str, Any]], client: httpx.Client, context: Context
) -> None:
    job = submit()
    end(context, job["id"], JobState.SUCCEEDED)
    old = '[{"step": 0, "method": "quantize.static", "layer": "conv", "op": "Conv", "done": true, "bits": 8.0}]'
    with context.database.write() as session:
        session.execute(text("UPDATE jobs SET layers = :old WHERE id = :id"), {"old": old, "id": job["id"]})
    [record] = client.get(job["links"]["layers"]).json()["data"]
    assert (record["layer"], record["bits"]) == ("conv", 8)
    assert record["error_share"] is record["range"] is record["advice"] is None
    assert record["repairs"] == []


def test_noise_without_signal_is_null(
    submit: Callable[..., dict[str, Any]], client: httpx.Client, context: Context
) -> None:
    """Minus infinity is no JSON."""
    job = submit()
    silent = make_records(0.0)[0].model_copy(update={"output_sqnr_db": -float("inf")})
    end(context, job["id"], JobState.SUCCEEDED, layers=[silent])
    answer = client.get(job["links"]["layers"])
    assert answer.status_code == 200
    assert answer.json()["data"][0]["output_sqnr_db"] is None
