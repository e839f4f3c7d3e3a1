"""The benchmark of quantization: its judgement on made-up figures, its measuring, and a run on one small model."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from benchmarks.comparison.data import Split
from benchmarks.comparison.latency import speed_ups
from benchmarks.quantization.__main__ import main
from benchmarks.quantization.cases import CASES
from benchmarks.quantization.compressors.order import Answer
from benchmarks.quantization.goals import judge_int4, judge_memory, judge_row
from benchmarks.quantization.latency import SETTINGS
from benchmarks.quantization.quality import Quality, measure_quality, measure_reference
from benchmarks.quantization.rows import Row
from benchmarks.quantization.running import Run, Runner
from benchmarks.quantization.tools import OURS, PERCENTILE, TOOLS, Tool, is_judged, tools_for

MINMAX = next(tool for tool in TOOLS if tool.name == "onnxruntime MinMax")
QUALITY = Quality(
    accuracy=90.0,
    drop=0.2,
    agreement=99.0,
    sqnr_db=30.0,
    size_ratio=0.3,
    integer_kernels=5,
    float_kernels=0,
    conversions=2,
)


def make_row(tool: Tool, quality: Quality | None, speed: float, wall_s: float) -> Row:
    run = Run(Answer(wall_s, wall_s, 0, 0, None), wall_s, Path("made.onnx"))
    return Row("case", tool, run, quality, speed={setting.name: speed for setting in SETTINGS})


def misses(ours: Row, *peers: Row) -> set[str]:
    return {goal.what for goal in judge_row(ours, [ours, *peers], labelled=True) if not goal.met}


def test_goals_are_met_at_their_limits() -> None:
    peer = make_row(PERCENTILE, QUALITY, speed=2.0, wall_s=4.0)
    ours = make_row(OURS, replace(QUALITY, drop=0.3), speed=1.9, wall_s=2.0)
    assert misses(ours, peer) == set()
    assert len(judge_row(ours, [ours, peer], labelled=True)) == 5


def test_each_goal_can_be_missed() -> None:
    peer = make_row(PERCENTILE, QUALITY, speed=2.0, wall_s=4.0)
    assert misses(make_row(OURS, replace(QUALITY, drop=0.31), 2.0, 1.0), peer) == {"accuracy lost"}
    assert misses(make_row(OURS, replace(QUALITY, sqnr_db=29.9), 2.0, 1.0), peer) == {"SQNR"}
    assert misses(make_row(OURS, QUALITY, 1.89, 1.0), peer) == {"latency ratio, 1t", "latency ratio, 2t"}
    assert misses(make_row(OURS, QUALITY, 2.0, 2.1), peer) == {"wall time"}


def test_bit_equal_outputs_are_the_best_there_are() -> None:
    peer = make_row(PERCENTILE, replace(QUALITY, sqnr_db=90.0), speed=1.0, wall_s=4.0)
    assert misses(make_row(OURS, replace(QUALITY, sqnr_db=None), 1.0, 1.0), peer) == set()


def test_a_peer_that_quantized_nothing_is_no_rival() -> None:
    idle = make_row(PERCENTILE, replace(QUALITY, sqnr_db=None, size_ratio=1.0), speed=3.0, wall_s=4.0)
    assert misses(make_row(OURS, QUALITY, 1.0, 1.0), idle) == set()


def test_dynamic_is_not_judged_beside_static() -> None:
    dynamic = next(tool for tool in TOOLS if tool.name == "slimline dynamic")
    peer = make_row(PERCENTILE, replace(QUALITY, sqnr_db=60.0), speed=9.0, wall_s=0.1)
    assert misses(make_row(dynamic, QUALITY, 1.0, 1.0), peer) == set()


def test_a_failure_of_ours_misses_every_goal_and_says_why() -> None:
    peer = make_row(PERCENTILE, QUALITY, speed=1.0, wall_s=4.0)
    failed = Row("case", OURS, Run(Answer(0.0, 0.0, 0, 0, "CODE: because"), 0.0, None), failure="CODE: because")
    goals = judge_row(failed, [failed, peer], labelled=True)
    assert [goal.met for goal in goals] == [False] * 5
    assert {goal.note for goal in goals} == {"CODE: because"}
    assert [goal.met for goal in judge_row(failed, [failed], labelled=True)] == [False]


def test_without_labels_there_is_no_goal_for_accuracy() -> None:
    unlabelled = replace(QUALITY, accuracy=None, drop=None)
    ours, peer = make_row(OURS, unlabelled, 1.0, 1.0), make_row(PERCENTILE, unlabelled, 1.0, 4.0)
    assert "accuracy lost" not in {goal.what for goal in judge_row(ours, [ours, peer], labelled=False)}


def test_memory_and_int4_goals() -> None:
    assert judge_memory("memory", 400.0, 464.0, "").met
    assert not judge_memory("memory", 400.0, 465.0, "").met
    assert not judge_memory("memory", 400.0, None, "it was killed").met
    assert judge_int4("case", 1.0, "").margin == 0
    assert not judge_int4("case", 1.1, "").met


def test_static_quantization_of_a_recurrent_network_has_no_goal() -> None:
    judged = {(case.name, tool.name) for case in CASES for tool in tools_for(case, []) if is_judged(tool, case)}
    assert ("mnist_row_lstm", "slimline dynamic") in judged
    assert ("mnist_row_lstm", "slimline static") not in judged
    assert {name for name, _ in judged} == {case.name for case in CASES}


def test_quality_is_what_numpy_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal((100, 6)).astype(np.float32)
    other = weight + rng.standard_normal((6, 4)).astype(np.float32) * np.float32(0.1)
    data = Split(x, (x @ weight).argmax(1))
    paths = [_save_matmul(tmp_path / f"{name}.onnx", matrix) for name, matrix in (("a", weight), ("b", other))]
    reference = measure_reference(paths[0], "x", data)
    same, changed = (measure_quality(path, reference) for path in paths)
    assert (same.accuracy, same.drop, same.agreement, same.sqnr_db) == (100.0, 0.0, 100.0, None)
    agreement = float(((x @ other).argmax(1) == data.y).mean() * 100)
    exact = x.astype(np.float64) @ weight
    sqnr = 10 * np.log10((exact**2).sum() / ((exact - x.astype(np.float64) @ other) ** 2).sum())
    assert changed.agreement == changed.accuracy == pytest.approx(agreement)
    assert changed.sqnr_db == pytest.approx(sqnr, abs=1e-3)
    assert (changed.integer_kernels, changed.float_kernels) == (0, 1)


def test_there_is_a_speed_up_for_every_model(tmp_path: Path) -> None:
    paths = [_save_matmul(tmp_path / f"{name}.onnx", np.eye(6, dtype=np.float32)) for name in "abc"]
    ratios = speed_ups(paths[0], paths[1:], {"x": np.zeros((1, 6), np.float32)}, threads=1, seconds=0.01)
    assert len(ratios) == 2
    assert all(ratio > 0 for ratio in ratios)


def test_a_process_that_dies_is_a_failure_and_not_kept(tmp_path: Path) -> None:
    model = _save_matmul(tmp_path / "a.onnx", np.eye(6, dtype=np.float32))
    calibrate = Split(np.zeros((4, 6), np.float32), None).save(tmp_path / "c.npz")
    kept = tmp_path / "kept"
    kept.mkdir()
    runner = Runner({"nncf": "/bin/false"}, {"nncf": "1"}, tmp_path, kept)
    run = runner.run(Tool("NNCF", "nncf", "static"), model, "x", calibrate)
    assert run.model is None
    assert run.answer.failure == "ended with code 1: it said nothing"
    assert list(kept.iterdir()) == []


def test_what_a_peer_made_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = _save_matmul(tmp_path / "a.onnx", rng.standard_normal((6, 4)).astype(np.float32))
    calibrate = Split(rng.standard_normal((8, 6)).astype(np.float32), None).save(tmp_path / "c.npz")
    first = Runner({"onnxruntime": sys.executable}, {"onnxruntime": "1"}, tmp_path, tmp_path)
    made = first.run(MINMAX, model, "x", calibrate)
    assert made.answer.failure is None
    assert made.answer.peak_bytes > made.answer.before_bytes > 0
    assert made.total_s > made.answer.work_s > 0
    assert made.day is None
    again = Runner({"onnxruntime": "/bin/false"}, {"onnxruntime": "1"}, tmp_path, tmp_path)
    kept = again.run(MINMAX, model, "x", calibrate)
    assert replace(kept, day=None) == made
    assert kept.day
    newer = Runner({"onnxruntime": "/bin/false"}, {"onnxruntime": "2"}, tmp_path, tmp_path)
    assert newer.run(MINMAX, model, "x", calibrate).answer.failure


def test_one_small_model(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    options = ["--shared", str(shared), "--kept", str(tmp_path), "--json", str(found), "--quick", "--samples", "16"]
    options += ["--models", "kws_dscnn", "--peers", "nncf", "--peer-python", str(tmp_path / "absent")]
    assert main(options) == 0
    (row,) = json.loads(found.read_text())["rows"]
    assert row["failure"] is None
    assert 0 < row["quality"]["size_ratio"] < 1
    assert set(row["speed"]) == {setting.name for setting in SETTINGS}
    assert [goal["what"] for goal in json.loads(found.read_text())["goals"]] == ["accuracy lost"]
    shown = capsys.readouterr()
    assert "slimline static" in shown.out
    assert "nncf: not installed" in shown.err


def test_without_models_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--shared"):
        main(["--shared", str(tmp_path / "absent"), "--kept", str(tmp_path)])


def _save_matmul(path: Path, weight: np.ndarray) -> Path:
    x, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in zip("xy", weight.shape, strict=True)
    )
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph([node], "tiny", [x], [y], [numpy_helper.from_array(weight, "w")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path
