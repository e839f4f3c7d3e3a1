"""What a preflight says of `prune.structured`, from the facts of a checked model, is what the method then does."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from app.contracts.preflight import plan_recipe
from app.contracts.recipe.notation import parse_recipe
from worker.engine.graph import Layer
from worker.engine.ingest import ingest_model
from worker.engine.methods import applicability, find_method
from worker.engine.methods.method import Record, StepContext
from worker.engine.pruning.report import describe_channels
from worker.engine.samples import make_up
from worker.engine.session import open_session

RECURRENT = ("LSTM", "GRU", "RNN")


def count_channels(layer: Layer) -> int:
    """Output channels; hidden units of a recurrent layer."""
    weight, axis = (layer.weights[1], 2) if layer.op in RECURRENT else (layer.weight, layer.output_axis)
    assert weight.shape is not None
    return int(weight.shape[axis])


def assert_comes_true(path: Path, recipe: str) -> int:
    """Every layer keeps the channels planned, or stays for the reason given; gives the number of layers pruned."""
    graph, facts = ingest_model(path, applicability=applicability, channels=describe_channels)
    [step] = parse_recipe(recipe)
    [plan] = plan_recipe([step], facts)
    made_up = make_up(graph.inputs, open_session(path), seed=0)
    record = Record(0, step.method)
    context = StepContext(record, None, made_up, seed=0, device="cpu", progress=lambda _share, _message: None)
    before = {layer.name: count_channels(layer) for layer in graph.layers()}
    after = {
        layer.name: count_channels(layer) for layer in find_method(step.method).apply(graph, step, context).layers()
    }
    reasons = {told.layer: told.reason for told in record.layers}
    for each in plan.layers:
        assert each.channels
        assert each.channels.total == before[each.layer], each
        if each.planned:
            assert each.planned.channels_left == after[each.layer], each
        else:
            assert (after[each.layer], each.why) == (before[each.layer], reasons[each.layer]), each
    return sum(before[name] != after[name] for name in before)


@pytest.mark.parametrize("build", ["make_cnn", "make_mlp", "make_lstm", "make_attention", "make_if_model"])
@pytest.mark.parametrize("options", ["amount=0.3", "amount=0.5,round_to=4", "amount=0.5,round_to=1"])
def test_tiny_models(request: pytest.FixtureRequest, tmp_path: Path, build: str, options: str) -> None:
    onnx.save(request.getfixturevalue(build)(), tmp_path / "m.onnx")
    assert assert_comes_true(tmp_path / "m.onnx", f"prune.structured:{options}") > 0


@pytest.mark.parametrize(
    "options", ["amount=0.5,exclude=conv1", 'amount=0.5,ratios={"conv1":0.25}', 'ratios={"fc":0.5,"conv*":0.3}']
)
def test_options_that_choose(make_cnn: Callable[..., onnx.ModelProto], tmp_path: Path, options: str) -> None:
    onnx.save(make_cnn(), tmp_path / "m.onnx")
    assert_comes_true(tmp_path / "m.onnx", f"prune.structured:{options}")


@pytest.mark.parametrize("name", ["densenet", "llama", "segformer", "bilstm", "unet_ct"])
def test_sample_models(shared: Path, name: str) -> None:
    assert assert_comes_true(shared / "models" / "exports" / f"{name}.onnx", "prune.structured:amount=0.3") > 0
