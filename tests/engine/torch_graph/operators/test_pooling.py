"""Pools beyond the official node tests. Where ReferenceEvaluator fails (ceil_mode, SAME) ONNX Runtime is the oracle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import find_operator

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
WINDOWS = [
    {},
    {"strides": [2, 3, 1]},
    {"strides": [3, 2, 2], "ceil_mode": 1},
    {"strides": [2, 2, 2], "pads": [1, 0, 0, 0, 1, 0]},
    {"strides": [2, 2, 3], "pads": [1, 1, 0, 1, 1, 0], "ceil_mode": 1},
    {"strides": [2, 3, 2], "pads": [0, 1, 0, 1, 0, 0], "ceil_mode": 1},
    {"strides": [2, 2, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [1, 2, 2], "auto_pad": "SAME_LOWER"},
    {"strides": [2, 1, 1], "auto_pad": "VALID"},
]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def window_of(rank: int, window: dict[str, Any]) -> dict[str, Any]:
    """A window for three axes, cut to `rank`."""
    cut = {"strides": slice(rank), "dilations": slice(rank)}
    pads = window.get("pads", [0] * 6)
    return {name: value[cut[name]] if name in cut else value for name, value in window.items()} | (
        {"pads": pads[:rank] + pads[3 : 3 + rank]} if "pads" in window else {}
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_pools_over_windows(rank: int, window: dict[str, Any], expect_runtime: NodeRunner) -> None:
    x, form = normal(2, 2, *[6, 7, 5][:rank]), {"kernel_shape": [3, 2, 1][:rank]} | window_of(rank, window)
    expect_runtime("MaxPool", [x], opset=12, **form)
    expect_runtime("AveragePool", [x], opset=19, **form)
    expect_runtime("AveragePool", [x], opset=19, count_include_pad=1, **form)
    expect_runtime("LpPool", [x], opset=18, p=3, **form)


@pytest.mark.parametrize("window", [{}, {"pads": [1, 2, 0, 1], "strides": [2, 1]}, {"ceil_mode": 1, "strides": [3, 2]}])
def test_dilated_pools(window: dict[str, Any], expect_runtime: NodeRunner) -> None:
    form = {"kernel_shape": [2, 3], "dilations": [2, 1]} | window
    for op, opset in (("MaxPool", 12), ("AveragePool", 19), ("LpPool", 18)):
        expect_runtime(op, [normal(2, 2, 7, 8)], opset=opset, **form)


@pytest.mark.parametrize("pads", [[0] * 4, [1, 1, 1, 1], [0, 1, 1, 0]])
@pytest.mark.parametrize("storage_order", [0, 1])
def test_places_of_maxima(pads: list[int], storage_order: int, run_node: NodeRunner) -> None:
    """Places count over all of (N, C, H, W), within a channel by rows or by columns."""
    x = normal(2, 3, 6, 5)
    form = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": pads, "storage_order": storage_order}
    y, places = run_node("MaxPool", [x], opset=12, outputs=2, dtypes=[1, 7], **form)
    flat = x if storage_order == 0 else x.swapaxes(2, 3)
    np.testing.assert_array_equal(flat.reshape(-1)[places], y)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_maxima_of_bytes(dtype: type, expect_node: NodeRunner) -> None:
    limits = np.iinfo(dtype)
    x: np.ndarray = np.asarray(RNG.integers(limits.min, limits.max + 1, (1, 2, 5, 5)), dtype)
    expect_node("MaxPool", [x], opset=12, kernel_shape=[2, 2], strides=[2, 1], dilations=[1, 1])


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows_of_padding_alone_are_refused(op: str, run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError, match="leave windows empty"):
        run_node(op, [normal(1, 1, 4)], kernel_shape=[2], pads=[2, 0])


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 3), (1, 2, 2, 2, 2, 2), (2, 3)])
def test_pools_over_the_image(shape: tuple[int, ...], run_node: NodeRunner) -> None:
    x, axes = normal(*shape), tuple(range(2, len(shape)))
    exact = x.astype(np.float64)
    rounding = np.abs(x).max() * x[0, 0].size * np.finfo(np.float32).eps  # of a sum; its mean may lie near zero
    for op, wanted in (
        ("GlobalAveragePool", exact.mean(axes, keepdims=True)),
        ("GlobalMaxPool", exact.max(axes, keepdims=True)),
        ("GlobalLpPool", np.sqrt((exact**2).sum(axes, keepdims=True))),
    ):
        (y,) = run_node(op, [x])
        assert y.dtype == np.float32
        assert y.shape == wanted.shape
        np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=rounding)


def test_unpooling_undoes_pooling(run_node: NodeRunner) -> None:
    x, form = normal(2, 3, 6, 4), {"kernel_shape": [2, 2], "strides": [2, 2]}
    y, places = run_node("MaxPool", [x], opset=12, outputs=2, dtypes=[1, 7], **form)
    (back,) = run_node("MaxUnpool", [y, places], **form)
    wanted = F.max_unpool2d(*F.max_pool2d(torch.from_numpy(x), 2, return_indices=True), (2, 2))
    np.testing.assert_array_equal(back, wanted.numpy())
    (longer,) = run_node("MaxUnpool", [y, places, np.array([2, 3, 7, 5])], **form)
    np.testing.assert_array_equal(longer[:, :, :6, :4], back)
    assert longer.shape == (2, 3, 7, 5)


def test_a_norm_of_nothing_has_a_finite_gradient() -> None:
    entry = find_operator("", "LpPool")
    assert entry is not None
    x = torch.zeros(1, 1, 4, requires_grad=True)
    entry.build(Node("norm", "LpPool", "", 18, {"kernel_shape": [2]}))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
