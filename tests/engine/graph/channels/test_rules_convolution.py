"""The rules of convolutions: which channels are one, and what stays."""

import pytest

from tests.engine.graph.channels.comparing import obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph


def between(nodes: str, channels: int = 12, **constants: object) -> Graph:
    """`nodes` make `b` of `a` [N, 12, 8, 8], which a convolution gives; another one of `channels` follows."""
    return make(
        f"""(float[N, 3, 8, 8] x) => (float[N, 4, P, Q] y) {{
          c = Conv <pads = [1, 1, 1, 1]> (x, first, first_bias)
          a = Relu(c)
          {nodes}
          d = Relu(b)
          y = Conv(d, last)
        }}""",
        first=(12, 3, 3, 3),
        first_bias=(12,),
        last=(4, channels, 1, 1),
        **constants,
    )


def test_outputs_go_with_the_bias_and_the_next_inputs_and_the_models_outputs_stay() -> None:
    graph = between("b = Conv(a, w, v)", 8, w=(8, 12, 1, 1), v=(8,))
    assert ties(prune_exactly(graph)) == ["12: first[0] first_bias[0] w[1]", "8: last[1] v[0] w[0]"]
    assert obstacles(graph) == {"last": "it is tied to the model's output 'y'"}


def test_depthwise_a_channel_goes_with_its_filter() -> None:
    graph = between("b = Conv <group = 12> (a, w)", w=(12, 1, 3, 3))
    assert ties(prune_exactly(graph)) == ["12: first[0] first_bias[0] last[1] w[0]"]


def test_depthwise_with_two_filters_each_both_go() -> None:
    graph = between("b = Conv <group = 12> (a, w, v)", 24, w=(24, 1, 3, 3), v=(24,))
    (group,) = prune_exactly(graph).groups
    assert len(group.units) == 12
    assert group.layers == ["Conv_0", "Conv_2"] or len(group.layers) == 2


def test_few_groups_lose_the_same_places_each() -> None:
    graph = between("b = Conv <group = 2> (a, w)", 8, w=(8, 6, 3, 3))
    assert ties(prune_exactly(graph)) == ["4: last[1] w[0]", "6: first[0] first_bias[0] w[1]"]


def test_many_groups_go_whole() -> None:
    graph = between("b = Conv <group = 6> (a, w, v)", 18, w=(18, 2, 3, 3), v=(18,))
    assert ties(prune_exactly(graph)) == ["6: first[0] first_bias[0] last[1] v[0] w[0]"]


@pytest.mark.parametrize(
    ("group", "weight", "channels", "expected"),
    [
        (1, (12, 8, 2, 2), 8, ["12: first[0] first_bias[0] w[0]", "8: last[1] w[1]"]),
        (2, (12, 4, 2, 2), 8, ["4: last[1] w[1]", "6: first[0] first_bias[0] w[0]"]),
        (6, (12, 3, 2, 2), 18, ["6: first[0] first_bias[0] last[1] w[0]"]),
        (12, (12, 1, 2, 2), 12, ["12: first[0] first_bias[0] last[1] w[0]"]),
    ],
)
def test_transposed(group: int, weight: tuple[int, ...], channels: int, expected: list[str]) -> None:
    graph = between(f"b = ConvTranspose <group = {group}, strides = [2, 2]> (a, w)", channels, w=weight)
    assert ties(prune_exactly(graph)) == expected


def test_of_one_and_three_dimensions() -> None:
    graph = make(
        """(float[N, 2, L] x) => (float[N, 3, L] y) {
          a = Conv(x, u)
          b = Relu(a)
          c = Unsqueeze(b, ends)
          d = Conv(c, v)
          e = Squeeze(d, ends)
          y = Conv(e, w)
        }""",
        u=(5, 2, 1),
        v=(6, 5, 1, 1, 1),
        w=(3, 6, 1),
        ends=[2, 4],
    )
    assert ties(prune_exactly(graph)) == ["5: u[0] v[1]", "6: v[0] w[1]"]


def test_positions_of_a_kernel_stay_where_it_looks_at_several() -> None:
    """Features that lie where positions do: they pass a kernel of one, and no other."""
    text = """(float[N, 5, 3] x) => (float[N, 7, 4] y) {{
      a = MatMul(x, first)
      b = Conv <pads = {pads}> (a, w, v)
      y = MatMul(b, last)
    }}"""
    one = make(text.format(pads=[0, 0]), first=(3, 8), w=(7, 5, 1), v=(7,), last=(8, 4))
    assert ties(prune_exactly(one)) == ["8: first[1] last[0]"]
    three = make(text.format(pads=[1, 1]), first=(3, 8), w=(7, 5, 3), v=(7,), last=(8, 4))
    assert "looks at several" in obstacles(three)["first"]


def test_channels_that_are_samples_meanwhile_still_go() -> None:
    graph = between("r = Reshape(a, one) f = Conv <pads = [1, 1, 1, 1]> (r, k, v) b = Reshape(f, back)",
                    one=[-1, 1, 8, 8], k=(1, 1, 3, 3), v=(1,), back=[-1, 12, 8, 8])  # fmt: skip
    assert ties(prune_exactly(graph)) == ["12: first[0] first_bias[0] last[1]"]


def test_a_computed_weight_stays_where_nothing_else_is_zero() -> None:
    graph = make(
        """(float[N, 3, 8, 8] x, float[6, 4, 1, 1] given) => (float[N, 2, 8, 8] y) {
          a = Conv(x, first)
          b = Sigmoid(a)
          w = Sigmoid(given)
          c = Conv(b, w)
          y = Conv(c, last)
        }""",
        first=(4, 3, 1, 1),
        last=(2, 6, 1, 1),
    )
    assert "masked it would not be zero" in obstacles(graph)["first"] or "input 'given'" in obstacles(graph)["first"]
