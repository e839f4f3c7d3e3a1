"""Convolutions beyond the official node tests: every padding on every rank, disputed forms, gradients."""

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


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "padding",
    [
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID"},
        {"pads": [2, 0, 1, 1, 1, 0]},
        {"pads": [1, 2, 0, 1, 2, 0]},
        {},
    ],
)
@pytest.mark.parametrize("strides", [[1, 1, 1], [2, 3, 1]])
@pytest.mark.parametrize("dilations", [[1, 1, 1], [2, 1, 2]])
def test_conv(
    rank: int, padding: dict[str, Any], strides: list[int], dilations: list[int], expect_node: NodeRunner
) -> None:
    if "pads" in padding:
        padding = {"pads": padding["pads"][:rank] + padding["pads"][3 : 3 + rank]}
    x, weight, bias = normal(2, 4, *[6, 7, 5][:rank]), normal(4, 2, *[3, 2, 1][:rank]), normal(4)
    window = {"strides": strides[:rank], "dilations": dilations[:rank], "group": 2} | padding
    expect_node("Conv", [x, weight, bias], rtol=1e-4, atol=1e-5, **window)
    expect_node("Conv", [x, weight], rtol=1e-4, atol=1e-5, opset=11, kernel_shape=[3, 2, 1][:rank], **window)


@pytest.mark.parametrize(
    "form",
    [
        {"pads": [1, 1, 1, 1], "output_padding": [1, 0]},
        {"pads": [2, 0, 0, 1]},
        {"pads": [0, 0, 2, 3]},
        {"auto_pad": "SAME_UPPER"},
        {"auto_pad": "SAME_LOWER", "output_padding": [1, 0]},
        {"output_shape": [10, 6]},
        {"output_shape": [12, 7], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1], "pads": [1, 2, 3, 0]},
    ],
)
def test_conv_transpose(form: dict[str, Any], expect_runtime: NodeRunner) -> None:
    x, weight, bias = normal(2, 4, 5, 6), normal(4, 3, 3, 2), normal(6)
    for inputs in ([x, weight, bias], [x, weight]):
        expect_runtime("ConvTranspose", inputs, group=2, strides=[2, 1], **form)
        expect_runtime("ConvTranspose", inputs, group=2, strides=[2, 1], kernel_shape=[3, 2], **form)


def test_conv_transpose_refuses_what_runtimes_disagree_on(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError, match="stride beyond the kernel"):
        run_node("ConvTranspose", [normal(1, 1, 4), normal(1, 1, 2)], strides=[3], auto_pad="SAME_UPPER")


@pytest.mark.parametrize(
    "window", [{"kernel_shape": [3]}, {"strides": [2, 2, 2]}, {"pads": [1, 1]}, {"strides": [1, 0]}]
)
def test_windows_that_do_not_fit_are_refused(window: dict[str, list[int]], run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError) as refusal:
        run_node("Conv", [normal(1, 1, 4, 4), normal(1, 1, 3, 3)], **window)
    assert refusal.value.failure.code == "OPERATOR_UNSUPPORTED"


def test_four_axes_are_refused(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError, match="4 spatial axes"):
        run_node("Conv", [normal(1, 1, 2, 2, 2, 2), normal(1, 1, 1, 1, 1, 1)])


def test_even_pads_are_the_kernel_of_a_native_module() -> None:
    conv = find_operator("", "Conv")
    assert conv is not None
    run: Any = conv.build(Node("conv", "Conv", "", 20, {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 2]}))
    x, weight = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)
    assert run.func is torch.conv2d
    assert run(x, weight).equal(F.conv2d(x, weight, stride=2, padding=1))


@pytest.mark.parametrize("groups", [(1, 1), (2, 1), (1, 2), (2, 4)])
def test_deform_conv(groups: tuple[int, int], expect_node: NodeRunner) -> None:
    group, offset_group = groups
    x, weight, bias = normal(2, 4, 5, 6), normal(4, 4 // group, 2, 3), normal(4)
    offset, mask = normal(2, offset_group * 12, 3, 3), normal(2, offset_group * 6, 3, 3)
    form = {"strides": [2, 2], "pads": [1, 1, 0, 1], "dilations": [1, 1], "group": group, "offset_group": offset_group}
    for inputs in ([x, weight, offset, bias, mask], [x, weight, offset], [x, weight, offset, None, mask]):
        expect_node("DeformConv", inputs, rtol=1e-4, atol=1e-5, **form)


@pytest.mark.parametrize("sizes", [(1, 6), (6, 1), (1, 1)])
def test_deform_conv_of_one_row(sizes: tuple[int, int], run_node: NodeRunner) -> None:
    """ReferenceEvaluator divides by size - 1. Without offsets it is plain."""
    x, weight = normal(1, 2, *sizes), normal(3, 2, 1, 1)
    (y,) = run_node("DeformConv", [x, weight, np.zeros((1, 2, *sizes), np.float32)])
    np.testing.assert_allclose(y, F.conv2d(torch.from_numpy(x), torch.from_numpy(weight)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
@pytest.mark.parametrize(
    ("image", "block", "blocks", "form"),
    [
        ([5, 6], [2, 3], 16, {"pads": [0, 1, 0, 1], "strides": [1, 1], "dilations": [1, 2]}),
        ([5, 6], [2, 3], 6, {"pads": [1, 0, 0, 0], "strides": [2, 2]}),
        ([4, 3, 5], [1, 2, 2], 40, {"pads": [0, 0, 1, 0, 0, 0]}),
    ],
)
def test_col2im(
    dtype: type, image: list[int], block: list[int], blocks: int, form: dict[str, Any], expect_node: NodeRunner
) -> None:
    x: np.ndarray = np.asarray(RNG.integers(0, 50, (2, 2 * int(np.prod(block)), blocks)), dtype)
    expect_node("Col2Im", [x, np.array(image), np.array(block)], **form)


@pytest.mark.parametrize("activation", ["none", "silu", "swish"])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_causal_conv_goes_on_where_it_stopped(activation: str, length: int, run_node: NodeRunner) -> None:
    x, weight, bias = normal(2, 3, 6), normal(3, 1, 4), normal(3)
    form = {"outputs": 2, "opset": 27, "activation": activation}
    whole, _ = run_node("CausalConvWithState", [x, weight, bias], **form)
    first, state = run_node("CausalConvWithState", [x[..., :length], weight, bias], **form)
    rest, _ = run_node("CausalConvWithState", [x[..., length:], weight, bias, state], **form)
    np.testing.assert_allclose(np.concatenate([first, rest], axis=2), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("op", "attributes", "shapes"),
    [
        (
            "DeformConv",
            {"group": 2, "offset_group": 2},
            [(1, 4, 3, 3), (2, 2, 2, 2), (1, 16, 2, 2), (2,), (1, 8, 2, 2)],
        ),
        ("ConvTranspose", {"pads": [2, 0], "strides": [2]}, [(1, 2, 4), (2, 2, 3), (2,)]),
        ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [(1, 2, 4, 4), (2, 2, 3, 3), (2,)]),
    ],
)
def test_gradients(op: str, attributes: dict[str, Any], shapes: list[tuple[int, ...]]) -> None:
    entry = find_operator("", op)
    assert entry is not None
    run = entry.build(Node(op, op, "", 20, attributes))
    inputs = [torch.from_numpy(0.6 * RNG.standard_normal(shape)).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(run, inputs, nondet_tol=1e-9)
