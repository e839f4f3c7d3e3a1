"""`kill -9` of whatever runs a training, in mid-epoch, over HTTP: it ends with the bytes of one left in peace."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks.faults.workload import make_network

pytestmark = pytest.mark.xdist_group("e2e")

EPOCHS = 8
SIDE, CLASSES, SAMPLES = 16, 4, 480
QUICK_TO_NOTICE = {"SLIMLINE_HEARTBEAT_S": "0.2", "SLIMLINE_LEASE_S": "2", "SLIMLINE_SWEEP_S": "0.3"}
PATIENCE_S = 60
AUGMENTED = {"batch_size": 16, "augment": {"flip": True, "crop": 2}}
DISTILLED = [
    {"method": "prune.magnitude", "amount": 0.2},
    {"method": "prune.magnitude", "amount": 0.5},
    {"method": "train", "epochs": EPOCHS, **AUGMENTED, "distill": {"teacher": 0}},
]
IN_ROUNDS = [
    {
        "method": "prune.magnitude",
        "amount": 0.5,
        "schedule": {"steps": 3, "train": {"epochs": 3, **AUGMENTED}},
    },
]
Send = Callable[[list[dict[str, Any]]], str]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two convolutions and a classifier with random weights."""
    return make_network(tmp_path / "tiny.onnx", width=24, side=SIDE, classes=CLASSES)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Noise with a bright corner, which is the label."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((SAMPLES, 3, SIDE, SIDE)).astype("f4"), rng.integers(0, CLASSES, SAMPLES)
    half = SIDE // 2
    for sample, corner in zip(x, y, strict=True):
        sample[:, half * (corner // 2) :, half * (corner % 2) :][:, :half, :half] += 1
    file = tmp_path / "corners.npz"
    np.savez(file, x=x, y=y)
    return file


@pytest.fixture
def up(own_up: Any) -> Iterator[Any]:
    own_up.environment = QUICK_TO_NOTICE
    return own_up.start()


@pytest.fixture
def send(up: Any, model: Path, data: Path) -> Send:
    """Submits a job; gives its id."""
    ids = {"model": up.upload("models", model), "data": {"train": up.upload("datasets", data)}}
    return lambda recipe: str(up.post("/v1/jobs", {**ids, "recipe": recipe, "seed": 3, "reuse": False})["id"])


def events(up: Any, job: str) -> list[dict[str, Any]]:
    return list(up.ask(f"/v1/jobs/{job}/events?limit=200")["data"])


def epochs_of(told: list[dict[str, Any]]) -> list[float]:
    return [event["data"]["epoch"] for event in told if event["type"] == "trained"]


def by_attempt(told: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What each attempt told, from when it began to run."""
    starts = [place for place, event in enumerate(told) if event["data"].get("state") == "running"]
    return [told[start:end] for start, end in pairwise([*starts, len(told)])]


def until(holds: Callable[[], object], why: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at, why()
        time.sleep(0.03)


def wait_for_progress(up: Any, job: str, attempt: int) -> None:
    """Return once this attempt has told an epoch's end, and what it left by then is stored."""

    def is_further() -> bool:
        attempts = by_attempt(events(up, job))
        if len(attempts) < attempt:
            return False
        return max(epochs_of(attempts[-1]), default=0) >= 1 and stored_state(up, job) is not None

    until(is_further, lambda: (events(up, job), up.log.read_text()[-3000:]))


def stored_state(up: Any, job: str) -> str | None:
    """The digest of the job's partial checkpoint."""
    with closing(sqlite3.connect(up.data / "slimline.db")) as connection:
        [(sha256,)] = connection.execute("SELECT partial_sha256 FROM jobs WHERE id = ?", [job]).fetchall()
    return None if sha256 is None else str(sha256)


def find_worker(up: Any) -> psutil.Process:
    [worker] = [child for child in psutil.Process(up.process.pid).children() if "cpu,cuda" in child.cmdline()]
    return worker


def find_child(up: Any) -> psutil.Process:
    """The process that computes: the fork server's own child."""
    [server] = find_worker(up).children()
    [child] = server.children()
    return child


def kill_child(up: Any) -> None:
    find_child(up).kill()


def kill_worker(up: Any) -> None:
    worker = find_worker(up)
    family = worker.children(recursive=True)
    worker.kill()
    assert psutil.wait_procs(family, timeout=20)[1] == []


def kill_tree(up: Any) -> None:
    family = psutil.Process(up.process.pid).children(recursive=True)
    up.process.kill()
    for process in family:
        with suppress(psutil.NoSuchProcess):  # some die with the first
            process.kill()
    up.process.communicate()
    assert psutil.wait_procs(family, timeout=20)[1] == []
    up.start()


@pytest.mark.slow
def test_three_kills_in_one_job_change_no_byte(up: Any, send: Send) -> None:
    calm, job = up.finish(send(DISTILLED)), send(DISTILLED)
    assert calm["state"] == "succeeded", calm["failure"]
    for attempt, kill in enumerate((kill_child, kill_worker, kill_tree), 1):
        wait_for_progress(up, job, attempt)
        kill(up)
    ended = up.finish(job)
    assert ended["state"] == "succeeded", ended["failure"]
    assert ended["attempt"] == 4
    [artifact], [undisturbed] = ended["artifacts"], calm["artifacts"]
    assert artifact["sha256"] == undisturbed["sha256"]
    told = events(up, job)
    states = [event["data"]["state"] for event in told if event["type"] == "state"]
    assert states == ["queued", *["running", "queued"] * 3, "running", "succeeded"]
    assert_no_epoch_was_lost(told)
    assert_same_curve(told, events(up, calm["id"]))
    assert max(epochs_of(told)) == EPOCHS
    assert_nothing_is_left(up, job)


@pytest.mark.slow
def test_a_kill_between_rounds_of_pruning_changes_no_byte(up: Any, send: Send) -> None:
    calm, job = up.finish(send(IN_ROUNDS)), send(IN_ROUNDS)
    assert calm["state"] == "succeeded", calm["failure"]
    until(lambda: any(event["data"].get("round") == 2 for event in events(up, job)), lambda: events(up, job))
    kill_child(up)
    ended = up.finish(job)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2), ended["failure"]
    assert ended["artifacts"][0]["sha256"] == calm["artifacts"][0]["sha256"]
    told = events(up, job)
    assert_same_curve(told, events(up, calm["id"]))
    _, after = by_attempt(told)
    assert 1 not in {event["data"].get("round") for event in after}  # the first round was not done anew
    # A worker that is killed while it stores a state leaves that one behind; this one lives.
    stored = [blob for blob in (up.data / "blobs").glob("??/*") if blob.read_bytes()[:2] == b"PK"]
    assert len(stored) == 1  # the data
    assert_nothing_is_left(up, job)


def assert_no_epoch_was_lost(told: list[dict[str, Any]]) -> None:
    """Each attempt went on where the state before was stored, at most an epoch behind what had been told."""
    for before, after in pairwise(map(epochs_of, by_attempt(told))):
        assert after[0] >= before[-1]


def assert_same_curve(told: list[dict[str, Any]], calm: list[dict[str, Any]]) -> None:
    """An epoch that was told twice was told the same."""

    def losses(points: list[dict[str, Any]]) -> set[tuple[int | None, float, float | None]]:
        curve = [point["data"] for point in points if point["type"] == "trained"]
        return {(point["round"], point["epoch"], point["loss"]) for point in curve}

    assert losses(told) == losses(calm)


def assert_nothing_is_left(up: Any, job: str) -> None:
    """No state, no folder of a child, and no process once the server was stopped."""
    assert stored_state(up, job) is None
    until(lambda: list((up.data / "work").iterdir()) == [], lambda: list((up.data / "work").iterdir()))
    family = psutil.Process(up.process.pid).children(recursive=True)
    assert up.stop() == 0
    assert psutil.wait_procs(family, timeout=20)[1] == []
