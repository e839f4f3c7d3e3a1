"""Real networks from end to end, where the sample models are there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from worker.engine import compress


def test_static_int8_of_a_resnet_keeps_its_accuracy(shared: Path, tmp_path: Path) -> None:
    result = compress(
        shared / "models/digits32_resnet18.onnx",
        recipe="quantize.static",
        output=tmp_path / "out.onnx",
        calibrate=shared / "data/digits32_calibrate.npz",
        evaluate=shared / "data/digits32_evaluate.npz",
        targets={"max_accuracy_drop": 0.02, "max_size_ratio": 0.6},
    )
    assert result.verdict is not None
    assert result.verdict.met, result.verdict
    original, final = result.comparison.original, result.comparison.final
    assert original is not None
    assert final is not None
    assert original.accuracy is not None
    assert original.accuracy.value == pytest.approx(0.9555, abs=0.001)
    assert final.fidelity is not None
    assert final.fidelity.sqnr_db is not None
    assert final.fidelity.sqnr_db > 35
    assert any("21 integer kernels, 0 float" in note for note in result.notes)


@pytest.mark.parametrize(
    ("model", "recipe", "most"),
    [
        ("efficientnet_lite0", "quantize.dynamic", 0.85),
        ("mtcnn_onet", "quantize.float16", 0.52),
        ("mnist_row_lstm", "quantize.dynamic", 0.4),
    ],
)
def test_a_method_with_no_data_shrinks_the_file(
    shared: Path, tmp_path: Path, model: str, recipe: str, most: float
) -> None:
    result = compress(shared / f"models/{model}.onnx", recipe=recipe, output=tmp_path / "out.onnx")
    assert result.comparison.ratios is not None
    assert result.comparison.ratios.size is not None
    assert result.comparison.ratios.size < most
    assert result.comparison.final is not None
    assert result.comparison.final.fidelity is not None


def test_half_of_the_weights_of_a_keyword_spotter(shared: Path, tmp_path: Path) -> None:
    result = compress(
        shared / "models/kws_dscnn.onnx", recipe="prune.magnitude:amount=0.5", output=tmp_path / "out.onnx"
    )
    assert all(record.sparsity == pytest.approx(0.5, abs=0.01) for record in result.layers)
    assert result.comparison.ratios is not None
    assert result.comparison.ratios.size_zstd is None or result.comparison.ratios.size_zstd < 0.7


@pytest.mark.slow
def test_calibration_memory_does_not_grow_with_the_samples(
    shared: Path, tmp_path: Path, peak_of: Callable[[str], int]
) -> None:
    samples = np.load(shared / "data/digits32_calibrate.npz")["x"]
    model, peaks = shared / "models/digits32_resnet18.onnx", []
    for number in (64, 1024):
        data = tmp_path / f"{number}.npz"
        np.savez(data, allow_pickle=False, x=np.tile(samples, (number // 256 + 1, 1, 1, 1))[:number])
        recipe = f"quantize.static:calibrator=percentile,samples={number}"
        arguments = f"{str(model)!r}, recipe={recipe!r}, output={str(tmp_path / 'o.onnx')!r}, calibrate={str(data)!r}"
        peaks.append(peak_of(f"from worker.engine import compress; compress({arguments})"))
    assert peaks[1] - peaks[0] < 100 << 20
