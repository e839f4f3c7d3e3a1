"""Which layer loses and what to do about it: the advice of a job, posted back as it is, mends what was lost."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

pytestmark = pytest.mark.xdist_group("e2e")

UNMENDED = {"method": "quantize.static", "repairs": []}


def scale_channel(tiny: Any, folder: Path, before: float, after: float) -> Any:
    """The network with the first channel between its convolutions scaled, and the weights that read it."""
    model = onnx.load(tiny.model)
    for tensor in model.graph.initializer:
        weight = numpy_helper.to_array(tensor).copy()
        if tensor.name == "conv1.weight":
            weight[0] *= before
        if tensor.name == "conv2.weight":
            weight[:, 0] *= after
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    onnx.save(model, folder / "scaled.onnx")
    return replace(tiny, model=folder / "scaled.onnx")


@pytest.fixture(scope="module")
def spoiled_job(service: Any, tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of a network whose weights that read a dead channel are huge: what 8 bits leave for the others is little."""
    spoiled = scale_channel(tiny, tmp_path_factory.mktemp("spoiled"), 0, 300)
    return finish(service, spoiled.send(service, [UNMENDED]))


@pytest.fixture
def lopsided(tiny: Any, tmp_path: Path) -> Any:
    """The same function with one channel 300 times the others: as an input, 8 bits leave these little."""
    return scale_channel(tiny, tmp_path, 300, 1 / 300)


def finish(service: Any, job: Any) -> Any:
    ended = service.finish(job["id"])
    assert ended["state"] == "succeeded", ended["failure"]
    return ended


def post_back(service: Any, job: Any, recipe: Any) -> Any:
    """The ended job of a recipe, on the model and data of another."""
    spec = {name: job["spec"][name] for name in ("model", "data")}
    return finish(service, service.post("/v1/jobs", {**spec, "recipe": recipe}))


def fidelity(job: Any) -> float:
    return float(job["comparison"]["final"]["fidelity"]["sqnr_db"])


def test_leaving_out_the_layer_that_loses_mends_the_loss(service: Any, spoiled_job: Any) -> None:
    found = service.ask(spoiled_job["links"]["layers"])
    told = {record["layer"]: record for record in found["data"]}
    assert told["conv2"]["error_share"] > 0.9
    assert told["conv2"]["output_sqnr_db"] < told["conv1"]["output_sqnr_db"] - 10
    assert told["conv2"]["bits"] == told["conv2"]["activation_bits"] == 8
    assert told["conv2"]["advice"] == [{**UNMENDED, "exclude": ["conv2"]}]
    assert told["conv1"]["advice"] is told["head"]["advice"] is None
    again = post_back(service, spoiled_job, found["advice"][0]["recipe"])
    assert fidelity(again) > fidelity(spoiled_job) + 10
    left = {record["layer"]: record["done"] for record in service.ask(again["links"]["layers"])["data"]}
    assert left == {"conv1": True, "conv2": False, "head": True}


def test_repairs_mend_what_is_lost_by_the_input(service: Any, lopsided: Any) -> None:
    job = finish(service, lopsided.send(service, [UNMENDED]))
    found = service.ask(job["links"]["layers"])
    assert "conv2 makes" in found["advice"][0]["why"]
    assert next(record for record in found["data"] if record["layer"] == "conv2")["range"][1] > 100
    [recipe] = [each["recipe"] for each in found["advice"] if "repairs" in each["why"]]
    assert recipe == [{"method": "quantize.static"}]
    assert fidelity(post_back(service, job, recipe)) > fidelity(job) + 10


def test_the_command_shows_what_the_service_says(service: Any, spoiled_job: Any) -> None:
    done = service.run_cli("jobs", "layers", spoiled_job["id"])
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.split()[:1] == ["conv2"]]
    for word in ("W8A8", "##########", "loses most"):
        assert word in line
    assert "advice: conv2 makes" in done.stdout
    as_json = json.loads(service.run_cli("jobs", "layers", spoiled_job["id"], "--json").stdout)
    assert as_json == service.ask(spoiled_job["links"]["layers"])


def test_a_failed_job_has_no_layers_and_says_so(service: Any, tiny: Any) -> None:
    job = service.finish(tiny.send(service, [{"method": "quantize.static", "exclude": ["*"]}])["id"])
    assert job["state"] == "failed"
    assert service.ask(job["links"]["layers"]) == {"data": [], "advice": []}
    assert "once a job has succeeded" in service.run_cli("jobs", "layers", job["id"]).stdout
