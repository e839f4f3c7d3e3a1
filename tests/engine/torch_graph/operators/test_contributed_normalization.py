"""ONNX Runtime's own normalizations beside its CPU kernels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.table import MICROSOFT

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
WIDTH = 8


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


X, SKIP, GAMMA, BETA, BIAS = normal(2, 3, WIDTH), normal(2, 3, WIDTH), normal(WIDTH), normal(WIDTH), normal(WIDTH)


@pytest.mark.parametrize("rest", [[], [BETA], [BETA, BIAS], [None, BIAS]])
@pytest.mark.parametrize("skip", [SKIP, SKIP[:1], SKIP[0]])
def test_skip_layer_normalization(rest: list[np.ndarray | None], skip: np.ndarray, expect_runtime: NodeRunner) -> None:
    expect_runtime("SkipLayerNormalization", [X, skip, GAMMA, *rest], domain=MICROSOFT, epsilon=1e-5)


@pytest.mark.parametrize("rest", [[], [BIAS]])
def test_skip_simplified_layer_normalization(rest: list[np.ndarray], expect_runtime: NodeRunner) -> None:
    expect_runtime("SkipSimplifiedLayerNormalization", [X, SKIP, GAMMA, *rest], domain=MICROSOFT, epsilon=1e-5)


def test_sum_and_statistics_of_a_skip(run_node: NodeRunner) -> None:
    inputs = [X, SKIP, GAMMA, BETA, BIAS]
    _, mean, inverse, total = run_node("SkipLayerNormalization", inputs, domain=MICROSOFT, outputs=4)
    np.testing.assert_allclose(total, X + SKIP + BIAS, rtol=1e-6)
    np.testing.assert_allclose(mean, total.mean(-1, keepdims=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(inverse, 1 / total.std(-1, keepdims=True), rtol=1e-5)


def test_a_mean_that_does_not_exist_is_refused(run_node: NodeRunner) -> None:
    with pytest.raises(SlimlineError, match="the output mean"):
        run_node("SkipSimplifiedLayerNormalization", [X, SKIP, GAMMA], domain=MICROSOFT, outputs=2)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("axis", [-1, 1])
def test_simplified_layer_normalization(outputs: int, axis: int, expect_runtime: NodeRunner) -> None:
    inputs = [X, normal(*X.shape[axis:])]
    expect_runtime("SimplifiedLayerNormalization", inputs, outputs=outputs, axis=axis, epsilon=1e-5, stash_type=1)


@pytest.mark.parametrize("has_segments", [True, False])
@pytest.mark.parametrize("positions", [None, np.array([[4, 0, 2]]), np.array([[1, 1, 3], [0, 4, 2]])])
def test_embed_layer_normalization(has_segments: bool, positions: np.ndarray | None, run_node: NodeRunner) -> None:
    words, segments = np.array([[1, 5, 2], [8, 0, 3]], np.int32), np.array([[0, 1, 1], [1, 0, 0]], np.int32)
    tables = [normal(9, WIDTH), normal(5, WIDTH), normal(2, WIDTH)]
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.int32)
    y, ends, total = run_node(
        "EmbedLayerNormalization",
        [words, segments if has_segments else None, *tables[:2], tables[2] if has_segments else None, GAMMA, BETA, mask]
        + ([positions.astype(np.int32)] if positions is not None else []),
        domain=MICROSOFT,
        outputs=3,
        epsilon=1e-5,
    )
    places = tables[1][:3] if positions is None else tables[1][positions]
    wanted = tables[0][words] + places + (tables[2][segments] if has_segments else 0)
    np.testing.assert_allclose(total, wanted, rtol=1e-6)
    normalized = (wanted - wanted.mean(-1, keepdims=True)) / np.sqrt(wanted.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, normalized * GAMMA + BETA, rtol=1e-4, atol=1e-5)
    assert ends.tolist() == [2, 3]


@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("is_last", [0, 1])
def test_group_norm(activation: int, is_last: int, run_node: NodeRunner) -> None:
    """ONNX Runtime has it on accelerators only."""
    x = normal(2, WIDTH, 3, 4)
    form = {"groups": 2, "activation": activation, "channels_last": is_last, "epsilon": 1e-3}
    (y,) = run_node("GroupNorm", [np.moveaxis(x, 1, -1) if is_last else x, GAMMA, BETA], domain=MICROSOFT, **form)
    wanted = F.group_norm(torch.from_numpy(x), 2, torch.from_numpy(GAMMA), torch.from_numpy(BETA), 1e-3)
    wanted = F.silu(wanted) if activation else wanted
    np.testing.assert_allclose(np.moveaxis(y, -1, 1) if is_last else y, wanted.numpy(), rtol=1e-5, atol=1e-6)
