"""What one update of our loop costs beside plain torch on the native module, in turns within one real training."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from app.contracts.training import TrainingOptions
from benchmarks.comparison.goals import Goal
from benchmarks.pruning.classifiers import PaddedShortcut, resnet
from benchmarks.training.plain_torch import PlainTorch, scores_of
from benchmarks.zoo import convolutional, sequential
from benchmarks.zoo.entry import Entry, Scale, export_module
from benchmarks.zoo.inputs import pictures, pixels, sequences
from benchmarks.zoo.transformers_models import vit
from worker.engine.data import open_dataset
from worker.engine.ingest import ingest_model
from worker.engine.training.request import Request, Telling
from worker.engine.training.training import train

MOST = 1.15
BATCH = 32
_BATCHES, _WARM_UP, _SEED = 16, 5, 0
_AXES = {0: "batch"}
_IDLE_S = 0.002


def _resnet20(scale: Scale) -> nn.Module:
    stem = convolutional.ConvNorm(3, scale.width, act=nn.ReLU())
    return resnet(stem, scale.depth, 3, PaddedShortcut)


MODULES: Mapping[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("resnet20", Scale(16, 3, 32), _resnet20, pictures, {"input": _AXES}),
        Entry("mobilenet", Scale(16, 2, 64), convolutional.mobilenet, pictures, {"input": _AXES}),
        Entry("vit", Scale(128, 4, 64), vit, pixels, {"pixel_values": _AXES}),
        Entry("lstm", Scale(128, 2, 32), sequential.lstm, sequences, {"x": _AXES}),
    )
}
DISTILLED = ("resnet20", "vit")
"""Modules that are also distilled from themselves."""


@dataclass(frozen=True)
class StepTime:
    """Of one module. `ratio`: median over pairs of our time over plain torch's; `low` and `high`: its quartiles.

    `whole`: of all the time, with what is done at the end of every epoch of `_BATCHES` updates.
    """

    case: str
    plain_ms: float
    ratio: float
    low: float
    high: float
    whole: float
    pairs: int


def measure_step_time(name: str, *, is_distilled: bool, pairs: int, folder: Path) -> StepTime:
    """Train the export of the module, and let the module itself have an update after each of ours."""
    entry = MODULES[name]
    native, inputs = entry.build(), entry.example(BATCH)
    path = folder / f"{name}.onnx"
    export_module(native, entry.example(), entry.dynamic, is_optimized=False).save(path)
    (x,) = inputs.values()
    labels = torch.arange(BATCH) % scores_of(native(**inputs)).shape[1]
    plain = PlainTorch(native, entry.build() if is_distilled else None, inputs, labels)
    turns = Turns(plain.update)
    graph, _ = ingest_model(path, output=folder / f"{name}-ingested.onnx")
    options = TrainingOptions(
        steps=pairs + _WARM_UP,
        batch_size=BATCH,
        validation=0,
        distill={"cache": False} if is_distilled else None,
    )
    with one_thread(), open_dataset(_save_data(x, labels, folder / f"{name}.npz")) as data:
        train(
            Request(
                graph=graph,
                options=options,
                data=data,
                device="cpu",
                teacher=graph if is_distilled else None,
                telling=Telling(progress=turns),
            )
        )
    return turns.summed_up(name + (", distilled" if is_distilled else ""))


@dataclass
class Turns:
    """Is told of each update of ours: takes its time, and gives plain torch its turn.

    What other threads did meanwhile, which is reading ahead, is added to our time, and is over before plain torch
    begins; plain torch has its batch at hand.
    """

    plain: Callable[[], None]
    pairs: list[tuple[float, float]] = field(default_factory=list)
    _since: float | None = None
    _others_since: float = 0.0

    def __call__(self, *_told: object) -> None:
        """An update of ours has ended."""
        ours = time.perf_counter()
        _wait_for_others()
        others = others_seconds()
        start = time.perf_counter()
        self.plain()
        end = time.perf_counter()
        if self._since is not None:
            self.pairs.append((ours - self._since + others - self._others_since, end - start))
        self._since, self._others_since = time.perf_counter(), others_seconds()

    def summed_up(self, case: str) -> StepTime:
        """Without the first pairs."""
        ours, plain = np.array(self.pairs[_WARM_UP - 1 :]).T
        low, ratio, high = np.quantile(ours / plain, (0.25, 0.5, 0.75)).tolist()
        return StepTime(
            case, float(np.median(plain) * 1e3), ratio, low, high, float(ours.sum() / plain.sum()), len(ours)
        )


def judge_step_time(found: StepTime) -> Goal:
    """At most so many times plain torch's."""
    note = f"plain torch {found.plain_ms:.1f} ms, {found.pairs} pairs, quartiles {found.low:.2f} to {found.high:.2f}"
    return Goal(found.case, "time of an update", found.ratio, "at most", MOST, "x plain torch", note)


def others_seconds() -> float:
    """Processor time of all threads of this process but this one."""
    return time.process_time() - time.thread_time()


def _wait_for_others() -> None:
    """Until they have nothing more to do."""
    before = -1.0
    while (now := others_seconds()) - before > _IDLE_S / 10:
        before = now
        time.sleep(_IDLE_S)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: the times of one thread are steadiest, and others' are then not torch's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _save_data(x: Tensor, labels: Tensor, path: Path) -> Path:
    """The batch, as often as an epoch has updates."""
    np.savez(path, x=np.tile(x.numpy(), (_BATCHES,) + (1,) * (x.ndim - 1)), y=np.tile(labels.numpy(), _BATCHES))
    return path
