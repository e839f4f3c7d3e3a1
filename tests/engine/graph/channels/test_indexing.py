"""The rules of operators that look indices up or sample positions: what they leave alone goes exactly, no more."""

from typing import Any

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import prune_exactly
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups


def between(nodes: str, opset: int = 20, **constants: Any) -> Graph:
    """`nodes` make `b` of `a` [batch, 8, 5, 5] that a convolution gives; a mean over positions and a Gemm follow."""
    return make(
        f"""(float[batch, 3, 5, 5] x) => (float[batch, 4] y) {{
          a = Conv <pads = [1, 1, 1, 1]> (x, w, bias)
          {nodes}
          m = ReduceMean <keepdims = 0> (b, last)
          y = Gemm(m, v)
        }}""",
        opset=opset,
        w=(8, 3, 3, 3),
        bias=(8,),
        v=(8, 4),
        last=[2, 3],
        **constants,
    )


INDICES = np.random.default_rng(0).integers(0, 3, (1, 8, 5, 5))
BACK = " b = Transpose <perm = [3, 2, 0, 1]> (t4)"
BESIDE = {
    "GatherElements": "s = Shape(a) i = Expand(indices, s) b = GatherElements <axis = 2> (a, i)",
    "ScatterElements": "s = Shape(a) i = Expand(indices, s) u = Mul(a, a) b = ScatterElements <axis = 2> (a, i, u)",
    "GatherND": "t = Transpose <perm = [2, 3, 1, 0]> (a) g = GatherND(t, pairs) t4 = Unsqueeze(g, front)" + BACK,
    "ScatterND": """t = Transpose <perm = [2, 3, 1, 0]> (a) n = GatherND(t, pairs) u = Mul(n, n)
                    t4 = ScatterND(t, pairs, u)"""
    + BACK,
    "ReverseSequence": """t = Transpose <perm = [2, 3, 1, 0]> (a)
                          t4 = ReverseSequence <batch_axis = 1, time_axis = 0> (t, lengths)"""
    + BACK,
    "RoiAlign": "b = RoiAlign <output_height = 2, output_width = 3> (a, boxes, of)",
    "RoiAlign of maxima": 'b = RoiAlign <output_height = 2, output_width = 3, mode = "max"> (a, boxes, of)',
    "MaxRoiPool": "b = MaxRoiPool <pooled_shape = [2, 2]> (a, regions)",
    "GridSample": """s = Shape <start = 0, end = 1> (a) o = Concat <axis = 0> (s, grid_size) g = Expand(grid, o)
                     b = GridSample(a, g)""",
    "CenterCropPad": "b = CenterCropPad <axes = [2, 3]> (a, cut)",
    "Col2Im": "r = Reshape(a, columns) b = Col2Im(r, image, block)",
    "Det": "d = Det(a) r = Unsqueeze(d, behind) b = Mul(r, a)",
}
CONSTANTS: dict[str, Any] = {
    "indices": INDICES,
    "pairs": [[0, 1], [3, 4], [2, 2]],
    "front": [0],
    "behind": [2, 3],
    "lengths": [5, 3, 1, 2, 4],
    "boxes": np.array([[0, 0, 3, 4], [1, 1, 4, 4]], np.float32),
    "of": [0, 0],
    "regions": np.array([[0, 0, 0, 3, 4], [0, 1, 1, 4, 4]], np.float32),
    "grid": np.random.default_rng(0).uniform(-1, 1, (1, 4, 4, 2)).astype(np.float32),
    "grid_size": [4, 4, 2],
    "cut": [3, 7],
    "columns": [0, -1, 5],
    "image": [5, 5],
    "block": [5, 1],
}


@pytest.mark.parametrize("nodes", BESIDE.values(), ids=BESIDE)
def test_channels_pass(nodes: str) -> None:
    used = {name: value for name, value in CONSTANTS.items() if name in nodes}
    (group,) = prune_exactly(between(nodes, **used)).groups
    assert len(group.units) == 8


def test_a_cache_that_is_written_into() -> None:
    graph = between("u = Relu(a)\n b = TensorScatter <axis = 2> (a, u)", opset=24)
    (group,) = prune_exactly(graph).groups
    assert len(group.units) == 8


@pytest.mark.parametrize(
    "nodes",
    [
        "b = GatherElements <axis = 1> (a, i)",
        "u = Mul(i, i)\n f = Cast <to = 1> (u)\n b = ScatterElements <axis = 1> (a, i, f)",
        "b = GatherElements <axis = 2> (a, fewer)",
    ],
)
def test_channels_that_are_looked_up_stay(nodes: str) -> None:
    graph = make(
        f"""(float[2, 3, 5, 5] x) => (float[k, 4] y) {{
          a = Conv <pads = [1, 1, 1, 1]> (x, w)
          {nodes}
          m = ReduceMean <keepdims = 0> (b, last)
          c = MatMul(m, v)
          y = Tanh(c)
        }}""",
        w=(8, 3, 3, 3),
        v=(6 if "fewer" in nodes else 8, 4),
        last=[2, 3],
        **({"fewer": np.zeros((2, 6, 5, 5), np.int64)} if "fewer" in nodes else {"i": np.tile(INDICES, (2, 1, 1, 1))}),
    )
    assert not find_groups(graph).groups


@pytest.mark.parametrize("offsets", [1, 2])
def test_deformable_convolution(offsets: int) -> None:
    """Channels in go by the groups of their offsets, channels out one by one."""
    graph = make(
        f"""(float[batch, 3, 6, 6] x) => (float[batch, 5, 6, 6] y) {{
          a = Conv <pads = [1, 1, 1, 1]> (x, w, bias)
          offset = Conv <pads = [1, 1, 1, 1]> (x, wo)
          d = DeformConv <pads = [1, 1, 1, 1], offset_group = {offsets}> (a, u, offset, bu)
          y = Conv(d, v)
        }}""",
        w=(8, 3, 3, 3),
        bias=(8,),
        wo=(18 * offsets, 3, 3, 3),
        u=(6, 8, 3, 3),
        bu=(6,),
        v=(5, 6, 1, 1),
    )
    groups = prune_exactly(graph)
    assert [(group.layers, len(group.units), group.width) for group in groups.groups] == [
        (["a"], 8 // offsets, offsets)
    ]
    assert {len(set(member.units.tolist())) for member in groups.members if member.constant in ("bu", "v")} == {6}
