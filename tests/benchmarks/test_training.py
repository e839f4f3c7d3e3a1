"""The benchmark of training: its judgement on made-up figures, its plain loops, and a run on small data."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.training import __main__ as command
from benchmarks.training import step_time
from benchmarks.training.found import Found, best_of
from benchmarks.training.material import prepare_digits
from benchmarks.training.plain_torch import RATE, WEIGHT_DECAY, PlainTorch
from benchmarks.training.qat import Agreement, judge_agreement
from benchmarks.training.recipes import Scale
from benchmarks.training.report import Results, print_markdown
from benchmarks.training.running import get_right
from benchmarks.training.step_time import StepTime, Turns, judge_step_time
from benchmarks.training.trials import Difference, Result, Run, Trial, half_interval

TINY = Scale(
    images=100,
    tested=50,
    seeds=(0,),
    recovery_epochs=1,
    teacher_epochs=1,
    student_epochs=1,
    digits_epochs=1,
    pairs=8,
)


def make_result(name: str, *runs: list[int], failure: str = "") -> Result:
    made = [Run(seed, Path("made.onnx"), _right(each), 0.5, 1.0, 2.0) for seed, each in enumerate(runs)]
    return Result("net", Trial(name, [{"method": "train"}]), made, failure)


def _right(each: list[int]) -> NDArray[np.bool_]:
    return np.array(each, np.bool_)


def test_top1_is_the_mean_over_seeds() -> None:
    result = make_result("a", [1, 1, 1, 0], [1, 0, 1, 0])
    assert result.top1 == 62.5
    assert result.noise == pytest.approx(1.96 * np.std([1, 0.5, 1, 0], ddof=1) / 2 * 100, rel=1e-4)
    assert make_result("b", failure="CODE: because").top1 is None


def test_a_difference_is_told_from_noise_pair_by_pair() -> None:
    """40 of 100 samples change sides in `noisy`, and in `clear` only in one direction; both gain 20 points."""
    before = make_result("before", [1] * 40 + [0] * 60)
    noisy = make_result("noisy", [1] * 30 + [0] * 10 + [1] * 30 + [0] * 30)
    clear = make_result("clear", [1] * 60 + [0] * 40)
    found, other = Difference.between(noisy, before), Difference.between(clear, before)
    assert found is not None
    assert other is not None
    assert (found.value, other.value) == pytest.approx((20.0, 20.0))
    assert found.noise > other.noise
    assert other.told().startswith("beyond noise")
    assert Difference.between(noisy, make_result("lost", failure="CODE: because")) is None


def test_a_difference_inside_the_noise_is_called_that() -> None:
    found = Difference.between(
        make_result("a", [1, 0, 1, 0], [1, 1, 0, 0]), make_result("b", [0, 1, 0, 0], [1, 1, 0, 0])
    )
    assert found is not None
    assert found.by_seed == [25.0, 0.0]
    assert found.told() == f"within noise of ±{found.noise:.2f}; by seed +25.00 / +0.00"


def test_a_gain_is_judged_by_its_sign_and_a_failure_misses_it() -> None:
    found = Found("section")
    good, bad = make_result("good", [1, 1, 0]), make_result("bad", [1, 0, 0])
    found.expect(good, bad)
    found.expect(bad, good)
    found.expect(good, good)
    found.expect(make_result("lost", failure="CODE: because"), good)
    assert [goal.met for goal in found.goals] == [True, False, True, False]
    assert found.goals[-1].note == "CODE: because"


def test_what_is_lost_is_judged_against_the_original() -> None:
    found = Found("section")
    original, result = make_result("original", [1] * 10), make_result("tuned", [1] * 9 + [0])
    found.expect_near(result, original, 10.0)
    found.expect_near(result, original, 9.9)
    assert [goal.met for goal in found.goals] == [True, False]
    assert best_of([result, original, make_result("lost", failure="CODE: because")]) is original


def test_accuracy_in_torch_must_be_that_of_onnx_runtime() -> None:
    assert judge_agreement(Agreement("net", "int8", 90.0, 90.5)).met
    assert not judge_agreement(Agreement("net", "int8", 90.0, 90.6)).met


def test_an_update_may_take_little_longer_than_plain_torchs() -> None:
    found = StepTime("net", 10.0, 1.15, 1.1, 1.2, 1.3, 30)
    assert judge_step_time(found).met
    assert not judge_step_time(replace(found, ratio=1.16)).met


def test_turns_take_the_time_between_plain_updates() -> None:
    calls: list[int] = []
    turns = Turns(lambda: calls.append(1))
    for _ in range(9):
        turns(0.5, "epoch 1", None)
    assert len(calls) == 9
    assert len(turns.pairs) == 8
    assert turns.summed_up("net").pairs == 4


def test_the_plain_loop_learns_by_the_formulas_of_distillation() -> None:
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    x, labels = torch.randn(8, 4), torch.arange(8) % 3
    weight = student.weight.detach().clone().requires_grad_()
    bias = student.bias.detach().clone().requires_grad_()
    scores, wanted = x @ weight.T + bias, (x @ teacher.weight.T + teacher.bias).detach()
    soft = ((wanted / 4).softmax(1) * ((wanted / 4).log_softmax(1) - (scores / 4).log_softmax(1))).sum(1).mean()
    hard = -scores.log_softmax(1)[torch.arange(8), labels].mean()
    (0.9 * 16 * soft + 0.1 * hard).backward()
    torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=WEIGHT_DECAY).step()
    PlainTorch(student, teacher, {"input": x}, labels).update()
    assert torch.allclose(student.weight, weight, atol=1e-6)


def test_no_sample_of_the_digits_is_trained_on_and_tested(shared: Path, tmp_path: Path) -> None:
    first, *others = prepare_digits(shared, tmp_path)
    assert [each.name for each in others] == ["digits32_mbv2hard", "digits32_vit"]
    with np.load(first.train) as stored:
        trained_on = {each.tobytes() for each in stored["x"]}
        assert len(stored["x"]) == 956
    tested = [each.tobytes() in trained_on for each in first.test.x]
    assert len(tested) == 491
    assert not any(tested)


def test_original_accuracy_is_the_known_one(shared: Path, tmp_path: Path) -> None:
    material = prepare_digits(shared, tmp_path)[0]
    right = get_right(material.model, material.test)
    assert right.mean() == pytest.approx(0.9369, abs=1e-4)
    assert half_interval(right.astype(float)) == pytest.approx(2.15, abs=0.01)


@pytest.mark.slow
def test_a_run_on_little_data(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "QUICK", TINY)
    monkeypatch.setattr(step_time, "MODULES", {"lstm": step_time.MODULES["lstm"]})
    monkeypatch.setattr(command, "MODULES", {"lstm": step_time.MODULES["lstm"]})
    found = tmp_path / "found.json"
    told = ["--shared", str(shared), "--kept", str(tmp_path), "--json", str(found), "--quick", "--markdown"]
    assert command.main([*told, "--sections", "student", "step_time"]) == 0
    stored = json.loads(found.read_text())
    (section,) = stored["sections"].values()
    assert [trial["failure"] for trial in section["trials"]] == [""] * 4
    assert [trial["runs"][0]["curve"][-1]["updates"] for trial in section["trials"]] == [1] * 4
    assert [each["case"] for each in stored["step_times"]] == ["lstm"]
    assert "| model | trial | top-1 % |" in capsys.readouterr().out


def test_markdown_names_every_missed_goal(capsys: pytest.CaptureFixture[str]) -> None:
    found = Found("section")
    found.results += [make_result("a", [1, 0, 0]), make_result("b", [1, 1, 0])]
    found.expect(*found.results)
    print_markdown(Results(found=[found], goals=found.goals))
    shown = capsys.readouterr().out
    assert "0 of 1 goals are met; missed:" in shown
    assert "net: gain, a - b -33.33 pt" in shown


def test_without_models_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--shared"):
        command.main(["--shared", str(tmp_path / "absent"), "--kept", str(tmp_path)])
