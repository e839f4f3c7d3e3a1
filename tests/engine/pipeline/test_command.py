"""`python -m worker.engine` as a user runs it: exit codes, words on failure, JSON."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

ENGINE = [sys.executable, "-m", "worker.engine"]


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ENGINE, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_compress_prints_the_comparison(cnn_file: Path, data_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = call("compress", cnn_file, "--recipe", "quantize.static", "--calibrate", data_file, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "SQNR" in done.stdout
    assert "latency p50" in done.stdout
    onnx.checker.check_model(out)


def test_layers_are_told_when_asked(cnn_file: Path, tmp_path: Path) -> None:
    recipe = "prune.magnitude:amount=0.5 + quantize.dynamic"
    done = call("compress", cnn_file, "--recipe", recipe, "--layers", "-o", tmp_path / "small.onnx")
    assert done.returncode == 0, done.stderr
    pruned, quantized = done.stdout.split("step 1: prune.magnitude")[1].split("step 2: quantize.dynamic")
    assert [line.split()[:4] for line in pruned.split("\n")[2:6]] == [
        [name, op, "50.0", "%"]
        for name, op in zip(["conv1", "conv2", "conv3", "fc"], ["Conv"] * 3 + ["Gemm"], strict=True)
    ]
    [skipped] = [line for line in quantized.splitlines() if line.startswith("conv1")]
    assert "slower than float" in skipped


def test_json_and_a_missed_target(cnn_file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("- method: prune.magnitude\n  amount: 0.5\n")
    out = tmp_path / "small.onnx"
    done = call("compress", cnn_file, "--recipe", recipe, "--max-size-ratio", 0.01, "--json", "-o", out)
    assert done.returncode == 3, done.stderr
    result = json.loads(done.stdout)
    assert result["verdict"]["met"] is False
    assert result["comparison"]["final"]["nonzero"] < result["comparison"]["original"]["nonzero"]
    assert out.is_file()


def test_a_failure_is_told_without_a_trace(cnn_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    done = call("compress", cnn_file, "--recipe", "quantize.static", "--min-accuracy", 0.5, "-o", out)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2].startswith(
        "LABELS_MISSING: a target on accuracy needs labelled evaluation data"
    )
    assert "Add labels (y) to the evaluation data" in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compress", "{model}", "--recipe", "no.such", "-o", "x"], "there is no method 'no.such'"),
        (["compress", "{model}", "--recipe", "prune.magnitude", "-o", "x"], "option `amount`"),
        (["compress", "absent.onnx", "--recipe", "quantize.dynamic", "-o", "x"], "there is no file absent.onnx"),
        (["compress", "{model}", "-o", "x"], "--recipe"),
        (["compress", "{model}", "--recipe", "quantize.dynamic", "--preprocess", '{"x":1}', "-o", "x"], "x:"),
        ([], "compress|inspect|run"),
    ],
)
def test_wrong_usage_is_2(cnn_file: Path, arguments: list[str], words: str) -> None:
    done = call(*(argument.format(model=cnn_file) if argument == "{model}" else argument for argument in arguments))
    assert done.returncode == 2
    assert words in done.stderr


def test_inspect_lists_layers_and_methods(cnn_file: Path) -> None:
    facts = json.loads(call("inspect", cnn_file, "--json").stdout)
    assert [layer["name"] for layer in facts["layers"]] == ["conv1", "conv2", "conv3", "fc"]
    assert facts["layers"][0]["methods"]["quantize.dynamic"]["applies"] is False
    assert "convolutions=true" in facts["layers"][0]["methods"]["quantize.dynamic"]["why"]
    assert "conv3" in call("inspect", cnn_file).stdout


def test_run_writes_outputs(cnn_file: Path, data_file: Path, tmp_path: Path) -> None:
    done = call("run", cnn_file, "--data", data_file, "-o", tmp_path / "outputs.npz", "--json")
    assert json.loads(done.stdout)["y"]["shape"] == [64, 4]
    with np.load(tmp_path / "outputs.npz") as outputs:
        assert outputs["y"].shape == (64, 4)


def test_importing_the_engine_is_light() -> None:
    code = (
        "import sys, worker.engine; print([m for m in ('torch', 'onnxruntime', 'onnx', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
