"""Training in two processes: the same updates as in one, gone on with after a kill, and nothing left behind."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
import torch

from app.contracts.events import Trained
from app.contracts.failure import FaultKind, SlimlineError
from app.contracts.training import TrainingOptions
from worker.engine.data import Dataset, open_dataset
from worker.engine.graph import Graph
from worker.engine.torch_graph import TorchGraph
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.distributed.sharing import rehearse
from worker.engine.training.request import Outcome, Request, Telling
from worker.engine.training.state import State, read_state, write_state
from worker.engine.training.training import train
from worker.engine.training.update import Precision, Updater

SAMPLES, FEATURES, CLASSES = 96, 16, 4
OPTIONS = {"steps": 7, "batch_size": 24, "learning_rate": 0.01, "validation": 0, "clip": 1.0}


class KilledError(Exception):
    """What a kill is in these tests."""


class Files:
    """A checkpoint in a folder; once it is there, the training is killed if `is_mortal`."""

    def __init__(self, folder: Path, *, is_mortal: bool) -> None:
        self.path, self.is_mortal = folder / "state.npz", is_mortal

    def load(self) -> State | None:
        return read_state(self.path) if self.path.exists() else None

    def save(self, state: State) -> None:
        write_state(self.path, state)
        if self.is_mortal:
            raise KilledError


def write_dataset(path: Path, **more: Any) -> Path:
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, SAMPLES)
    x = rng.standard_normal((SAMPLES, FEATURES)).astype(np.float32)
    x[np.arange(SAMPLES), y] += 3
    np.savez(path, allow_pickle=False, **{"x": x, "y": y, **more})
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dataset]:
    """Classes told apart by which feature is large."""
    with open_dataset(write_dataset(tmp_path_factory.mktemp("data") / "train.npz")) as opened:
        yield opened


@pytest.fixture
def graph(make_mlp: Callable[..., onnx.ModelProto]) -> Graph:
    return load(make_mlp())


def load(proto: onnx.ModelProto) -> Graph:
    loaded = Graph.from_proto(proto)
    loaded.infer_shapes()
    return loaded


@pytest.fixture(autouse=True)
def leaves_nothing_running() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def run(graph: Graph, dataset: Dataset, options: dict[str, Any], **more: Any) -> Outcome:
    request = Request(graph, TrainingOptions.model_validate(options), dataset, "cpu", **{"processes": 2, **more})
    return train(request)


def weights(graph: Graph) -> dict[str, np.ndarray]:
    return {value.name: graph.array(value) for value in graph.initializers()}


@pytest.fixture(scope="module")
def together(make_mlp: Callable[..., onnx.ModelProto], dataset: Dataset) -> tuple[Outcome, list[Trained], list[float]]:
    """A training in two processes, and the points and shares that it told."""
    points, shares = list[Trained](), list[float]()
    telling = Telling(progress=lambda share, *_: shares.append(share), point=points.append, step=3)
    return run(load(make_mlp()), dataset, OPTIONS, telling=telling), points, shares


def test_two_processes_make_the_updates_of_one(
    together: tuple[Outcome, list[Trained], list[float]], graph: Graph, dataset: Dataset
) -> None:
    alone, before = run(graph, dataset, OPTIONS, processes=1), weights(graph)
    for name, expected in weights(alone.graph).items():
        np.testing.assert_allclose(weights(together[0].graph)[name], expected, atol=1e-5, rtol=0)
        assert np.abs(expected - before[name]).max() > 0.01
    losses = [point.loss for point in alone.curve]
    assert [point.loss for point in together[0].curve] == pytest.approx(losses, abs=1e-5)


def test_what_the_leader_tells_arrives(together: tuple[Outcome, list[Trained], list[float]]) -> None:
    outcome, points, shares = together
    assert points == list(outcome.curve)
    assert {point.step for point in points} == {3}
    assert shares == pytest.approx([update / 7 for update in range(1, 8)])
    assert "2 processes times 12 at a time" in outcome.notes[0]


@pytest.mark.slow
def test_a_killed_training_ends_with_the_same_bytes(
    together: tuple[Outcome, list[Trained], list[float]], graph: Graph, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        run(graph, dataset, OPTIONS, checkpoints=Files(tmp_path, is_mortal=True), telling=Telling(step=3))
    warnings = list[str]()
    telling = Telling(warn=warnings.append, step=3)
    resumed = run(graph, dataset, OPTIONS, checkpoints=Files(tmp_path, is_mortal=False), telling=telling)
    assert warnings == ["going on with training after 4 updates"]
    assert_same(resumed, together[0])


@pytest.mark.slow
def test_a_killed_training_with_much_to_remember_does_too(
    make_cnn: Callable[..., onnx.ModelProto], tmp_path: Path
) -> None:
    """Normalization by the batch, averages, mixing, samples left over, a judgement, a teacher."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((80, 3, 8, 8)).astype(np.float32), rng.integers(0, CLASSES, 80)
    graph = load(make_cnn())
    options = {
        "epochs": 3,
        "batch_size": 36,
        "ema": 0.9,
        "augment": {"flip": True, "mixup": 0.2},
        "distill": {"loss": {"soft": 0.5, "feature": 0.5, "hard": 0.1}},
        "validation": 0.25,
    }
    np.savez(tmp_path / "train.npz", allow_pickle=False, x=x, y=y)
    with open_dataset(tmp_path / "train.npz") as dataset:
        more = {"teacher": graph, "seed": 3}
        undisturbed = run(graph, dataset, options, **more)
        with pytest.raises(KilledError):
            run(graph, dataset, options, checkpoints=Files(tmp_path, is_mortal=True), **more)
        resumed = run(graph, dataset, options, checkpoints=Files(tmp_path, is_mortal=False), **more)
    assert undisturbed.curve[-1].metric == "top1"
    assert_same(resumed, undisturbed)


def assert_same(one: Outcome, other: Outcome) -> None:
    first, second = (each.graph.proto().SerializeToString(deterministic=True) for each in (one, other))
    assert first == second
    told = [[point.model_copy(update={"samples_per_s": None}) for point in each.curve] for each in (one, other)]
    assert told[0] == told[1]


@pytest.mark.slow
def test_an_error_in_one_process_is_the_error_of_all(graph: Graph, tmp_path: Path) -> None:
    """Labels of a single sample are out of range, so that one process alone meets it in its batch."""
    path = write_dataset(tmp_path / "bad.npz")
    with np.load(path) as stored:
        x, y = stored["x"], stored["y"]
    y[5] = CLASSES + 3
    np.savez(path, allow_pickle=False, x=x, y=y)
    with open_dataset(path) as dataset, pytest.raises(SlimlineError) as caught:
        run(graph, dataset, OPTIONS)
    assert caught.value.failure.code == "LABELS_OUT_OF_RANGE"


@pytest.mark.slow
def test_a_process_that_dies_is_a_transient_failure(graph: Graph, dataset: Dataset) -> None:
    others = children()  # services of other tests

    def kill_one(*_: object) -> None:
        [*_, last] = sorted(children() - others)
        psutil.Process(last).kill()

    with pytest.raises(SlimlineError) as caught:
        run(graph, dataset, {**OPTIONS, "steps": 100_000}, telling=Telling(progress=kill_one))
    assert (caught.value.failure.code, caught.value.failure.kind) == ("TRAINING_PROCESS_DIED", FaultKind.TRANSIENT)
    assert "code -9" in caught.value.failure.message


def test_what_no_file_can_hold_is_trained_in_one_process(graph: Graph, dataset: Dataset) -> None:
    class Nothing:
        bears_normalization = True

        def after_backward(self, _: TorchGraph) -> None:
            return None

        def after_update(self, *_: object) -> None:
            pass

        def state(self) -> dict[str, Any]:
            return {}

        def load_state(self, _: object) -> None:
            pass

    outcome = run(graph, dataset, OPTIONS, regularizer=Nothing())
    assert outcome.notes[-1].startswith("trained in one process of 2: ")
    alone = run(graph, dataset, OPTIONS, processes=1)
    for name, expected in weights(alone.graph).items():
        np.testing.assert_array_equal(weights(outcome.graph)[name], expected)


@pytest.mark.slow
def test_time_is_up_for_both_at_once(graph: Graph, dataset: Dataset) -> None:
    assert run(graph, dataset, {"seconds": 0.3, "batch_size": 8}).curve[-1].updates > 0


@pytest.mark.slow
def test_patience_ends_for_both_at_once(graph: Graph, dataset: Dataset) -> None:
    patient = {"epochs": 50, "batch_size": 8, "validation": 0.25, "patience": 2, "learning_rate": 1e-9}
    assert run(graph, dataset, {**patient, "weight_decay": 0}).curve[-1].epoch < 50


@pytest.mark.slow
def test_weights_that_the_loss_does_not_read_stay(make_mlp: Callable[..., onnx.ModelProto], dataset: Dataset) -> None:
    """The gradients that others share do not wait for theirs, which never come."""
    proto = make_mlp()
    more = {"aside.weight": (32, 3), "aside.bias": (3,)}
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in more.items()
    )
    proto.graph.node.append(onnx.helper.make_node("Gemm", ["r1", *more], ["z"], "aside"))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["batch", 3]))
    graph = load(proto)
    trained = run(graph, dataset, OPTIONS).graph
    before, after = weights(graph), weights(trained)
    assert {name for name in before if np.array_equal(before[name], after[name])} == set(more)


_TRAINS = """
import sys
from app.contracts.training import TrainingOptions
from worker.engine.data import open_dataset
from worker.engine.graph import Graph
from worker.engine.training.request import Request, Telling
from worker.engine.training.training import train
from worker.engine.training.update import Precision, Updater

if __name__ == "__main__":
    graph, options = Graph.load(sys.argv[1]), TrainingOptions(steps=int(sys.argv[3]), batch_size=8, validation=0)
    telling = Telling(progress=lambda share, *_: print(share, flush=True))
    outcome = train(Request(graph, options, open_dataset(sys.argv[2]), "cpu", telling=telling, processes=2))
    print(outcome.notes[0])
"""


def command(graph: Graph, dataset: Dataset, steps: int, folder: Path) -> list[str]:
    graph.save(folder / "graph.onnx")
    return [sys.executable, "-c", _TRAINS, str(folder / "graph.onnx"), str(dataset.path), str(steps)]


@pytest.mark.slow
def test_they_need_no_network_and_end_with_the_process_that_started_them(
    graph: Graph, dataset: Dataset, tmp_path: Path
) -> None:
    """In a network of their own, as in a child of the worker, even the loopback interface is down at first."""
    unshare = ["unshare", "--net", "--map-root-user"]
    can_unshare = shutil.which("unshare") and not subprocess.run([*unshare, "true"], check=False).returncode
    prefix = unshare if can_unshare else []
    started = [*prefix, *command(graph, dataset, 10**6, tmp_path)]
    (temporary := tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(started, stdout=subprocess.PIPE, env=environment) as process:
        assert float(process.stdout.readline()) > 0
        ranks = psutil.Process(process.pid).children()
        process.kill()
    assert len(ranks) == 2
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive
    assert not list(temporary.glob("slimline-*"))
    if not can_unshare:
        pytest.skip("they ended, but in this machine's network: no other can be made here")


class Narrow(torch.nn.Module):
    """Fits `room` samples into memory; `unread` learns, and nothing reads it."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.student = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
        self.unread = torch.nn.Parameter(torch.zeros(2))
        self.room = room

    def forward(self, batch: TrainingBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor], object]:
        if len(batch) > self.room:
            raise RuntimeError("out of memory")
        return self.student(batch.inputs[0]).square().mean(), {}, ()


def test_a_rehearsal_finds_what_fits_and_changes_nothing() -> None:
    objective = Narrow(room=3)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    updater = Updater(
        forward=objective,
        optimizer=torch.optim.SGD(objective.parameters(), lr=0.1),
        precision=Precision("cpu", None),
        part=8,
        smallest_part=1,
        on_halved=lambda _: None,
    )
    batch = TrainingBatch([torch.randn(8, 3)], None, torch.arange(8))
    assert not rehearse(updater, objective, batch)
    assert updater.part == 2
    floats = {name: value for name, value in objective.state_dict().items() if value.is_floating_point()}
    assert all(torch.equal(value, before[name]) for name, value in floats.items())
    assert all(each.grad is None for each in objective.parameters())
