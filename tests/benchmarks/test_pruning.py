"""The benchmark of pruning: its judgement on made-up figures, its measuring, and a run on one small model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from torch import nn

from benchmarks.comparison.section import Section
from benchmarks.pruning.__main__ import main
from benchmarks.pruning.accuracy import Comparison, Score
from benchmarks.pruning.analysis import Analysis
from benchmarks.pruning.classifiers import ConvolvedShortcut, PaddedShortcut, estimate_again, load_classifier
from benchmarks.pruning.goals import judge_accuracy, judge_analysis, judge_duel, judge_pruning
from benchmarks.pruning.natives import natives
from benchmarks.pruning.pruners.masked_twin import CannotMaskError, Twin, deviation
from benchmarks.pruning.pruners.order import Answer
from benchmarks.pruning.rows import Left, Pruned, Row, Tool, equal_to, look_at, race
from benchmarks.pruning.running import Run, Runner
from benchmarks.pruning.structure import attention_widths, mlp_widths
from worker.engine.session import open_session, run_session

LEFT = Left(parameters=0.9, macs=0.5, attention=0.75, mlp=None)
ANSWER = Answer(groups={"channel": 3, "head": 1}, analysis_s=0.1, work_s=1.0, deviation=1e-5)
FAILED = Pruned(Run(Answer(failure="CODE: because"), None), failure="CODE: because")


def make_pruned(speed: float | None = 2.0, left: Left = LEFT, answer: Answer = ANSWER) -> Pruned:
    return Pruned(Run(answer, Path("made.onnx")), left, speed)


def make_row(tool: Tool, **at: Pruned) -> Row:
    every = {"30 %": make_pruned(), "50 %": make_pruned()} | {name.replace("_", " "): each for name, each in at.items()}
    return Row("case", tool, every)


def missed(row: Row) -> set[str]:
    return {goal.what for goal in judge_pruning(row) if not goal.met}


def test_goals_of_a_model_are_met_at_their_limits() -> None:
    goals = judge_pruning(make_row("slimline"))
    assert [goal.met for goal in goals] == [True, True, True]
    assert "MLP left at 50 %" not in {goal.what for goal in goals}


def test_each_goal_of_a_model_can_be_missed() -> None:
    def half(left: Left, answer: Answer = ANSWER) -> Row:
        return Row("case", "slimline", {"30 %": make_pruned(), "50 %": make_pruned(left=left, answer=answer)})

    assert missed(half(replace(LEFT, parameters=0.91))) == {"parameters left at 50 %"}
    assert missed(half(replace(LEFT, attention=1.0))) == {"attention left at 50 %"}
    assert missed(half(replace(LEFT, mlp=0.8))) == {"MLP left at 50 %"}
    assert missed(half(LEFT, replace(ANSWER, deviation=2e-5))) == {"deviation from masked"}


def test_a_failure_of_ours_misses_its_goals_and_says_why() -> None:
    goals = judge_pruning(Row("case", "slimline", {"30 %": FAILED, "50 %": FAILED}))
    assert {(goal.met, goal.note) for goal in goals} == {(False, "CODE: because")}


def test_speed_is_judged_at_equal_macs() -> None:
    theirs = make_row("Torch-Pruning")
    for speed, met in ((1.9, True), (1.89, False)):
        ours = Row("case", "slimline", {"30 %": make_pruned(9.0), equal_to("30 %"): make_pruned(speed)})
        (goal,) = judge_duel(ours, theirs, "transformer")
        assert goal.met is met


def test_groups_are_judged_on_convolutional_networks_where_the_peer_found_any() -> None:
    fewer = make_row("slimline", **{"30 %": make_pruned(answer=replace(ANSWER, groups={"channel": 3}))})
    theirs = make_row("Torch-Pruning")
    assert [goal.met for goal in judge_duel(fewer, theirs, "convolutional")] == [False]
    assert judge_duel(fewer, theirs, "recurrent") == []
    blind = Row("case", "Torch-Pruning", {"30 %": FAILED, "50 %": FAILED})
    assert judge_duel(fewer, blind, "convolutional") == []


def test_accuracy_is_judged_at_equal_macs() -> None:
    theirs = Score("case", "Torch-Pruning", "l1", 90.0, 70.0, 0.5, None)
    ours = Score("case", "slimline", "l1", 90.0, 80.0, 0.6, None)
    (goal,) = judge_accuracy(Comparison(ours, theirs, replace(ours, top1=69.9)))
    assert not goal.met
    assert judge_accuracy(Comparison(ours, theirs, replace(ours, top1=70.0)))[0].met
    assert judge_accuracy(Comparison(ours, replace(theirs, top1=None))) == []


def test_the_analysis_has_five_seconds() -> None:
    assert judge_analysis(Analysis("case", 10**8, 9, 5.0, None)).met
    assert not judge_analysis(Analysis("case", 10**8, 9, 5.1, None)).met
    assert not judge_analysis(Analysis("case", 10**8, 0, None, "it died")).met


def test_a_masked_twin_computes_what_is_left_after_several_removals() -> None:
    torch.manual_seed(0)
    last = nn.Conv2d(6, 4, 1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), last).eval()
    twin = Twin(model)
    for indices in ([1, 4], [0, 3]):  # the second as counted after the first: 0 and 5 of all
        twin.mask_layer("0", indices, are_outputs=True)
        twin.mask_layer("1", indices, are_outputs=True)
        twin.mask_layer("3", indices, are_outputs=False)
    kept = [2, 3]
    x = torch.randn(2, 3, 8, 8)
    inner = model[2](model[1](model[0](x)))[:, kept]
    wanted = nn.functional.conv2d(inner, last.weight[:, kept], last.bias)
    with torch.no_grad():
        assert deviation([twin.model(x)], [wanted]) < 1e-6
        assert deviation([model(x)], [wanted]) > 1e-3
        assert deviation([model(x)], [wanted[:, :2]]) == float("inf")
    with pytest.raises(CannotMaskError):
        Twin(nn.Sequential(nn.LSTM(2, 2))).mask_layer("0", [0], are_outputs=True)


def test_a_padded_shortcut_is_a_convolution() -> None:
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(PaddedShortcut(4, 8)(x), ConvolvedShortcut(4, 8)(x))


@pytest.mark.parametrize("name", ["digits32_resnet18", "resnet20_cifar10_jpegtuned"])
def test_a_native_classifier_computes_what_its_file_does(name: str, shared: Path) -> None:
    path = shared / "models" / f"{name}.onnx"
    x = np.random.default_rng(0).standard_normal((128, 3, 32, 32), np.float32)
    session = open_session(path, threads=1)
    (wanted,) = run_session(session, {session.get_inputs()[0].name: x})
    native = load_classifier(name, path, torch.from_numpy(x))
    with torch.no_grad():
        assert deviation([native(torch.from_numpy(x))], [torch.from_numpy(wanted)]) < 1e-5
        estimate_again(native, torch.from_numpy(x))  # torch keeps unbiased variances, normalizes by biased ones
        assert 0 < deviation([native(torch.from_numpy(x))], [torch.from_numpy(wanted)]) < 1e-2


def test_projections_of_attention_are_known_by_their_heads() -> None:
    native = natives("tiny")["vit"]
    model = native.entry.build()
    assert list(native.heads(model).values()) == [4] * 6
    assert [layer.out_features for layer in native.output_layers(model)] == [5]


def test_widths_are_those_of_heads_and_hidden_layers(tmp_path: Path) -> None:
    wide, narrow = (_save_attention(tmp_path / f"{heads}.onnx", heads, heads * 8) for heads in (4, 2))
    feed = {"x": np.zeros((1, 5, 16), np.float32)}
    assert (attention_widths(wide, feed), mlp_widths(wide, feed)) == ([16], [32])
    left = look_at(wide, Run(ANSWER, narrow), feed).left
    assert left is not None
    assert (left.attention, left.mlp) == (0.5, 0.5)
    assert left.parameters == 0.4
    assert left.macs == pytest.approx((5 * 512 + 400) / (5 * 1280 + 800))
    (raced,) = race(wide, [look_at(wide, Run(ANSWER, narrow), feed)], feed, seconds=0.01)
    assert raced.speed is not None
    assert raced.speed > 0


def test_a_model_that_lost_nothing_or_its_outputs_is_a_failure(tmp_path: Path) -> None:
    wide, other = _save_attention(tmp_path / "4.onnx", 4, 32), _save_attention(tmp_path / "o.onnx", 4, 32, outputs=8)
    feed = {"x": np.zeros((1, 5, 16), np.float32)}
    assert look_at(wide, Run(ANSWER, wide), feed).failure == "prunes nothing"
    assert look_at(wide, Run(ANSWER, other), feed).failure == "outputs have other shapes"


def test_a_peer_that_dies_is_a_failure_and_is_kept(tmp_path: Path) -> None:
    runner = Runner(Path("/bin/false"), "1", tmp_path, tmp_path)
    run = runner.run_peer("vit", {"amount": 0.3})
    assert run.answer.failure == "ended with code 1: it said nothing"
    again = Runner(Path("/bin/true"), "1", tmp_path, tmp_path).run_peer("vit", {"amount": 0.3})
    assert (again.answer, again.model) == (run.answer, None)
    assert again.day
    newer = Runner(Path("/bin/true"), "2", tmp_path, tmp_path).run_peer("vit", {"amount": 0.3})
    assert newer.answer.failure == "ended with code 0: it said nothing"
    absent = Runner(None, "", tmp_path, tmp_path).run_peer("vit", {"amount": 0.3})
    assert absent.answer.failure == "Torch-Pruning is not installed"


def test_a_section_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    Section("Title", ("model", "x"), ("model",), [("net", "1.50")], ["net: why"]).print_markdown()
    assert capsys.readouterr().out == "\nTitle\n\n| model | x |\n|---|---:|\n| net | 1.50 |\n\n- net: why\n"


def test_one_small_model(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    options = ["--shared", str(shared), "--kept", str(tmp_path), "--json", str(found), "--quick", "--models", "digits"]
    assert main([*options, "--peer-python", str(tmp_path / "absent")]) == 0
    (row,) = json.loads(found.read_text())["samples"]
    assert [pruned["failure"] for pruned in row["at"].values()] == [None, None]
    assert row["at"]["50 %"]["left"]["macs"] < row["at"]["30 %"]["left"]["macs"] < 1
    assert {goal["met"] for goal in json.loads(found.read_text())["goals"]} == {True}
    shown = capsys.readouterr()
    assert "Sample models" in shown.out
    assert "torch-pruning: not installed" in shown.err


def test_without_models_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--shared"):
        main(["--shared", str(tmp_path / "absent"), "--kept", str(tmp_path)])


def _save_attention(path: Path, heads: int, hidden: int, outputs: int = 16) -> Path:
    """x [1, 5, 16] -> attention, `heads` with 4 numbers each -> `hidden` numbers with Relu -> y [1, 5, outputs]."""
    rng = np.random.default_rng(0)
    sizes = {"w_in": (16, heads * 4), "w_up": (heads * 4, hidden), "w_down": (hidden, outputs)}
    weights = {name: rng.standard_normal(size).astype(np.float32) for name, size in sizes.items()}
    shapes = {"split": [1, 5, heads, 4], "join": [1, 5, heads * 4]}
    stored = weights | {name: np.array(shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "w_in"], ["projected"]),
        helper.make_node("Reshape", ["projected", "split"], ["parts"]),
        helper.make_node("Transpose", ["parts"], ["heads"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["heads"], ["keys"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["heads", "keys"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("MatMul", ["shares", "heads"], ["context"]),
        helper.make_node("Transpose", ["context"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "join"], ["joined"]),
        helper.make_node("MatMul", ["joined", "w_up"], ["up"]),
        helper.make_node("Relu", ["up"], ["active"]),
        helper.make_node("MatMul", ["active", "w_down"], ["y"]),
    ]
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5, size])
        for name, size in (("x", 16), ("y", outputs))
    )
    constants = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "attention", [x], [y], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
