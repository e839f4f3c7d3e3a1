"""The rules of quantization: a graph with Q/DQ pairs loses channels as its float one would, or says to prune before."""

from typing import Any

import numpy as np
import onnx
import pytest

from tests.engine.graph.channels.comparing import choose, make_feeds, prune_exactly
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups
from worker.engine.session import Array, open_session, run_session


def integers(dtype: type | np.dtype[Any], *shape: int, low: int = -100, high: int = 100) -> Array:
    return np.random.default_rng(len(shape)).integers(low, high, shape).astype(dtype)


def scales(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).uniform(0.002, 0.02, shape).astype(np.float32)


def outputs(graph: Graph) -> list[Array]:
    """As each node computes it: ONNX Runtime fuses nothing."""
    session = open_session(graph.proto().SerializeToString(), optimize=False)
    return [run_session(session, feed)[0] for feed in make_feeds(graph)]


def check_unfused(graph: Graph) -> None:
    """Node by node, what is left computes what the masked graph does, to the rounding of float sums."""
    groups = find_groups(graph)
    gone = choose(groups)
    for masked, pruned in zip(outputs(groups.masked(gone)), outputs(groups.remove(gone)), strict=True):
        assert np.abs(masked).max() > 0
        assert pruned == pytest.approx(masked, rel=1e-5, abs=1e-6)


def convolutions(weight: str, bias: str = "b1 = DequantizeLinear <axis = 0> (bq, sb)", **constants: Any) -> Graph:
    """Two convolutions with quantized activations around them; `weight` makes `w1` of what `constants` hold."""
    return make(
        f"""(float[batch, 3, 8, 8] x) => (float[batch, 5] y) {{
          xq = QuantizeLinear(x, sx, zx)
          xd = DequantizeLinear(xq, sx, zx)
          {weight}
          {bias}
          a = Conv <pads = [1, 1, 1, 1]> (xd, w1, b1)
          r = Relu(a)
          rq = QuantizeLinear(r, sr, zr)
          rd = DequantizeLinear(rq, sr, zr)
          w2 = DequantizeLinear <axis = 0> (w2q, s2, z2)
          c = Conv <pads = [1, 1, 1, 1]> (rd, w2)
          g = GlobalAveragePool(c)
          y = Flatten(g)
        }}""",
        **{
            "sx": np.float32(0.02),
            "zx": np.uint8(120),
            "sr": np.float32(0.03),
            "zr": np.uint8(7),
            "bq": integers(np.int32, 8),
            "sb": scales(8),
            "w2q": integers(np.int8, 5, 8, 3, 3),
            "s2": scales(5),
            "z2": np.zeros(5, np.int8),
            **constants,
        },
    )


@pytest.mark.parametrize(
    ("weight", "constants"),
    [
        (
            "w1 = DequantizeLinear <axis = 0> (wq, s1, z1)",
            {"wq": integers(np.uint8, 8, 3, 3, 3, low=0), "s1": scales(8), "z1": integers(np.uint8, 8, low=90)},
        ),
        (
            "w1 = DequantizeLinear(wq, s1, z1)",
            {"wq": integers(np.uint8, 8, 3, 3, 3, low=0), "s1": np.float32(0.01), "z1": np.uint8(90)},
        ),
        (
            "t = DequantizeLinear <axis = 1> (wq, s1)\n w1 = Transpose <perm = [1, 0, 2, 3]> (t)",
            {"wq": integers(np.int8, 3, 8, 3, 3), "s1": scales(8)},
        ),
        (  # as training with fake quantization leaves it
            "q = QuantizeLinear <axis = 0> (w, s1, z1)\n w1 = DequantizeLinear <axis = 0> (q, s1, z1)",
            {
                "w": np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32),
                "s1": scales(8),
                "z1": np.zeros(8, np.int8),
            },
        ),
    ],
    ids=["per channel", "per tensor", "turned", "float behind Q/DQ"],
)
def test_channels_behind_pairs_go_with_their_scales(weight: str, constants: dict[str, Any]) -> None:
    graph = convolutions(weight, **constants)
    (group,) = prune_exactly(graph).groups
    gone = {member.constant for member in group.members}
    assert len(group.units) == 8
    assert {"bq", "sb", "w2q"} < gone
    assert ("s1" in gone) == (constants["s1"].ndim == 1)
    check_unfused(graph)


def test_float_bias_beside_integers() -> None:
    graph = convolutions(
        "w1 = DequantizeLinear <axis = 0> (wq, s1)", "b1 = Identity(b)", wq=integers(np.int8, 8, 3, 3, 3), s1=scales(8),
        b=np.linspace(-1, 1, 8, dtype=np.float32),
    )  # fmt: skip
    assert len(prune_exactly(graph).groups) == 1
    check_unfused(graph)


def matrices(first: Array, second: Array, block: int) -> Graph:
    """Two products whose weights have blocks of 4 rows to a scale."""
    return make(
        f"""(float[batch, 8] x) => (float[batch, 5] y) {{
          w1 = DequantizeLinear <axis = 0, block_size = {block}> (q1, s1, z1)
          a = MatMul(x, w1)
          r = Relu(a)
          w2 = DequantizeLinear <axis = 0, block_size = {block}> (q2, s2, z2)
          y = MatMul(r, w2)
        }}""",
        opset=21,
        q1=first,
        s1=scales(2, first.shape[1]),
        z1=integers(first.dtype, 2, first.shape[1], low=0, high=8),
        q2=second,
        s2=scales(-(-len(second) // block), 5),
        z2=integers(second.dtype, -(-len(second) // block), 5, low=0, high=8),
    )


@pytest.mark.parametrize(("hidden", "expected"), [(12, [(3, 4)]), (10, [(2, 4), (1, 2)])])
def test_blocks_go_whole(hidden: int, expected: list[tuple[int, int]]) -> None:
    """A last block that is short is a group of its own."""
    graph = matrices(integers(np.uint8, 8, hidden, low=0), integers(np.uint8, hidden, 5, low=0), 4)
    assert [(len(group.units), group.width) for group in prune_exactly(graph).groups] == expected
    check_unfused(graph)


def test_integers_of_four_bits() -> None:
    kind = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.UINT4)
    graph = matrices(integers(kind, 8, 12, low=0, high=16), integers(kind, 12, 5, low=0, high=16), 4)
    groups = prune_exactly(graph)
    pruned = groups.remove(groups.groups[0].units[:1])
    assert pruned.array("q1").shape == (8, 8)
    assert pruned.initializer("q1").dtype == groups.graph.initializer("q1").dtype


def between(quantized: str, **constants: Any) -> Graph:
    """Two Gemms and a sum over channels, with `quantized` making `b` of `a`: what is not zero there changes the sum."""
    return make(
        f"""(float[batch, 6] x) => (float[batch, 1] y) {{
          a0 = MatMul(x, w)
          a = Relu(a0)
          {quantized}
          y = ReduceSum(b, last)
        }}""",
        w=(6, 8),
        last=[1],
        **constants,
    )


MATCHED = {
    "a pair": "q = QuantizeLinear(a, s, z) b = DequantizeLinear(q, s, z)",
    "other readers, where zero is 0": """q = QuantizeLinear(a, s, zero) c = Concat <axis = 1> (q, q)
                                         b = DequantizeLinear(c, s, zero)""",
    "a range that holds 0": "q, p, o = DynamicQuantizeLinear(a) b = DequantizeLinear(q, p, o)",
    "stored, turned, where zero is 0": """t = Transpose <perm = [1, 0]> (i) d = DequantizeLinear(t, s, zero)
                                          e = Exp(a) b = Mul(d, e)""",
}
OTHERS = {
    "other zero points": "q = QuantizeLinear(a, s, z) b = DequantizeLinear(q, s, other)",
    "a zero point behind 0": "q = QuantizeLinear(a, s, zero) b = DequantizeLinear(q, s, other)",
    "other readers": "q = QuantizeLinear(a, s, z) c = Concat <axis = 1> (q, q) b = DequantizeLinear(c, s, z)",
    "a range of what is 1": """c = Exp(a) q, p, o = DynamicQuantizeLinear(c) d = DequantizeLinear(q, p, o)
                               b = Mul(d, m)""",
    "stored, turned": """t = Transpose <perm = [1, 0]> (i) d = DequantizeLinear(t, s, z)
                         e = Exp(a) b = Mul(d, e)""",
    "stored, read in two ways": """d = DequantizeLinear(j, s, z) c = DequantizeLinear(j, s, other)
                                   e = Exp(a) f = Mul(d, e) g = Cos(c) b = Mul(f, g)""",
}


def made_of(quantized: str) -> Graph:
    points = {"z": np.uint8(30), "other": np.uint8(31), "zero": np.uint8(0)}
    stored = {"i": integers(np.uint8, 8, 1, low=0), "j": integers(np.uint8, 1, 8, low=0), "m": scales(8)}
    used = {name: array for name, array in stored.items() if f"({name}" in quantized or f" {name})" in quantized}
    return between(quantized, s=np.float32(0.05), **points, **used)


@pytest.mark.parametrize("quantized", MATCHED.values(), ids=MATCHED)
def test_zero_is_the_zero_point(quantized: str) -> None:
    graph = made_of(quantized)
    assert len(prune_exactly(graph).groups) == 1
    check_unfused(graph)


@pytest.mark.parametrize("quantized", OTHERS.values(), ids=OTHERS)
def test_what_is_not_zero_for_sure_stays(quantized: str) -> None:
    assert not find_groups(made_of(quantized)).groups


def test_a_scale_for_each_activation_channel_goes_with_it() -> None:
    graph = between(
        "q = QuantizeLinear(a, s, z)\n b = DequantizeLinear(q, s, z)", s=scales(8), z=integers(np.uint8, 8, low=0)
    )
    (group,) = prune_exactly(graph).groups
    assert {member.constant for member in group.members} == {"w", "s", "z"}


def test_integer_products_ask_to_prune_before() -> None:
    graph = make(
        """(float[batch, 6] x) => (float[batch, 5] y) {
          a = MatMul(x, w)
          q, s, z = DynamicQuantizeLinear(a)
          p = MatMulInteger(q, v, z)
          f = Cast <to = 1> (p)
          y = Mul(f, s)
        }""",
        w=(6, 8),
        v=integers(np.int8, 8, 5),
    )
    groups = find_groups(graph)
    assert not groups.groups
    assert "prune before quantizing" in str(groups.obstacle(graph.layers()[0]))
