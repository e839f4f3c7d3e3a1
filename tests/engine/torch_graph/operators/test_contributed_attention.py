"""Attention of ONNX Runtime beside its CPU kernels: no other implementation of these operators exists."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.table import MICROSOFT

NodeRunner = Callable[..., list[np.ndarray]]
SAMPLES, QUERIES, KEYS, HEADS, SIZE = 2, 3, 5, 2, 4
WIDTH = HEADS * SIZE
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


MASKS = {
    "none": None,
    "lengths": np.array([3, 5], np.int32),
    "keys": np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], np.int32),
    "queries": RNG.integers(0, 2, (SAMPLES, QUERIES, KEYS)).astype(np.int32) | np.eye(QUERIES, KEYS, dtype=np.int32),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("form", [{}, {"scale": 0.3}, {"unidirectional": 1}, {"mask_filter_value": -2.0}])
def test_multi_head_attention(expect_runtime: NodeRunner, mask: str, form: dict[str, Any]) -> None:
    q, k, v = normal(SAMPLES, QUERIES, WIDTH), normal(SAMPLES, KEYS, WIDTH), normal(SAMPLES, KEYS, WIDTH)
    added = normal(1, HEADS, QUERIES, KEYS)
    for inputs in ([q, k, v, normal(3 * WIDTH), MASKS[mask]], [q, k, v, None, MASKS[mask], added]):
        expect_runtime("MultiHeadAttention", inputs, domain=MICROSOFT, num_heads=HEADS, **form)


@pytest.mark.parametrize("unidirectional", [0, 1])
def test_multi_head_attention_with_a_past(expect_runtime: NodeRunner, unidirectional: int) -> None:
    new = [normal(SAMPLES, QUERIES, WIDTH) for _ in range(3)]
    past = [normal(SAMPLES, HEADS, 4, SIZE) for _ in range(2)]
    options = {"domain": MICROSOFT, "num_heads": HEADS, "unidirectional": unidirectional}
    expect_runtime("MultiHeadAttention", [*new, None, None, None, *past], outputs=3, **options)


def test_multi_head_attention_with_heads_apart(expect_runtime: NodeRunner) -> None:
    apart = [normal(SAMPLES, HEADS, KEYS, SIZE) for _ in range(2)]
    inputs = [normal(SAMPLES, QUERIES, WIDTH), *apart, normal(3 * WIDTH)]
    expect_runtime("MultiHeadAttention", inputs, domain=MICROSOFT, num_heads=HEADS)


@pytest.mark.parametrize(
    "mask",
    [
        None,
        np.array([2, 3], np.int32),
        np.array([3, 2, 1, 0], np.int32),  # ends, then starts
        np.array([[1, 1, 0], [0, 1, 1]], np.int32),
    ],
)
@pytest.mark.parametrize("form", [{}, {"unidirectional": 1}])
def test_attention(expect_runtime: NodeRunner, mask: np.ndarray | None, form: dict[str, int]) -> None:
    inputs = [normal(SAMPLES, QUERIES, 6), normal(6, 3 * WIDTH), normal(3 * WIDTH), mask]
    expect_runtime("Attention", inputs, domain=MICROSOFT, num_heads=HEADS, **form)


def test_attention_with_a_past_and_other_sizes(expect_runtime: NodeRunner) -> None:
    x, past = normal(SAMPLES, QUERIES, 6), normal(2, SAMPLES, HEADS, 4, SIZE)
    options = {"domain": MICROSOFT, "num_heads": HEADS}
    weight = [normal(6, 3 * WIDTH), normal(3 * WIDTH)]
    expect_runtime("Attention", [x, *weight, None, past], outputs=2, unidirectional=1, **options)
    added = normal(SAMPLES, HEADS, QUERIES, QUERIES)
    expect_runtime("Attention", [x, *weight, None, None, added], **options)
    wide = [normal(6, 2 * WIDTH + 12), normal(2 * WIDTH + 12)]
    expect_runtime("Attention", [x, *wide], qkv_hidden_sizes=[WIDTH, WIDTH, 12], **options)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", [np.array([2]), np.array([[0, 5, 1], [7, 3, 3]])])
def test_rotary_embedding(expect_runtime: NodeRunner, interleaved: int, positions: np.ndarray) -> None:
    cos, sin = normal(10, 8), normal(10, 8)
    options = {"domain": MICROSOFT, "interleaved": interleaved}
    expect_runtime("RotaryEmbedding", [normal(2, 3, 48), positions, cos, sin], **options)
    expect_runtime("RotaryEmbedding", [normal(2, 4, 3, 16), positions, cos, sin], **options)
    expect_runtime(
        "RotaryEmbedding", [normal(2, 3, 96), positions, cos, sin], num_heads=3, rotary_embedding_dim=16, **options
    )


GROUPS = {"domain": MICROSOFT, "outputs": 3, "num_heads": 4, "kv_num_heads": 2}


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"scale": 0.3},
        {"softcap": 1.5},
        {"local_window_size": 2},
        {"do_rotary": 1},
        {"do_rotary": 1, "rotary_interleaved": 1},
    ],
)
@pytest.mark.parametrize(
    ("queries", "cache", "last", "total"),
    [(3, None, [2, 2], 3), (3, 8, [2, 2], 3), (1, 4, [4, 2], 5), (1, 8, [4, 4], 5), (2, 4, [5], 6)],
)
def test_group_query_attention(
    expect_runtime: NodeRunner, form: dict[str, Any], queries: int, cache: int | None, last: list[int], total: int
) -> None:
    samples = len(last)
    new = [normal(samples, queries, heads * 16) for heads in (4, 2, 2)]
    past = [None if cache is None else normal(samples, 2, cache, 16) for _ in range(2)]
    lengths = [np.array(last, np.int32), np.array([total], np.int32)]
    angles = [normal(9, 8), normal(9, 8)] if "do_rotary" in form else []
    expect_runtime("GroupQueryAttention", [*new, *past, *lengths, *angles], **GROUPS, **form)


def test_group_query_attention_packed(expect_runtime: NodeRunner) -> None:
    lengths = [np.array([2, 2], np.int32), np.array([3], np.int32)]
    inputs = [normal(2, 3, 8 * 16), None, None, None, None, *lengths, normal(9, 8), normal(9, 8)]
    expect_runtime("GroupQueryAttention", inputs, do_rotary=1, **GROUPS)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("MultiHeadAttention", [normal(2, 3, HEADS, 3, SIZE)], {"num_heads": HEADS}),
        ("Attention", [normal(2, 3, 6), normal(6, 24), normal(24)], {"num_heads": HEADS, "do_rotary": 1}),
        ("RotaryEmbedding", [normal(2, 3, 16), np.array([0]), normal(9, 8), normal(9, 8)], {"scale": 2.0}),
    ],
)
def test_other_forms_are_refused(
    run_node: NodeRunner, op: str, inputs: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    with pytest.raises(SlimlineError) as caught:
        run_node(op, inputs, domain=MICROSOFT, **attributes)
    assert caught.value.failure.code == "OPERATOR_UNSUPPORTED"
