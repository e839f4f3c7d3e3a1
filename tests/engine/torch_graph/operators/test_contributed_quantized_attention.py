"""QAttention beside ONNX Runtime's CPU kernel: no other implementation of it exists."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from app.contracts.failure import SlimlineError
from worker.engine import Graph, TorchGraph
from worker.engine.torch_graph.table import MICROSOFT

NodeRunner = Callable[..., list[np.ndarray]]
SAMPLES, QUERIES, PAST, HEADS, SIZE, INPUTS = 2, 3, 2, 2, 4, 6
WIDTH, KEYS = HEADS * SIZE, PAST + QUERIES
RNG = np.random.default_rng(0)
OPTIONS = {"domain": MICROSOFT, "num_heads": HEADS}


def inputs_of(
    dtype: type = np.int8, columns: tuple[int, ...] = (), mask: np.ndarray | None = None, *, has_zeros: bool = True
) -> list[np.ndarray | None]:
    """All inputs but the past. Codes of weights have 7 bits, which no CPU saturates."""
    codes = RNG.integers(-64, 64, (INPUTS, 3 * WIDTH)) + (0 if dtype is np.int8 else 64)
    x_scale, w_scale = np.float32(0.01), RNG.uniform(0.002, 0.01, columns).astype(np.float32)
    zeros = [np.array(121, np.uint8), RNG.integers(3, 60, columns).astype(dtype)] if has_zeros else [None, None]
    x, bias = RNG.integers(0, 256, (SAMPLES, QUERIES, INPUTS)), RNG.standard_normal(3 * WIDTH)
    floats = [bias.astype(np.float32), np.array(x_scale), np.array(w_scale)]
    return [x.astype(np.uint8), codes.astype(dtype), *floats, mask, *zeros]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("columns", [(), (1,), (3 * WIDTH,)])
@pytest.mark.parametrize("has_zeros", [True, False])
def test_weights(expect_runtime: NodeRunner, dtype: type, columns: tuple[int, ...], has_zeros: bool) -> None:
    expect_runtime("QAttention", inputs_of(dtype, columns, has_zeros=has_zeros), **OPTIONS)


@pytest.mark.parametrize(
    "mask",
    [
        None,
        np.array([3, 5], np.int32),
        np.array([4, 2, 1, 0], np.int32),  # ends, then starts
        np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], np.int32),
        RNG.integers(0, 2, (SAMPLES, QUERIES, KEYS)).astype(np.int32) | np.eye(QUERIES, KEYS, PAST, dtype=np.int32),
        np.zeros((SAMPLES, 1), np.int32),  # no mask, though it is zero
        np.ones((1, 1), np.int32),
    ],
)
@pytest.mark.parametrize("form", [{}, {"unidirectional": 1}, {"scale": 0.3}, {"mask_filter_value": -2.0}])
def test_masks_and_a_past(expect_runtime: NodeRunner, mask: np.ndarray | None, form: dict[str, Any]) -> None:
    past = RNG.standard_normal((2, SAMPLES, HEADS, PAST, SIZE)).astype(np.float32)
    expect_runtime("QAttention", [*inputs_of(mask=mask), past], outputs=2, **OPTIONS, **form)


def test_gradients_reach_scales_bias_and_past() -> None:
    names = ["x", "w", "b", "x_scale", "w_scale", "", "x_zero", "w_zero", "past"]
    past = RNG.standard_normal((2, SAMPLES, HEADS, PAST, SIZE)).astype(np.float32)
    given = {name: each for name, each in zip(names, [*inputs_of(), past], strict=True) if name}
    fed = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in given.items()
    ]
    node = helper.make_node("QAttention", names, ["y"], **OPTIONS)
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(helper.make_graph([node], "one", fed, results), opset_imports=imports, ir_version=10)
    tensors = {name: torch.from_numpy(x) for name, x in given.items()}
    floats = {name: x.requires_grad_() for name, x in tensors.items() if x.is_floating_point()}
    (y,) = TorchGraph(Graph.from_proto(model))(*tensors.values())
    weighted = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    (y * weighted).sum().backward()
    with torch.no_grad():  # the two scales only ever multiply one another
        along = [floats[name].grad * floats[name] for name in ("x_scale", "w_scale")]
    assert floats.keys() == {"b", "x_scale", "w_scale", "past"}
    assert all(each.grad.abs().max() > 0 for each in floats.values())
    torch.testing.assert_close(*along)


@pytest.mark.parametrize(
    ("change", "attributes"),
    [
        ({}, {"do_rotary": 1}),
        ({}, {"past_present_share_buffer": 1}),
        ({0: np.zeros((SAMPLES, QUERIES, INPUTS), np.int8)}, {}),
        ({5: np.ones((SAMPLES, 1, QUERIES, QUERIES), np.int32)}, {}),
    ],
)
def test_other_forms_are_refused(
    run_node: NodeRunner, change: dict[int, np.ndarray], attributes: dict[str, int]
) -> None:
    inputs = [change.get(index, each) for index, each in enumerate(inputs_of())]
    with pytest.raises(SlimlineError) as caught:
        run_node("QAttention", inputs, **OPTIONS, **attributes)
    assert caught.value.failure.code == "OPERATOR_UNSUPPORTED"
