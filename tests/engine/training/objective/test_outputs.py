"""Networks that give probabilities learn as those that give logits do, however the Softmax is wrapped."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional

from worker.engine import Graph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.objective import Objective

Builders = SimpleNamespace
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
PLAIN = "g (float[n, 6] x) => (float[n, 4] y) { y = MatMul (x, w1) }"
HEAD = "g (float[n, 6] x) => (float[n, 4] y) { h = MatMul (x, w1)  "
SHAPE = "tail = Constant <value_ints = [0, 4]> ()  "
ENDINGS = {
    "softmax": "y = Softmax (h) }",
    "log softmax": "y = LogSoftmax <axis = 1> (h) }",
    "log of softmax": "p = Softmax (h)  y = Log (p) }",
    "identity": "p = Softmax (h)  q = Identity (p)  y = Cast <to = 1> (q) }",
    "reshape": SHAPE + "s = Unsqueeze (h, axes)  p = Softmax <axis = 1> (s)  y = Reshape (p, tail) }",
    "quantized": "p = Softmax (h)  q = QuantizeLinear (p, step, zero)  y = DequantizeLinear (q, step, zero) }",
    "transpose": "t = Transpose <perm = [1, 0]> (h)  p = Softmax <axis = 0> (t)  y = Transpose <perm = [1, 0]> (p) }",
    "transposed logarithms": "t = Transpose (h)  p = LogSoftmax <axis = 0> (t)  y = Transpose (p) }",
}
CONSTANTS = {"step": np.array(1 / 255, np.float32), "zero": np.array(0, np.uint8), "axes": np.array([2], np.int64)}


def graph_with(make: Builders, ending: str, seed: int) -> Graph:
    constants = {name: each for name, each in CONSTANTS.items() if name in ENDINGS[ending]}
    graph: Graph = make.graph(HEAD + ENDINGS[ending], seed, w1=(6, 4), **constants)
    return graph


def loss_and_gradient(objective: Objective, batch: TrainingBatch) -> tuple[torch.Tensor, torch.Tensor]:
    total, _, _ = objective(batch)
    total.backward()
    gradient = objective.student.get_parameter("w1").grad
    assert gradient is not None
    return total.detach(), gradient


@pytest.mark.parametrize("student", ENDINGS)
@pytest.mark.parametrize("teacher", ["softmax", "transpose"])
def test_losses_are_those_of_the_logits(make: Builders, student: str, teacher: str) -> None:
    batch, distill = make.batch(make.random(8, 6), labels=LABELS), {"loss": {"soft": 1.0, "dkd": 1.0, "hard": 1.0}}
    plain = [make.graph(PLAIN, seed, w1=(6, 4)) for seed in (0, 1)]
    ended = graph_with(make, student, 0), graph_with(make, teacher, 1)
    wanted = loss_and_gradient(make.objective(plain[0], batch, plain[1], distill=distill), batch)
    found = loss_and_gradient(make.objective(ended[0], batch, ended[1], distill=distill), batch)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_class_that_the_softmax_rounds_to_nothing_still_learns(make: Builders) -> None:
    weight = np.diag([300.0, 0, 0, 0, 0, 0]).astype(np.float32)[:, :4]
    batch = make.batch(torch.eye(6)[:1], labels=torch.tensor([3]))
    objective = make.objective(make.graph(HEAD + ENDINGS["softmax"], w1=weight), batch)
    loss, gradient = loss_and_gradient(objective, batch)
    assert float(loss) == pytest.approx(300)
    torch.testing.assert_close(gradient[0], torch.tensor([1.0, 0, 0, -1]))


def test_maps_of_probabilities(make: Builders) -> None:
    text = "g (float[n, 3, 5, 5] x) => (float[n, 4, 5, 5] y) {{ c = Conv (x, w1)  {} }}"
    labels = torch.arange(50).reshape(2, 5, 5) % 4
    batch = make.batch(make.random(2, 3, 5, 5), labels=labels)
    found = [
        loss_and_gradient(make.objective(make.graph(text.format(ending), w1=(4, 3, 1, 1)), batch), batch)
        for ending in ("y = Softmax <axis = 1> (c)", "y = Identity (c)")
    ]
    torch.testing.assert_close(found[0], found[1])


def test_the_scores_of_a_classifier_may_come_after_other_outputs(make: Builders) -> None:
    text = "g (float[n, 6] x) => (float[n, 6, 1] z, float[n, 4] y) { z = Unsqueeze (x, axes)  y = MatMul (x, w1) }"
    batch = make.batch(make.random(8, 6), labels=LABELS)
    objective = make.objective(make.graph(text, w1=(6, 4), axes=CONSTANTS["axes"]), batch)
    total, _, outputs = objective(batch)
    torch.testing.assert_close(total, functional.cross_entropy(outputs[1], LABELS))
