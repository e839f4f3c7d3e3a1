"""The benchmark for GPUs, at tiny sizes on a CPU: nothing but the engine's packages, and what it says without CUDA."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from app.contracts.measurement import Accuracy
from benchmarks.comparison.processes import REPOSITORY
from benchmarks.gpu import parity
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.paper import DENSE, OURS, THEIRS, Entry, judge_paper
from benchmarks.gpu.parity import Parity, judge_parity, measure_parity
from benchmarks.gpu.pictures import load
from benchmarks.gpu.prepared import Subject, find_subjects, prepare_models, prepare_sample_models
from benchmarks.gpu.step_time import StepTime, judge_step_time
from benchmarks.gpu.text import print_goals, print_table
from benchmarks.gpu.training_parity import Trained, judge_training

BARE = """
import sys
for name in ("rich", "scipy", "torchvision", "onnxscript", "transformers", "PIL", "sklearn"):
    sys.modules[name] = None
from benchmarks.gpu.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare_models(folder, "tiny", ("resnet", "lstm"))
    return folder


@pytest.fixture
def with_pictures(prepared: Path, shared: Path) -> Path:
    """The sample models, and a few pictures without anything in them."""
    prepare_sample_models(prepared, shared)
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        pictures = rng.integers(0, 256, (48, 32, 32, 3), np.uint8)
        np.savez(prepared / f"cifar10_jpeg_{name}.npz", x=pictures, y=np.arange(48) % 10)
    return prepared


@pytest.mark.slow
def test_the_smoke_runs_where_only_the_engines_packages_are(with_pictures: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    told = ["--cpu-smoke", "--prepared", str(with_pictures), "--json", str(found)]
    command = [sys.executable, "-c", BARE, *told, "--sections", "parity", "step_time", "training"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    stored = json.loads(found.read_text())
    assert [row["name"] for row in stored["parity"]] == ["lstm", "resnet"]
    assert {row["output"] for row in stored["parity"]} == {0.0}
    assert [row["note"] for row in stored["step_time"]] == ["", ""]
    first, second = stored["training"]
    assert first["accuracy"] == second["accuracy"]
    if not torch.cuda.is_available():
        assert "no CUDA device here" in done.stdout


@pytest.mark.slow
def test_the_papers_table_at_a_tiny_size(with_pictures: Path, tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    told = ["--cpu-smoke", "--prepared", str(with_pictures), "--json", str(found)]
    assert main([*told, "--sections", "paper"]) == 0
    entries = json.loads(found.read_text())["paper"]
    assert [entry["name"] for entry in entries] == ["original", DENSE, OURS, "ours, distilled", THEIRS]
    assert entries[2]["times_fewer"] == pytest.approx(2.57, rel=0.03)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_without_cuda_it_says_so_and_measures_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == "no CUDA device here: nothing of this benchmark was measured on a GPU\n"


def test_parity_finds_the_weight_whose_gradient_is_off(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = next(each for each in find_subjects(prepared) if each.name == "lstm")
    assert measure_parity(subject, "cpu").gradient == 0.0
    run = parity._run

    def run_wrong(graph: object, inputs: object, device: str) -> object:
        done = run(graph, inputs, "cpu")  # type: ignore[arg-type]  # passed on as it came
        if device == "elsewhere":
            done.gradients["head.bias"] = done.gradients["head.bias"] * 1.01
        return done

    monkeypatch.setattr(parity, "_run", run_wrong)
    found = measure_parity(subject, "elsewhere")
    assert (found.output, found.where) == (0.0, "head.bias")
    assert found.gradient == pytest.approx(0.01, rel=0.01)


def test_each_goal_can_be_missed() -> None:
    assert [goal.met for goal in judge_parity(Parity("net", 1e-4, 2e-3, "weight"))] == [True, False]
    assert [goal.met for goal in judge_step_time(StepTime("net", 1.0, None, 1.05, None, "why"))] == [True, False]
    here = Trained("cpu", make_accuracy(0.80), 1.0)
    assert judge_training("net", here, Trained("cuda", make_accuracy(0.83), 1.0)).met
    assert not judge_training("net", here, Trained("cuda", make_accuracy(0.84), 1.0)).met


def test_ours_is_judged_by_the_dense_network_and_by_torch_pruning_where_it_ran() -> None:
    dense, ours = Entry(DENSE, 90.0, 1.0, 1.0), Entry(OURS, 89.9, 2.57, 1.0)
    theirs = Entry(THEIRS, 89.0, 2.57, 1.0)
    assert [goal.met for goal in judge_paper([dense, ours, theirs])] == [False, True]
    assert len(judge_paper([dense, ours, Entry(THEIRS, None, None, 0.0, "cannot be imported")])) == 1


def test_pictures_become_what_the_models_take(tmp_path: Path) -> None:
    pixels = np.full((2, 4, 4, 3), 255, np.uint8)
    np.savez(tmp_path / "p.npz", x=pixels, y=np.array([3, 1]))
    x, y = load(tmp_path / "p.npz", "cpu")
    assert x.shape == (2, 3, 4, 4)
    assert x[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert y.tolist() == [3, 1]


def test_text_without_a_library(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", ("model", "x"), [("resnet", "1.00")])
    print_goals(judge_parity(Parity("net", 1e-4, 2e-3, "weight")))
    assert capsys.readouterr().out == (
        "\ntitle\nmodel      x\nresnet  1.00\n\n"
        "MET    net: outputs off 0.0001, goal at most 0.0001\n"
        "MISSED net: gradients off 0.002, goal at most 0.001 (weight)\n"
        "1 of 2 goals are met\n"
    )


def make_accuracy(value: float) -> Accuracy:
    return Accuracy(metric="top1", value=value, n=1000, ci_low=value - 0.02, ci_high=value + 0.02)


def test_subjects_are_the_models_of_the_folder(prepared: Path) -> None:
    (lstm, _) = find_subjects(prepared)
    assert lstm == Subject("lstm", prepared / "lstm.onnx", prepared / "lstm.npz")
    assert [list(each.shape) for each in lstm.load_inputs()] == [[8, 7, 12]]
