"""Residual networks in ONNX's own text form, samples for them, and both runtimes: what the tests of students share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper, parser

from app.contracts.training import Student
from worker.engine.graph import Graph
from worker.engine.samples import Samples, Synthetic
from worker.engine.session import Array, open_session, run_session
from worker.engine.students.context import StudentContext
from worker.engine.students.student import make_student
from worker.engine.torch_graph import TorchGraph

RESIDUAL_CNN = """g (float[n, 3, 8, 8] x) => (float[n, 5] y) {{
    [stem] a0 = Conv <pads=[1, 1, 1, 1]> (x, stem_w, stem_b)  r0 = Relu (a0)
    {first}
    [down] d = Conv <strides=[2, 2], pads=[1, 1, 1, 1]> (r{narrow}, down_w, down_b)  r{start} = Relu (d)
    {second}
    p = GlobalAveragePool (r{end})  f = Flatten (p)
    [head] y = Gemm <transB=1> (f, head_w, head_b)
}}"""
CNN_BLOCK = """[one{i}] c{i} = Conv <pads=[1, 1, 1, 1]> (r{before}, one{i}_w, one{i}_b)  s{i} = Relu (c{i})
    [two{i}] e{i} = Conv <pads=[1, 1, 1, 1]> (s{i}, two{i}_w, two{i}_b)
    [add{i}] t{i} = Add (r{before}, e{i})  r{i} = Relu (t{i})"""
TRANSFORMER_BLOCK = """[norm{i}] n{i} = LayerNormalization (h{before}, norm{i}_w, norm{i}_b)
    [q{i}] q{i} = MatMul (n{i}, q{i}_w)  [k{i}] k{i} = MatMul (n{i}, k{i}_w)  [v{i}] v{i} = MatMul (n{i}, v{i}_w)
    kt{i} = Transpose <perm=[0, 2, 1]> (k{i})  qk{i} = MatMul (q{i}, kt{i})  m{i} = Add (qk{i}, mask)
    p{i} = Softmax (m{i})  o{i} = MatMul (p{i}, v{i})
    [out{i}] a{i} = MatMul (o{i}, out{i}_w)  [attend{i}] g{i} = Add (h{before}, a{i})
    l{i} = LayerNormalization (g{i}, post{i}_w, post{i}_b)
    [up{i}] u{i} = MatMul (l{i}, up{i}_w)  w{i} = Relu (u{i})  [down{i}] z{i} = MatMul (w{i}, down{i}_w)
    [mix{i}] h{i} = Add (g{i}, z{i})"""


def _graph(text: str, **weights: Any) -> Graph:
    """The graph of `text`, with `weights` as initializers."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items())
    graph = Graph.from_proto(model)
    graph.infer_shapes()
    return graph


def _draw(seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """Normal float32 numbers, smaller where more are summed."""
    generator = np.random.default_rng(seed)
    return {
        name: (generator.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5).astype(np.float32)
        for name, shape in shapes.items()
    }


def _residual_cnn(narrow: int = 3, wide: int = 3) -> Graph:
    """Blocks of 16 channels at 8 x 8, a strided convolution, then blocks of 32 channels at 4 x 4. No BatchNorm."""
    start = narrow + 1
    first = "\n".join(CNN_BLOCK.format(i=i, before=i - 1) for i in range(1, start))
    second = "\n".join(CNN_BLOCK.format(i=i, before=i - 1) for i in range(start + 1, start + wide + 1))
    text = RESIDUAL_CNN.format(first=first, second=second, narrow=narrow, start=start, end=start + wide)
    shapes: dict[str, tuple[int, ...]] = {
        "stem_w": (16, 3, 3, 3), "stem_b": (16,), "down_w": (32, 16, 3, 3), "down_b": (32,),
        "head_w": (5, 32), "head_b": (5,),
    }  # fmt: skip
    for i in (*range(1, start), *range(start + 1, start + wide + 1)):
        width = 16 if i < start else 32
        shapes |= {f"{part}{i}_w": (width, width, 3, 3) for part in ("one", "two")}
        shapes |= {f"{part}{i}_b": (width,) for part in ("one", "two")}
    return _graph(text, **_draw(0, **shapes))


def _transformer(layers: int = 4, width: int = 16) -> Graph:
    """Tokens -> embedding and positions -> attention and MLP in turn -> logits; a causal mask is stored."""
    blocks = "\n".join(TRANSFORMER_BLOCK.format(i=i, before=i - 1) for i in range(1, layers + 1))
    text = f"""g (int64[n, 6] tokens) => (float[n, 6, 11] y) {{
        [embed] e = Gather (table, tokens)  [place] h0 = Add (e, position)
        {blocks}
        [last] l = LayerNormalization (h{layers}, last_w, last_b)
        [head] y = MatMul (l, head_w)
    }}"""
    shapes: dict[str, tuple[int, ...]] = {
        "table": (11, width), "position": (1, 6, width), "head_w": (width, 11), "last_w": (width,), "last_b": (width,)
    }  # fmt: skip
    for i in range(1, layers + 1):
        shapes |= {f"{part}{i}_w": (width, width) for part in ("q", "k", "v", "out")}
        shapes |= {f"up{i}_w": (width, 2 * width), f"down{i}_w": (2 * width, width)}
        shapes |= {f"{part}{i}_{end}": (width,) for part in ("norm", "post") for end in "wb"}
    mask = np.triu(np.full((6, 6), -np.inf, np.float32), 1)
    return _graph(text, mask=mask, **_draw(1, **shapes))


def _samples(graph: Graph, rows: int = 8, batches: int = 2) -> Samples:
    """Seeded inputs: normal floats, small whole numbers."""
    generator = np.random.default_rng(7)

    def feed(size: int) -> dict[str, Array]:
        made: dict[str, Array] = {}
        for spec in graph.inputs:
            shape = [dim if isinstance(dim, int) else size for dim in spec.shape]
            is_float = spec.dtype == "float"
            made[spec.name] = (
                generator.standard_normal(shape).astype(np.float32) if is_float else generator.integers(0, 11, shape)
            )
        return made

    return Samples(graph.inputs, Synthetic([feed(rows) for _ in range(batches)], rows))


def _run_both(graph: Graph, rows: int) -> tuple[list[Array], list[Array]]:
    """Outputs of ONNX Runtime and of torch, on the same inputs."""
    feed = _samples(graph, rows, 1).first()
    with torch.no_grad():
        ours = [each.numpy() for each in TorchGraph(graph)(*(torch.tensor(feed[spec.name]) for spec in graph.inputs))]
    return run_session(open_session(graph.proto().SerializeToString()), feed), ours


@dataclass
class Made:
    """A student with what was noted of it."""

    graph: Graph
    notes: list[str] = field(default_factory=list)


MakeGraph = Callable[..., Graph]
MakeSamples = Callable[..., Samples]
MakeStudent = Callable[..., Made]
RunBoth = Callable[[Graph, int], tuple[list[Array], list[Array]]]


@pytest.fixture(scope="session")
def make_graph() -> MakeGraph:
    return _graph


@pytest.fixture(scope="session")
def make_residual_cnn() -> MakeGraph:
    return _residual_cnn


@pytest.fixture(scope="session")
def make_transformer() -> MakeGraph:
    return _transformer


@pytest.fixture(scope="session")
def make_samples() -> MakeSamples:
    return _samples


@pytest.fixture(scope="session")
def run_both() -> RunBoth:
    return _run_both


@pytest.fixture(scope="session")
def student_of() -> MakeStudent:
    """`student_of(graph, samples=None, seed=0, width=..., depth=..., weights=...)`."""

    def make(graph: Graph, samples: Samples | None = None, seed: int = 0, **wish: Any) -> Made:
        notes: list[str] = []
        context = StudentContext(samples or _samples(graph), seed, "cpu", notes.append)
        return Made(make_student(graph, Student(**wish), context), notes)

    return make
