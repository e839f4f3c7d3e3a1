"""Which inner tensors are compared, how tensors of other sizes are, and what of it is learned."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from app.contracts.training import FeaturePair
from worker.engine import Graph, TorchGraph
from worker.engine.training.objective.feature_pairs import choose_pairs, inner_tensors

Builders = SimpleNamespace
PYRAMID = """g (float[n, 3, 8, 8] x) => (float[n, 4] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1)  {a} = Relu (a)
    b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> ({a}, w2)  {b} = Relu (b)
    c = GlobalAveragePool ({b})  {c} = Flatten (c)  y = MatMul ({c}, w3)
}"""


def pyramid(make: Builders, width: int, names: str, seed: int = 0) -> Graph:
    text = PYRAMID
    for old, new in zip("abc", names, strict=True):
        text = text.replace(f"{{{old}}}", new).replace(f" {old} =", f" {new}_ =").replace(f"({old})", f"({new}_)")
    graph: Graph = make.graph(text, seed, w1=(width, 3, 3, 3), w2=(2 * width, width, 3, 3), w3=(2 * width, 4))
    return graph


def inner(graph: Graph, batch: Any, *names: str) -> list[torch.Tensor]:
    module, seen = TorchGraph(graph), dict[str, torch.Tensor]()
    for name in names:
        module.observe(name, lambda tensor, name=name: seen.update({name: tensor}))
    with torch.no_grad():
        module(*batch.inputs)
    return [seen[name] for name in names]


def pairs_of(pairs: list[FeaturePair]) -> list[tuple[str, str]]:
    return [(pair.student, pair.teacher) for pair in pairs]


def test_tensors_of_one_name_and_shape_are_compared_as_they_are(make: Builders) -> None:
    batch = make.batch(make.random(4, 3, 8, 8))
    student, teacher = (pyramid(make, 4, "pqr", seed) for seed in (0, 1))
    objective = make.objective(student, batch, teacher, distill={"loss": "feature"})
    total, _, _ = objective(batch)
    assert objective.notes == ["features compared with the teacher's: p_ with p_, q_ with q_, q with q, r with r"]
    names = ("p_", "q_", "q", "r")
    pairs = zip(inner(student, batch, *names), inner(teacher, batch, *names), strict=True)
    wanted = sum(functional.mse_loss(own, theirs) / theirs.var(unbiased=False) for own, theirs in pairs) / 4
    torch.testing.assert_close(total.detach(), wanted)
    assert not list(objective.losses.parameters())


def test_a_thinner_student_learns_projections_that_no_graph_has(make: Builders) -> None:
    batch = make.batch(make.random(16, 3, 8, 8))
    student, teacher = pyramid(make, 3, "pqr"), pyramid(make, 6, "uvw", 1)
    objective = make.objective(student, batch, teacher, distill={"loss": "feature"})
    assert objective.notes == ["features compared with the teacher's: p with u, q with v, r_ with w_, r with w"]
    shapes = {tuple(each.shape) for each in objective.losses.parameters()}
    assert shapes == {(6, 3), (6,), (12, 6), (12,)}
    optimizer = torch.optim.Adam(objective.parameters(), 0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        total, _, _ = objective(batch)
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert losses[-1] < 0.6
    assert {name for name, _ in objective.student.named_parameters()} == {"w1", "w2", "w3"}


def test_a_thinner_copy_is_compared_by_name(make: Builders) -> None:
    batch = make.batch(make.random(4, 3, 8, 8))
    objective = make.objective(pyramid(make, 3, "pqr"), batch, pyramid(make, 6, "pqr"), distill={"loss": "feature"})
    assert objective.notes == ["features compared with the teacher's: p_ with p_, q_ with q_, q with q, r with r"]
    assert {tuple(each.shape) for each in objective.losses.parameters()} == {(6, 3), (6,), (12, 6), (12,)}


def test_projections_start_the_same_in_every_run(make: Builders) -> None:
    batch, losses = make.batch(make.random(4, 3, 8, 8)), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        student, teacher = pyramid(make, 3, "pqr"), pyramid(make, 6, "uvw", 1)
        losses.append(make.objective(student, batch, teacher, distill={"loss": "feature"})(batch)[0])
    assert torch.equal(*losses)


def test_maps_of_other_sizes_are_pooled_to_the_smaller(make: Builders) -> None:
    batch = make.batch(make.random(4, 3, 8, 8))
    student, teacher = pyramid(make, 8, "pqr"), pyramid(make, 4, "uvw", 1)
    options = {"loss": "feature", "features": [{"student": "p", "teacher": "v"}]}
    total, _, _ = make.objective(student, batch, teacher, distill=options)(batch)
    [own], [theirs] = inner(student, batch, "p"), inner(teacher, batch, "v")
    wanted = functional.mse_loss(functional.avg_pool2d(own, 2), theirs) / theirs.var(unbiased=False)
    torch.testing.assert_close(total.detach(), wanted)


TOKENS = "g (float[n, 5, {d}] x) => (float[n, 5, 4] y) {{ h = MatMul (x, w1)  r = Relu (h)  y = MatMul (r, w2) }}"


def test_tokens_are_projected_along_their_last_axis(make: Builders) -> None:
    batch = make.batch(make.random(4, 5, 6))
    student, teacher = (make.graph(TOKENS.format(d=6), w1=(6, width), w2=(width, 4)) for width in (3, 7))
    objective = make.objective(student, batch, teacher, distill={"loss": "feature"})
    assert {tuple(each.shape) for each in objective.losses.parameters()} == {(7, 3), (7,)}
    assert float(objective(batch)[0].detach()) > 0


@pytest.mark.parametrize(
    ("pair", "told"),
    [
        (("nothing", "u"), "the student makes no tensor 'nothing'"),
        (("p", "w1"), "the teacher makes no tensor 'w1'"),
        (("r", "u"), "cannot be compared"),
    ],
)
def test_pairs_that_cannot_be_compared_are_refused(make: Builders, pair: tuple[str, str], told: str) -> None:
    batch, features = make.batch(make.random(4, 3, 8, 8)), [{"student": pair[0], "teacher": pair[1]}]
    with make.refusal("FEATURES_NOT_FOUND") as refused:
        make.objective(
            pyramid(make, 4, "pqr"), batch, pyramid(make, 4, "uvw"), distill={"loss": "feature", "features": features}
        )
    assert told in refused.failure.message


def test_networks_with_nothing_in_common_are_refused(make: Builders) -> None:
    linear = make.graph("g (float[n, 6] x) => (float[n, 4] y) { y = MatMul (x, w1) }", w1=(6, 4))
    with make.refusal("FEATURES_NOT_FOUND"):
        make.objective(linear, make.batch(make.random(8, 6)), make.graph(), distill={"loss": "feature"})


def test_what_no_gradient_passes_is_not_chosen(make: Builders) -> None:
    text = """g (float[n, 6] x) => (float[n, 4] y) {
        s = Add (x, x)  t = Mul (s, s)  h = MatMul (t, w1)  r = Relu (h)  y = MatMul (r, w2)
    }"""
    graph, batch = make.graph(text, w1=(6, 8), w2=(8, 4)), make.batch(make.random(8, 6))
    objective = make.objective(graph, batch, graph, distill={"loss": "feature"})
    assert objective.notes == ["features compared with the teacher's: h with h, r with r"]


def test_at_most_four_are_chosen_along_the_depth() -> None:
    shapes = {f"t{number}": (2, 8) for number in range(1, 21)}
    assert pairs_of(choose_pairs("auto", shapes, shapes)) == [(name, name) for name in ("t5", "t10", "t15", "t20")]


def test_stages_end_where_size_or_width_changes() -> None:
    student = {"a": (2, 8, 16, 16), "b": (2, 8, 16, 16), "c": (2, 16, 8, 8), "d": (2, 16, 8, 8), "e": (2, 16)}
    teacher = {name.upper(): (2, 2 * shape[1], *shape[2:]) for name, shape in student.items()}
    assert pairs_of(choose_pairs("auto", student, teacher)) == [("b", "B"), ("d", "D"), ("e", "E")]


def test_a_few_names_in_common_mean_nothing() -> None:
    student = {"relu": (2, 8, 4, 4), "a": (2, 8, 4, 4), "b": (2, 16)}
    teacher = {"relu": (2, 8, 4, 4), "c": (2, 8, 4, 4), "d": (2, 32)}
    assert pairs_of(choose_pairs("auto", student, teacher)) == [("a", "c"), ("b", "d")]


def test_inner_tensors_are_floats_that_are_neither_weights_nor_outputs(make: Builders) -> None:
    text = """g (float[n, 6] x) => (float[n, 4] y) {
        two = Constant <value_float = 2.0> ()  h = Mul (x, two)  i = Cast <to = 7> (h)  j = Cast <to = 1> (i)
        y = MatMul (j, w1)
    }"""
    assert inner_tensors(make.graph(text, w1=(6, 4))) == ["h", "j"]


def test_of_residual_blocks_the_ends_are_taken(make: Builders) -> None:
    blocks = [
        f"a{n} = MatMul (b{n - 1}, w1)  c{n} = Relu (a{n})  d{n} = MatMul (c{n}, w1)  b{n} = Add (d{n}, b{n - 1})"
        for n in range(1, 6)
    ]
    text = f"g (float[n, 6] x) => (float[n, 6] y) {{ b0 = MatMul (x, w1)  {' '.join(blocks)}  y = MatMul (b5, w1) }}"
    assert inner_tensors(make.graph(text, w1=(6, 6))) == ["b0", "b1", "b2", "b3", "b4", "b5"]


BRANCHES = """g (float[n, 6] x, bool first) => (float[n, 4] y) {
    [choose] r = If (first) <
        then_branch = t () => (float[n, 8] u) { inside = MatMul (x, w1)  u = Relu (inside) },
        else_branch = e () => (float[n, 8] v) { other = MatMul (x, w1)  v = Neg (other) }
    >
    y = MatMul (r, w2)
}"""


def test_a_branch_that_is_not_taken_has_no_loss(make: Builders) -> None:
    student, teacher = (make.graph(BRANCHES, seed, w1=(6, 8), w2=(8, 4)) for seed in (0, 1))
    x = make.random(8, 6)
    yes, no = (make.batch(x, torch.tensor(flag)) for flag in (True, False))
    options = {"loss": "feature", "features": [{"student": "inside", "teacher": "inside"}]}
    objective = make.objective(student, yes, teacher, distill=options)
    own, theirs = (x @ torch.from_numpy(np.array(graph.array("w1"))) for graph in (student, teacher))
    wanted = functional.mse_loss(own, theirs) / theirs.var(unbiased=False)
    torch.testing.assert_close(objective(yes)[0].detach(), wanted)
    assert float(objective(no)[0]) == 0
