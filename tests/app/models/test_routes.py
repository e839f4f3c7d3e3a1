"""Models over the real application."""

import json
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import text

from app.context import Context
from app.contracts.facts import ChannelFacts, LayerFacts, ModelFacts, TensorSpec
from app.contracts.failure import Failure, FaultKind
from app.contracts.states import IngestState

Make = Callable[..., str]

LAYER = LayerFacts(
    name="fc", op="Gemm", input_shapes=[["n", 4], [4, 2]], output_shapes=[["n", 2]], weights=["w"], parameters=8
)
FACTS = ModelFacts(
    opset=18,
    producer="pytorch 2.13.0",
    inputs=[TensorSpec(name="x", dtype="float", shape=["n", 4])],
    outputs=[TensorSpec(name="y", dtype="float", shape=["n", 2])],
    parameters=8,
    macs=8,
    layers=[LAYER],
)


def store(context: Context, content: bytes) -> str:
    with context.store.receive() as incoming:
        incoming.write(content)
        return incoming.commit().sha256


def test_a_ready_model_shows_what_was_found(client: httpx.Client, make_model: Make) -> None:
    body = client.get(f"/v1/models/{make_model(facts=FACTS)}").json()
    assert (body["state"], body["format"], body["opset"], body["parameters"], body["macs"]) == (
        "ready",
        "onnx",
        18,
        8,
        8,
    )
    assert body["inputs"] == [{"name": "x", "dtype": "float", "shape": ["n", 4]}]
    assert body["outputs"] == [{"name": "y", "dtype": "float", "shape": ["n", 2]}]


def test_a_rejected_model_shows_why(client: httpx.Client, make_model: Make) -> None:
    problem = Failure(kind=FaultKind.USER, code="MODEL_TRUNCATED", message="the file ends early", hint="send it again")
    body = client.get(f"/v1/models/{make_model(IngestState.REJECTED, facts=None, problem=problem)}").json()
    assert (body["state"], body["problem"]["code"]) == ("rejected", "MODEL_TRUNCATED")
    assert body["inputs"] is None


def test_layers(client: httpx.Client, make_model: Make) -> None:
    (layer,) = client.get(f"/v1/models/{make_model(facts=FACTS)}/layers").json()["data"]
    assert LayerFacts.model_validate(layer) == LAYER


def test_layers_show_what_can_go(client: httpx.Client, make_model: Make) -> None:
    heads = ChannelFacts(total=192, units=6, per_unit=32, kind="head", tied_to=["k", "v"])
    facts = FACTS.model_copy(update={"layers": [LAYER.model_copy(update={"channels": heads}), LAYER]})
    first, second = client.get(f"/v1/models/{make_model(facts=facts)}/layers").json()["data"]
    assert first["channels"] == {
        "total": 192, "units": 6, "per_unit": 32, "groups": [], "kind": "head", "tied_to": ["k", "v"], "why": None
    }  # fmt: skip
    assert second["channels"] is None


def test_layers_of_a_model_that_an_earlier_version_checked(
    client: httpx.Client, context: Context, make_model: Make
) -> None:
    id_ = make_model(facts=FACTS)
    old = FACTS.model_dump(mode="json")
    del old["layers"][0]["channels"]
    with context.database.write() as session:
        session.execute(text("UPDATE models SET facts = :old WHERE id = :id"), {"old": json.dumps(old), "id": id_})
    [layer] = client.get(f"/v1/models/{id_}/layers").json()["data"]
    assert (layer["name"], layer["channels"]) == ("fc", None)


@pytest.mark.parametrize("path", ["layers", "content?as=onnx"])
@pytest.mark.parametrize("state", [IngestState.UPLOADED, IngestState.CHECKING, IngestState.REJECTED])
def test_what_checking_makes_is_409_before(
    client: httpx.Client, make_model: Make, path: str, state: IngestState
) -> None:
    answer = client.get(f"/v1/models/{make_model(state, facts=None)}/{path}")
    assert (answer.status_code, answer.json()["code"]) == (409, "MODEL_NOT_READY")


def test_content_is_the_upload_and_the_graph_is_apart(client: httpx.Client, context: Context, make_model: Make) -> None:
    uploaded, graph = b"as uploaded", b"the ingested graph"
    id_ = make_model(
        filename="net.pt2",
        sha256=store(context, uploaded),
        size_bytes=len(uploaded),
        graph_sha256=store(context, graph),
        graph_size_bytes=len(graph),
    )
    answer = client.get(f"/v1/models/{id_}/content")
    assert answer.content == uploaded
    assert answer.headers["content-disposition"] == 'attachment; filename="net.pt2"'
    answer = client.get(f"/v1/models/{id_}/content?as=onnx")
    assert answer.content == graph
    assert answer.headers["content-disposition"] == 'attachment; filename="net.onnx"'


@pytest.mark.parametrize("path", ["", "/layers", "/content"])
def test_an_unknown_model_is_404_everywhere(client: httpx.Client, path: str) -> None:
    assert client.get(f"/v1/models/mdl_00000000000000000000000000{path}").status_code == 404


def test_an_unknown_form_of_the_content_is_422(client: httpx.Client, make_model: Make) -> None:
    answer = client.get(f"/v1/models/{make_model()}/content?as=tflite")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "as")


def test_a_format_that_is_not_taken_is_422(client: httpx.Client) -> None:
    answer = client.post("/v1/models", files={"file": ("m", b"x")}, data={"format": "pickle"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/format")
