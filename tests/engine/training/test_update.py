"""One update: in parts it is what it is at once, and memory that runs out is met by smaller parts."""

import pytest
import torch

from app.contracts.failure import SlimlineError
from worker.engine.training.batch import TrainingBatch
from worker.engine.training.update import Precision, Updater


class Network:
    """A linear network that has no memory for more than `room` samples at once."""

    def __init__(self, room: int = 10**9) -> None:
        self.layer = torch.nn.Linear(3, 1)
        torch.nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))
        torch.nn.init.zeros_(self.layer.bias)
        self.room = room
        self.seen: list[int] = []

    def __call__(self, batch: TrainingBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor], object]:
        self.seen.append(len(batch))
        if len(batch) > self.room:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 TB")
        loss = (self.layer(batch.inputs[0]) - batch.inputs[0].sum(1, keepdim=True)).square().mean()
        return loss, {"hard": loss.detach()}, None


def make_updater(network: Network, part: int, told: list[int], smallest: int = 1) -> Updater:
    return Updater(
        forward=network,
        optimizer=torch.optim.SGD(network.layer.parameters(), lr=0.1),
        precision=Precision("cpu", None),
        part=part,
        smallest_part=smallest,
        on_halved=told.append,
    )


def make_batch(size: int) -> TrainingBatch:
    inputs = torch.randn(size, 3, generator=torch.Generator().manual_seed(1))
    return TrainingBatch([inputs], None, torch.arange(size))


@pytest.mark.parametrize("part", [1, 3, 5, 12])
def test_parts_add_up_to_the_whole(part: int) -> None:
    whole, parted = Network(), Network()
    losses = [make_updater(net, size, []).update(make_batch(12)) for net, size in ((whole, 12), (parted, part))]
    torch.testing.assert_close(parted.layer.weight, whole.layer.weight)
    torch.testing.assert_close(losses[1]["total"], losses[0]["total"])
    torch.testing.assert_close(losses[1]["hard"], losses[0]["hard"])


def test_short_memory_halves_the_parts_and_says_so() -> None:
    network, told = Network(room=3), list[int]()
    updater = make_updater(network, 12, told)
    updater.update(make_batch(12))
    assert told == [6, 3]
    assert network.seen == [12, 6, 3, 3, 3, 3]
    whole = Network()
    make_updater(whole, 12, []).update(make_batch(12))
    torch.testing.assert_close(network.layer.weight, whole.layer.weight)


def test_memory_for_not_even_one_sample_is_a_refusal() -> None:
    network = Network(room=0)
    before = network.layer.weight.detach().clone()
    with pytest.raises(SlimlineError) as caught:
        make_updater(network, 4, []).update(make_batch(4))
    assert caught.value.failure.code == "OUT_OF_MEMORY"
    assert torch.equal(network.layer.weight, before)


def test_another_error_goes_through() -> None:
    def broken(_: TrainingBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor], object]:
        raise RuntimeError("shapes do not match")

    network = Network()
    updater = make_updater(network, 4, [])
    updater.forward = broken
    with pytest.raises(RuntimeError, match="shapes"):
        updater.update(make_batch(4))


def test_state_carries_the_optimizer() -> None:
    one, other = Network(), Network()
    first = make_updater(one, 4, [])
    first.optimizer = torch.optim.AdamW(one.layer.parameters())
    first.update(make_batch(4))
    second = make_updater(other, 4, [])
    second.optimizer = torch.optim.AdamW(other.layer.parameters())
    other.layer.load_state_dict(one.layer.state_dict())
    second.load_state(first.state())
    for each in (first, second):
        each.update(make_batch(4))
    assert torch.equal(one.layer.weight, other.layer.weight)
