"""`train()` from graph to graph: it learns, ends when it should, and goes on after a kill to the same bytes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from app.contracts.events import Trained
from app.contracts.failure import SlimlineError
from app.contracts.training import TrainingOptions
from worker.engine.data import Dataset, open_dataset
from worker.engine.graph import Graph
from worker.engine.session import open_session, run_session
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batches import TrainingData
from worker.engine.training.request import Outcome, Request, Telling
from worker.engine.training.state import State, read_state, write_state
from worker.engine.training.training import train

SAMPLES, CLASSES = 400, 4


class KilledError(Exception):
    """What a kill is in these tests."""


class Files:
    """Checkpoints in a folder; the training is killed after `lives` of them."""

    def __init__(self, folder: Path, lives: int | None = None) -> None:
        self.path, self.lives, self.saved = folder / "state.npz", lives, 0

    def load(self) -> State | None:
        return read_state(self.path) if self.path.exists() else None

    def save(self, state: State) -> None:
        write_state(self.path, state)
        self.saved += 1
        if self.saved == self.lives:
            raise KilledError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """Noise in which one of the three channels is brighter, or none: which one is the label."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((SAMPLES, 3, 8, 8)).astype(np.float32)
    y = rng.integers(0, CLASSES, SAMPLES)
    for image, label in zip(x, y, strict=True):
        image[label : label + 1] += 0.7
    path = tmp_path_factory.mktemp("data") / "train.npz"
    np.savez(path, allow_pickle=False, x=x, y=y)
    with open_dataset(path) as opened:
        yield opened


@pytest.fixture
def graph(make_cnn: Callable[..., onnx.ModelProto]) -> Graph:
    """An untrained network for them, shapes inferred as ingest leaves them."""
    untrained = Graph.from_proto(make_cnn())
    untrained.infer_shapes()
    return untrained


def to_bytes(graph: Graph) -> bytes:
    return graph.proto().SerializeToString(deterministic=True)


def accuracy(graph: Graph, dataset: Dataset) -> float:
    session, right = open_session(to_bytes(graph)), 0
    for batch in dataset.batches(graph.inputs, 100):
        right += int((run_session(session, batch.feed)[0].argmax(1) == batch.labels).sum())
    return right / SAMPLES


def run(graph: Graph, dataset: Dataset, options: dict[str, Any], **more: Any) -> Outcome:
    return train(Request(graph, TrainingOptions.model_validate(options), dataset, "cpu", **more))


FAST = {"epochs": 10, "learning_rate": 0.01}


def test_it_learns_and_leaves_the_graph_it_was_given_alone(graph: Graph, dataset: Dataset) -> None:
    before, points = to_bytes(graph), list[Trained]()
    outcome = run(graph, dataset, FAST, telling=Telling(point=points.append, step=2))
    assert to_bytes(graph) == before
    assert accuracy(graph, dataset) < 0.5
    assert accuracy(outcome.graph, dataset) > 0.9
    assert points == list(outcome.curve)
    assert [point.epoch for point in points] == list(range(11))
    assert {(point.step, point.metric) for point in points} == {(2, "top1")}
    assert points[-1].loss < points[1].loss
    assert points[0].loss is None
    assert points[-1].samples_per_s > 0


def test_the_last_judgement_is_that_of_the_artifact(graph: Graph, dataset: Dataset) -> None:
    outcome = run(graph, dataset, {**FAST, "keep": "last"})
    judged = _held_out_accuracy(outcome.graph, dataset)
    assert judged == pytest.approx(outcome.curve[-1].value, abs=1e-9)


def _held_out_accuracy(graph: Graph, dataset: Dataset) -> float:
    data, session = TrainingData(dataset, graph, TrainingOptions(), 0, "cpu"), open_session(to_bytes(graph))
    right = [
        run_session(session, {"x": batch.inputs[0].numpy()})[0].argmax(1) == batch.labels.numpy()
        for batch in data.held_out_batches()
    ]
    return float(np.concatenate(right).mean())


OPTIONS = {
    "adamw": {"epochs": 3},
    "sgd, average, mixed": {
        "epochs": 3,
        "optimizer": "sgd",
        "ema": 0.9,
        "augment": {"flip": True, "crop": 1, "mixup": 0.2, "cutmix": 0.5},
        "label_smoothing": 0.1,
        "clip": 1.0,
        "schedule": "one_cycle",
    },
    "distilled": {"epochs": 3, "distill": {"loss": {"soft": 0.5, "feature": 0.5, "hard": 0.1}}},
    "by updates": {"steps": 13, "batch_size": 50},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_killed_training_ends_with_the_same_bytes(
    graph: Graph, dataset: Dataset, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A state after every update: kills come in the middle of epochs too.
    monkeypatch.setattr("worker.engine.training.loop.CHECKPOINT_S", 0)
    more = {"seed": 5, "teacher": graph if "distill" in options else None}
    undisturbed = run(graph, dataset, options, **more)
    for lives in (2, 1, 3):
        with pytest.raises(KilledError):
            run(graph, dataset, options, checkpoints=Files(tmp_path, lives), **more)
        torch.manual_seed(lives)  # what a new process would draw is another number
    resumed = run(graph, dataset, options, checkpoints=Files(tmp_path), **more)
    assert to_bytes(resumed.graph) == to_bytes(undisturbed.graph)
    told = [
        [point.model_copy(update={"samples_per_s": None}) for point in each.curve] for each in (resumed, undisturbed)
    ]
    assert told[0] == told[1]


def test_the_seed_decides(graph: Graph, dataset: Dataset) -> None:
    first, same, other = (to_bytes(run(graph, dataset, {"epochs": 1}, seed=seed).graph) for seed in (1, 1, 2))
    assert first == same != other


def test_only_chosen_layers_move(graph: Graph, dataset: Dataset) -> None:
    trained = run(graph, dataset, FAST, layers={"fc", "conv1"}).graph
    moved = {name for name in ("conv1", "conv2", "conv3", "fc") if _has_moved(graph, trained, name)}
    assert moved == {"conv1", "fc"}


def _has_moved(before: Graph, after: Graph, layer: str) -> bool:
    return any(
        not np.array_equal(before.array(f"{layer}.{part}"), after.array(f"{layer}.{part}"))
        for part in ("weight", "bias")
    )


def test_zeros_stay_unless_they_need_not(graph: Graph, dataset: Dataset) -> None:
    sparse = graph.clone()
    weight = sparse.array("conv3.weight").copy()
    weight[:, ::2] = 0
    sparse.set_array("conv3.weight", weight)
    kept, freed = (run(sparse, dataset, {"epochs": 2, "keep_zeros": keep}).graph for keep in (True, False))
    assert ((kept.array("conv3.weight") == 0) == (weight == 0)).all()
    assert np.mean(freed.array("conv3.weight")[weight == 0] != 0) > 0.5


def test_time_ends_it_too(graph: Graph, dataset: Dataset) -> None:
    outcome = run(graph, dataset, {"seconds": 0.5})
    assert outcome.curve[-1].updates > 0


def test_it_stops_where_epochs_bring_nothing(graph: Graph, dataset: Dataset) -> None:
    learned = run(graph, dataset, {**FAST, "epochs": 12}).graph
    outcome = run(learned, dataset, {"epochs": 50, "patience": 2, "learning_rate": 1e-9, "weight_decay": 0})
    assert outcome.curve[-1].epoch < 50
    assert any("brought nothing" in note for note in outcome.notes)


def test_a_worse_state_than_the_first_is_not_given_back(graph: Graph, dataset: Dataset) -> None:
    learned = run(graph, dataset, {**FAST, "epochs": 12}).graph
    ruined = run(learned, dataset, {"epochs": 2, "optimizer": "sgd", "learning_rate": 3, "renormalize": False})
    assert accuracy(ruined.graph, dataset) >= accuracy(learned, dataset) - 0.02
    assert any("kept the state after epoch 0" in note for note in ruined.notes)


def test_a_loss_that_is_no_number_is_a_failure_that_names_the_update(
    graph: Graph, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engine.training.loop.rate_factor", lambda *_: 1e30)
    with pytest.raises(SlimlineError) as caught:
        run(graph, dataset, FAST)
    assert caught.value.failure.code == "TRAINING_DIVERGED"
    assert "at update " in caught.value.failure.message


def test_after_a_good_epoch_the_best_is_kept_when_the_loss_is_lost(
    graph: Graph, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rate(_schedule: str, done: float, _warmup: float) -> float:
        return 1.0 if done < 0.6 else 1e30

    monkeypatch.setattr("worker.engine.training.loop.rate_factor", rate)
    warnings = list[str]()
    outcome = run(graph, dataset, FAST, telling=Telling(warn=warnings.append))
    assert accuracy(outcome.graph, dataset) > 0.6
    [warning] = warnings
    assert "no number at update" in warning
    assert warning in outcome.notes


def test_too_little_time_for_an_update_is_a_failure(graph: Graph, dataset: Dataset) -> None:
    with pytest.raises(SlimlineError) as caught:
        run(graph, dataset, {"seconds": 1e-6})
    assert caught.value.failure.code == "TIME_BUDGET_TOO_SMALL"


def test_nothing_to_train_is_a_refusal(graph: Graph, dataset: Dataset) -> None:
    with pytest.raises(SlimlineError) as caught:
        run(graph, dataset, FAST, layers=set())
    assert caught.value.failure.code == "NOTHING_TO_TRAIN"


def test_channels_last_is_the_same_network(graph: Graph, dataset: Dataset) -> None:
    """What a GPU gets, on the CPU: images and weights in another order in memory."""
    images = torch.from_numpy(next(dataset.batches(graph.inputs, 16)).feed["x"])
    module, last = TorchGraph(graph), TorchGraph(graph).to(memory_format=torch.channels_last)
    outputs = [module(images)[0], last(images.contiguous(memory_format=torch.channels_last))[0]]
    torch.testing.assert_close(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for mine, theirs in zip(module.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    before = to_bytes(graph)
    last.write_back()
    assert to_bytes(graph) == before
