"""What training minimises, beside the same computed by hand from the outputs of ONNX Runtime and torch's losses."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch.nn import functional
from torch.nn.utils import parametrize

from worker.engine import Graph, TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.objective.objective import Objective

Builders = SimpleNamespace
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])


def run(graph: Graph, *inputs: torch.Tensor) -> list[torch.Tensor]:
    session = ort.InferenceSession(graph.proto().SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {spec.name: each.numpy() for spec, each in zip(session.get_inputs(), inputs, strict=True)}
    return [torch.from_numpy(np.asarray(each)) for each in session.run(None, feed)]


def soft(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 4.0) -> torch.Tensor:
    logs = [torch.log_softmax(each / temperature, 1) for each in (student, teacher)]
    return temperature**2 * functional.kl_div(logs[0], logs[1], reduction="batchmean", log_target=True)


def test_without_a_teacher_it_is_the_loss_on_labels(make: Builders) -> None:
    graph, batch = make.graph(), make.batch(make.random(8, 6), labels=LABELS)
    total, parts, outputs = make.objective(graph, batch, label_smoothing=0.1)(batch)
    [scores] = run(graph, *batch.inputs)
    torch.testing.assert_close(outputs[0], scores)
    torch.testing.assert_close(total, functional.cross_entropy(scores, LABELS, label_smoothing=0.1))
    assert parts.keys() == {"hard"}
    assert total.requires_grad
    assert not parts["hard"].requires_grad


def test_with_labels_alpha_shares_between_teacher_and_labels(make: Builders) -> None:
    student, teacher, batch = make.graph(), make.graph(seed=1), make.batch(make.random(8, 6), labels=LABELS)
    objective = make.objective(student, batch, teacher, distill={"alpha": 0.7, "temperature": 2}, label_smoothing=0.2)
    total, parts, _ = objective(batch)
    own, theirs = run(student, *batch.inputs)[0], run(teacher, *batch.inputs)[0]
    torch.testing.assert_close(parts["soft"], soft(own, theirs, 2))
    torch.testing.assert_close(parts["hard"], functional.cross_entropy(own, LABELS, label_smoothing=0.2))
    torch.testing.assert_close(total.detach(), 0.7 * parts["soft"] + 0.3 * parts["hard"])


@pytest.mark.parametrize(
    ("distill", "parts"),
    [
        ({"loss": {"soft": 2.0, "logits": 0.5, "hard": 3.0}}, {"soft": 2.0, "logits": 0.5, "hard": 3.0}),
        ({"loss": {"soft": 0.0, "hard": 3.0}}, {"hard": 3.0}),
        ({"loss": "hard", "alpha": 0.2}, {"hard": 1.0}),
        ({"alpha": 0.0}, {"hard": 1.0}),
        ({"alpha": 1.0}, {"soft": 1.0}),
        ({"loss": "dkd", "alpha": 0.5}, {"dkd": 0.5, "hard": 0.5}),
    ],
)
def test_weights(
    make: Builders,
    distill: dict[str, Any],
    parts: dict[str, float],
) -> None:
    batch = make.batch(make.random(8, 6), labels=LABELS)
    total, found, _ = make.objective(make.graph(), batch, make.graph(seed=1), distill=distill)(batch)
    assert found.keys() == parts.keys()
    assert float(total.detach()) == pytest.approx(sum(weight * float(found[name]) for name, weight in parts.items()))


SOFTMAX = "g (float[n, 6] x) => (float[n, 4] y) { h = MatMul (x, w1)  y = Softmax <axis = 1> (h) }"
FLAT = "g (float[n, 3] x) => (float[n, 4] y) { y = MatMul (x, w1) }"
MAPS = "g (float[n, 3, 5, 5] x) => (float[n, 4, 5, 5] y) { y = Conv (x, w1) }"
TWO = "g (float[n, 6] x) => (float[n, 4] y, float[n, 2] z) { h = MatMul (x, w1)  y = Softmax (h)  z = MatMul (x, w2) }"


@pytest.mark.parametrize(
    ("text", "shapes", "task", "labels", "chosen"),
    [
        (None, {}, None, None, {"logits"}),
        (None, {}, "none", None, {"logits"}),
        (None, {}, "none", LABELS, {"logits"}),
        (None, {}, "classification", None, {"soft"}),
        (None, {}, None, LABELS, {"soft", "hard"}),
        (None, {}, None, torch.randn(8, 4), {"logits", "hard"}),
        (None, {}, "detection", LABELS, {"logits"}),
        (SOFTMAX, {"w1": (6, 4)}, None, None, {"soft"}),
        (TWO, {"w1": (6, 4), "w2": (6, 2)}, None, None, {"logits"}),
        (TWO, {"w1": (6, 4), "w2": (6, 2)}, "classification", None, {"soft"}),
        (MAPS, {"w1": (4, 3, 1, 1)}, None, None, {"logits"}),
        (MAPS, {"w1": (4, 3, 1, 1)}, "segmentation", None, {"soft"}),
        (MAPS, {"w1": (4, 3, 1, 1)}, None, torch.ones(8, 5, 5, dtype=torch.uint8), {"soft", "hard"}),
        (MAPS, {"w1": (4, 3, 1, 1)}, "classification", None, {"logits"}),
    ],
)
def test_what_auto_stands_for(
    make: Builders,
    text: str | None,
    shapes: dict[str, Any],
    task: Any,
    labels: torch.Tensor | None,
    chosen: set[str],
) -> None:
    graphs = [make.graph(seed=seed, **({"text": text} if text else {}), **shapes) for seed in (0, 1)]
    batch = make.batch(make.random(8, 3, 5, 5) if text == MAPS else make.random(8, 6), labels=labels)
    total, parts, _ = make.objective(graphs[0], batch, graphs[1], task=task)(batch)
    assert parts.keys() == chosen
    assert float(total.detach()) > 0


def test_logits_are_of_unit_variance_over_all_outputs(make: Builders) -> None:
    student, teacher = (make.graph(TWO, seed, w1=(6, 4), w2=(6, 2)) for seed in (0, 1))
    batch = make.batch(make.random(8, 6))
    total, _, _ = make.objective(student, batch, teacher)(batch)
    pairs = list(zip(run(student, *batch.inputs), run(teacher, *batch.inputs), strict=True))
    wanted = sum(functional.mse_loss(own, theirs) / theirs.var(unbiased=False) for own, theirs in pairs) / 2
    torch.testing.assert_close(total.detach(), wanted)


def test_dkd_on_mixed_labels_and_standardized_scores(make: Builders) -> None:
    """By the masks of the paper's own code, on both labels of a sample."""
    student, teacher = make.graph(), make.graph(seed=1)
    partner, share = LABELS.roll(1), torch.linspace(0, 1, 8)
    batch = make.batch(make.random(8, 6), labels=LABELS, partner=partner, share=share, is_augmented=True)
    options = {"loss": "dkd", "alpha": 1, "beta": 3, "temperature": 2, "standardize": True}
    total, _, _ = make.objective(student, batch, teacher, distill=options)(batch)
    scores = [run(graph, *batch.inputs)[0].double() for graph in (student, teacher)]
    own, theirs = ((each - each.mean(1, keepdim=True)) / each.std(1, unbiased=False, keepdim=True) for each in scores)
    wanted = torch.zeros((), dtype=torch.float64)
    for labels, weight in ((LABELS, share), (partner, 1 - share)):
        is_true = functional.one_hot(labels, 4).bool()
        p, q = (torch.softmax(each / 2, 1) for each in (own, theirs))
        binary = [torch.stack([each[is_true], 1 - each[is_true]], 1) for each in (p, q)]
        tckd = (binary[1] * (binary[1] / binary[0]).log()).sum(1)
        rest = [torch.softmax(each / 2 - 1000.0 * is_true, 1) for each in (own, theirs)]
        nckd = (rest[1] * ((rest[1] + 1e-30) / (rest[0] + 1e-30)).log()).sum(1)
        wanted = wanted + (weight * (tckd + 3 * nckd)).sum() * 4 / 8
    torch.testing.assert_close(total.detach().double(), wanted, rtol=1e-4, atol=1e-6)


def test_segmentation_ignores_pixels_for_labels_only(make: Builders) -> None:
    student, teacher = (make.graph(MAPS, seed, w1=(4, 3, 1, 1)) for seed in (0, 1))
    labels = torch.arange(2 * 25).reshape(2, 5, 5) % 4
    labels[0, 0] = 255
    batch = make.batch(make.random(2, 3, 5, 5), labels=labels)
    weights = {"soft": 1.0, "hard": 1.0, "dkd": 1.0}
    _, parts, _ = make.objective(student, batch, teacher, distill={"loss": weights})(batch)
    own, theirs = (run(graph, *batch.inputs)[0] for graph in (student, teacher))
    rows = [each.movedim(1, -1).reshape(-1, 4) for each in (own, theirs)]
    torch.testing.assert_close(parts["soft"], soft(*rows))
    torch.testing.assert_close(parts["hard"], functional.cross_entropy(own, labels, ignore_index=255))
    used = labels.flatten() != 255
    flat = [
        make.graph(seed=seed, w1=each.array("w1").reshape(4, 3).T.copy(), text=FLAT)
        for seed, each in enumerate((student, teacher))
    ]
    pixels = make.batch(batch.inputs[0].movedim(1, -1).reshape(-1, 3)[used], labels=labels.flatten()[used])
    one_by_one = make.objective(flat[0], pixels, flat[1], distill={"loss": {"dkd": 1.0}})(pixels)[1]
    torch.testing.assert_close(parts["dkd"], one_by_one["dkd"])


def test_regression_is_squared_error_over_the_variance_of_labels(make: Builders) -> None:
    graph, labels = make.graph(), 1000 * make.random(8, 4, seed=3)
    batch = make.batch(make.random(8, 6), labels=labels)
    total, _, _ = make.objective(graph, batch)(batch)
    wanted = functional.mse_loss(run(graph, *batch.inputs)[0], labels) / labels.var(unbiased=False)
    torch.testing.assert_close(total.detach(), wanted)


@pytest.mark.parametrize("loss", ["soft", "dkd", "logits", "feature", "hard"])
def test_parts_of_a_batch_sum_up_to_the_whole(make: Builders, loss: str) -> None:
    batch = make.batch(make.random(8, 6), labels=LABELS)
    objective = make.objective(make.graph(), batch, make.graph(seed=1), distill={"loss": {loss: 1.0}})
    whole = objective(batch)[0]
    parts = sum(objective(part)[0] * len(part) / 8 for part in batch.split(3))
    torch.testing.assert_close(parts, whole)


def test_weights_that_are_parametrized_learn(make: Builders) -> None:
    class Halved(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    student, batch = TorchGraph(make.graph()), make.batch(make.random(8, 6), labels=LABELS)
    parametrize.register_parametrization(*student.place("w1"), Halved())
    objective: Objective = make.objective(student, batch, make.graph(), distill={"loss": {"soft": 1, "feature": 1}})
    total, parts, _ = objective(batch)
    total.backward()
    moving = {name: each.grad for name, each in objective.named_parameters() if each.requires_grad}
    assert len(moving) == 2
    assert all(each is not None and bool(each.any()) for each in moving.values())
    assert all(float(part) > 0 for part in parts.values())


def test_what_fills_up_a_fixed_batch_is_left_out(make: Builders) -> None:
    student, teacher = make.graph(), make.graph(seed=1)
    whole = make.batch(make.random(8, 6), labels=LABELS)
    filled = make.batch(torch.cat([make.random(5, 6), torch.full((3, 6), 9.0)]), labels=LABELS[:5], count=5)
    real = make.batch(make.random(5, 6), labels=LABELS[:5])
    for loss in ("soft", "logits", "feature", "hard", "dkd"):
        objective = make.objective(student, whole, teacher, distill={"loss": {loss: 1.0}, "cache": False})
        torch.testing.assert_close(objective(filled)[0], objective(real)[0])
        assert len(objective(filled)[2][0]) == 5


@pytest.mark.parametrize("is_training", [False, True])
def test_the_student_is_left_in_its_mode(make: Builders, *, is_training: bool) -> None:
    student = TorchGraph(make.graph()).train(is_training)
    batch = make.batch(make.random(8, 6), labels=LABELS)
    make.objective(student, batch, make.graph(seed=1), distill={"loss": {"feature": 1.0}})
    assert student.training is is_training


NORMED = """g (float[n, 6] x) => (float[n, 4] y) {
    h = MatMul (x, w1)  b = BatchNormalization (h, gain, shift, mean, variance)  y = MatMul (b, w2)
}"""
NORMED_SHAPES: dict[str, Any] = {
    "w1": (6, 8),
    "w2": (8, 4),
    "gain": np.ones(8, np.float32),
    "shift": np.zeros(8, np.float32),
    "mean": np.zeros(8, np.float32),
    "variance": np.ones(8, np.float32),
}


def test_in_training_mode_features_are_those_of_this_forward_and_statistics_move_once(make: Builders) -> None:
    student, teacher = (make.graph(NORMED, seed, **NORMED_SHAPES) for seed in (0, 1))
    batch = make.batch(make.random(8, 6) + 3)
    pairs = [{"student": "b", "teacher": "b"}]
    objective = make.objective(student, batch, teacher, distill={"loss": {"feature": 1.0}, "features": pairs})
    objective.train()
    total, _, _ = objective(batch)
    hidden = torch.nn.BatchNorm1d(8)
    own = hidden(batch.inputs[0] @ torch.from_numpy(student.array("w1").copy()))
    theirs = batch.inputs[0] @ torch.from_numpy(teacher.array("w1").copy()) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(total, functional.mse_loss(own, theirs) / theirs.var(unbiased=False))
    torch.testing.assert_close(objective.student.get_buffer("mean"), hidden.running_mean)


def make_refusals() -> list[Any]:
    maps = {"text": MAPS, "w1": (4, 3, 1, 1)}
    return [
        pytest.param({}, None, None, {}, "LABELS_MISSING", id="nothing to learn from"),
        pytest.param({}, "none", LABELS, {}, "LABELS_MISSING", id="task none"),
        pytest.param({}, "detection", LABELS, {}, "LABELS_MISSING", id="detection"),
        pytest.param({}, None, None, {"loss": "dkd"}, "LABELS_MISSING", id="dkd"),
        pytest.param({}, None, None, {"loss": {"soft": 1.0, "hard": 0.1}}, "LABELS_MISSING", id="hard"),
        pytest.param({}, "regression", None, {"loss": "soft"}, "LOSS_DOES_NOT_FIT", id="soft regression"),
        pytest.param({}, None, torch.randn(8, 4), {"loss": "dkd"}, "LOSS_DOES_NOT_FIT", id="dkd regression"),
        pytest.param(maps, None, None, {"loss": "soft"}, "LOSS_DOES_NOT_FIT", id="soft maps of no known task"),
        pytest.param({}, None, LABELS + 1, {}, "LABELS_OUT_OF_RANGE", id="labels from 1"),
        pytest.param({}, None, LABELS - 1, {}, "LABELS_OUT_OF_RANGE", id="labels from -1"),
        pytest.param({}, "classification", LABELS / 2, {}, "LABELS_INVALID", id="fractions"),
        pytest.param({}, None, torch.zeros(8, 5, 5, dtype=torch.int64), {}, "LABELS_DO_NOT_FIT", id="maps"),
        pytest.param(maps, None, LABELS, {}, "LABELS_DO_NOT_FIT", id="one label for a map"),
        pytest.param(maps, None, torch.zeros(8, 4, 4).long(), {}, "LABELS_DO_NOT_FIT", id="smaller maps"),
        pytest.param(maps, None, torch.full((8, 5, 5), 77), {}, "LABELS_OUT_OF_RANGE", id="colours"),
        pytest.param({}, None, torch.randn(8, 3), {}, "LABELS_DO_NOT_FIT", id="too few quantities"),
    ]


@pytest.mark.parametrize(("graph", "task", "labels", "distill", "code"), make_refusals())
def test_refusals(
    make: Builders,
    graph: dict[str, Any],
    task: Any,
    labels: torch.Tensor | None,
    distill: dict[str, Any],
    code: str,
) -> None:
    batch: TrainingBatch = make.batch(make.random(8, 3, 5, 5) if graph else make.random(8, 6), labels=labels)
    teacher = make.graph(**graph, seed=1) if distill else None
    with make.refusal(code) as refused:
        make.objective(make.graph(**graph), batch, teacher, distill=distill or None, task=task)(batch)
    assert refused.failure.hint or code == "LABELS_INVALID"


def test_every_batch_of_labels_is_looked_at(make: Builders) -> None:
    first, second = (
        make.batch(make.random(8, 6), labels=LABELS),
        make.batch(make.random(8, 6), labels=LABELS + 4, start=8),
    )
    objective = make.objective(make.graph(), first)
    objective(first)
    with make.refusal("LABELS_OUT_OF_RANGE"):
        objective(second)
