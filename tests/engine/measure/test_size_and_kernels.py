"""Bytes as downloaded, and kernels as ONNX Runtime runs them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from worker.engine.measure.kernels import KernelCount, count_kernels
from worker.engine.measure.size import file_bytes, zstd_bytes

Builder = Callable[..., onnx.ModelProto]


def test_bytes_are_those_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(bytes(100))
    (tmp_path / "a.onnx.data").write_bytes(bytes(1000))
    assert file_bytes(tmp_path / "a.onnx") == 1100


def test_zstd_is_the_packages_at_level_10(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    content = b"slimline " * 1000
    (tmp_path / "a.onnx").write_bytes(content)
    assert zstd_bytes(tmp_path / "a.onnx") == len(zstandard.ZstdCompressor(level=10).compress(content))


def test_one_is_told_as_one() -> None:
    told = KernelCount(Counter(QLinearConv=1, Conv=1, QuantizeLinear=1)).told()
    assert told == "ONNX Runtime runs 1 integer kernel, 1 float one and 1 conversion between them"


def test_kernels_of_a_float_model(make_cnn: Builder, tmp_path: Path) -> None:
    onnx.save(make_cnn(), tmp_path / "cnn.onnx")
    kernels = count_kernels(tmp_path / "cnn.onnx")
    assert (kernels.integer, kernels.float, kernels.borders) == (0, 4, 0)
