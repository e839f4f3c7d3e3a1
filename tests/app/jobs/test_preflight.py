"""`POST /v1/jobs/preflight`: what a job would do, from the facts alone, and what a job would be refused for."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.contracts.facts import Applicability, ChannelFacts, LayerFacts, ModelFacts
from app.contracts.failure import Failure, FaultKind
from app.contracts.states import IngestState

PRUNE = {"method": "prune.magnitude", "amount": 0.5}
NOWHERE = "mdl_" + "0" * 26
CONV = LayerFacts(
    name="stem/conv[0]",
    op="Conv",
    input_shapes=[["n", 3, 8, 8]],
    output_shapes=[["n", 16, 8, 8]],
    weights=["w"],
    parameters=432,
    methods={"prune.magnitude": Applicability(applies=True), "quantize.static": Applicability(applies=True)},
    channels=ChannelFacts(total=16, units=16, tied_to=["other"]),
)
LSTM = CONV.model_copy(
    update={
        "name": "lstm",
        "op": "LSTM",
        "weights": ["kernel", "recurrence"],
        "methods": {
            "prune.magnitude": Applicability(applies=True),
            "quantize.static": Applicability(applies=False, why="no integer kernel"),
        },
        "channels": None,
    }
)
FACTS = ModelFacts(opset=18, inputs=[], outputs=[], parameters=900, layers=[CONV, LSTM])


@pytest.fixture
def ask(client: httpx.Client, make_model: Callable[..., str]) -> Callable[..., httpx.Response]:
    """Ask what a job on a checked model of two layers would do."""

    def send(*recipe: dict[str, Any], **fields: object) -> httpx.Response:
        return client.post("/v1/jobs/preflight", json={"model": make_model(facts=FACTS), "recipe": recipe, **fields})

    return send


def refusal(answer: httpx.Response, status: int, code: str) -> list[str]:
    """The pointers of a problem document."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return [error["pointer"] for error in answer.json()["errors"]]


def test_the_plan_of_each_step_and_layer(ask: Callable[..., httpx.Response], client: httpx.Client) -> None:
    answer = ask({**PRUNE, "exclude": ["lstm"]}, {"method": "quantize.static"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["valid"] is True
    pruned, quantized = found["steps"]
    assert (pruned["step"], pruned["method"]) == (0, "prune.magnitude")
    shown = [(layer["layer"], layer["op"], layer["applies"], layer["why"]) for layer in pruned["layers"]]
    assert shown == [("stem/conv[0]", "Conv", True, None), ("lstm", "LSTM", False, "left out by the step")]
    assert pruned["layers"][0]["planned"]["sparsity"] == 0.5
    assert pruned["layers"][1]["planned"] is None
    assert quantized["layers"][0]["planned"]["bits"] == 8
    assert (quantized["layers"][1]["applies"], quantized["layers"][1]["why"]) == (False, "no integer kernel")
    assert any("measured when the job runs" in note for note in found["notes"])
    assert any("steps before" in note for note in found["notes"])
    assert client.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"recipe": []}, "INVALID_REQUEST", "/recipe"),
        ({"recipe": [{**PRUNE, "amount": 1.5}]}, "INVALID_REQUEST", "/recipe/0/amount"),
        ({"surprise": 1}, "INVALID_REQUEST", "/surprise"),
        ({"model": NOWHERE}, "MODEL_NOT_FOUND", "/model"),
        ({"data": {"evaluate": "dst_" + "0" * 26}}, "DATASET_NOT_FOUND", "/data/evaluate"),
    ],
)
def test_what_a_job_is_refused_for_is_refused_alike(
    client: httpx.Client, make_model: Callable[..., str], change: dict[str, Any], code: str, pointer: str
) -> None:
    spec = {"model": make_model(facts=FACTS), "recipe": [PRUNE], **change}
    for path in ("/v1/jobs", "/v1/jobs/preflight"):
        assert refusal(client.post(path, json=spec), 422, code) == [pointer]


def test_names_that_no_layer_has_are_pointed_at(ask: Callable[..., httpx.Response]) -> None:
    answer = ask({**PRUNE, "include": ["stem/*", "fc"]}, {"method": "quantize.static", "exclude": ["conv[0]"]})
    assert refusal(answer, 422, "LAYER_UNKNOWN") == ["/recipe/0/include/1", "/recipe/1/exclude/0"]
    assert "stem/conv[0], lstm" in answer.json()["detail"]


def test_nothing_to_prune_is_known_before(ask: Callable[..., httpx.Response]) -> None:
    answer = ask({"method": "quantize.static"}, {**PRUNE, "exclude": ["*"]})
    assert refusal(answer, 422, "NOTHING_TO_PRUNE") == ["/recipe/1"]


@pytest.mark.parametrize("state", [IngestState.UPLOADED, IngestState.CHECKING])
def test_a_model_that_is_not_checked_yet_is_to_be_waited_for(
    client: httpx.Client, make_model: Callable[..., str], state: IngestState
) -> None:
    model = make_model(state, facts=None)
    answer = client.post("/v1/jobs/preflight", json={"model": model, "recipe": [PRUNE]})
    assert refusal(answer, 409, "MODEL_NOT_READY") == []
    assert f"GET /v1/models/{model} says `ready`" in answer.json()["detail"]


def test_a_rejected_model_is_refused_with_its_reason(client: httpx.Client, make_model: Callable[..., str]) -> None:
    failure = Failure(kind=FaultKind.USER, code="MODEL_TRUNCATED", message="the file ends in mid-tensor")
    model = make_model(IngestState.REJECTED, facts=None, problem=failure)
    answer = client.post("/v1/jobs/preflight", json={"model": model, "recipe": [PRUNE]})
    assert refusal(answer, 422, "MODEL_REJECTED") == ["/model"]
    assert "ends in mid-tensor" in answer.json()["detail"]


def test_data_that_is_still_being_checked_does_not_matter(
    ask: Callable[..., httpx.Response], make_dataset: Callable[..., str]
) -> None:
    data = {"evaluate": make_dataset(IngestState.CHECKING, facts=None)}
    assert ask(PRUNE, data=data).status_code == 200
