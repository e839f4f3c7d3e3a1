"""Pools over boxes beyond the official node tests: boxes beyond the map, turned around, of no size, or none at all."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import find_operator

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
MAP = RNG.standard_normal((2, 3, 7, 9)).astype(np.float32)
BOXES = np.array(
    [[0.3, 0.4, 4.1, 5.2], [-2, -1, 3.3, 12], [5, 5, 5, 5], [6, 4, 2, 1], [20, 20, 30, 30], [1, 2, 8.7, 2.1]],
    np.float32,
)
IMAGES = np.array([0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_roi_align(mode: str, transform: str, ratio: int, expect_node: NodeRunner) -> None:
    form = {"mode": mode, "coordinate_transformation_mode": transform, "sampling_ratio": ratio}
    options = {"output_height": 2, "output_width": 3, "spatial_scale": 0.5, "rtol": 1e-4, "atol": 1e-5}
    expect_node("RoiAlign", [MAP, BOXES, IMAGES], **form, **options)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align_before_it_shifted(mode: str, expect_runtime: NodeRunner) -> None:
    expect_runtime("RoiAlign", [MAP, BOXES[:3], IMAGES[:3]], opset=10, mode=mode, output_height=2, sampling_ratio=2)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_max_roi_pool(scale: float, expect_runtime: NodeRunner) -> None:
    boxes = np.concatenate([IMAGES[:, None], np.round(2 * BOXES) / 2], axis=1).astype(np.float32)
    expect_runtime("MaxRoiPool", [MAP, boxes], opset=11, pooled_shape=[2, 3], spatial_scale=scale)


def test_no_boxes(run_node: NodeRunner) -> None:
    none = np.zeros((0, 4), np.float32)
    assert run_node("RoiAlign", [MAP, none, IMAGES[:0]], output_height=2)[0].shape == (0, 3, 2, 1)
    assert run_node("MaxRoiPool", [MAP, np.zeros((0, 5), np.float32)], pooled_shape=[1, 2])[0].shape == (0, 3, 1, 2)


def test_an_unknown_mode_is_refused(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError, match="'median'"):
        run_node("RoiAlign", [MAP, BOXES, IMAGES], mode="median")


@pytest.mark.parametrize("attributes", [{}, {"sampling_ratio": 2}, {"mode": "max", "sampling_ratio": 2}])
def test_gradients_reach_map_and_boxes(attributes: dict[str, Any]) -> None:
    entry = find_operator("", "RoiAlign")
    assert entry is not None
    run = entry.build(Node("align", "RoiAlign", "", 16, attributes | {"output_height": 2, "output_width": 2}))
    x = torch.from_numpy(RNG.standard_normal((2, 1, 5, 5))).requires_grad_()
    boxes = torch.tensor([[0.3, 0.4, 4.1, 3.3], [1.2, 0.3, 3.3, 2.1]], dtype=torch.float64, requires_grad=True)
    images = torch.tensor([0, 1])
    assert torch.autograd.gradcheck(lambda x, boxes: run(x, boxes, images), [x, boxes])
