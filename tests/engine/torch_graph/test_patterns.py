"""Patterns of nodes that become one function, and graphs that look almost like them: both are as the reference says."""

from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from worker.engine import Graph, TorchGraph

GELU = (
    "g (float[a, b] x, float[a, b] z) => (float[] y) <float half = {0.5}, float one = {1}, float root = {1.4142135}> "
)
GELU_NODES = "{ d = Div (x, root)  e = Erf (d)  p = Add (e, one)  m = Mul (x, p)  y = Mul (m, half) }"
GATED = "g (float[a, b] x, float[a, b] z) => (float[] y) "
NORM = """g (float[a, b, 8] x, float[a, b, 8] z) => (float[] y) <float two = {2}, float eps = {0.00001}> {
    m = ReduceMean <axes = [-1]> (x)  c = Sub (x, m)  s = Pow (c, two)  v = ReduceMean <axes = [-1]> (s)
    e = Add (v, eps)  r = Sqrt (e)  n = Div (c, r)  w = Mul (n, scale)  y = Add (w, bias) }"""
ATTEND = "g (float[n, 2, l, 4] q, float[n, 2, 4, k] t, float[n, 2, k, 4] v) => (float[] y) <float f = {0.3}> "
ATTEND_NODES = "{ p = MatMul (q, t)  c = Mul (p, f)  a = Softmax <axis = -1> (c)  y = MatMul (a, v) }"
QDQ = "g (float[3, 4] x) => (float[] y) <float s = {0.1}, uint8 z = {3}, uint8 other = {4}> "
EIGHT = np.linspace(-1, 2, 8, dtype=np.float32)
ONE = np.array([2.5], np.float32)


def gelu(**replaced: str) -> str:
    """The written-out GELU, one of its nodes another."""
    nodes = GELU_NODES
    for name, node in replaced.items():
        start = nodes.index(f"{name} = ")
        end = nodes.index(")", start) + 1
        nodes = nodes[:start] + f"{name} = {node}" + nodes[end:]
    return GELU + nodes


ELEMENTWISE = {
    "gelu": gelu(),
    "gelu with its half first": gelu(m="Mul (x, half)", y="Mul (m, p)"),
    "gelu by a product": gelu(d="Mul (x, near)").replace("<float", "<float near = {0.70710678}, float"),
    "erf of another tensor": gelu(d="Div (z, root)"),
    "the other way divided": gelu(d="Div (root, x)"),
    "a product with itself": gelu(m="Mul (p, p)"),
    "another number than a half": gelu(y="Mul (m, one)"),
    "silu": GATED + "{ s = Sigmoid (x)  y = Mul (x, s) }",
    "a sigmoid by itself": GATED + "{ s = Sigmoid (x)  y = Mul (s, s) }",
    "a sigmoid of another": GATED + "{ s = Sigmoid (z)  y = Mul (x, s) }",
    "hard swish": GATED + "{ s = HardSigmoid <alpha = 0.16666667> (x)  y = Mul (x, s) }",
    "another slope": GATED + "{ s = HardSigmoid (x)  y = Mul (x, s) }",
    "another shift": GATED + "{ s = HardSigmoid <alpha = 0.16666667, beta = 0.25> (x)  y = Mul (x, s) }",
}
NORMS = {
    "layer normalization": (NORM, EIGHT, EIGHT),
    "over another axis": (NORM.replace("-1", "1"), EIGHT, EIGHT),
    "variance over another axis": (NORM.replace("[-1]> (s)", "[1]> (s)"), EIGHT, EIGHT),
    "over two axes": (NORM.replace("-1", "1, 2"), EIGHT, EIGHT),
    "variance of another": (NORM.replace("s = Pow (c, two)", "o = Sub (z, m)  s = Pow (o, two)"), EIGHT, EIGHT),
    "a cube": (NORM.replace("two = {2}", "two = {4}"), EIGHT, EIGHT),
    "a scale of one number": (NORM, ONE, EIGHT),
    "a bias of one number": (NORM, EIGHT, ONE),
}  # fmt: skip
ATTENTION = {
    "attention": ATTEND + ATTEND_NODES,
    "a quotient": ATTEND + ATTEND_NODES.replace("Mul (p, f)", "Div (p, f)"),
    "a number divided": ATTEND + ATTEND_NODES.replace("Mul (p, f)", "Div (f, p)"),
    "another axis": ATTEND + ATTEND_NODES.replace("-1", "2"),
    "no scale": ATTEND + ATTEND_NODES.replace("Mul (p, f)", "Identity (p)"),
}
QUANTIZED = {
    "fake quantization": QDQ + "{ c = QuantizeLinear (x, s, z)  y = DequantizeLinear (c, s, z) }",
    "another zero point": QDQ + "{ c = QuantizeLinear (x, s, z)  y = DequantizeLinear (c, s, other) }",
    "no zero point": QDQ + "{ c = QuantizeLinear (x, s)  y = DequantizeLinear (c, s) }",
}


def compare(text: str, opset: int, *inputs: Any, **weights: Any) -> None:
    """Run the graph here and in the reference."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(each, name) for name, each in weights.items())
    feed = {value.name: each for value, each in zip(model.graph.input, inputs, strict=True)}
    results: Any = ReferenceEvaluator(model).run(None, feed)
    wanted = results[0]
    with torch.no_grad():
        (y,) = TorchGraph(Graph.from_proto(model))(*map(torch.from_numpy, inputs))
    assert tuple(y.shape) == wanted.shape
    np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("text", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_activations(text: str, rng: np.random.Generator) -> None:
    compare(text, 17, *(rng.standard_normal((2, 3, 4)).astype(np.float32) * 3))


@pytest.mark.parametrize(("text", "scale", "bias"), NORMS.values(), ids=NORMS)
def test_layer_normalization(text: str, scale: Any, bias: Any, rng: np.random.Generator) -> None:
    compare(text, 17, *rng.standard_normal((2, 2, 3, 8)).astype(np.float32), scale=scale, bias=bias)


@pytest.mark.parametrize("text", ATTENTION.values(), ids=ATTENTION)
def test_attention(text: str, rng: np.random.Generator) -> None:
    shapes = (2, 2, 3, 4), (2, 2, 4, 5), (2, 2, 5, 4)
    compare(text, 17, *(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


@pytest.mark.parametrize("text", QUANTIZED.values(), ids=QUANTIZED)
def test_fake_quantization(text: str, rng: np.random.Generator) -> None:
    compare(text, 19, rng.standard_normal((3, 4)).astype(np.float32) * 20)


INSIDE = {
    "s": ELEMENTWISE["silu"],
    "e": ELEMENTWISE["gelu"],
    "c": QUANTIZED["fake quantization"],
}


@pytest.mark.parametrize(("name", "text"), INSIDE.items(), ids=INSIDE)
def test_what_an_observer_puts_inside_a_pattern_is_used(name: str, text: str) -> None:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 19]>\n{text}')
    module = TorchGraph(Graph.from_proto(model))
    inputs = [torch.full((3, 4), 2.0)] * len(model.graph.input)
    (before,) = module(*inputs)
    with module.observe(name, torch.zeros_like):
        (after,) = module(*inputs)
    assert not torch.equal(before, after)


def test_a_gradient_reaches_an_observed_tensor_inside_a_pattern() -> None:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 19]>\n{ELEMENTWISE["silu"]}')
    module, gradients = TorchGraph(Graph.from_proto(model)), list[torch.Tensor]()
    x = torch.full((3, 4), 2.0, requires_grad=True)

    def listen(gate: torch.Tensor) -> None:
        gate.register_hook(gradients.append)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    with module.observe("s", listen):
        module(x, x)[0].sum().backward()
    assert len(gradients) == 1
    assert torch.equal(gradients[0], x)
