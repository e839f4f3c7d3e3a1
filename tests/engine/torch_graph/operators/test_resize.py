"""Resize beyond the official node tests: every mode with every mapping of coordinates, old forms, and element types."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from app.contracts.failure import SlimlineError

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
ROI = np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.1], np.float32)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def scaled(*scales: float) -> np.ndarray:
    return np.array([1, 1, *scales], np.float32)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "mapping",
    ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"],
)
@pytest.mark.parametrize("target", [scaled(2, 3), scaled(0.6, 1.5), np.array([2, 2, 3, 11]), np.array([2, 2, 10, 2])])
def test_modes_and_coordinates(mode: str, mapping: str, target: np.ndarray, expect_node: NodeRunner) -> None:
    form = {"mode": mode, "coordinate_transformation_mode": mapping, "extrapolation_value": 3.0}
    inputs = [None, target] if target.dtype == np.float32 else [None, None, target]
    if mapping == "tf_crop_and_resize":
        inputs[0] = ROI
    expect_node("Resize", [normal(2, 2, 5, 6), *inputs], rtol=1e-4, atol=1e-5, **form)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("mapping", ["half_pixel", "asymmetric"])
@pytest.mark.parametrize("scale", [2.0, 3.0, 7.0, 0.5, 1.5])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_nearest(rounding: str, mapping: str, scale: float, dtype: type, expect_node: NodeRunner) -> None:
    x: np.ndarray = np.asarray(RNG.integers(0, 99, (1, 2, 4, 5)), dtype)
    form = {"nearest_mode": rounding, "coordinate_transformation_mode": mapping}
    expect_node("Resize", [x, None, scaled(scale, scale)], rtol=0, atol=0, **form)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize(
    "form", [{"antialias": 1}, {"exclude_outside": 1}, {"antialias": 1, "exclude_outside": 1}, {"cubic_coeff_a": -0.5}]
)
@pytest.mark.parametrize("scale", [0.4, 1.7])
def test_filters(mode: str, form: dict[str, Any], scale: float, expect_node: NodeRunner) -> None:
    inputs = [normal(1, 2, 7, 8), None, scaled(scale, scale)]
    expect_node("Resize", inputs, rtol=1e-4, atol=1e-5, mode=mode, **form)


@pytest.mark.parametrize("policy", ["stretch", "not_larger", "not_smaller"])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, 1]])
def test_policies_and_axes(policy: str, axes: list[int], expect_node: NodeRunner) -> None:
    inputs = [normal(2, 3, 5, 6), None, None, np.array([7, 4])]
    axes = [axis % 4 for axis in axes] if policy == "stretch" else axes
    form = {"mode": "linear", "keep_aspect_ratio_policy": policy, "axes": [axis % 4 for axis in axes]}
    expect_node("Resize", inputs, rtol=1e-4, atol=1e-5, **form)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.float16, np.float64])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_element_types(dtype: type, mode: str, expect_node: NodeRunner) -> None:
    x: np.ndarray = np.asarray(RNG.integers(0, 127, (1, 1, 5, 4)), dtype)
    expect_node("Resize", [x, None, scaled(1.6, 0.7)], rtol=2e-3, atol=2e-3, mode=mode)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scale", [3.0, 1.5, 0.6])
def test_forms_before_opset_11(mode: str, scale: float, expect_runtime: NodeRunner) -> None:
    x, scales = normal(1, 2, 5, 6), scaled(scale, scale)
    expect_runtime("Resize", [x, scales], opset=10, mode=mode)
    if scale > 1:
        expect_runtime("Upsample", [x, scales], opset=9, mode=mode)
        expect_runtime("Upsample", [x], opset=7, mode=mode, scales=scales.tolist())


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_opset_11_with_empty_inputs(mode: str, expect_runtime: NodeRunner) -> None:
    empty, form = np.zeros(0, np.float32), {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "mode": mode}
    expect_runtime("Resize", [normal(1, 2, 5, 6), empty, scaled(1.5, 0.5)], opset=11, **form)
    expect_runtime("Resize", [normal(1, 2, 5, 6), empty, empty, np.array([1, 2, 7, 3])], opset=11, **form)


def test_an_infinite_element_spoils_only_its_neighbours(run_node: NodeRunner) -> None:
    x = np.zeros((1, 1, 8), np.float32)
    x[..., 7] = np.inf
    (y,) = run_node("Resize", [x, None, np.array([1, 1, 1.5], np.float32)], mode="linear", antialias=1)
    assert np.isfinite(y[..., :9]).all()


def test_whole_scales_are_the_native_kernel(run_node: NodeRunner) -> None:
    x = normal(1, 3, 4, 5)
    for form, native in (
        ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, "nearest"),
        ({"mode": "linear"}, "bilinear"),
        ({"mode": "cubic"}, "bicubic"),
    ):
        (y,) = run_node("Resize", [x, None, scaled(2, 2)], **form)
        np.testing.assert_array_equal(y, F.interpolate(torch.from_numpy(x), scale_factor=2, mode=native).numpy())


@pytest.mark.parametrize(
    ("form", "target"),
    [
        ({"mode": "spline"}, scaled(2, 2)),
        ({"coordinate_transformation_mode": "elsewhere"}, scaled(2, 2)),
        ({"mode": "nearest", "antialias": 1}, scaled(2, 2)),
        ({"coordinate_transformation_mode": "tf_crop_and_resize"}, scaled(2, 2)),
        ({}, None),
    ],
)
def test_refusals(form: dict[str, Any], target: np.ndarray | None, run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node("Resize", [normal(1, 1, 4, 4), None, target], **form)
    assert refusal.value.failure.code == "OPERATOR_UNSUPPORTED"


def test_an_absurd_size_is_refused(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node("Resize", [normal(1, 1, 2, 2), None, None, np.array([1, 1, 10**7, 10**7])])
    assert refusal.value.failure.code == "TENSOR_TOO_LARGE"
