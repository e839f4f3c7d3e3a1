"""What an observer sees and may replace, and that a call keeps no tensor longer than its last reader."""

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper, parser
from torch.utils._python_dispatch import TorchDispatchMode

from worker.engine import Graph, TorchGraph

TWO_LAYERS = """g (float[n, 4] x) => (float[n, 2] y) {
    [first] a = MatMul (x, w1)  [activate] h = Relu (a)  [second] y = MatMul (h, w2)
}"""
BRANCHES = """g (bool first, float[2] x) => (float[2] y) {
    [choose] z = If (first) <
        then_branch = t () => (float[2] u) { [twice] inside = Add (x, x)  u = Neg (inside) },
        else_branch = e () => (float[2] v) { v = Identity (x) }
    >
    y = Relu (z)
}"""
LOOP = """g (float[2] x, int64 trips) => (float[2] y) {
    [loop] y = Loop (trips, , x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t) {
        d = Identity (c)  [grow] twice = Add (s, s)  t = Identity (twice)
    }>
}"""


def module_of(text: str, **weights: Any) -> TorchGraph:
    """The module of the graph written in ONNX's own text form, with `weights` as initializers."""
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items())
    return TorchGraph(Graph.from_proto(model))


@pytest.fixture
def layers() -> TorchGraph:
    rng = np.random.default_rng(0)
    w1, w2 = rng.standard_normal((4, 3)), rng.standard_normal((3, 2))
    return module_of(TWO_LAYERS, w1=w1.astype(np.float32), w2=w2.astype(np.float32))


def test_streaming_statistics_of_a_tensor(layers: TorchGraph) -> None:
    totals, peaks = [], []

    def note(tensor: torch.Tensor) -> None:
        totals.append(tensor.detach().double().sum(0))
        peaks.append(tensor.detach().amax(0))

    batches = [torch.randn(5, 4) for _ in range(3)]
    with layers.observe("h", note), torch.no_grad():
        for batch in batches:
            layers(batch)
    wanted = torch.relu(torch.cat(batches) @ layers.get_parameter("w1").detach())
    assert torch.allclose(sum(totals) / 15, wanted.double().mean(0), atol=1e-6)  # type: ignore[arg-type]  # not empty
    assert torch.equal(torch.stack(peaks).amax(0), wanted.amax(0))


def test_an_input_and_an_output_can_be_observed(layers: TorchGraph) -> None:
    seen: dict[str, torch.Tensor] = {}
    for name in ("x", "a", "y"):
        layers.observe(name, partial(seen.__setitem__, name))
    x = torch.randn(2, 4)
    (y,) = layers(x)
    assert seen["x"] is x
    assert seen["y"] is y
    assert torch.equal(seen["a"], x @ layers.get_parameter("w1"))


def test_inside_a_branch_it_is_called_when_the_branch_runs() -> None:
    module, seen = module_of(BRANCHES), []
    module.observe("inside", lambda tensor: seen.append(tensor.tolist()))
    module(torch.tensor(False), torch.tensor([1.0, 2.0]))
    assert seen == []
    module(torch.tensor(True), torch.tensor([1.0, 2.0]))
    assert seen == [[2, 4]]


def test_inside_a_loop_it_is_called_once_an_iteration() -> None:
    module, seen = module_of(LOOP), []
    module.observe("twice", lambda tensor: seen.append(tensor.tolist()))
    module.observe("s", lambda tensor: seen.append(tensor.tolist()))
    module(torch.tensor([1.0, 3.0]), torch.tensor(3))
    assert seen == [[1, 3], [2, 6], [2, 6], [4, 12], [4, 12], [8, 24]]


@pytest.mark.parametrize("name", ["x", "a", "h", "y"])
def test_what_an_observer_gives_back_takes_the_place(layers: TorchGraph, name: str) -> None:
    x, w1, w2 = torch.randn(2, 4), layers.get_parameter("w1"), layers.get_parameter("w2")
    with layers.observe(name, torch.zeros_like):
        (y,) = layers(x)
    assert torch.equal(y, torch.zeros(2, 2))
    assert torch.allclose(layers(x)[0], torch.relu(x @ w1) @ w2)


def test_a_replacement_in_a_loop_is_what_the_next_iteration_gets() -> None:
    module = module_of(LOOP)
    with module.observe("twice", lambda tensor: tensor + 1):
        assert module(torch.tensor([1.0, 0.0]), torch.tensor(3))[0].tolist() == [15, 7]


def test_a_replaced_shape_is_what_later_nodes_get() -> None:
    module = module_of("g (float[2, 3] x) => (float[n, m] y) { s = Shape (x)  y = Reshape (x, s) }")
    with module.observe("s", lambda sizes: sizes.flip(0)):
        assert module(torch.ones(2, 3))[0].shape == (3, 2)


def test_several_observers_are_called_in_order_and_end_one_by_one(layers: TorchGraph) -> None:
    seen: list[str] = []
    first = layers.observe("h", lambda _: seen.append("first"))
    with layers.observe("h", lambda _: seen.append("second")):
        layers(torch.ones(1, 4))
        first.remove()
        layers(torch.ones(1, 4))
    layers(torch.ones(1, 4))
    assert seen == ["first", "second", "second"]


def test_a_student_learns_the_features_of_a_teacher(layers: TorchGraph) -> None:
    student = copy.deepcopy(layers)
    with torch.no_grad():
        student.get_parameter("w1").add_(0.3)
    optimizer, x, losses = torch.optim.Adam(student.parameters(), lr=0.05), torch.randn(16, 4), []
    for _ in range(60):
        features: list[torch.Tensor] = []
        with layers.observe("a", features.append), student.observe("a", features.append):
            with torch.no_grad():
                layers(x)
            student(x)
        loss = (features[0] - features[1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    assert torch.allclose(student.get_parameter("w1"), layers.get_parameter("w1"), atol=0.1)
    assert torch.equal(student.get_parameter("w2"), layers.get_parameter("w2"))


def test_taylor_scores_equal_those_by_hand(layers: TorchGraph) -> None:
    scores: list[torch.Tensor] = []

    def score(activation: torch.Tensor) -> None:
        kept = activation.detach()
        activation.register_hook(lambda gradient: scores.append((kept * gradient).abs().sum(0)))  # type: ignore[no-untyped-call]  # torch leaves it untyped

    x = torch.randn(6, 4)
    with layers.observe("h", score):
        layers(x)[0].square().sum().backward()
    hidden = torch.relu(x @ layers.get_parameter("w1")).detach().requires_grad_()
    (hidden @ layers.get_parameter("w2").detach()).square().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert hidden.grad is not None
    assert torch.allclose(scores[0], (hidden * hidden.grad).abs().sum(0), rtol=1e-5)
    assert len(scores) == 1


CHAIN = 24
ELEMENTS = 1 << 16


def chain() -> TorchGraph:
    """Elementwise nodes in a row, the values called h1, h2 and so on."""
    ops = ["Sigmoid", "Neg", "Tanh", "Exp"]
    nodes = [f"h{i + 1} = {ops[i % 4]} (h{i})" for i in range(CHAIN)]
    return module_of(f"g (float[n] h0) => (float[n] y) {{ {'  '.join(nodes)}  y = Abs (h{CHAIN}) }}")


def test_a_tensor_dies_with_its_last_reader() -> None:
    module, alive = chain(), []
    seen: list[weakref.ref[torch.Tensor]] = []

    def note(tensor: torch.Tensor) -> None:
        seen.append(weakref.ref(tensor))
        alive.append(sum(each() is not None for each in seen))

    for index in range(1, CHAIN + 1):
        module.observe(f"h{index}", note)
    with torch.no_grad():
        module(torch.ones(8))
    assert len(alive) == CHAIN
    assert max(alive) == 1
    assert all(each() is None for each in seen)


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts the bytes of storages that operators made and that are alive; `peak` is the most at any time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.alive = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor):
                self._enter(each.untyped_storage())
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() in self._known:
            return
        place, size = storage.data_ptr(), storage.nbytes()
        self._known.add(place)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._leave, place, size)

    def _leave(self, place: int, size: int) -> None:
        self._known.discard(place)
        self.alive -= size


def test_a_deep_chain_needs_two_activations_at_a_time() -> None:
    module = chain()
    with torch.no_grad(), PeakMemory() as memory:
        (y,) = module(torch.ones(ELEMENTS))
    assert memory.alive == y.nbytes
    assert memory.peak <= 3 * y.nbytes


def test_observing_keeps_nothing() -> None:
    module = chain()
    for index in range(1, CHAIN + 1):
        module.observe(f"h{index}", lambda tensor: None if tensor.amax() < 100 else tensor)
    with torch.no_grad(), PeakMemory() as memory:
        (y,) = module(torch.ones(ELEMENTS))
    assert memory.peak <= 3.1 * y.nbytes


@contextmanager
def tracked(module: TorchGraph, name: str) -> Iterator[list[weakref.ref[torch.Tensor]]]:
    seen: list[weakref.ref[torch.Tensor]] = []
    with module.observe(name, lambda tensor: seen.append(weakref.ref(tensor))):
        yield seen


def test_states_of_a_loop_die_from_iteration_to_iteration() -> None:
    module = module_of(LOOP)
    with torch.no_grad(), tracked(module, "twice") as seen, PeakMemory() as memory:
        (y,) = module(torch.ones(2).repeat(1), torch.tensor(50))
    assert len(seen) == 50
    assert sum(each() is not None for each in seen) <= 1
    assert memory.peak <= 4 * y.nbytes + 1000
