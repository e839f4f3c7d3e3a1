"""One update of TorchGraph beside the native module's, eager and compiled, in turns on the same batch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from benchmarks.comparison.goals import Goal
from benchmarks.gpu.prepared import Subject
from benchmarks.zoo import Entry
from worker.engine import Graph, TorchGraph

MOST = 1.05
_WARM_UP = 3
_RATE = 1e-4
Step = Callable[[], None]


@dataclass(frozen=True)
class StepTime:
    """Median ms of an update of each contender, and medians of ours over the native module's within a round."""

    name: str
    native_ms: float
    compiled_ms: float | None
    eager: float
    compiled: float | None
    note: str = ""


@dataclass(frozen=True)
class Turns:
    """Where, how often, with how many samples, and which backend of torch.compile."""

    device: str
    rounds: int
    batch: int
    compiler: str


def measure_step_time(subject: Subject, entry: Entry, turns: Turns) -> StepTime:
    """Each takes an update in turn. Where compiling fails, eager alone."""
    device = turns.device
    example = {name: value.to(device) for name, value in entry.example(turns.batch).items()}
    native, ours = entry.build().to(device), TorchGraph(Graph.load(subject.model)).to(device)
    inputs = list(example.values())
    freeze_like(native, ours)
    steps = [_make_step(native, lambda model: model(**example)), _make_step(ours, lambda model: model(*inputs))]
    eager = take_turns(steps, turns)
    for module in (native, ours):
        module.compile(backend=turns.compiler)
    try:
        compiled = take_turns(steps, turns)
    except Exception as error:  # noqa: BLE001 - compiled code fails in any way; eager's figures stand without it
        failed = f"{type(error).__name__}: {error}".splitlines()[0]
        return StepTime(entry.name, _median_ms(eager[0]), None, _ratio(eager), None, f"not compiled: {failed}")
    return StepTime(entry.name, _median_ms(eager[0]), _median_ms(compiled[0]), _ratio(eager), _ratio(compiled))


def judge_step_time(found: StepTime) -> list[Goal]:
    """Ours over the native module's."""
    return [
        Goal(found.name, "update, eager", found.eager, "at most", MOST, "x native"),
        Goal(found.name, "update, compiled", found.compiled, "at most", MOST, "x native, compiled", found.note),
    ]


def freeze_like(native: nn.Module, ours: TorchGraph) -> None:
    """What the native module keeps as a buffer, or frozen, is not trained in ours either."""
    frozen = {name for name, _ in native.named_buffers()}
    frozen |= {name for name, parameter in native.named_parameters() if not parameter.requires_grad}
    for name, parameter in ours.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)


def take_turns(steps: Sequence[Step], turns: Turns) -> np.ndarray:
    """Seconds [steps, rounds]; who begins a round changes."""
    for step in steps:
        for _ in range(_WARM_UP):
            step()
    times = np.empty((len(steps), turns.rounds))
    for turn in range(turns.rounds):
        for offset in range(len(steps)):
            index = (turn + offset) % len(steps)
            _wait(turns.device)
            start = time.perf_counter()
            steps[index]()
            _wait(turns.device)
            times[index, turn] = time.perf_counter() - start
    return times


def _make_step(model: nn.Module, run: Callable[[nn.Module], object]) -> Step:
    model.train()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=_RATE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(_loss(run(model)))
        optimizer.step()

    return step


def _loss(answer: object) -> Tensor:
    """Mean squares of all that is given: transformers' outputs are mappings."""
    outputs = [each for each in tree_leaves(answer) if isinstance(each, Tensor)]
    return torch.stack([each.float().square().mean() for each in outputs if each.is_floating_point()]).sum()


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _median_ms(times: np.ndarray) -> float:
    return float(np.median(times) * 1e3)


def _ratio(times: np.ndarray) -> float:
    return float(np.median(times[1] / times[0]))
