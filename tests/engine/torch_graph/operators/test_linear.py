"""Matrix products in types, transpositions and sizes that the official node tests leave out."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it

from worker.engine.torch_graph.node import Node
from worker.engine.torch_graph.table import find_operator

NodeRunner = Callable[..., list[np.ndarray]]
RNG = np.random.default_rng(0)
INTEGERS = [np.int32, np.int64, np.uint32, np.uint64]


def whole(dtype: type, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype=dtype)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize(
    ("a", "b"), [((3, 4), (4, 2)), ((2, 3, 4), (4,)), ((4,), (4,)), ((0, 4), (4, 2)), ((3, 0), (0, 2))]
)
def test_products_of_whole_numbers_wrap(
    expect_node: NodeRunner, dtype: type, a: Sequence[int], b: Sequence[int]
) -> None:
    expect_node("MatMul", [whole(dtype, *a), whole(dtype, *b)], rtol=0, atol=0)


@pytest.mark.parametrize("c", [(2,), (1,), (3, 1), (1, 2), (3, 2), (), None])
@pytest.mark.parametrize("scales", [{}, {"alpha": 0.5, "beta": 0.25}, {"beta": 0.0}])
@pytest.mark.parametrize("turns", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint64])
def test_gemm(
    expect_node: NodeRunner, c: tuple[int, ...] | None, scales: dict[str, float], turns: tuple[int, int], dtype: type
) -> None:
    def numbers(*shape: int) -> np.ndarray:
        return normal(*shape) if dtype is np.float32 else np.asarray(RNG.integers(0, 50, shape)).astype(dtype)

    a, b = numbers(*((4, 3) if turns[0] else (3, 4))), numbers(*((2, 4) if turns[1] else (4, 2)))
    inputs = [a, b] if c is None else [a, b, numbers(*c)]
    expect_node("Gemm", inputs, opset=13, transA=turns[0], transB=turns[1], **scales)


def test_the_gemm_of_a_linear_layer_is_bit_for_bit_torchs() -> None:
    entry = find_operator("", "Gemm")
    assert entry is not None
    run = entry.build(Node("n", "Gemm", "", 20, {"alpha": 1.0, "beta": 1.0, "transB": 1}, given=(True,) * 3))
    x, w, b = (torch.from_numpy(normal(*shape)) for shape in ((5, 7), (3, 7), (3,)))
    assert torch.equal(run(x, w, b), F.linear(x, w, b))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint32, np.uint64, np.int16])
@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("Ba,aC", [(2, 3), (3, 4)]),  # upper case sorts first
        ("...ij , ...jk", [(2, 3, 4), (4, 5)]),
        ("a...a->...a", [(3, 2, 3)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 2)]),
        ("i->", [(0,)]),
        (",->", [(), ()]),
    ],
)
def test_einsum(expect_node: NodeRunner, dtype: type, equation: str, shapes: list[tuple[int, ...]]) -> None:
    inputs = [(RNG.standard_normal(shape) * 9).astype(dtype) for shape in map(list, shapes)]
    inputs = [np.asarray(each) for each in inputs]
    expect_node("Einsum", inputs, opset=12, equation=equation, rtol=1e-4)
