"""What ONNX Runtime's optimizer fuses, beside its CPU kernels."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.table import MICROSOFT

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
ACTIVATIONS: list[dict[str, Any]] = [
    {"activation": "Relu"},
    {"activation": "Tanh"},
    {"activation": "Sigmoid"},
    {"activation": "LeakyRelu", "activation_params": [0.2]},
    {"activation": "Clip", "activation_params": [-0.3, 0.4]},
    {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
    {},
]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_fused_conv(activation: dict[str, Any], expect_runtime: NodeRunner) -> None:
    x, weight, bias = normal(1, 4, 5, 5), normal(4, 2, 3, 3), normal(4)
    form = {"domain": MICROSOFT, "group": 2, "pads": [1, 1, 0, 1]} | activation
    expect_runtime("FusedConv", [x, weight, bias], **form)
    if activation == {"activation": "Relu"}:
        expect_runtime("FusedConv", [x, weight, bias, normal(1, 4, 4, 5)], **form)


@pytest.mark.parametrize(
    "activation",
    [
        {"activation": "Relu"},
        {"activation": "LeakyRelu", "activation_alpha": 0.2},
        {"activation": "HardSigmoid", "activation_alpha": 0.3, "activation_beta": 0.4},
    ],
)
def test_fused_gemm(activation: dict[str, Any], expect_runtime: NodeRunner) -> None:
    inputs = [normal(3, 4), normal(5, 4), normal(5)]
    expect_runtime("FusedGemm", inputs, domain=MICROSOFT, transB=1, alpha=0.5, beta=2.0, **activation)


@pytest.mark.parametrize("op", ["FusedConv", "FusedGemm"])
def test_an_unknown_activation_is_refused(op: str, run_node: NodeRunner) -> None:
    inputs = [normal(1, 1, 3), normal(1, 1, 2)] if op == "FusedConv" else [normal(2, 2), normal(2, 2)]
    with pytest.raises(SlimlineError, match="'Mystery'"):
        run_node(op, inputs, domain=MICROSOFT, activation="Mystery")


@pytest.mark.parametrize(("moves_a", "swaps_a", "moves_b", "swaps_b"), list(product((0, 1), repeat=4)))
def test_fused_matmul(moves_a: int, swaps_a: int, moves_b: int, swaps_b: int, expect_runtime: NodeRunner) -> None:
    a, b = normal(2, 3, 4, 5), normal(2, 3, 5, 6)
    a, b = (x.swapaxes(-1, -2) if swaps else x for x, swaps in ((a, swaps_a), (b, swaps_b)))
    a, b = (np.ascontiguousarray(np.moveaxis(x, -2, 0) if moves else x) for x, moves in ((a, moves_a), (b, moves_b)))
    form = {"transA": swaps_a, "transB": swaps_b, "transBatchA": moves_a, "transBatchB": moves_b}
    (y,) = expect_runtime("FusedMatMul", [a, b], domain=MICROSOFT, alpha=0.5, **form)
    assert y.shape == (2, 3, 4, 6)


def test_a_vector_is_not_transposed(expect_runtime: NodeRunner) -> None:
    expect_runtime("FusedMatMul", [normal(4), normal(4, 5)], domain=MICROSOFT, transA=1)


@pytest.mark.parametrize(
    ("op", "biased", "form"),
    [
        ("Gelu", False, {}),
        ("BiasGelu", True, {}),
        ("FastGelu", False, {}),
        ("FastGelu", True, {}),
        ("QuickGelu", False, {}),
        ("QuickGelu", False, {"alpha": 1.3}),
    ],
)
def test_gelu(op: str, biased: bool, form: dict[str, float], expect_runtime: NodeRunner) -> None:
    inputs = [3 * normal(2, 3, 8), normal(8)] if biased else [3 * normal(2, 3, 8)]
    expect_runtime(op, inputs, domain=MICROSOFT, **form)


def test_bias_split_gelu(run_node: NodeRunner) -> None:
    """ONNX Runtime has it on accelerators only."""
    x, bias = normal(2, 3, 8), normal(8)
    (y,) = run_node("BiasSplitGelu", [x, bias], domain=MICROSOFT)
    (gated,) = run_node("Gelu", [(x + bias)[..., 4:]], domain=MICROSOFT)
    np.testing.assert_allclose(y, (x + bias)[..., :4] * gated, rtol=1e-4, atol=1e-6)
