"""Teachers whose inputs and outputs are called or ordered otherwise, those that do not fit, and stored answers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

Builders = SimpleNamespace
BODY = "{ y = MatMul (a, w1)  z = MatMul (b, w2) }"
STUDENT = f"g (float[n, 6] a, float[n, 3] b) => (float[n, 4] y, float[n, 2] z) {BODY}"
SHAPES = {"w1": (6, 4), "w2": (3, 2)}
FITTING = {
    "the same": STUDENT,
    "inputs in another order": f"g (float[n, 3] b, float[n, 6] a) => (float[n, 4] y, float[n, 2] z) {BODY}",
    "outputs in another order": f"g (float[n, 6] a, float[n, 3] b) => (float[n, 2] z, float[n, 4] y) {BODY}",
    "other names": """g (float[n, 6] c, float[n, 3] d) => (float[n, 4] p, float[n, 2] q) {
        p = MatMul (c, w1)  q = MatMul (d, w2)
    }""",
    "more outputs": """g (float[n, 3] b, float[n, 6] a) => (float[n, 6] s, float[n, 2] z, float[n, 4] y) {
        s = Relu (a)  y = MatMul (a, w1)  z = MatMul (b, w2)
    }""",
    "halves": """g (float16[n, 6] c, float16[n, 3] d) => (float[n, 4] y, float[n, 2] z) {
        a = Cast <to = 1> (c)  b = Cast <to = 1> (d)  y = MatMul (a, w1)  z = MatMul (b, w2)
    }""",
}
UNFIT = {
    "takes 1 inputs": "g (float[n, 6] a) => (float[n, 4] y, float[n, 4] z) { y = MatMul (a, w1)  z = Relu (y) }",
    "has shape [8, 6]": f"g (float[n, 5] a, float[n, 3] b) => (float[n, 4] y, float[n, 2] z) {BODY}",
    "torch.float32": """g (int64[n, 6] c, float[n, 3] b) => (float[n, 4] y, float[n, 2] z) {
        a = Cast <to = 1> (c)  y = MatMul (a, w1)  z = MatMul (b, w2)
    }""",
    "its outputs are p": "g (float[n, 6] a, float[n, 3] b) => (float[n, 4] p) { p = MatMul (a, w1) }",
    "'z' is float32 [8, 4], the student's float32 [8, 2]": """
    g (float[n, 6] a, float[n, 3] b) => (float[n, 4] y, float[n, 4] z) { y = MatMul (a, w1)  z = Relu (y) }
    """,
    "'y' is int64": """g (float[n, 6] a, float[n, 3] b) => (int64[n, 4] y, float[n, 2] z) {
        p = MatMul (a, w1)  y = Cast <to = 7> (p)  z = MatMul (b, w2)
    }""",
}


def two_inputs(make: Builders, **more: Any) -> Any:
    return make.batch(make.random(8, 6), make.random(8, 3, seed=1), **more)


@pytest.mark.parametrize("text", FITTING.values(), ids=FITTING.keys())
def test_inputs_and_outputs_are_matched(make: Builders, text: str) -> None:
    batch = two_inputs(make)
    student, teacher = make.graph(STUDENT, **SHAPES), make.graph(text, seed=1, **SHAPES)
    total, _, outputs = make.objective(student, batch, teacher)(batch)
    taught = [
        given @ torch.from_numpy(teacher.array(name).copy()) for given, name in zip(batch.inputs, SHAPES, strict=True)
    ]
    pairs = zip(outputs, taught, strict=True)
    wanted = sum(functional.mse_loss(own, theirs) / theirs.var(unbiased=False) for own, theirs in pairs) / 2
    torch.testing.assert_close(total, wanted, rtol=2e-3 if "float16" in text else 1e-5, atol=1e-6)


@pytest.mark.parametrize("told", UNFIT)
def test_a_teacher_that_does_not_fit_is_refused(make: Builders, told: str) -> None:
    student, batch, text = make.graph(STUDENT, **SHAPES), two_inputs(make), UNFIT[told]
    shapes = {"w1": (5, 4) if "n, 5" in text else (6, 4), **({"w2": (3, 2)} if "w2" in text else {})}
    with make.refusal("TEACHER_MISMATCH") as refused:
        make.objective(student, batch, make.graph(text, **shapes))
    assert told in refused.failure.message


def test_the_teacher_is_no_part_of_what_is_trained(make: Builders) -> None:
    batch = make.batch(make.random(8, 6))
    objective = make.objective(make.graph(), batch, make.graph(seed=1))
    total, _, _ = objective.train()(batch)
    total.backward()
    assert {name for name, _ in objective.named_parameters()} == {"student.w1", "student.w2"}
    assert set(objective.state_dict()) == {"student.w1", "student.w2", "losses.logits.scales"}


def test_the_teacher_stays_in_eval_mode(make: Builders) -> None:
    dropped = "g (float[n, 6] x) => (float[n, 4] y) { h = Dropout (x, half, yes)  y = MatMul (h, w1) }"
    plain = "g (float[n, 6] x) => (float[n, 4] y) { y = MatMul (x, w1) }"
    constants = {"half": np.array(0.5, np.float32), "yes": np.array(False)}
    batch = make.batch(make.random(8, 6))
    objective = make.objective(make.graph(plain, w1=(6, 4)), batch, make.graph(dropped, w1=(6, 4), **constants))
    assert float(objective.train()(batch)[0].detach()) == pytest.approx(0, abs=1e-10)


def loss_of(objective: Any, batch: Any) -> torch.Tensor:
    total: torch.Tensor = objective(batch)[0].detach()
    return total


@pytest.mark.parametrize("loss", ["soft", "logits"])
def test_stored_answers_give_the_same_loss_to_the_last_bit(make: Builders, loss: str) -> None:
    graphs, whole = [make.graph(seed=seed) for seed in (0, 1)], make.batch(make.random(8, 6))
    options = {"loss": loss, "cache": True}
    storing = make.objective(graphs[0], whole, graphs[1], distill=options)
    running = make.objective(graphs[0], whole, graphs[1], distill=options | {"cache": False})
    first = loss_of(storing, whole)
    assert torch.equal(first, loss_of(running, whole))
    assert torch.equal(loss_of(storing, whole), first)
    for part in whole.split(3):
        torch.testing.assert_close(loss_of(storing, part), loss_of(running, part))


@pytest.mark.parametrize(
    ("options", "more", "samples", "is_stored"),
    [
        ({}, {}, 100, True),
        ({"cache": True}, {}, 100, True),
        ({"cache": False}, {}, 100, False),
        ({}, {"is_augmented": True}, 100, False),
        ({"loss": "feature"}, {}, 100, False),
        ({"loss": {"soft": 1.0, "feature": 0.0}}, {}, 100, True),
        ({}, {}, 20_000_000, False),
        ({"cache": True}, {}, 20_000_000, True),
        ({"cache": True}, {}, 300_000_000, False),
    ],
)
def test_what_is_stored(
    make: Builders, options: dict[str, Any], more: dict[str, Any], samples: int, *, is_stored: bool
) -> None:
    """Other inputs under the same indices show whether an answer comes from the store: 16 bytes are each sample's."""
    batch, other = (make.batch(make.random(8, 6, seed=seed), **more) for seed in (0, 1))
    graphs = [make.graph(seed=seed) for seed in (0, 1)]
    objective = make.objective(*[graphs[0], batch, graphs[1]], distill=options, task="classification", samples=samples)
    fresh = make.objective(*[graphs[0], batch, graphs[1]], distill=options, task="classification", samples=samples)
    objective(batch)
    assert torch.equal(loss_of(objective, other), loss_of(fresh, other)) is not is_stored


def test_a_store_that_was_asked_for_and_is_not_kept_is_told(make: Builders) -> None:
    batch = make.batch(make.random(8, 6))
    objective = make.objective(make.graph(), batch, make.graph(seed=1), distill={"cache": True}, samples=10**9)
    assert objective.notes == ["the teacher's answers were not stored: they take 15,259 MiB, and up to 4,096 are kept"]


def test_nothing_is_stored_where_training_changes_its_inputs(make: Builders) -> None:
    batch, other = (make.batch(make.random(8, 6, seed=seed)) for seed in (0, 1))
    objective = make.objective(make.graph(), batch, make.graph(seed=1), distill={"cache": True}, augment={"mixup": 0.2})
    fresh = make.objective(make.graph(), batch, make.graph(seed=1))
    objective.remember([batch])
    assert torch.equal(loss_of(objective, other), loss_of(fresh, other))
    assert objective.notes == ["the teacher's answers were not stored: inputs change from epoch to epoch"]


def test_what_was_remembered_before_does_not_hang_on_the_batch(make: Builders) -> None:
    graphs, whole = [make.graph(seed=seed) for seed in (0, 1)], make.batch(make.random(8, 6))
    parts = list(whole.split(3))
    found = []
    for order in (parts, parts[::-1]):
        objective = make.objective(graphs[0], whole, graphs[1])
        objective.remember(whole.split(2))
        found.append([loss_of(objective, part) for part in (*order, whole)][-1])
    assert torch.equal(*found)
