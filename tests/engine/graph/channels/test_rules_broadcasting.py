"""The rules of operators that work element by element: operands are tied where they span an axis, zero is followed."""

import numpy as np
import pytest

from tests.engine.graph.channels.comparing import obstacles, prune_exactly, ties
from tests.engine.graph.channels.writing import make
from worker.engine.graph import Graph
from worker.engine.graph.channels import find_groups

FREE = ["8: first[0] last[1]"]


def between(nodes: str, opset: int = 22, **constants: object) -> Graph:
    """`nodes` make `b` of `a` [N, 8, 6, 6], whose channels another convolution reads."""
    return make(
        f"""(float[N, 3, 6, 6] x) => (float[N, 4, 6, 6] y) {{
          a = Conv(x, first)
          {nodes}
          y = Conv(b, last)
        }}""",
        opset=opset,
        first=(8, 3, 1, 1),
        last=(4, 8, 1, 1),
        **constants,
    )


def summed(nodes: str, opset: int = 22, **constants: object) -> Graph:
    """As `between`, but channels are summed: only those that are zero where masked can go."""
    return make(
        f"""(float[N, 3, 6, 6] x) => (float[N, 1, 6, 6] y) {{
          a = Conv(x, first)
          {nodes}
          y = ReduceSum(b, channels)
        }}""",
        opset=opset,
        first=(8, 3, 1, 1),
        channels=[1],
        **constants,
    )


LEAVE_ZERO = (
    "Abs", "Asinh", "Atan", "Ceil", "Celu", "Elu", "Erf", "Floor", "Gelu", "HardSwish", "Identity", "LeakyRelu",
    "Mish", "Neg", "Relu", "Round", "Selu", "Sign", "Sin", "Sinh", "Softsign", "Tanh", "ThresholdedRelu", "Dropout",
)  # fmt: skip
MOVE_ZERO = ("Cos", "Cosh", "Exp", "HardSigmoid", "Sigmoid", "Softplus", "Shrink")


@pytest.mark.parametrize("op", LEAVE_ZERO)
def test_what_leaves_zero_alone(op: str) -> None:
    assert ties(prune_exactly(summed(f"b = {op}(a)"), seeds=[0])) == ["8: first[0]"]


@pytest.mark.parametrize("op", MOVE_ZERO)
def test_what_makes_something_of_zero(op: str) -> None:
    assert "runs over it" in obstacles(summed(f"b = {op}(a)"))["first"]
    assert ties(prune_exactly(between(f"b = {op}(a)"), seeds=[0])) == FREE


WITH_OPERAND = {
    "Add": ("b = Add(a, p)", (8, 1, 1), True),
    "Add of one number": ("b = Add(a, p)", (1,), False),
    "Add of a map": ("b = Add(a, p)", (6, 6), False),
    "Sub": ("b = Sub(p, a)", (1, 8, 1, 1), True),
    "Mul": ("b = Mul(p, a)", (8, 1, 1), True),
    "Mul by one number": ("b = Mul(p, a)", (), True),
    "Max": ("b = Max(a, p)", (8, 1, 1), True),
    "Mean": ("b = Mean(a, p, a)", (8, 1, 1), True),
    "PRelu": ("b = PRelu(a, p)", (8, 1, 1), True),
    "PRelu of one number": ("b = PRelu(a, p)", (1,), True),
    "Div": ("b = Div(a, p)", (8, 1, 1), True),
    "Div of a constant": ("e = Exp(a) b = Div(p, e)", (8, 1, 1), True),
    "Div of one number": ("e = Exp(a) b = Div(p, e)", (1,), False),
    "Mul of what is not zero": ("e = Exp(a) s = Sigmoid(a) b = Mul(e, s)", (1,), False),
    "Where": ("c = Greater(a, p) z = Relu(a) b = Where(c, a, z)", (8, 1, 1), True),
    "Where of a number": ("c = Greater(a, p) b = Where(c, a, p)", (1,), False),
}


@pytest.mark.parametrize("kind", WITH_OPERAND)
def test_an_operand(kind: str) -> None:
    nodes, shape, leaves_zero = WITH_OPERAND[kind]
    graph = summed(nodes, p=shape)
    if leaves_zero:
        own = f" p[{shape.index(8)}]" if 8 in shape else ""
        assert ties(prune_exactly(graph)) == [f"8: first[0]{own}"]
    else:
        assert "runs over it" in obstacles(graph)["first"]
    prune_exactly(between(nodes, p=shape))


@pytest.mark.parametrize(("exponent", "leaves_zero"), [(2.0, True), (0.5, True), (0.0, False), (-1.0, False)])
def test_powers(exponent: float, leaves_zero: bool) -> None:
    graph = summed("c = Abs(a) b = Pow(c, p)", p=np.float32(exponent))
    assert bool(find_groups(graph).groups) == leaves_zero


@pytest.mark.parametrize(
    ("bounds", "leaves_zero"),
    [("low, six", True), ("low", True), (", six", True), ("half, six", False), (", low", False), ("low, least", True)],
)
def test_clip(bounds: str, leaves_zero: bool) -> None:
    numbers = {"low": -0.5, "half": 0.5, "six": 6.0, "least": 0.0}
    graph = summed(f"b = Clip(a, {bounds})", **{name: np.float32(number) for name, number in numbers.items()})
    assert bool(find_groups(graph).groups) == leaves_zero
    prune_exactly(between(f"b = Clip(a, {bounds})", **{name: np.float32(number) for name, number in numbers.items()}))


def test_a_residual_stream_is_one() -> None:
    nodes = """c = Conv(a, u) d = Relu(c) e = Conv(d, v) f = Add(a, e) g = Conv(f, w) b = Sum(f, g, a)"""
    graph = between(nodes, u=(5, 8, 1, 1), v=(8, 5, 1, 1), w=(8, 8, 1, 1))
    assert ties(prune_exactly(graph)) == ["5: u[0] v[1]", "8: first[0] last[1] u[1] v[0] w[0] w[1]"]


def test_a_gate_is_tied_to_what_it_gates() -> None:
    """Squeeze and excitation: its inner channels are free."""
    nodes = """m = GlobalAveragePool(a) c = Conv(m, u, p) d = Relu(c) e = Conv(d, v, q) s = HardSigmoid(e)
               b = Mul(a, s)"""
    graph = between(nodes, u=(5, 8, 1, 1), p=(5,), v=(8, 5, 1, 1), q=(8,))
    assert ties(prune_exactly(graph)) == ["5: p[0] u[0] v[1]", "8: first[0] last[1] q[0] u[1] v[0]"]


def test_a_gate_of_one_number_ties_nothing() -> None:
    nodes = "c = Conv(a, u) s = Sigmoid(c) b = Mul(a, s)"
    graph = between(nodes, u=(1, 8, 1, 1))
    assert ties(prune_exactly(graph)) == ["8: first[0] last[1] u[1]"]
    assert obstacles(graph)["u"] == "there is only one"


def test_a_sum_with_the_models_input_stays() -> None:
    graph = make("(float[N, 8] x) => (float[N, 3] y) { a = MatMul(x, first) b = Add(a, x) y = MatMul(b, last) }",
                 first=(8, 8), last=(8, 3))  # fmt: skip
    assert obstacles(graph)["first"] == "it is tied to the model's input 'x'"


def test_an_operator_that_is_not_known_blocks_what_it_reads() -> None:
    graph = between("h = Hardmax <axis = 3> (a) c = MeanVarianceNormalization <axes = [2, 3]> (a) b = Add(h, c)")
    assert "without a rule" in obstacles(graph)["first"]
