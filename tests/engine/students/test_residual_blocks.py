"""Residual blocks are found where there are any, and nothing else is taken for one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from worker.engine.graph import Graph
from worker.engine.students.residual_blocks import find_blocks

MakeGraph = Callable[..., Graph]
W = {"w": np.eye(4, dtype=np.float32), "v": np.eye(4, dtype=np.float32)}

BLOCKS = {
    "stream first": "m = MatMul (x, w)  y = Add (x, m)",
    "stream last": "m = MatMul (x, w)  y = Add (m, x)",
    "Sum of two": "m = MatMul (x, w)  y = Sum (m, x)",
    "shortcut through Identity": "i = Identity (x)  m = MatMul (x, w)  y = Add (i, m)",
    "gate inside": "m = MatMul (x, w)  s = Sigmoid (m)  g = Mul (s, x)  y = Add (x, g)",
    "sizes read elsewhere too": "s = Shape (x)  m = MatMul (x, w)  r = Reshape (m, s)  a = Add (x, r)"
    "  y = Reshape (a, s)",
}
NO_BLOCKS = {
    "shortcut with weights": "m = MatMul (x, w)  n = MatMul (x, v)  y = Add (m, n)",
    "branch without weights": "t = Tanh (x)  y = Add (x, t)",
    "branch read elsewhere": "m = MatMul (x, w)  a = Add (x, m)  y = Mul (a, m)",
    "branch read as an output's size": "m = MatMul (x, w)  a = Add (x, m)  s = Shape (m)  y = Reshape (a, s)",
    "scaled shortcut": "k = Mul (x, x)  m = MatMul (x, w)  y = Add (k, m)",
    "sum of three": "m = MatMul (x, w)  y = Sum (x, m, x)",
    "bias that is read twice": "b = MatMul (x, w)  c = Add (b, bias)  m = MatMul (c, v)  y = Add (bias, m)",
    "twice the branch": "m = MatMul (x, w)  y = Add (m, m)",
}


def _wrap(make_graph: MakeGraph, nodes: str) -> Graph:
    weights = W | ({"bias": np.ones(4, np.float32)} if "bias" in nodes else {})
    return make_graph(f"g (float[n, 4] x) => (float[n, 4] y) {{ {nodes} }}", **weights)


@pytest.mark.parametrize("nodes", BLOCKS.values(), ids=list(BLOCKS))
def test_is_a_block(make_graph: MakeGraph, nodes: str) -> None:
    (block,) = find_blocks(_wrap(make_graph, nodes))
    assert block.branch.name in {"m", "g", "r"}


@pytest.mark.parametrize("nodes", NO_BLOCKS.values(), ids=list(NO_BLOCKS))
def test_is_no_block(make_graph: MakeGraph, nodes: str) -> None:
    assert find_blocks(_wrap(make_graph, nodes)) == []


def test_branches_that_alone_read_an_input_stay(make_graph: MakeGraph) -> None:
    """Without the branch the model would have an input that nothing reads."""
    text = "g (float[n, 4] x, float[n, 4] z) => (float[n, 4] y) { m = MatMul (x, w)  k = Mul (m, z)  y = Add (x, k) }"
    assert find_blocks(make_graph(text, w=W["w"])) == []


def test_a_shortcut_around_blocks_is_none_itself(make_graph: MakeGraph) -> None:
    nodes = "[one] m = MatMul (x, w)  [inner] a = Add (x, m)  [two] k = MatMul (a, v)  [outer] y = Add (x, k)"
    text = f"g (float[n, 4] x) => (float[n, 4] y) {{ {nodes} }}"
    assert [block.sum.name for block in find_blocks(make_graph(text, **W))] == ["inner"]


def test_attention_and_mlp_are_blocks_of_their_own(make_transformer: MakeGraph) -> None:
    names = [block.sum.name for block in find_blocks(make_transformer(2))]
    assert names == ["attend1", "mix1", "attend2", "mix2"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet20_cifar10_jpegtuned", 7),
        ("digits32_mbv2hard", 11),
        ("digits32_vit", 6),
        ("efficientnet_lite0", 9),
        ("exports/bert", 4),
        ("exports/convnext", 5),
        ("exports/gpt2", 4),
        ("exports/llama", 4),
        ("exports/segformer", 8),
        ("exports/yolo", 0),
        ("exports/densenet", 0),
    ],
)
def test_shared_models(shared: Path, name: str, count: int) -> None:
    assert len(find_blocks(Graph.load(shared / "models" / f"{name}.onnx"))) == count
