"""GridSample and AffineGrid beyond the official node tests: one to three axes, points far outside and between two."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import find_operator

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
SIZES, MODES, PADDINGS = [(4,), (3, 4), (2, 3, 4)], ["linear", "nearest", "cubic"], ["zeros", "border", "reflection"]
DISPUTED = ((3, 4), "cubic", "border")
"""Here ReferenceEvaluator moves the point to the border first; torch and ONNX Runtime (tested below) do not."""


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize(("sizes", "mode", "padding"), sorted(set(product(SIZES, MODES, PADDINGS)) - {DISPUTED}))
def test_grid_sample(sizes: tuple[int, ...], mode: str, padding: str, align: int, expect_node: NodeRunner) -> None:
    grid = 1.3 * normal(2, *sizes[::-1], len(sizes))
    for points in (grid, np.round(2 * grid) / 2):
        form = {"mode": mode, "padding_mode": padding, "align_corners": align}
        expect_node("GridSample", [normal(2, 2, *sizes), points], rtol=1e-4, atol=1e-5, **form)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample_by_its_old_names(mode: str, padding: str, align: int, expect_runtime: NodeRunner) -> None:
    inputs = [normal(2, 2, 3, 4), 1.3 * normal(2, 3, 2, 2)]
    expect_runtime("GridSample", inputs, opset=16, mode=mode, padding_mode=padding, align_corners=align)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.uint8, np.float16])
def test_nearest_of_any_type(dtype: type, expect_node: NodeRunner) -> None:
    x: np.ndarray = np.asarray(RNG.integers(0, 200, (1, 2, 4, 4)), dtype)
    expect_node("GridSample", [x, normal(1, 3, 3, 2)], mode="nearest", rtol=0, atol=0)


def test_between_whole_numbers_is_refused(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError, match="between elements of int32"):
        run_node("GridSample", [np.zeros((1, 1, 2, 2), np.int32), normal(1, 1, 1, 2)], mode="linear")


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_of_the_own_path(padding: str) -> None:
    entry = find_operator("", "GridSample")
    assert entry is not None
    run = entry.build(Node("sample", "GridSample", "", 20, {"mode": "cubic", "padding_mode": padding}))
    inputs = [torch.from_numpy(0.7 * RNG.standard_normal(shape)) for shape in ((1, 1, 2, 3, 2), (1, 2, 1, 2, 3))]
    assert torch.autograd.gradcheck(run, [each.requires_grad_() for each in inputs])


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (2, 1, 2, 3, 4)])
def test_affine_grid(size: tuple[int, ...], align: int, expect_node: NodeRunner) -> None:
    theta = normal(2, len(size) - 2, len(size) - 1)
    expect_node("AffineGrid", [theta, np.array(size)], align_corners=align, rtol=1e-4, atol=1e-5)


def test_an_absurd_grid_is_refused(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node("AffineGrid", [normal(1, 2, 3), np.array([1, 1, 10**6, 10**6])])
    assert refusal.value.failure.code == "TENSOR_TOO_LARGE"
