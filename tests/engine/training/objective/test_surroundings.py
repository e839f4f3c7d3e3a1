"""Objectives under autocast, torch.compile and DistributedDataParallel, and what they keep between forwards."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from worker.engine import TorchGraph
from worker.engine.training.objective.watching import Watch

Builders = SimpleNamespace
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
ALL = {"soft": 1.0, "dkd": 1.0, "logits": 1.0, "feature": 1.0, "hard": 1.0}
THIN = {"w1": (6, 5), "w2": (5, 4)}


def thin_student(make: Builders, **distill: Any) -> Any:
    """An objective with every loss, a learned projection among them, and a batch for it."""
    batch = make.batch(make.random(8, 6), labels=LABELS)
    options = {"loss": ALL} | distill
    return make.objective(make.graph(**THIN), batch, make.graph(seed=1), distill=options), batch


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: each.grad for name, each in module.named_parameters() if each.grad is not None}


def test_losses_are_in_full_precision_under_autocast(make: Builders) -> None:
    objective, batch = thin_student(make)
    wanted = objective(batch)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, parts, outputs = objective(batch)
    total.backward()
    assert outputs[0].dtype is torch.bfloat16
    assert {each.dtype for each in (total, *parts.values())} == {torch.float32}
    torch.testing.assert_close(total, wanted, rtol=0.03, atol=0)
    assert len(gradients(objective)) == 6


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_data_parallel_gives_the_same_gradients(make: Builders) -> None:
    objective, batch = thin_student(make)
    objective(batch)[0].backward()
    wanted = gradients(objective)
    objective.zero_grad(set_to_none=True)
    total, _, _ = DistributedDataParallel(objective)(batch)
    total.backward()
    torch.testing.assert_close(gradients(objective), wanted)


@pytest.mark.parametrize("loss", [ALL, {"soft": 1.0, "hard": 1.0}], ids=["all losses", "stored answers"])
def test_compiled_it_gives_the_same(make: Builders, loss: dict[str, float]) -> None:
    objective, batch = thin_student(make, loss=loss)
    objective(batch)[0].backward()
    wanted = gradients(objective)
    objective.zero_grad(set_to_none=True)
    try:
        objective.student.compile(backend="aot_eager")
        total, parts, _ = objective(batch)
        total.backward()
    finally:
        torch.compiler.reset()
    torch.testing.assert_close(gradients(objective), wanted)
    torch.testing.assert_close(sum(parts.values()), total.detach())


def test_nothing_is_kept_between_forwards(make: Builders) -> None:
    module = TorchGraph(make.graph())
    watch = Watch(module, ["h", "r"])
    call = watch.run(module, make.batch(make.random(8, 6)))
    alive = [weakref.ref(each) for each in (*call.seen.values(), *call.outputs)]
    assert len(alive) == 3
    del call
    module(make.random(8, 6))
    gc.collect()
    assert not any(each() is not None for each in alive)


def test_a_forward_that_failed_leaves_nothing_behind(make: Builders) -> None:
    graph = make.graph("g (float[n, 6] x, int64[k] s) => (float[k] y) { h = Relu (x)  y = Reshape (h, s) }", w1=(1,))
    module, seen = TorchGraph(graph), list[Any]()
    watch = Watch(module, ["h"])
    with make.refusal("NODE_FAILED"):
        watch.run(module, make.batch(make.random(8, 6), torch.tensor([7])))
    module.observe("h", lambda tensor: seen.append(weakref.ref(tensor)))
    module(make.random(8, 6), torch.tensor([48]))
    gc.collect()
    assert [each() for each in seen] == [None]
