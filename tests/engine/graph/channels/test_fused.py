"""The rules of ONNX Runtime's fused operators: as those they were made of."""

import pytest

from tests.engine.graph.channels.comparing import prune_exactly
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups


def summed(nodes: str, inputs: str = "float[batch, 6] x") -> Graph:
    """`nodes` make `a` of 8 channels, to which a layer's are added and all summed: only what is zero masked can go."""
    return make(
        f"""({inputs}) => (float[batch, 1] y) {{
          {nodes}
          z = MatMul(x, v)
          c = Add(a, z)
          y = ReduceSum(c, last)
        }}""",
        w=(6, 8),
        v=(6, 8),
        b=(8,),
        last=[1],
    )


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "LeakyRelu"])
def test_what_leaves_zero_alone(activation: str) -> None:
    parameter = ", activation_alpha = 0.1" if activation == "LeakyRelu" else ""
    nodes = f'a = com.microsoft.FusedGemm <activation = "{activation}"{parameter}> (x, w, b)'
    (group,) = prune_exactly(summed(nodes)).groups
    assert len(group.units) == 8


def test_a_sigmoid_of_zero_counts() -> None:
    assert not find_groups(summed('a = com.microsoft.FusedGemm <activation = "Sigmoid"> (x, w, b)')).groups


def test_products_with_a_factor() -> None:
    (group,) = prune_exactly(summed("a = com.microsoft.FusedMatMul <alpha = 0.5> (x, w)")).groups
    assert len(group.units) == 8


def test_transposed_products_stay() -> None:
    assert not find_groups(
        summed("a = com.microsoft.FusedMatMul <transA = 1> (t, w)", "float[6, batch] t, float[batch, 6] x")
    ).groups


def test_what_is_added_behind_a_convolution_goes_with_it() -> None:
    graph = make(
        """(float[batch, 3, 5, 5] x) => (float[batch, 4, 5, 5] y) {
          z = Conv <pads = [1, 1, 1, 1]> (x, first)
          a = com.microsoft.FusedConv <pads = [1, 1, 1, 1], activation = "Relu"> (x, second, bias, z)
          y = Conv(a, last)
        }""",
        first=(8, 3, 3, 3),
        second=(8, 3, 3, 3),
        bias=(8,),
        last=(4, 8, 1, 1),
    )
    (group,) = prune_exactly(graph).groups
    assert {member.constant for member in group.members} == {"first", "second", "bias", "last"}
