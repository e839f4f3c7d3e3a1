"""`slimline jobs preflight` and `slimline models layers` against a real server: tables, JSON, refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app import cli
from app.contracts.facts import Applicability, ChannelFacts, LayerFacts, ModelFacts
from app.log import configure
from app.settings import Settings

CHANNELS = {
    "conv": ChannelFacts(total=64, units=64, tied_to=["a", "b", "c", "d"]),
    "attn": ChannelFacts(total=192, units=6, per_unit=32, kind="head"),
    "head": ChannelFacts(total=10, units=0, why="tied to the model's output 'y'"),
}


@pytest.fixture
def model(make_model: Callable[..., str]) -> str:
    """The id of a checked model with the layers of `CHANNELS`, of which `head` takes no int8."""
    methods = {"prune.magnitude": Applicability(applies=True), "quantize.static": Applicability(applies=True)}
    layers = [
        LayerFacts(
            name=name, op="Conv", input_shapes=[], output_shapes=[], weights=[name], parameters=8,
            methods=methods, channels=channels,
        )
        for name, channels in CHANNELS.items()
    ]  # fmt: skip
    layers[2].methods = {**methods, "quantize.static": Applicability(applies=False, why="its bias is computed")}
    return make_model(facts=ModelFacts(opset=18, inputs=[], outputs=[], parameters=24, layers=layers))


@pytest.fixture
def run(served: str, settings: Settings) -> Callable[..., Result]:
    """Runs the command against the server, which logs to stderr as it does when it is started."""
    configure(settings)
    return lambda *arguments: CliRunner().invoke(cli.make_commands(), [*arguments, "--url", served])


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines() if line.strip(" ─")]


def test_a_table_for_each_step(run: Callable[..., Result], model: str) -> None:
    recipe = "prune.magnitude:amount=0.5,exclude=attn + quantize.static"
    printed = lines(run("jobs", "preflight", model, "-r", recipe))
    assert printed[:5] == [
        "step 1: prune.magnitude",
        "layer operator works zeros remark",
        "conv Conv yes 50.0 %",
        "attn Conv no left out by the step",
        "head Conv yes 50.0 %",
    ]
    assert printed[5:10] == [
        "step 2: quantize.static",
        "layer operator works bits remark",
        "conv Conv yes W8A8",
        "attn Conv yes W8A8",
        "head Conv no its bias is computed",
    ]
    assert printed[-1].startswith("note: every step is judged")


def test_json_is_the_answer_of_the_server(run: Callable[..., Result], model: str) -> None:
    found = json.loads(run("jobs", "preflight", model, "-r", "prune.magnitude:amount=0.5", "--json").stdout)
    assert (found["valid"], found["model"], len(found["steps"][0]["layers"])) == (True, model, 3)


def test_what_a_job_would_be_refused_for_ends_with_2(run: Callable[..., Result], model: str, tmp_path: Path) -> None:
    unknown = run("jobs", "preflight", model, "-r", "prune.magnitude:amount=0.5,include=fc")
    assert unknown.exit_code == 2
    assert "LAYER_UNKNOWN" in unknown.stderr
    assert "/recipe/0/include/0" in unknown.stderr
    absent = run("jobs", "preflight", str(tmp_path / "absent.onnx"), "-r", "quantize.dynamic")
    assert absent.exit_code == 2
    assert "is no file" in absent.stderr


def test_layers_show_what_can_go(run: Callable[..., Result], model: str) -> None:
    header, conv, attn, head = lines(run("models", "layers", model))
    assert header == "name op parameters macs channels can go why not"
    assert conv == "conv Conv 8 64 64 channels"
    assert attn == "attn Conv 8 192 6 heads of 32"
    assert head == "head Conv 8 10 none tied to the model's output 'y'"
