"""Attention and rotary positions in forms that the official node tests leave out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine.torch_graph.kernels.dot_product import Attend
from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import find_operator

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def queries_keys_values(queries: int = 3, keys: int = 4) -> list[np.ndarray]:
    """Two samples, four query heads, two key heads; values are narrower than keys."""
    return [normal(2, 4, queries, 4), normal(2, 2, keys, 4), normal(2, 2, keys, 3)]


@pytest.mark.parametrize("attributes", [{}, {"is_causal": 1}, {"scale": 0.2}, {"softcap": 1.5, "is_causal": 1}])
@pytest.mark.parametrize("mask", [None, "bool", "float", "closed"])
@pytest.mark.parametrize("outputs", [1, 4])
def test_masks(expect_node: NodeRunner, attributes: dict[str, Any], mask: str | None, outputs: int) -> None:
    masks = {
        None: None,
        "bool": RNG.integers(0, 2, (2, 1, 3, 4)).astype(bool),
        "float": normal(4, 3, 4),
        "closed": np.where([[True], [False], [True]], normal(3, 4), -np.inf).astype(np.float32),
    }
    inputs = [*queries_keys_values(), masks[mask]]
    expect_node(
        "Attention", inputs if mask else inputs[:3], opset=23, outputs=outputs, qk_matmul_output_mode=3, **attributes
    )


@pytest.mark.parametrize("attributes", [{}, {"is_causal": 1}, {"left_window_size": 1, "right_window_size": 2}])
def test_past_and_lengths(expect_node: NodeRunner, attributes: dict[str, Any]) -> None:
    inputs = queries_keys_values()
    past = [normal(2, 2, 2, 4), normal(2, 2, 2, 3)]
    expect_node("Attention", [*inputs, None, *past], opset=25, outputs=3, **attributes)
    lengths = np.array([4, 1], np.int64)
    expect_node("Attention", [*inputs, None, None, None, lengths], opset=25, **attributes)
    mask = np.ones((3, 3), bool)  # shorter than the keys: closed behind its end
    expect_node("Attention", [*inputs, mask, None, None, lengths], opset=25, **attributes)


def test_one_row_of_mask_stands_for_all_queries_under_causality(run_node: NodeRunner) -> None:
    # The reference builds its causal frontier for as many queries as the mask has rows.
    inputs, row = queries_keys_values(3, 3), np.array([[True, False, True]])
    wanted = run_node("Attention", [*inputs, row.repeat(3, 0)], opset=23, is_causal=1)
    np.testing.assert_array_equal(run_node("Attention", [*inputs, row], opset=23, is_causal=1), wanted)


def test_raw_scores_have_no_softcap(run_node: NodeRunner) -> None:
    # The reference gives the capped ones; the text of the operator and ONNX Runtime do not.
    q, k, v = normal(1, 1, 2, 4), normal(1, 1, 2, 4), normal(1, 1, 2, 4)
    *_, scores = run_node("Attention", [q, k, v], opset=23, outputs=4, softcap=0.1)
    np.testing.assert_allclose(scores, q @ k.swapaxes(2, 3) / 2, rtol=1e-5, atol=1e-6)


def test_softmax_precision_above_the_kernels(expect_node: NodeRunner) -> None:
    inputs = [each.astype(np.float64) for each in queries_keys_values()]
    expect_node("Attention", inputs, opset=23, softmax_precision=int(ir.DataType.FLOAT))
    expect_node("Attention", inputs, opset=23, softmax_precision=int(ir.DataType.DOUBLE), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mask", [np.ones((3, 4), np.int32), np.ones((3, 4), np.float64)])
def test_a_mask_of_another_type_is_refused(run_node: NodeRunner, mask: np.ndarray) -> None:
    with pytest.raises(SlimlineError) as caught:
        run_node("Attention", [*queries_keys_values(), mask], opset=23)
    assert caught.value.failure.code == "OPERATOR_UNSUPPORTED"


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("closed", ["bool", "float"])
def test_gradients_with_a_row_that_sees_nothing(outputs: int, closed: str) -> None:
    types = (ir.DataType.DOUBLE,) * 3 + (None,)
    node = Node("n", "Attention", "", 24, {}, types, given=(True,) * 4, wanted=(True,) * outputs)
    entry = find_operator("", "Attention")
    assert entry is not None
    run = entry.build(node)
    mask = torch.ones(3, 3, dtype=torch.bool).index_fill(0, torch.tensor([1]), False)
    if closed == "float":
        mask = torch.zeros(3, 3, dtype=torch.double).masked_fill(~mask, -torch.inf)
    tensors = [torch.from_numpy(normal(1, 2, 3, 4)).double().requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: run(q, k, v, mask)[0], tensors)


def test_fused_and_staged_agree() -> None:
    q, k, v = (torch.from_numpy(each) for each in queries_keys_values())
    mask = torch.from_numpy(normal(3, 4))
    torch.testing.assert_close(Attend(0.3).staged(q, k, v, mask)[0], Attend(0.3).fused(q, k, v, mask))


@pytest.mark.parametrize("attributes", [{}, {"interleaved": 1}, {"rotary_embedding_dim": 4}])
@pytest.mark.parametrize("is_flat", [False, True])
def test_rotary_embedding(expect_node: NodeRunner, attributes: dict[str, int], is_flat: bool) -> None:
    pairs = attributes.get("rotary_embedding_dim", 8) // 2
    x = normal(2, 5, 24) if is_flat else normal(2, 3, 5, 8)
    heads = {"num_heads": 3} if is_flat else {}
    expect_node("RotaryEmbedding", [x, normal(2, 5, pairs), normal(2, 5, pairs)], opset=23, **heads, **attributes)
    positions = RNG.integers(0, 9, (2, 5))
    expect_node("RotaryEmbedding", [x, normal(9, pairs), normal(9, pairs), positions], opset=23, **heads, **attributes)


@pytest.mark.parametrize(("rule", "gates"), [("linear", ()), ("gated", (4,)), ("delta", (5,)), ("gated_delta", (4, 5))])
def test_linear_attention(expect_node: NodeRunner, rule: str, gates: tuple[int, ...]) -> None:
    decay, rate = -np.abs(normal(2, 4, 2)), normal(2, 4, 1)
    inputs = [normal(2, 4, 12), normal(2, 4, 6), normal(2, 4, 8), normal(2, 2, 3, 4), decay, rate]
    given = [each if index < 4 or index in gates else None for index, each in enumerate(inputs)]
    heads = {"q_num_heads": 4, "kv_num_heads": 2}
    expect_node("LinearAttention", given, opset=27, outputs=2, update_rule=rule, rtol=1e-4, atol=1e-5, **heads)
