"""Fourier transforms, windows and mel matrices in forms that the official node tests leave out."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("form", [{}, {"inverse": 1}, {"onesided": 1}, {"inverse": 1, "onesided": 1}])
@pytest.mark.parametrize("length", [None, 3, 4, 7])
@pytest.mark.parametrize("axis", [None, 0, 1, -2, -3])
def test_dft(expect_node: NodeRunner, parts: int, form: dict[str, int], length: int | None, axis: int | None) -> None:
    x = normal(2, 5, 3, parts)
    size = None if length is None else np.array(length)
    place = [] if axis is None else [np.array(axis)]
    expect_node("DFT", [x, size, *place], opset=20, rtol=1e-4, atol=1e-5, **form)
    own = {} if axis is None else {"axis": axis}
    expect_node("DFT", [x, size], opset=17, rtol=1e-4, atol=1e-5, **own, **form)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize(("window", "length"), [(4, None), (None, 5), (4, 4), (None, None)])
def test_stft(expect_node: NodeRunner, parts: int, onesided: int, window: int | None, length: int | None) -> None:
    given = [None if window is None else normal(window), None if length is None else np.array(length)]
    inputs = [normal(2, 11, parts), np.array(2), *given]
    expect_node("STFT", inputs, opset=17, onesided=onesided, rtol=1e-4, atol=1e-5)


def test_a_flat_signal_is_real(run_node: NodeRunner) -> None:
    x, rest = normal(2, 11), [np.array(3), None, np.array(4)]
    np.testing.assert_array_equal(run_node("STFT", [x, *rest]), run_node("STFT", [x[..., np.newaxis], *rest]))


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("size", [0, 2, 9, 10])
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE", "INT32", "UINT8"])
def test_windows(expect_node: NodeRunner, op: str, size: int, periodic: int, dtype: str) -> None:
    expect_node(op, [np.array(size)], opset=17, periodic=periodic, output_datatype=int(ir.DataType[dtype]))


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_a_symmetric_window_of_one_point_is_undefined(run_node: NodeRunner, op: str) -> None:
    assert np.isnan(run_node(op, [np.array(1)], opset=17, periodic=0)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("bands", "length", "rate", "low", "high"),
    [(8, 16, 8192, 0, 4096), (40, 512, 16000, 20, 8000), (128, 2048, 44100, 0, 22050)],
)
def test_mel_weight_matrix(  # noqa: PLR0913, PLR0917 - as the operator has them
    expect_node: NodeRunner, dtype: type, bands: int, length: int, rate: int, low: float, high: float
) -> None:
    sizes = [np.array(each) for each in (bands, length, rate)]
    expect_node("MelWeightMatrix", [*sizes, np.array(low, dtype), np.array(high, dtype)], opset=17)
